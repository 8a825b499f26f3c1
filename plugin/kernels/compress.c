/* Compression (snapkv): queries that are kept for it, and what they choose. */
#include "../dtype.h"
#include "attend.h"

#include "compress_gather.spv.h"
#include "compress_keep.spv.h"
#include "compress_logits.spv.h"
#include "compress_pool.spv.h"
#include "compress_sums.spv.h"
#include "compress_votes.spv.h"
#include "observe.spv.h"

/* As in shaders/include/compress.glsl. */
struct compress_push {
    uint64_t plan, queries, positions_in, positions, work, rope_table;
    uint32_t pages, page_slots;
    uint32_t from_page0, from_pages, to_page0, to_pages;
    uint32_t offset;
    uint32_t held, tokens, capacity, observe;
    uint32_t query_at, query_ring;
    uint32_t head0, heads;
    uint32_t row0, rows;
};

static const struct vk_shader observe_shader = VK_SHADER(observe, struct attend_push);
static const struct vk_shader logits_shader = VK_SHADER(compress_logits, struct compress_push);
static const struct vk_shader sums_shader = VK_SHADER(compress_sums, struct compress_push);
static const struct vk_shader votes_shader = VK_SHADER(compress_votes, struct compress_push);
static const struct vk_shader pool_shader = VK_SHADER(compress_pool, struct compress_push);
static const struct vk_shader keep_shader = VK_SHADER(compress_keep, struct compress_push);
static const struct vk_shader gather_shader = VK_SHADER(compress_gather, struct compress_push);

enum {
    GROUP_SIZE = 64, /* as in the shaders, but for compress_keep.comp */
    GROUP_ROWS = 8,  /* as in compress_logits.comp */
    GROUP_KEYS = 4,  /* of an invocation there */
    SLICES = 32,     /* workgroups that share tokens */
    MAX_GROUPS = 1024, /* that share keys */
    CONSTANTS = 18
};

ratp_status kernels_observe(struct backend *b, struct stream *s, const struct attend_args *args,
                            struct error *err)
{
    (void)b;
    struct attend_kernel k;
    attend_kernel_init(&k, args, &observe_shader, NULL, 0);
    return items_dispatch(s, &k.items, args->cls->observers, sizeof(struct gpu_observer),
                          groups_of(args->shape->query_heads * args->shape->head_size / 2,
                                    GROUP_SIZE),
                          SLICES, err);
}

/* A compression on its way. */
struct job {
    struct stream *s;
    const struct compress_args *args;
    uint32_t constants[CONSTANTS];
    struct compress_push push;
};

static ratp_status dispatch(struct job *job, const struct vk_shader *shader, uint32_t x,
                            uint32_t y, uint32_t z, struct error *err)
{
    return vk_dispatch(kernel_stream(job->s), shader, job->constants, CONSTANTS, &job->push,
                       sizeof job->push, x, y, z, err);
}

static uint32_t key_groups(uint32_t keys)
{
    uint32_t groups = groups_of(keys, GROUP_SIZE);
    return groups < MAX_GROUPS ? groups : MAX_GROUPS;
}

/* The votes of the push constants' rows. */
static ratp_status vote(struct job *job, struct error *err)
{
    const struct compress_args *args = job->args;
    uint32_t heads = job->push.heads, rows = job->push.rows;
    ratp_status status = dispatch(job, &logits_shader,
                                  key_groups(groups_of(args->held, GROUP_KEYS)),
                                  groups_of(rows, GROUP_ROWS), heads, err);
    vk_barrier(kernel_stream(job->s));
    if (!status)
        status = dispatch(job, &sums_shader, rows, heads, 1, err);
    vk_barrier(kernel_stream(job->s));
    if (!status)
        status = dispatch(job, &votes_shader, key_groups(args->held - args->observe), heads, 1,
                          err);
    vk_barrier(kernel_stream(job->s));
    return status;
}

/* The heads of the push constants, `rows` rows at a time. */
static ratp_status compress_heads(struct job *job, uint32_t all_rows, uint32_t rows,
                                  struct error *err)
{
    const struct compress_args *args = job->args;
    const struct layer_shape *shape = args->shape;
    uint32_t heads = job->push.heads;
    ratp_status status = RATP_OK;
    job->push.rows = rows;
    for (uint32_t row = 0; row < all_rows && !status; row += rows) {
        job->push.row0 = row;
        job->push.rows = all_rows - row < rows ? all_rows - row : rows;
        status = vote(job, err);
    }
    if (!status)
        status = dispatch(job, &pool_shader, key_groups(args->held - args->observe), heads, 1, err);
    vk_barrier(kernel_stream(job->s));
    if (!status)
        status = dispatch(job, &keep_shader, heads, 1, 1, err);
    vk_barrier(kernel_stream(job->s));
    uint32_t words = (uint32_t)(dtype_row_bytes(shape->k_dtype, shape->head_size) +
                                dtype_row_bytes(shape->v_dtype, shape->value_size)) /
                     4;
    if (!status)
        status = dispatch(job, &gather_shader, groups_of(heads * words, GROUP_SIZE), 1, SLICES,
                          err);
    vk_barrier(kernel_stream(job->s));
    return status;
}

static void job_init(struct job *job, struct stream *s, const struct compress_args *args,
                     const struct vk_caps *caps)
{
    const struct layer_shape *shape = args->shape;
    const uint32_t constants[CONSTANTS] = {
        shape->query_heads / shape->kv_heads,
        shape->head_size,
        shape->value_size,
        (uint32_t)shape->k_dtype,
        (uint32_t)shape->v_dtype,
        (uint32_t)shape->rope_style,
        shape->rope_size,
        groups_of(shape->max_tokens, ROPE_FINE),
        float_bits(shape->scale),
        float_bits(shape->softcap),
        shape->k_slot,
        shape->v_slot,
        shape->k_head,
        shape->v_head,
        args->kernel,
        args->average,
        caps->software,
        caps->software ? caps->subgroup_size : GROUP_SIZE,
    };
    *job = (struct job){.s = s, .args = args};
    for (uint32_t i = 0; i < CONSTANTS; i++)
        job->constants[i] = constants[i];
    job->push = (struct compress_push){
        .plan = args->plan->params->address,
        .queries = args->queries,
        .positions_in = args->positions_in,
        .positions = args->positions,
        .work = args->work,
        .rope_table = shape->rope_table,
        .pages = args->plan->pages.offset,
        .page_slots = shape->page_slots,
        .from_page0 = args->from_page0,
        .from_pages = args->from_pages,
        .to_page0 = args->to_page0,
        .to_pages = args->to_pages,
        .offset = args->offset,
        .held = args->held,
        .tokens = args->length,
        .capacity = args->capacity,
        .observe = args->observe,
        .query_at = args->query_at,
        .query_ring = args->query_ring,
    };
}

ratp_status kernels_compress(struct backend *b, struct stream *s, const struct compress_args *args,
                             struct error *err)
{
    const struct layer_shape *shape = args->shape;
    uint32_t all_rows = args->observe * (shape->query_heads / shape->kv_heads);
    uint64_t head = compress_head_bytes(args->held, args->capacity);
    uint64_t row = compress_row_bytes(args->held), all = head + all_rows * row;
    if (args->work_bytes < head + row)
        return fail(err, RATP_INTERNAL, "%llu bytes to compress %u tokens in",
                    (unsigned long long)args->work_bytes, args->held);
    uint64_t heads = args->work_bytes / all, rows = all_rows;
    heads = heads < shape->kv_heads ? heads : shape->kv_heads;
    if (heads == 0) {
        heads = 1;
        rows = (args->work_bytes - head) / row;
    }
    struct job job;
    job_init(&job, s, args, vk_device_caps(kernel_device(b)));
    ratp_status status = RATP_OK;
    for (uint32_t first = 0; first < shape->kv_heads && !status; first += (uint32_t)heads) {
        uint32_t left = shape->kv_heads - first;
        job.push.head0 = first;
        job.push.heads = left < heads ? left : (uint32_t)heads;
        status = compress_heads(&job, all_rows, (uint32_t)rows, err);
    }
    return status;
}
