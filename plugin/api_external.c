/* Attention over the host's own K and V. */
#include "api.h"

#include "external.h"
#include "staging.h"
#include "structs.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TOKENS = 1 << 24, MAX_BATCH = 65536, MAX_KV_HEADS = 1024, MAX_QUERY_HEADS = 16384 };

enum { EXT_Q, EXT_K, EXT_V, EXT_O, EXT_MASK, EXT_SINKS, EXT_OUT, EXT_LSE, EXT_COUNT };

static ratp_status in_range(const char *what, uint32_t value, uint32_t least, uint32_t most,
                            uint32_t multiple, struct error *err)
{
    if (value >= least && value <= most && value % multiple == 0)
        return RATP_OK;
    if (multiple == 1)
        return fail(err, RATP_INVALID_ARGUMENT, "params->%s is %u, it must be %u to %u", what,
                    value, least, most);
    return fail(err, RATP_INVALID_ARGUMENT,
                "params->%s is %u, it must be a multiple of %u, %u to %u", what, value, multiple,
                least, most);
}

ratp_status external_check_keys(struct ratp_external *p, struct error *err)
{
    if (p->batch == 0)
        p->batch = 1;
    ratp_status status = in_range("batch", p->batch, 1, MAX_BATCH, 1, err);
    if (!status)
        status = in_range("key_tokens", p->key_tokens, 1, MAX_TOKENS, 1, err);
    if (!status)
        status = in_range("kv_heads", p->kv_heads, 1, MAX_KV_HEADS, 1, err);
    if (!status)
        status = in_range("head_size", p->head_size, 8, 256, 8, err);
    return status;
}

/* Fills in the defaults of `p`. */
static ratp_status check_sizes(struct ratp_external *p, struct error *err)
{
    if (p->value_size == 0)
        p->value_size = p->head_size;
    ratp_status status = external_check_keys(p, err);
    if (!status)
        status = in_range("query_tokens", p->query_tokens, 1, MAX_TOKENS, 1, err);
    if (!status)
        status = in_range("query_heads", p->query_heads, p->kv_heads, MAX_QUERY_HEADS,
                          p->kv_heads, err);
    if (!status)
        status = in_range("value_size", p->value_size, 8, 256, 8, err);
    if (!status && p->causal)
        status = in_range("first_position", p->first_position, 0, MAX_TOKENS - p->query_tokens, 1,
                          err);
    if (status)
        return status;
    if (p->query_tokens > MAX_TOKENS / p->batch)
        return fail(err, RATP_INVALID_ARGUMENT,
                    "params->batch %u times query_tokens %u is more than %d rows", p->batch,
                    p->query_tokens, MAX_TOKENS);
    if (!isfinite(p->scale))
        return fail(err, RATP_INVALID_ARGUMENT, "params->scale is %g, it must be finite",
                    (double)p->scale);
    if (!isfinite(p->softcap) || p->softcap < 0)
        return fail(err, RATP_INVALID_ARGUMENT,
                    "params->softcap is %g, it must be finite and not negative",
                    (double)p->softcap);
    return RATP_OK;
}

static ratp_status check_slopes(const struct ratp_external *p, struct error *err)
{
    if (!p->slopes)
        return RATP_OK;
    if (!p->mask)
        return fail(err, RATP_INVALID_ARGUMENT,
                    "params->slopes is given and params->mask is NULL: slopes are factors on a mask");
    for (uint32_t i = 0; i < p->query_heads; i++)
        if (!isfinite(p->slopes[i]))
            return fail(err, RATP_INVALID_ARGUMENT,
                        "params->slopes[%u] is %g, it must be finite", i, (double)p->slopes[i]);
    return RATP_OK;
}

static ratp_status read_tensors(const ratp_device *device, const struct ratp_external *p,
                                struct staged *items, struct error *err)
{
    uint32_t n = p->batch, rows = p->query_tokens, keys = p->key_tokens;
    const struct operand_want want[EXT_COUNT] = {
        [EXT_Q] = {"params->q", n, rows, p->query_heads, p->head_size},
        [EXT_K] = {"params->k", n, keys, p->kv_heads, p->head_size, .blocks_too = true},
        [EXT_V] = {"params->v", n, keys, p->kv_heads, p->value_size, .blocks_too = true},
        [EXT_O] = {"params->o", n, rows, p->query_heads, p->value_size},
        [EXT_MASK] = {"params->mask", n, rows, p->query_heads, keys, .half_too = true,
                      .shared_heads = true},
        [EXT_SINKS] = {"params->sinks", 1, 1, 1, p->query_heads, .float32_only = true},
        [EXT_OUT] = {"params->out", n, rows, p->query_heads, p->value_size, .written = true},
        [EXT_LSE] = {"params->lse", n, rows, p->query_heads, 1, .written = true,
                     .float32_only = true},
    };
    const struct ratp_tensor *const tensors[EXT_COUNT] = {
        [EXT_Q] = p->q, [EXT_K] = p->k, [EXT_V] = p->v, [EXT_O] = p->o, [EXT_MASK] = p->mask,
        [EXT_SINKS] = p->sinks, [EXT_OUT] = p->out, [EXT_LSE] = p->lse,
    };
    ratp_status status = RATP_OK;
    for (int i = 0; i < EXT_COUNT && !status; i++) {
        bool optional = i == EXT_O || i == EXT_MASK || i == EXT_SINKS || i == EXT_LSE;
        if (tensors[i] || !optional)
            status = operand_read(device, tensors[i], &want[i], &items[i].view, err);
    }
    return status;
}

/* Kernels count the rows of a batch through: one call serves all sequences
 * when they follow each other without a gap. */
static bool rows_are_even(const struct staged *items, uint32_t batch)
{
    static const int rows[] = {EXT_Q, EXT_O, EXT_OUT, EXT_LSE};
    if (batch == 1)
        return true;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct staged *item = &items[rows[i]];
        uint32_t tokens = item->view.want.tokens;
        if (tokens && item->batch_stride != (uint64_t)tokens * item->operand.token_stride)
            return false;
    }
    return !items[EXT_MASK].view.want.tokens || items[EXT_MASK].batch_stride <= UINT32_MAX;
}

static struct operand operand_of(const struct staged *item, uint32_t sequence)
{
    struct operand o = item->operand;
    if (o.address)
        o.address += sequence * item->batch_stride;
    return o;
}

/* The plan's bytes and the work memory; both are freed when the work is done. */
struct call_memory {
    struct mem params, work;
};

static uint64_t aligned(uint64_t offset)
{
    return (offset + 15) / 16 * 16;
}

/* Work memory: partials, chosen blocks, scores and a wave's table. */
static ratp_status place_work(struct backend *b, const struct layer_shape *shape,
                              const struct plan_class *cls, struct plan *plan, struct mem *m,
                              struct error *err)
{
    struct choice_work work =
        choice_work(cls, shape->kv_heads, shape->query_heads / shape->kv_heads);
    uint64_t partials = (uint64_t)plan->partials * shape->query_heads * (shape->value_size + 2) *
                        sizeof(float);
    uint64_t chosen_at = aligned(partials), score_at = aligned(chosen_at + work.chosen);
    uint64_t wave_at = aligned(score_at + work.scores), bytes = wave_at + work.table;
    ratp_status status = RATP_OK;
    if (bytes)
        status = b->ops->mem_alloc(b, bytes, MEM_DEVICE, "external work memory", m, err);
    plan->partial_address = m->address;
    plan->chosen_address = m->address + chosen_at;
    plan->score_address = m->address + score_at;
    plan->score_bytes = work.scores;
    plan->wave_address = m->address + wave_at;
    return status;
}

static ratp_status upload_plan(struct backend *b, const struct layer_shape *shape,
                               const struct blob *blob, const struct plan_class *cls,
                               struct plan *plan, struct call_memory *m, struct error *err)
{
    if (blob->failed)
        return fail(err, RATP_OUT_OF_MEMORY, "no host memory for the work lists of %u sequences",
                    plan->views);
    ratp_status status =
        b->ops->mem_alloc(b, blob->size, MEM_UPLOAD, "external plan", &m->params, err);
    if (!status)
        status = place_work(b, shape, cls, plan, &m->work, err);
    if (!status)
        memcpy(m->params.host, blob->data, blob->size); /* new memory: nobody reads it yet */
    plan->params = &m->params;
    return status;
}

/* What of the blocks of K the queries choose by, then which blocks. */
static ratp_status select_blocks(struct backend *b, struct stream *s,
                                 const struct attend_args *attend, struct error *err)
{
    const struct plan_class *cls = attend->cls;
    const struct memory_args memory = {.plan = attend->plan, .cls = cls, .shape = attend->shape};
    ratp_status status = RATP_OK;
    if (cls->summaries.count)
        status = b->ops->summarise(b, s, &memory, err);
    if (!status && cls->choosers.count)
        status = b->ops->choose(b, s, attend, err);
    return status;
}

/* `count` sequences from `first` on. */
static ratp_status record(struct backend *b, struct stream *s, const struct layer_shape *shape,
                          const struct ratp_external *p, const struct variant *variant,
                          const struct external_entries *entries, const struct staged *items,
                          uint32_t first, uint32_t count, struct error *err)
{
    struct blob blob = {0};
    struct plan plan;
    struct plan_class cls;
    struct work_limits limits;
    struct call_memory memory = {0};
    struct external_source source = {
        .batch = count, .rows = p->query_tokens, .keys = p->key_tokens,
        .first_position = p->causal ? p->first_position : 0,
        .causal = p->causal != 0,
        .variant = *variant,
        .k = operand_of(&items[EXT_K], first).address,
        .v = operand_of(&items[EXT_V], first).address,
        .k_stride = items[EXT_K].batch_stride, .v_stride = items[EXT_V].batch_stride,
        .k_slot = shape->k_slot, .k_head = shape->k_head,
        .v_slot = shape->v_slot, .v_head = shape->v_head,
        .slopes = p->slopes, .slope_count = p->slopes ? p->query_heads : 0,
        .entries = *entries,
    };
    source.entries.address += (uint64_t)first * entries->sequence;
    b->ops->limits(b, shape, &limits);
    plan_external(&plan, &cls, &blob, &source, &limits);
    ratp_status status = upload_plan(b, shape, &blob, &cls, &plan, &memory, err);
    if (!status) {
        const struct attend_args args = {
            .plan = &plan, .cls = &cls, .shape = shape,
            .q = operand_of(&items[EXT_Q], first), .o = operand_of(&items[EXT_O], first),
            .out = operand_of(&items[EXT_OUT], first), .lse = operand_of(&items[EXT_LSE], first),
            .mask = operand_of(&items[EXT_MASK], first),
            .mask_view_stride = count > 1 ? (uint32_t)items[EXT_MASK].batch_stride : 0,
            .sinks = items[EXT_SINKS].operand.address,
        };
        status = select_blocks(b, s, &args, err);
        if (!status)
            status = b->ops->attend(b, s, &args, err);
    }
    if (memory.params.size)
        b->ops->mem_free(b, &memory.params);
    if (memory.work.size)
        b->ops->mem_free(b, &memory.work);
    free(cls.waves);
    blob_free(&blob);
    return status;
}

/* Has the low bits of the addresses of all rows. */
static uint64_t place_of(const struct staged *item)
{
    const struct operand *o = &item->operand;
    return o->address | o->token_stride | o->head_stride | item->batch_stride;
}

/* `own_bytes`: of entries that the host does not keep. */
static ratp_status run(struct backend *b, const struct ratp_external *p,
                       const struct variant *variant, struct external_entries *entries,
                       uint64_t own_bytes, const struct staged *items, bool wait,
                       struct error *err)
{
    struct layer_shape shape = {
        .query_heads = p->query_heads, .kv_heads = p->kv_heads,
        .head_size = p->head_size, .value_size = p->value_size,
        .scale = p->scale != 0 ? p->scale : 1 / sqrtf((float)p->head_size),
        .softcap = p->softcap,
        .k_dtype = items[EXT_K].operand.dtype, .v_dtype = items[EXT_V].operand.dtype,
        .page_slots = p->key_tokens,
        .view_strides = true,
        .k_slot = items[EXT_K].operand.token_stride, .k_head = items[EXT_K].operand.head_stride,
        .v_slot = items[EXT_V].operand.token_stride, .v_head = items[EXT_V].operand.head_stride,
    };
    struct stream *s = NULL;
    struct mem own = {0};
    ratp_status status = b->ops->stream_begin(b, &s, err);
    if (status)
        return status;
    if (own_bytes)
        status = b->ops->mem_alloc(b, own_bytes, MEM_DEVICE, "external summaries", &own, err);
    if (own_bytes)
        entries->address = own.address;
    shape.row_bits = (place_of(&items[EXT_K]) | place_of(&items[EXT_V]) | entries->address |
                      entries->head | entries->sequence | entries->step) % 16;
    uint32_t together = rows_are_even(items, p->batch) ? p->batch : 1;
    for (uint32_t i = 0; i < p->batch && !status; i += together)
        status = record(b, s, &shape, p, variant, entries, items, i, together, err);
    if (own.size)
        b->ops->mem_free(b, &own);
    if (status) {
        b->ops->stream_drop(b, s);
        return status;
    }
    ticket done = 0;
    status = b->ops->stream_submit(b, s, &done, err);
    if (!status && wait)
        status = b->ops->wait(b, done, err);
    return status;
}

ratp_status api_attend_external(ratp_device *device, const struct ratp_external *params)
{
    struct error err = {""};
    struct ratp_external p;
    struct variant variant;
    struct external_entries entries;
    uint64_t own_bytes = 0;
    struct staged items[EXT_COUNT] = {0};
    struct staging *staging = NULL;
    ratp_status status = object_check(device, OBJECT_DEVICE, "device", &err);
    if (!status)
        status = struct_read(&p, sizeof p, params, STRUCT_UPTO(struct ratp_external, out),
                             "params", &err);
    if (!status)
        status = check_sizes(&p, &err);
    if (!status)
        status = check_slopes(&p, &err);
    if (!status)
        status = external_variant(&p, &variant, &err);
    if (!status)
        status = read_tensors(device, &p, items, &err);
    if (!status)
        status = external_selection(device, &p, &variant, items[EXT_K].view.dtype, &entries,
                                    &own_bytes, &err);
    if (!status)
        status = staging_take(device, items, EXT_COUNT, &staging, &err);
    if (!status)
        status = run(device->backend, &p, &variant, &entries, own_bytes, items, staging != NULL,
                     &err);
    if (!status && staging)
        staging_fetch(staging, items, EXT_COUNT);
    staging_give(device, staging, status);
    return api_return(device, status, &err);
}
