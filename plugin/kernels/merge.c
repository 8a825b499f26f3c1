/* Joins partial results: the splits of attention, and a host's own parts. */
#include "attend.h"

#include "merge.spv.h"
#include "merge_splits.spv.h"

enum { GROUP_SIZE = 64, SPLITS_SLICES = 4 };

static const struct vk_shader splits_shader = VK_SHADER(merge_splits, struct attend_push);

ratp_status kernels_gather(struct backend *b, struct stream *s, const struct attend_args *args,
                           struct plan_list gathers, struct error *err)
{
    const struct vk_caps *caps = vk_device_caps(kernel_device(b));
    /* A CPU hides no latency by them. */
    const uint32_t most = caps->software ? 1 : SPLITS_SLICES;
    const uint32_t room = caps->max_invocations / GROUP_SIZE;
    const uint32_t slices[] = {most < room ? most : room};
    struct attend_kernel k;
    attend_kernel_init(&k, args, &splits_shader, slices, 1);
    return items_dispatch(s, &k.items, gathers, sizeof(struct gpu_gather),
                          args->shape->query_heads, 1, err);
}

/* As in shaders/merge.comp. */
struct merge_part {
    uint32_t out_lo, out_hi, lse_lo, lse_hi;
    uint32_t out_token, out_head, lse_token, lse_head;
    uint32_t out_type, lse_type;
};

struct merge_push {
    uint64_t parts, out, lse;
    uint32_t part_count, token0, heads;
    uint32_t out_token, out_head, lse_token, lse_head;
};

static const struct vk_shader merge_shader = VK_SHADER(merge, struct merge_push);

static struct merge_part part_of(const struct operand *out, const struct operand *lse)
{
    return (struct merge_part){
        .out_lo = (uint32_t)out->address,
        .out_hi = (uint32_t)(out->address >> 32),
        .lse_lo = (uint32_t)lse->address,
        .lse_hi = (uint32_t)(lse->address >> 32),
        .out_token = out->token_stride,
        .out_head = out->head_stride,
        .lse_token = lse->token_stride,
        .lse_head = lse->head_stride,
        .out_type = (uint32_t)out->dtype,
        .lse_type = (uint32_t)lse->dtype,
    };
}

ratp_status kernels_merge(struct backend *b, struct stream *s, const struct merge_args *args,
                          struct error *err)
{
    struct mem table = {0};
    ratp_status status = b->ops->mem_alloc(b, args->parts * sizeof(struct merge_part), MEM_UPLOAD,
                                           "merge parts", &table, err);
    if (status)
        return status;
    struct merge_part *part = table.host;
    for (uint32_t i = 0; i < args->parts; i++)
        part[i] = part_of(&args->part_out[i], &args->part_lse[i]);

    const uint32_t constants[] = {args->value_size, (uint32_t)args->out.dtype,
                                  args->lse.address ? (uint32_t)args->lse.dtype : 0};
    struct merge_push push = {
        .parts = table.address,
        .out = args->out.address,
        .lse = args->lse.address,
        .part_count = args->parts,
        .heads = args->heads,
        .out_token = args->out.token_stride,
        .out_head = args->out.head_stride,
        .lse_token = args->lse.token_stride,
        .lse_head = args->lse.head_stride,
    };
    struct items_kernel kernel = {
        .shader = &merge_shader,
        .constants = constants,
        .constant_count = sizeof constants / sizeof *constants,
        .push = &push,
        .push_size = sizeof push,
        .items = &push.token0,
    };
    status = items_dispatch(s, &kernel, (struct plan_list){.count = args->tokens}, 1,
                            groups_of(args->heads * (args->value_size / 2), GROUP_SIZE), 1, err);
    b->ops->mem_free(b, &table); /* once the stream is done with it */
    return status;
}
