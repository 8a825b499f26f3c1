/* Attention of prompts. */
#include "attend.h"

#include <math.h>

#include <vulkan/vulkan_core.h>

#include "prefill.spv.h"
#include "prefill_each.spv.h"
#include "prefill_gathered.spv.h"
#ifdef HAVE_MATRIX_SHADERS
#include "prefill_matrix.spv.h"
#include "prefill_matrix_gathered.spv.h"
#endif
#include "prefill_rows.spv.h"
#include "prefill_rows_gathered.spv.h"

static const struct vk_shader shared_shader = VK_SHADER(prefill, struct attend_push);
static const struct vk_shader each_shader = VK_SHADER(prefill_each, struct attend_push);
static const struct vk_shader rows_shader = VK_SHADER(prefill_rows, struct attend_push);
static const struct vk_shader gathered_shader = VK_SHADER(prefill_gathered, struct attend_push);
static const struct vk_shader gathered_rows_shader =
    VK_SHADER(prefill_rows_gathered, struct attend_push);
#ifdef HAVE_MATRIX_SHADERS
static const struct vk_shader matrix_shader = VK_SHADER_FULL(prefill_matrix, struct attend_push);
static const struct vk_shader gathered_matrix_shader =
    VK_SHADER_FULL(prefill_matrix_gathered, struct attend_push);
static const struct vk_shader *const matrix_shaders[] = {&matrix_shader, &gathered_matrix_shader};
#else
static const struct vk_shader *const matrix_shaders[] = {NULL, NULL};
#endif

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
    ROWS_MOST = 16,
    /* As in prefill_matrix.comp. A subgroup's matrices of queries and sums fill the
     * registers of NVIDIA's invocations, 255, at 320 channels of a row. */
    MATRIX_KEYS = 32,
    MATRIX_SUBGROUPS = 4,
    MATRIX_CHANNELS = 16,
    MATRIX_MOST_CHANNELS = 320
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
    struct prefill_form form = {.way = PREFILL_SHARED,
                                .shader = &shared_shader,
                                .name = "through shared memory",
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
    return (struct prefill_form){.way = PREFILL_EACH,
                                 .shader = &each_shader,
                                 .name = "a row to an invocation",
                                 .invocations = caps->subgroup_size,
                                 .rows = caps->subgroup_size,
                                 .heads = group,
                                 .tokens = 1,
                                 .last_constant = EACH_KEYS};
}

static struct prefill_form rows_form(const struct vk_caps *caps, const struct layer_shape *shape,
                                     uint32_t lane_rows)
{
    struct prefill_form form = {.way = PREFILL_ROWS,
                                .shader = &rows_shader,
                                .name = "rows in variables",
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

/* Workgroup memory of prefill_matrix.comp. */
static uint32_t matrix_bytes(const struct vk_caps *caps, const struct layer_shape *shape)
{
    uint32_t rows = MATRIX_SUBGROUPS * caps->matrix.rows;
    uint32_t k_stride = shape->head_size / 8 + 1, v_stride = shape->value_size / 8 + 1;
    uint32_t block = MATRIX_KEYS * (k_stride + v_stride), queries = rows * k_stride;
    uint32_t vectors = (block > queries ? block : queries) + rows * (MATRIX_KEYS / 4 + 1) +
                       2 * rows * (MATRIX_KEYS / 8 + 1) + MATRIX_KEYS + 2 * MATRIX_SUBGROUPS;
    return vectors * 16;
}

const char *prefill_no_matrix(const struct vk_caps *caps, const struct layer_shape *shape)
{
    const uint32_t needed = VK_SUBGROUP_FEATURE_BASIC_BIT | VK_SUBGROUP_FEATURE_VOTE_BIT |
                            VK_SUBGROUP_FEATURE_ARITHMETIC_BIT | VK_SUBGROUP_FEATURE_SHUFFLE_BIT;
    if (!caps->cooperative_matrix)
        return "the device lacks VK_KHR_cooperative_matrix";
    if (!matrix_shaders[0])
        return "this build has no cooperative-matrix form: its glslang cannot compile one";
    uint32_t subgroup = caps->subgroup_size, invocations = MATRIX_SUBGROUPS * subgroup;
    if (!caps->matrix.rows || subgroup % caps->matrix.rows != 0)
        return "the device's cooperative matrices are of other types or shapes";
    if (!caps->full_subgroups || (caps->subgroup_operations & needed) != needed)
        return "no full subgroups of a known size, or too few subgroup operations";
    if (invocations > caps->max_invocations || invocations % MATRIX_KEYS != 0)
        return "the device's subgroups have an odd size";
    if (shape->k_dtype != RATP_F16 || shape->v_dtype != RATP_F16)
        return "cooperative matrices are used of a float16 cache alone";
    if (shape->head_size % MATRIX_CHANNELS != 0 || shape->value_size % MATRIX_CHANNELS != 0)
        return "cooperative matrices are used where rows are multiples of 16 channels";
    if (shape->head_size + shape->value_size > MATRIX_MOST_CHANNELS)
        return "rows are too long for cooperative matrices";
    if (matrix_bytes(caps, shape) > caps->shared_bytes)
        return "too little shared memory for cooperative matrices";
    return NULL;
}

static struct prefill_form matrix_form(const struct vk_caps *caps,
                                       const struct layer_shape *shape)
{
    struct prefill_form form = {.way = PREFILL_MATRIX,
                                .shader = matrix_shaders[0],
                                .name = "cooperative matrices",
                                .invocations = MATRIX_SUBGROUPS * caps->subgroup_size,
                                .rows = MATRIX_SUBGROUPS * caps->matrix.rows,
                                .last_constant = MATRIX_KEYS};
    split_rows(&form, shape->query_heads / shape->kv_heads);
    return form;
}

void prefill_constants(const struct vk_caps *caps, const struct prefill_form *form,
                       uint32_t own[PREFILL_CONSTANTS])
{
    const struct vk_matrix *m = &caps->matrix;
    const uint32_t all[PREFILL_CONSTANTS] = {form->invocations, form->rows, form->heads,
                                             form->last_constant, caps->subgroup_size,
                                             m->rows, m->columns, m->depth,
                                             caps->software};
    for (uint32_t i = 0; i < PREFILL_CONSTANTS; i++)
        own[i] = all[i];
}

bool prefill_runs(const struct vk_caps *caps, const struct layer_shape *shape,
                  enum prefill_way way)
{
    switch (way) {
    case PREFILL_MATRIX:
        return !prefill_no_matrix(caps, shape);
    case PREFILL_EACH:
    case PREFILL_ROWS:
        return runs_on_vectors(caps);
    default:
        return true;
    }
}

static enum prefill_way usual_way(const struct kernel_backend *k, const struct layer_shape *shape)
{
    const struct vk_caps *caps = vk_device_caps(k->vk);
    if (k->wanted_prefill != PREFILL_BEST && prefill_runs(caps, shape, k->wanted_prefill))
        return k->wanted_prefill;
    if (runs_on_vectors(caps))
        return PREFILL_ROWS;
    return prefill_runs(caps, shape, PREFILL_MATRIX) ? PREFILL_MATRIX : PREFILL_SHARED;
}

struct prefill_form prefill_gathered_form(const struct kernel_backend *k,
                                          const struct layer_shape *shape, double rows,
                                          double all_keys)
{
    const struct vk_caps *caps = vk_device_caps(k->vk);
    double flop = 2 * all_keys * (shape->head_size + shape->value_size);
    uint32_t most = flop < ROWS_FORM_FLOP ? 1 : ROWS_MOST;
    double least = INFINITY;
    struct prefill_form best;
    switch (usual_way(k, shape)) {
    case PREFILL_MATRIX:
        best = matrix_form(caps, shape);
        best.shader = matrix_shaders[1];
        break;
    case PREFILL_SHARED:
        best = shared_form(caps, shape);
        best.shader = &gathered_shader;
        break;
    default:
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

struct prefill_form prefill_form(const struct kernel_backend *k, const struct layer_shape *shape)
{
    const struct vk_caps *caps = vk_device_caps(k->vk);
    switch (usual_way(k, shape)) {
    case PREFILL_MATRIX:
        return matrix_form(caps, shape);
    case PREFILL_SHARED:
        return shared_form(caps, shape);
    default:
        return rows_form(caps, shape, ROWS_MOST);
    }
}

/* On vectors the best form depends on the work too. */
static struct prefill_form choose(const struct kernel_backend *k, const struct attend_args *args)
{
    const struct layer_shape *shape = args->shape;
    const struct vk_caps *caps = vk_device_caps(k->vk);
    enum prefill_way way = usual_way(k, shape);
    if (way == PREFILL_EACH)
        return each_form(caps, shape);
    if (way != PREFILL_ROWS || way == k->wanted_prefill)
        return prefill_form(k, shape);
    double queries = (double)args->cls->tile_queries, all = (double)args->cls->tile_keys;
    double flop = 2 * all * shape->query_heads * (shape->head_size + shape->value_size);
    return flop < ROWS_FORM_FLOP ? each_form(caps, shape)
                                 : vector_form(caps, shape, all / queries);
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
    const struct kernel_backend *kernels = (const struct kernel_backend *)b;
    const struct layer_shape *shape = args->shape;
    struct prefill_form form = choose(kernels, args);
    uint32_t own[PREFILL_CONSTANTS];
    prefill_constants(vk_device_caps(kernels->vk), &form, own);
    struct attend_kernel k;
    attend_kernel_init(&k, args, form.shader, own, PREFILL_CONSTANTS);
    uint32_t blocks = shape->query_heads / shape->kv_heads / form.heads;
    return items_dispatch(s, &k.items, tiles, sizeof(struct gpu_tile),
                          shape->kv_heads * blocks,
                          groups_of(prefill_form(kernels, shape).tokens * form.heads, form.rows),
                          err);
}
