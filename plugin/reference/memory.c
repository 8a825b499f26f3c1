/* New tokens through the memory and the rotation into the cache. */
#include "internal.h"

#include "../dtype.h"

#include <math.h>
#include <string.h>

static void store_row(void *to, ratp_dtype dtype, uint32_t channels, const double *from)
{
    float row[MAX_CHANNELS];
    for (uint32_t i = 0; i < channels; i++)
        row[i] = (float)from[i];
    dtype_store_row(to, dtype, channels, row);
}

static void write_slot(const struct memory_args *args, uint32_t page0, uint32_t pages,
                       uint32_t index, uint32_t offset, uint32_t kv_head, const double *k,
                       const double *v)
{
    const struct layer_shape *shape = args->shape;
    struct slot slot = slot_at(args->plan, shape, page0, pages, index, offset, kv_head);
    store_row(slot.k, shape->k_dtype, shape->head_size, k);
    store_row(slot.v, shape->v_dtype, shape->value_size, v);
}

static void write_token(const struct memory_args *args, const struct gpu_view *view,
                        uint32_t position, uint32_t kv_head, const double *k, const double *v)
{
    uint32_t sinks = view->sinks, dilation = view->dilation;
    uint32_t offset = slab_offset(args->plan, view, args->slab);
    bool kept = position < sinks || (dilation && (position + 1) % dilation == 0);
    if (view->kept_pages && kept)
        write_slot(args, view->kept_page0, view->kept_pages,
                   kept_index(position, sinks, dilation), offset, kv_head, k, v);
    if (view->ring_pages && position >= view->ring_from)
        write_slot(args, view->ring_page0, view->ring_pages, position % view->ring_slots, offset,
                   kv_head, k, v);
    if (view->line_pages && position >= view->line_pos0)
        write_slot(args, view->line_page0, view->line_pages, position - view->line_pos0,
                   view->line_layered ? offset : 0, kv_head, k, v);
}

static void load_operand(const struct operand *from, uint32_t row, uint32_t head,
                         uint32_t channels, float *to)
{
    uint64_t address = from->address + (uint64_t)row * from->token_stride +
                       (uint64_t)head * from->head_stride;
    dtype_load_row(at(address), from->dtype, channels, to);
}

/* One key/value head of one sequence. */
static void memory_head(const struct memory_args *args, const struct gpu_view *view,
                        uint32_t head)
{
    const struct layer_shape *shape = args->shape;
    uint32_t d = shape->head_size, dv = shape->value_size;
    size_t state_bytes = (size_t)(d + dv) * sizeof(float);
    uint64_t at_head = args->state_offset + (uint64_t)head * state_bytes;
    uint64_t state_in = joined(view->state_in), state_out = joined(view->state_out);
    float state[2 * MAX_CHANNELS] = {0};
    double k[MAX_CHANNELS], v[MAX_CHANNELS], turned[MAX_CHANNELS];
    float new_k[MAX_CHANNELS], new_v[MAX_CHANNELS], gate[MAX_CHANNELS];
    struct rotation rotation;

    if (shape->memory && state_in)
        memcpy(state, at(state_in + at_head), state_bytes);
    for (uint32_t i = 0; i < d; i++)
        k[i] = state[i];
    for (uint32_t i = 0; i < dv; i++)
        v[i] = state[d + i];

    for (uint32_t token = 0; token < view->rows; token++) {
        uint32_t row = view->row0 + token, position = view->pos0 + token;
        load_operand(&args->k, row, head, d, new_k);
        load_operand(&args->v, row, head, dv, new_v);
        if (shape->memory) {
            load_operand(&args->f, row, head, d, gate);
            for (uint32_t i = 0; i < d; i++) {
                double g = 1 / (1 + exp(-(double)gate[i]));
                double rest = 1 / (1 + exp((double)gate[i]));
                k[i] = g * k[i] + rest * new_k[i];
                v[i] = g * v[i] + rest * new_v[i];
            }
        } else {
            for (uint32_t i = 0; i < d; i++)
                k[i] = new_k[i];
            for (uint32_t i = 0; i < dv; i++)
                v[i] = new_v[i];
        }
        memcpy(turned, k, d * sizeof *k);
        if (shape->rope_style != RATP_ROPE_NONE) {
            rotation_at(shape, position, &rotation);
            rotate(shape, &rotation, turned);
        }
        write_token(args, view, position, head, turned, v);
    }
    if (shape->memory && state_out) {
        store_row(at(state_out + at_head), RATP_F32, d, k);
        store_row(at(state_out + at_head + d * sizeof(float)), RATP_F32, dv, v);
    }
}

ratp_status reference_memory(struct backend *b, struct stream *s, const struct memory_args *args,
                             struct error *err)
{
    (void)b, (void)s;
    ratp_status status = shape_check(args->shape, err);
    if (status)
        return status;
    if (args->shape->memory && args->shape->head_size != args->shape->value_size)
        return fail(err, RATP_INTERNAL, "memory with head_size %u and value_size %u",
                    args->shape->head_size, args->shape->value_size);
    const struct gpu_view *views = list_at(args->plan, args->cls->views);
    for (uint32_t i = 0; i < args->cls->views.count; i++)
        for (uint32_t head = 0; head < args->shape->kv_heads; head++)
            memory_head(args, &views[i], head);
    return RATP_OK;
}

static struct slot slot_of_run(const struct memory_args *args, const struct gpu_slots *run,
                               uint32_t n, uint32_t kv_head)
{
    const struct gpu_view *views = list_at(args->plan, args->cls->views);
    uint32_t index = run->slot0 + n * run->slot_step;
    if (run->slot_ring)
        index %= run->slot_ring;
    return slot_at(args->plan, args->shape, run->page0, run->pages, index,
                   slab_offset(args->plan, &views[run->view], args->slab), kv_head);
}

ratp_status reference_move(struct backend *b, struct stream *s, const struct memory_args *args,
                           struct error *err)
{
    (void)b, (void)s;
    const struct layer_shape *shape = args->shape;
    ratp_status status = shape_check(shape, err);
    if (status)
        return status;
    size_t k_bytes = dtype_row_bytes(shape->k_dtype, shape->head_size);
    size_t v_bytes = dtype_row_bytes(shape->v_dtype, shape->value_size);
    const struct gpu_move *moves = list_at(args->plan, args->cls->moves);
    for (uint32_t i = 0; i < args->cls->moves.count; i++) {
        const struct gpu_move *move = &moves[i];
        if (!move->from.pages || !move->to.pages)
            continue;
        for (uint32_t n = 0; n < move->count; n++)
            for (uint32_t head = 0; head < shape->kv_heads; head++) {
                struct slot from = slot_of_run(args, &move->from, n, head);
                struct slot to = slot_of_run(args, &move->to, n, head);
                memmove(to.k, from.k, k_bytes);
                memmove(to.v, from.v, v_bytes);
            }
    }
    return RATP_OK;
}

ratp_status reference_restore(struct backend *b, struct stream *s,
                              const struct restore_args *args, struct error *err)
{
    (void)b, (void)s;
    const struct layer_shape *shape = args->shape;
    ratp_status status = shape_check(shape, err);
    if (status)
        return status;
    uint32_t d = shape->head_size, dv = shape->value_size;
    float row[MAX_CHANNELS];
    double k[MAX_CHANNELS];
    struct rotation rotation;
    if (shape->rope_style != RATP_ROPE_NONE)
        rotation_at(shape, args->position, &rotation);
    for (uint32_t head = 0; head < shape->kv_heads; head++) {
        uint8_t *state = at(args->state + (uint64_t)head * (d + dv) * sizeof(float));
        dtype_load_row(at(args->k + (uint64_t)head * shape->k_head), shape->k_dtype, d, row);
        for (uint32_t i = 0; i < d; i++)
            k[i] = row[i];
        if (shape->rope_style != RATP_ROPE_NONE)
            rotate_back(shape, &rotation, k);
        store_row(state, RATP_F32, d, k);
        dtype_load_row(at(args->v + (uint64_t)head * shape->v_head), shape->v_dtype, dv, row);
        dtype_store_row(state + d * sizeof(float), RATP_F32, dv, row);
    }
    return RATP_OK;
}
