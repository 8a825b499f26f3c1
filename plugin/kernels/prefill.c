/* Attention of prompts. */
#include "attend.h"

#include <math.h>

#include "prefill.spv.h"
#include "prefill_each.spv.h"
#include "prefill_gathered.spv.h"
#include "prefill_rows.spv.h"
#include "prefill_rows_gathered.spv.h"

static const struct vk_shader shared_shader = VK_SHADER(prefill, struct attend_push);
static const struct vk_shader each_shader = VK_SHADER(prefill_each, struct attend_push);
static const struct vk_shader rows_shader = VK_SHADER(prefill_rows, struct attend_push);
static const struct vk_shader gathered_shader = VK_SHADER(prefill_gathered, struct attend_push);
static const struct vk_shader gathered_rows_shader =
    VK_SHADER(prefill_rows_gathered, struct attend_push);

enum {
    /* As in prefill.comp. */
    BLOCK_KEYS = 32,
    ROW_LANES = 8,
    LANE_ROWS = 4,
    MAX_ROWS = 32,
    MAX_CHUNK = 64,
    /* Keys at a time, and rows of an invocation at most. */
    EACH_KEYS = 4,
    ROWS_KEYS = 16,
    ROWS_MOST = 16
};

/* The rows form takes seconds to compile: worth it from here on. */
static const double ROWS_FORM_FLOP = 1 << 28;

/* llvmpipe, as against SwiftShader: an invocation is a lane of a vector register. */
static bool runs_on_vectors(const struct vk_caps *caps)
{
    return caps->software && caps->subgroup_size >= 8;
}

/* Workgroup memory of prefill.comp. */
static uint32_t shared_bytes(const struct layer_shape *shape, uint32_t rows, uint32_t chunk)
{
    uint32_t groups = rows / LANE_ROWS;
    uint32_t size = shape->head_size > shape->value_size ? shape->head_size : shape->value_size;
    uint32_t vectors = rows * (size / 4 + 1) + BLOCK_KEYS * (chunk / 4 + 1) +
                       BLOCK_KEYS * (groups + 1) + ROW_LANES * groups + rows + 2 * BLOCK_KEYS;
    return vectors * 16;
}

static void split_rows(struct prefill_form *form, uint32_t group)
{
    form->heads = group < form->rows ? group : form->rows;
    while (group % form->heads != 0)
        form->heads--;
    form->tokens = form->rows / form->heads;
}

static struct prefill_form shared_form(const struct vk_caps *caps,
                                       const struct layer_shape *shape)
{
    struct prefill_form form = {.shader = &shared_shader,
                                .name = "through shared memory",
                                .reason = "",
                                .rows = MAX_ROWS,
                                .last_constant = MAX_CHUNK};
    while (shared_bytes(shape, form.rows, form.last_constant) > caps->shared_bytes &&
           form.rows > LANE_ROWS) {
        if (form.last_constant == MAX_CHUNK) {
            form.last_constant = MAX_CHUNK / 2;
        } else {
            form.last_constant = MAX_CHUNK;
            form.rows /= 2;
        }
    }
    form.invocations = form.rows / LANE_ROWS * ROW_LANES;
    split_rows(&form, shape->query_heads / shape->kv_heads);
    return form;
}

static struct prefill_form each_form(const struct vk_caps *caps, const struct layer_shape *shape)
{
    uint32_t group = shape->query_heads / shape->kv_heads;
    return (struct prefill_form){.shader = &each_shader,
                                 .name = "a row to an invocation",
                                 .reason = "",
                                 .invocations = caps->subgroup_size,
                                 .rows = caps->subgroup_size,
                                 .heads = group,
                                 .tokens = 1,
                                 .last_constant = EACH_KEYS};
}

static struct prefill_form rows_form(const struct vk_caps *caps, const struct layer_shape *shape,
                                     uint32_t lane_rows)
{
    struct prefill_form form = {.shader = &rows_shader,
                                .name = "rows in variables",
                                .reason = "",
                                .invocations = caps->subgroup_size,
                                .rows = caps->subgroup_size * lane_rows,
                                .last_constant = ROWS_KEYS};
    split_rows(&form, shape->query_heads / shape->kv_heads);
    return form;
}

/* Cycles of a row and a key, at head size 128, in llvmpipe. */
static double rows_cycles(uint32_t lane_rows)
{
    return 154 + 820.0 / lane_rows;
}

/* The best for queries that attend so many keys: rows that go together share the
 * loads of each key, but what they attend together grows with them. */
static struct prefill_form vector_form(const struct vk_caps *caps,
                                       const struct layer_shape *shape, double keys)
{
    struct prefill_form best = each_form(caps, shape);
    double least = ceil(keys / EACH_KEYS) * EACH_KEYS * 1000;
    for (uint32_t lane_rows = ROWS_MOST; lane_rows; lane_rows /= 2) {
        struct prefill_form form = rows_form(caps, shape, lane_rows);
        double blocks = ceil((keys + form.tokens - 1) / ROWS_KEYS);
        double cost = blocks * ROWS_KEYS * rows_cycles(lane_rows);
        if (cost < least) {
            best = form;
            least = cost;
        }
    }
    return best;
}

struct prefill_form prefill_gathered_form(const struct vk_caps *caps,
                                          const struct layer_shape *shape, double rows,
                                          double all_keys)
{
    struct prefill_form best = shared_form(caps, shape);
    best.shader = &gathered_shader;
    if (runs_on_vectors(caps)) {
        double flop = 2 * all_keys * (shape->head_size + shape->value_size);
        double least = INFINITY;
        uint32_t most = flop < ROWS_FORM_FLOP ? 1 : ROWS_MOST;
        for (uint32_t lane_rows = most; lane_rows; lane_rows /= 2) {
            struct prefill_form form = rows_form(caps, shape, lane_rows);
            double cost = ceil(rows / form.rows) * form.rows * rows_cycles(lane_rows);
            if (cost < least) {
                best = form;
                least = cost;
            }
        }
        best.shader = &gathered_rows_shader;
    }
    best.heads = 1; /* each row has one of its own */
    return best;
}

static struct prefill_form choose(const struct vk_caps *caps, const struct attend_args *args)
{
    const struct layer_shape *shape = args->shape;
    if (!runs_on_vectors(caps))
        return shared_form(caps, shape);
    double queries = (double)args->cls->tile_queries, all = (double)args->cls->tile_keys;
    double flop = 2 * all * shape->query_heads * (shape->head_size + shape->value_size);
    return flop < ROWS_FORM_FLOP ? each_form(caps, shape)
                                 : vector_form(caps, shape, all / queries);
}

struct prefill_form prefill_form(const struct vk_caps *caps, const struct layer_shape *shape)
{
    return runs_on_vectors(caps) ? rows_form(caps, shape, ROWS_MOST) : shared_form(caps, shape);
}

uint32_t prefill_most_keys(const struct vk_caps *caps, const struct layer_shape *shape)
{
    if (!runs_on_vectors(caps))
        return 0;
    uint32_t channels = shape->head_size + shape->value_size;
    uint32_t each = (LLVMPIPE_LOOPS - channels) / (channels / 8 + 1) * EACH_KEYS;
    uint32_t rows = (LLVMPIPE_LOOPS - ROWS_MOST * channels) / (channels / 2 + ROWS_MOST + 4) *
                    ROWS_KEYS;
    return each < rows ? each : rows;
}

ratp_status kernels_attend_prompt(struct backend *b, struct stream *s,
                                  const struct attend_args *args, struct plan_list tiles,
                                  struct error *err)
{
    if (tiles.count == 0)
        return RATP_OK;
    const struct vk_caps *caps = vk_device_caps(kernel_device(b));
    const struct layer_shape *shape = args->shape;
    struct prefill_form form = choose(caps, args);
    const uint32_t own[] = {form.invocations, form.rows, form.heads, form.last_constant};
    struct attend_kernel k;
    attend_kernel_init(&k, args, form.shader, own, sizeof own / sizeof *own);
    uint32_t blocks = shape->query_heads / shape->kv_heads / form.heads;
    return items_dispatch(s, &k.items, tiles, sizeof(struct gpu_tile),
                          shape->kv_heads * blocks,
                          groups_of(prefill_form(caps, shape).tokens * form.heads, form.rows), err);
}
