/* Attention of prompts. */
#include "attend.h"

#include "prefill.spv.h"

static const struct vk_shader plain_shader = {"prefill", prefill_spv, sizeof prefill_spv,
                                              sizeof(struct attend_push), false};

enum {
    BLOCK_KEYS = 32, /* as in prefill.comp */
    ROW_LANES = 8,
    LANE_ROWS = 4,
    MAX_ROWS = 32,
    MAX_CHUNK = 64
};

/* Workgroup memory of prefill.comp. */
static uint32_t shared_bytes(const struct layer_shape *shape, uint32_t rows, uint32_t chunk)
{
    uint32_t groups = rows / LANE_ROWS;
    uint32_t vectors = rows * (shape->head_size / 4 + 1) + BLOCK_KEYS * (chunk / 4 + 1) +
                       BLOCK_KEYS * (groups + 1) + ROW_LANES * groups + 2 * BLOCK_KEYS;
    return vectors * 16;
}

struct prefill_form prefill_form(const struct vk_caps *caps, const struct layer_shape *shape)
{
    uint32_t group = shape->query_heads / shape->kv_heads;
    struct prefill_form form = {.shader = &plain_shader,
                                .name = "plain, through shared memory",
                                .reason = "",
                                .rows = MAX_ROWS,
                                .chunk = MAX_CHUNK};
    while (shared_bytes(shape, form.rows, form.chunk) > caps->shared_bytes && form.rows > 4) {
        if (form.chunk == MAX_CHUNK) {
            form.chunk = MAX_CHUNK / 2;
        } else {
            form.chunk = MAX_CHUNK;
            form.rows /= 2;
        }
    }
    form.invocations = form.rows / LANE_ROWS * ROW_LANES;
    form.heads = group < form.rows ? group : form.rows;
    while (group % form.heads != 0)
        form.heads--;
    form.tokens = form.rows / form.heads;
    return form;
}

ratp_status kernels_attend_prompt(struct backend *b, struct stream *s,
                                  const struct attend_args *args, struct error *err)
{
    if (args->cls->tiles.count == 0)
        return RATP_OK;
    const struct layer_shape *shape = args->shape;
    struct prefill_form form = prefill_form(vk_device_caps(kernel_device(b)), shape);
    const uint32_t own[] = {form.invocations, form.rows, form.heads, form.chunk};
    struct attend_kernel k;
    attend_kernel_init(&k, args, form.shader, own, sizeof own / sizeof *own);
    uint32_t blocks = shape->query_heads / shape->kv_heads / form.heads;
    return items_dispatch(s, &k.items, args->cls->tiles, sizeof(struct gpu_tile),
                          shape->kv_heads * blocks, 1, err);
}
