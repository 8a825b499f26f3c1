/* Attention of prompts. */
#include "attend.h"

#include <math.h>

#include "prefill.spv.h"
#include "prefill_rows.spv.h"

static const struct vk_shader shared_shader = {"prefill", prefill_spv, sizeof prefill_spv,
                                               sizeof(struct attend_push), false};
static const struct vk_shader rows_shader = {"prefill_rows", prefill_rows_spv,
                                             sizeof prefill_rows_spv, sizeof(struct attend_push), false};

enum {
    /* As in prefill.comp. */
    BLOCK_KEYS = 32,
    ROW_LANES = 8,
    LANE_ROWS = 4,
    MAX_ROWS = 32,
    MAX_CHUNK = 64,
    /* Of prefill_rows.comp. */
    VARIABLE_ROWS = 16, /* of an invocation, at most */
    VARIABLE_KEYS = 16,
    /* Mesa's llvmpipe ends all loops of an invocation, without a word, once they
     * have run 65535 times together (LP_MAX_TGSI_LOOP_ITERATIONS). */
    LOOPS = 60000
};

/* The rows form takes seconds to compile: worth it from here on. */
static const double ROWS_FORM_FLOP = 1 << 28;

/* Workgroup memory of prefill.comp. */
static uint32_t shared_bytes(const struct layer_shape *shape, uint32_t rows, uint32_t chunk)
{
    uint32_t groups = rows / LANE_ROWS;
    uint32_t vectors = rows * (shape->head_size / 4 + 1) + BLOCK_KEYS * (chunk / 4 + 1) +
                       BLOCK_KEYS * (groups + 1) + ROW_LANES * groups + 2 * BLOCK_KEYS;
    return vectors * 16;
}

static void split_rows(struct prefill_form *form, uint32_t group)
{
    form->heads = group < form->rows ? group : form->rows;
    while (group % form->heads != 0)
        form->heads--;
    form->tokens = form->rows / form->heads;
}

struct prefill_form prefill_form(const struct vk_caps *caps, const struct layer_shape *shape)
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
    /* Loops that load and use a chunk of a block of keys. */
    uint32_t chunk = form.last_constant;
    uint32_t chunks = groups_of(shape->head_size, chunk) + groups_of(shape->value_size, chunk);
    uint32_t loads = BLOCK_KEYS * chunk / 4 / form.invocations;
    form.most_keys = LOOPS / (chunks * (loads + BLOCK_KEYS)) * BLOCK_KEYS;
    return form;
}

static struct prefill_form rows_form(const struct vk_caps *caps, const struct layer_shape *shape,
                                     uint32_t lane_rows)
{
    struct prefill_form form = {.shader = &rows_shader,
                                .name = "rows in variables",
                                .reason = "",
                                .invocations = caps->subgroup_size,
                                .rows = caps->subgroup_size * lane_rows,
                                .last_constant = VARIABLE_KEYS};
    split_rows(&form, shape->query_heads / shape->kv_heads);
    uint32_t once = lane_rows * (shape->head_size + shape->value_size) / 2;
    uint32_t loops = (shape->head_size + shape->value_size) / 2 + lane_rows + 4;
    form.most_keys = (LOOPS - once) / loops * VARIABLE_KEYS;
    return form;
}

struct prefill_form prefill_rows_form(const struct vk_caps *caps, const struct layer_shape *shape)
{
    return rows_form(caps, shape, VARIABLE_ROWS);
}

/* Many rows share the loads of each key, but a window's keys grow with them. */
static struct prefill_form best_rows_form(const struct vk_caps *caps,
                                          const struct layer_shape *shape, double keys)
{
    struct prefill_form best = {0};
    double least = 0;
    for (uint32_t lane_rows = VARIABLE_ROWS; lane_rows; lane_rows /= 2) {
        struct prefill_form form = rows_form(caps, shape, lane_rows);
        double blocks = ceil((keys + form.tokens - 1) / VARIABLE_KEYS);
        /* A load costs about as much as 7 multiplications. */
        double cost = blocks * (7.0 / lane_rows + 1);
        if (!best.rows || cost < least) {
            best = form;
            least = cost;
        }
    }
    return best;
}

static struct prefill_form choose(const struct vk_caps *caps, const struct attend_args *args)
{
    const struct layer_shape *shape = args->shape;
    const struct plan_class *cls = args->cls;
    struct prefill_form form = prefill_form(caps, shape);
    double queries = (double)cls->tile_queries;
    double keys = queries > 0 ? (double)cls->tile_keys / queries : 0;
    double flop = 2 * queries * (keys + form.tokens) * shape->query_heads *
                  (shape->head_size + shape->value_size);
    return caps->software && flop >= ROWS_FORM_FLOP ? best_rows_form(caps, shape, keys) : form;
}

uint32_t prefill_tile_tokens(const struct vk_caps *caps, const struct layer_shape *shape)
{
    return caps->software ? prefill_rows_form(caps, shape).tokens
                          : prefill_form(caps, shape).tokens;
}

uint32_t prefill_most_keys(const struct vk_caps *caps, const struct layer_shape *shape)
{
    if (!caps->software)
        return 0;
    uint32_t shared = prefill_form(caps, shape).most_keys;
    uint32_t rows = prefill_rows_form(caps, shape).most_keys;
    return shared < rows ? shared : rows;
}

ratp_status kernels_attend_prompt(struct backend *b, struct stream *s,
                                  const struct attend_args *args, struct error *err)
{
    if (args->cls->tiles.count == 0)
        return RATP_OK;
    const struct vk_caps *caps = vk_device_caps(kernel_device(b));
    const struct layer_shape *shape = args->shape;
    struct prefill_form form = choose(caps, args);
    const uint32_t own[] = {form.invocations, form.rows, form.heads, form.last_constant};
    struct attend_kernel k;
    attend_kernel_init(&k, args, form.shader, own, sizeof own / sizeof *own);
    uint32_t blocks = shape->query_heads / shape->kv_heads / form.heads;
    return items_dispatch(s, &k.items, args->cls->tiles, sizeof(struct gpu_tile),
                          shape->kv_heads * blocks,
                          groups_of(prefill_tile_tokens(caps, shape), form.tokens), err);
}
