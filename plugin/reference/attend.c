/* Attention over the cache, and the merge of partial results. */
#include "internal.h"

#include "../dtype.h"

#include <math.h>
#include <string.h>

/* Rows of one tile and key/value head that go through the keys together:
 * pair p is query token p / group of the tile and query head p % group of the
 * key/value head. */
struct batch {
    const struct attend_args *args;
    const struct gpu_view *view;
    uint32_t view_index;
    uint32_t kv_head, group;
    uint32_t token0; /* of the tile, in the view */
    uint32_t first, count;
    const uint32_t *chosen; /* blocks, where the view selects: then count is 1 */
};

static uint32_t token_of(const struct batch *batch, uint32_t i)
{
    return batch->token0 + (batch->first + i) / batch->group;
}

static uint32_t head_of(const struct batch *batch, uint32_t i)
{
    return batch->kv_head * batch->group + (batch->first + i) % batch->group;
}

static void *operand_at(const struct operand *o, uint32_t row, uint32_t head)
{
    return at(o->address + (uint64_t)row * o->token_stride + (uint64_t)head * o->head_stride);
}

/* The logit of row i's sink; -inf: none. */
static float sink_of(const struct batch *batch, uint32_t i)
{
    const float *sinks = at(batch->args->sinks);
    return sinks ? sinks[head_of(batch, i)] : -INFINITY;
}

static void load_queries(struct stream *s, const struct batch *batch)
{
    const struct layer_shape *shape = batch->args->shape;
    struct rotation rotation;
    uint32_t turned = UINT32_MAX;
    for (uint32_t i = 0; i < batch->count; i++) {
        uint32_t token = token_of(batch, i);
        const struct operand *q = &batch->args->q;
        dtype_load_row(operand_at(q, batch->view->row0 + token, head_of(batch, i)), q->dtype,
                       shape->head_size, s->row);
        for (uint32_t c = 0; c < shape->head_size; c++)
            s->query[i][c] = s->row[c];
        if (shape->rope_style != RATP_ROPE_NONE) {
            if (token != turned)
                rotation_at(shape, batch->view->pos0 + token, &rotation);
            turned = token;
            rotate(shape, &rotation, s->query[i]);
        }
        for (uint32_t c = 0; c < shape->head_size; c++)
            s->query[i][c] *= (double)shape->scale;
        memset(s->sum[i], 0, shape->value_size * sizeof **s->sum);
        float sink = sink_of(batch, i);
        s->maximum[i] = -INFINITY;
        s->total[i] = 0;
        if (sink != -INFINITY) {
            s->maximum[i] = finite_or_nan((double)sink);
            s->total[i] = isfinite(sink) ? 1 : NAN;
        }
    }
}

static void load_keys(struct stream *s, const struct batch *batch,
                      const struct gpu_segment *segment, uint32_t key0, uint32_t count)
{
    const struct layer_shape *shape = batch->args->shape;
    uint32_t offset = segment->layered
                          ? slab_offset(batch->args->plan, batch->view, batch->args->slab)
                          : 0;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t key = key0 + i, block = batch->view->block;
        if (batch->chosen)
            key = batch->chosen[key / block] * block + key % block;
        uint32_t index = segment->slot0 + key * segment->slot_step;
        if (segment->slot_ring)
            index %= segment->slot_ring;
        struct slot slot = slot_at(batch->args->plan, shape, segment->page0, segment->pages, index,
                                   offset, batch->kv_head);
        dtype_load_row(slot.k, shape->k_dtype, shape->head_size, s->row);
        for (uint32_t c = 0; c < shape->head_size; c++)
            s->key[i][c] = s->row[c];
        dtype_load_row(slot.v, shape->v_dtype, shape->value_size, s->value[i]);
        s->position[i] = segment->pos0 + key * segment->pos_step;
    }
}

/* The factor on row i's mask. */
static float slope_of(const struct batch *batch, uint32_t i)
{
    const float *slopes = at(batch->args->plan->params->address + batch->view->slopes);
    return batch->view->slopes ? slopes[head_of(batch, i)] : 1;
}

static float mask_at(const struct batch *batch, uint32_t i, uint32_t position)
{
    const struct operand *mask = &batch->args->mask;
    uint64_t view_start = (uint64_t)batch->view_index * batch->args->mask_view_stride;
    const uint8_t *row = operand_at(mask, token_of(batch, i), head_of(batch, i));
    return dtype_load(row + view_start + position * dtype_size(mask->dtype), mask->dtype);
}

/* Logits of row i; -inf for a key that it does not see, and NaN for one that it sees and
 * whose logit, or its product before the soft-cap, float32 does not hold. */
static void score_row(struct stream *restrict s, const struct batch *batch,
                      const struct gpu_segment *segment, uint32_t i, uint32_t count)
{
    const struct layer_shape *shape = batch->args->shape;
    uint32_t t = batch->view->pos0 + token_of(batch, i);
    double softcap = (double)shape->softcap;
    double slope = (double)slope_of(batch, i);

    for (uint32_t key = 0; key < count; key++) {
        if (!segment_attends(batch->view, segment, t, s->position[key])) {
            s->score[key] = -INFINITY;
            continue;
        }
        double x = finite_or_nan(dot(s->query[i], s->key[key], shape->head_size));
        if (softcap > 0)
            x = softcap * tanh(x / softcap);
        if (batch->args->mask.address) {
            double hide = (double)mask_at(batch, i, s->position[key]);
            x = hide == -INFINITY ? hide : finite_or_nan(x + slope * hide);
        }
        s->score[key] = x;
    }
}

/* One step of the running softmax of row i. A logit that is NaN makes its total NaN, and a
 * weight of 0 leaves NaN of what is not finite. */
static void accumulate_row(struct stream *restrict s, uint32_t value_size, uint32_t i,
                           uint32_t count)
{
    double maximum = s->maximum[i];
    for (uint32_t key = 0; key < count; key++)
        if (s->score[key] > maximum)
            maximum = s->score[key];
    if (maximum > s->maximum[i]) {
        double factor = exp(s->maximum[i] - maximum);
        s->total[i] *= factor;
        for (uint32_t c = 0; c < value_size; c++)
            s->sum[i][c] *= factor;
        s->maximum[i] = maximum;
    }
    for (uint32_t key = 0; key < count; key++) {
        /* Not only faster: what a hidden slot holds may be no number. */
        if (s->score[key] == -INFINITY)
            continue;
        double weight = exp(s->score[key] - maximum);
        s->total[i] += weight;
        for (uint32_t c = 0; c < value_size; c++)
            s->sum[i][c] += weight * (double)s->value[key][c];
    }
}

static void store_results(struct stream *s, const struct batch *batch)
{
    const struct attend_args *args = batch->args;
    uint32_t channels = args->shape->value_size;
    float gate[MAX_CHANNELS];
    for (uint32_t i = 0; i < batch->count; i++) {
        uint32_t row = batch->view->row0 + token_of(batch, i), head = head_of(batch, i);
        /* Zero only when no key was seen. */
        double factor = s->total[i] == 0 ? 0 : 1 / s->total[i];
        for (uint32_t c = 0; c < channels; c++)
            s->sum[i][c] = finite_or_nan(s->sum[i][c] * factor);
        if (args->o.address) {
            dtype_load_row(operand_at(&args->o, row, head), args->o.dtype, channels, gate);
            for (uint32_t c = 0; c < channels; c++)
                s->sum[i][c] /= 1 + exp(-(double)gate[c]);
        }
        for (uint32_t c = 0; c < channels; c++)
            s->row[c] = (float)finite_or_nan(s->sum[i][c]);
        dtype_store_row(operand_at(&args->out, row, head), args->out.dtype, channels, s->row);
        if (args->lse.address)
            dtype_store(operand_at(&args->lse, row, head), args->lse.dtype,
                        (float)(s->total[i] == 0 ? -INFINITY : s->maximum[i] + log(s->total[i])));
    }
}

/* The blocks that the pair of a batch of one attends. */
static const uint32_t *chosen_of(const struct batch *batch, uint32_t chooser)
{
    const struct attend_args *args = batch->args;
    uint64_t list = (uint64_t)chooser * args->shape->query_heads + head_of(batch, 0);
    return (const uint32_t *)at(args->plan->chosen_address) + list * args->cls->most_chosen;
}

static void attend_batch(struct stream *s, const struct batch *batch)
{
    uint32_t first_t = batch->view->pos0 + token_of(batch, 0);
    uint32_t last_t = batch->view->pos0 + token_of(batch, batch->count - 1);
    load_queries(s, batch);
    for (uint32_t n = 0; n < batch->view->segments && n < PLAN_SEGMENTS; n++) {
        const struct gpu_segment *segment = &batch->view->segment[n];
        uint32_t lo, hi;
        segment_range(batch->view, segment, first_t, last_t, &lo, &hi);
        if (!segment->pages)
            continue;
        for (uint32_t key0 = lo; key0 < hi; key0 += BLOCK_KEYS) {
            uint32_t count = hi - key0 < BLOCK_KEYS ? hi - key0 : BLOCK_KEYS;
            load_keys(s, batch, segment, key0, count);
            for (uint32_t i = 0; i < batch->count; i++) {
                score_row(s, batch, segment, i, count);
                accumulate_row(s, batch->args->shape->value_size, i, count);
            }
        }
    }
    store_results(s, batch);
}

/* Splits are for devices with many cores: the first of them does it all. */
static void attend_tiles(struct stream *s, const struct attend_args *args, struct plan_list list)
{
    const struct gpu_tile *tiles = list_at(args->plan, list);
    const struct gpu_view *views = list_at(args->plan, args->cls->views);
    uint32_t group = args->shape->query_heads / args->shape->kv_heads;
    for (uint32_t i = 0; i < list.count; i++) {
        const struct gpu_tile *tile = &tiles[i];
        if (tile->split > 0)
            continue;
        uint32_t pairs = tile->tokens * group;
        bool selects = views[tile->view].select != SELECT_NONE;
        uint32_t most = selects ? 1 : BLOCK_ROWS;
        for (uint32_t head = 0; head < args->shape->kv_heads; head++)
            for (uint32_t first = 0; first < pairs; first += most) {
                struct batch batch = {
                    .args = args,
                    .view = &views[tile->view],
                    .view_index = tile->view,
                    .kv_head = head,
                    .group = group,
                    .token0 = tile->token0,
                    .first = first,
                    .count = pairs - first < most ? pairs - first : most,
                };
                if (selects)
                    batch.chosen = chosen_of(&batch, tile->chooser);
                attend_batch(s, &batch);
            }
    }
}

ratp_status reference_attend(struct backend *b, struct stream *s, const struct attend_args *args,
                             struct error *err)
{
    (void)b;
    ratp_status status = shape_check(args->shape, err);
    if (status)
        return status;
    attend_tiles(s, args, args->cls->tiles);
    attend_tiles(s, args, args->cls->singles);
    return RATP_OK;
}

ratp_status reference_merge(struct backend *b, struct stream *s, const struct merge_args *args,
                            struct error *err)
{
    (void)b;
    if (args->value_size > MAX_CHANNELS)
        return fail(err, RATP_INTERNAL, "value_size %u: at most %u", args->value_size,
                    (unsigned)MAX_CHANNELS);
    double sum[MAX_CHANNELS];
    for (uint32_t token = 0; token < args->tokens; token++)
        for (uint32_t head = 0; head < args->heads; head++) {
            double maximum = -INFINITY, total = 0;
            memset(sum, 0, sizeof sum);
            for (uint32_t part = 0; part < args->parts; part++) {
                const struct operand *lse = &args->part_lse[part];
                double x = (double)dtype_load(operand_at(lse, token, head), lse->dtype);
                maximum = x > maximum ? x : maximum;
            }
            /* A part whose log-sum-exp is NaN or inf makes the total NaN. */
            for (uint32_t part = 0; part < args->parts; part++) {
                const struct operand *lse = &args->part_lse[part], *out = &args->part_out[part];
                double x = (double)dtype_load(operand_at(lse, token, head), lse->dtype);
                if (x == -INFINITY)
                    continue;
                double weight = exp(x - maximum);
                dtype_load_row(operand_at(out, token, head), out->dtype, args->value_size, s->row);
                total += weight;
                for (uint32_t c = 0; c < args->value_size; c++)
                    sum[c] += weight * (double)s->row[c];
            }
            double factor = total == 0 ? 0 : 1 / total;
            for (uint32_t c = 0; c < args->value_size; c++)
                s->row[c] = (float)finite_or_nan(sum[c] * factor);
            dtype_store_row(operand_at(&args->out, token, head), args->out.dtype, args->value_size,
                            s->row);
            if (args->lse.address)
                dtype_store(operand_at(&args->lse, token, head), args->lse.dtype,
                            (float)(total == 0 ? -INFINITY : maximum + log(total)));
        }
    return RATP_OK;
}
