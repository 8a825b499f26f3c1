#include "internal.h"

ratp_status shape_check(const struct layer_shape *shape, struct error *err)
{
    if (shape->head_size > MAX_CHANNELS || shape->value_size > MAX_CHANNELS ||
        shape->rope_size > shape->head_size || shape->head_size % LANES)
        return fail(err, RATP_INTERNAL,
                    "head_size %u, value_size %u, rope_size %u: at most %u, the first a multiple "
                    "of %u",
                    shape->head_size, shape->value_size, shape->rope_size,
                    (unsigned)MAX_CHANNELS, (unsigned)LANES);
    return RATP_OK;
}

struct slot slot_at(const struct plan *plan, const struct layer_shape *shape, uint32_t page0,
                    uint32_t pages, uint32_t index, uint32_t offset, uint32_t kv_head)
{
    uint32_t page = index / shape->page_slots;
    uint32_t within = index % shape->page_slots;
    page = page0 + (page < pages ? page : pages - 1);
    if (page >= plan->pages.count)
        page = plan->pages.count - 1;
    const struct gpu_page *list = list_at(plan, plan->pages);
    uint64_t k = joined(list[page].k) + offset + (uint64_t)within * shape->k_slot +
                 (uint64_t)kv_head * shape->k_head;
    uint64_t v = joined(list[page].v) + offset + (uint64_t)within * shape->v_slot +
                 (uint64_t)kv_head * shape->v_head;
    return (struct slot){.k = at(k), .v = at(v)};
}

void rotation_at(const struct layer_shape *shape, uint32_t position, struct rotation *out)
{
    uint32_t pairs = shape->rope_size / 2;
    if (position >= shape->max_tokens)
        position = shape->max_tokens - 1;
    const float *table = at(shape->rope_table);
    uint32_t coarse_rows = (shape->max_tokens - 1) / ROPE_FINE + 1;
    const float *coarse = table + (size_t)(position / ROPE_FINE) * pairs * 2;
    const float *fine = table + (size_t)(coarse_rows + position % ROPE_FINE) * pairs * 2;
    for (uint32_t i = 0; i < pairs; i++) {
        double c0 = coarse[2 * i], s0 = coarse[2 * i + 1];
        double c1 = fine[2 * i], s1 = fine[2 * i + 1];
        out->cosine[i] = c0 * c1 - s0 * s1;
        out->sine[i] = s0 * c1 + c0 * s1;
    }
}

static void turn(const struct layer_shape *shape, uint32_t pair, double cosine, double sine,
                 double *row)
{
    bool half = shape->rope_style == RATP_ROPE_HALF;
    double *a = half ? &row[pair] : &row[2 * pair];
    double *b = half ? &row[pair + shape->rope_size / 2] : &row[2 * pair + 1];
    double x = *a, y = *b;
    *a = x * cosine - y * sine;
    *b = x * sine + y * cosine;
}

void rotate(const struct layer_shape *shape, const struct rotation *rotation, double *row)
{
    for (uint32_t i = 0; i < shape->rope_size / 2; i++)
        turn(shape, i, rotation->cosine[i], rotation->sine[i], row);
}

void rotate_back(const struct layer_shape *shape, const struct rotation *rotation, double *row)
{
    for (uint32_t i = 0; i < shape->rope_size / 2; i++) {
        double c = rotation->cosine[i], s = rotation->sine[i];
        turn(shape, i, c / (c * c + s * s), -s / (c * c + s * s), row);
    }
}
