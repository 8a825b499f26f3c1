/* The engine in plain C: weights are read from their file as they are used, operands
 * are handed to the plugin as host pointers. */
#include "engine.h"
#include "plugin.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct host_engine {
    struct engine base;
    float *x;         /* [chunk][d_model]: the residual stream */
    float *normed;    /* [chunk][d_model] */
    float *projected; /* [chunk][parts * d_model]: as in_proj gives them */
    float *attended;  /* [chunk][d_model] */
    float *hidden;    /* [chunk][feed_forward] */
    float *block;     /* some rows of a weight as float32 */
};

/* What config.json's sizes are multiples of, and how many numbers of a weight are read
 * at once, where its rows are not longer. */
enum { LANES = 8, BLOCK = 1 << 16 };

enum finish { FINISH_STORE, FINISH_GELU, FINISH_ADD, FINISH_GATED };

static double gelu(double x)
{
    return 0.5 * x * (1 + erf(x * 0.70710678118654752440));
}

static double silu(double x)
{
    return x / (1 + exp(-x));
}

/* Several short sums in float32, so that the compiler may use vectors; sizes are
 * multiples of LANES. */
static double dot(const float *restrict a, const float *restrict b, uint64_t count)
{
    float lanes[LANES] = {0};
    double sum = 0;
    for (uint64_t i = 0; i < count; i += LANES)
        for (uint32_t lane = 0; lane < LANES; lane++)
            lanes[lane] += a[i + lane] * b[i + lane];
    for (uint32_t lane = 0; lane < LANES; lane++)
        sum += (double)lanes[lane];
    return sum;
}

/* y[row][n] = finish(x[row] . w[n]) */
static bool product(struct host_engine *e, const float *x, uint32_t rows,
                    const struct st_tensor *w, float *y, enum finish finish,
                    struct problem *problem)
{
    const uint64_t outer = w->shape[0], inner = w->shape[1];
    const uint64_t at_once = inner < BLOCK ? BLOCK / inner : 1;
    for (uint64_t n = 0; n < outer; n++) {
        const uint64_t place = n % at_once, left = outer - n;
        if (place == 0 && !st_read_f32(w, n * inner, (left < at_once ? left : at_once) * inner,
                                       e->block, problem))
            return false;
        for (uint32_t row = 0; row < rows; row++) {
            const float *from = x + row * inner;
            float *to = y + row * outer + n;
            double sum = dot(from, e->block + place * inner, inner);
            if (finish == FINISH_GELU)
                sum = gelu(sum);
            else if (finish == FINISH_ADD)
                sum += (double)*to;
            else if (finish == FINISH_GATED)
                sum *= silu((double)*to);
            *to = (float)sum;
        }
    }
    return true;
}

static bool norm(struct host_engine *e, const float *x, uint32_t rows,
                 const struct st_tensor *weight, float *y, struct problem *problem)
{
    const uint32_t d = e->base.model->config.d_model;
    if (!st_read_f32(weight, 0, d, e->block, problem))
        return false;
    for (uint32_t row = 0; row < rows; row++, x += d, y += d) {
        double sum = 0;
        for (uint32_t i = 0; i < d; i++)
            sum += (double)x[i] * (double)x[i];
        const double factor = 1 / sqrt(sum / d + (double)e->base.model->config.norm_eps);
        for (uint32_t i = 0; i < d; i++)
            y[i] = (float)((double)x[i] * factor * (double)e->block[i]);
    }
    return true;
}

static bool attend(struct host_engine *e, ratp_step *step, uint32_t layer,
                   struct problem *problem)
{
    const struct model_config *config = &e->base.model->config;
    const uint32_t d = config->d_model, count = model_parts(config);
    const uint32_t q = config->memory ? 1 : 0; /* o stands before it */
    struct ratp_tensor parts[5], out = {.struct_size = sizeof out, .host = e->attended};
    for (uint32_t i = 0; i < count; i++)
        parts[i] = (struct ratp_tensor){
            .struct_size = sizeof *parts,
            .host = e->projected + i * d,
            .token_stride = count * (uint64_t)d * sizeof(float),
        };
    const struct ratp_attend_io io = {
        .struct_size = sizeof io,
        .o = config->memory ? &parts[0] : NULL,
        .q = &parts[q],
        .k = &parts[q + 1],
        .v = &parts[q + 2],
        .f = config->memory ? &parts[q + 3] : NULL,
        .out = &out,
    };
    return plugin_check(e->base.ratp, e->base.ratp->step_attend(step, layer, &io), step, "attend",
                        problem);
}

static bool run_layer(struct host_engine *e, ratp_step *step, uint32_t i, uint32_t rows,
                      struct problem *problem)
{
    const struct model_layer *layer = &e->base.model->layers[i];
    const enum finish up = layer->gate ? FINISH_GATED : FINISH_GELU;
    return norm(e, e->x, rows, layer->attention_norm, e->normed, problem) &&
           product(e, e->normed, rows, layer->in_proj, e->projected, FINISH_STORE, problem) &&
           attend(e, step, i, problem) &&
           product(e, e->attended, rows, layer->out_proj, e->x, FINISH_ADD, problem) &&
           norm(e, e->x, rows, layer->ffn_norm, e->normed, problem) &&
           (!layer->gate ||
            product(e, e->normed, rows, layer->gate, e->hidden, FINISH_STORE, problem)) &&
           product(e, e->normed, rows, layer->up, e->hidden, up, problem) &&
           product(e, e->hidden, rows, layer->down, e->x, FINISH_ADD, problem);
}

static bool forward(struct engine *engine, const struct engine_step *step,
                    struct problem *problem)
{
    struct host_engine *e = (struct host_engine *)engine;
    const struct ratp_api *ratp = engine->ratp;
    const struct model *model = engine->model;
    const uint32_t d = model->config.d_model, rows = step->count;
    const struct ratp_step_params params = {.struct_size = sizeof params,
                                            .count = 1,
                                            .seqs = &step->seq,
                                            .n_tokens = &rows,
                                            .kinds = &step->kind};
    ratp_step *open = NULL;
    if (!plugin_check(ratp, ratp->step_begin(step->cache, &params, &open), step->cache,
                      "begin a step", problem))
        return false;

    bool good = true;
    for (uint32_t row = 0; row < rows && good; row++)
        good = st_read_f32(model->embedding, (uint64_t)step->tokens[row] * d, d,
                           e->x + (size_t)row * d, problem);
    for (uint32_t i = 0; i < model->config.layers && good; i++)
        good = run_layer(e, open, i, rows, problem);
    /* Before the step is committed, so that no failure comes after that. */
    const uint32_t first = step->all_logits ? 0 : rows - 1;
    good = good &&
           norm(e, e->x + (size_t)first * d, rows - first, model->norm, e->normed, problem) &&
           product(e, e->normed, rows - first, model->head, step->logits, FINISH_STORE,
                   problem) &&
           plugin_check(ratp, ratp->step_commit(&open), open, "commit a step", problem);
    if (!good)
        ratp->step_abort(&open);
    return good;
}

static void close_host(struct engine *engine)
{
    struct host_engine *e = (struct host_engine *)engine;
    if (engine->device)
        engine->ratp->device_close(&engine->device);
    engine->ratp->instance_destroy(&engine->instance);
    free(e->x);
    free(e->normed);
    free(e->projected);
    free(e->attended);
    free(e->hidden);
    free(e->block);
    free(e);
}

static const struct engine_kind host_kind = {.forward = forward, .close = close_host};

bool engine_open_host(const struct engine *base, struct engine **out, struct problem *problem)
{
    const struct model_config *config = &base->model->config;
    const struct ratp_device_params params = {.struct_size = sizeof params, .name = "reference"};
    ratp_device *device = NULL;
    if (!plugin_check(base->ratp, base->ratp->device_open(base->instance, &params, &device),
                      base->instance, "the reference device", problem))
        return false;

    struct host_engine *e = calloc(1, sizeof *e);
    if (!e) {
        base->ratp->device_close(&device);
        return problem_set(problem, "out of memory");
    }
    e->base = *base;
    e->base.kind = &host_kind;
    e->base.device = device;
    strcpy(e->base.name, "reference");
    const size_t chunk = base->options.chunk, d = config->d_model, ff = config->feed_forward;
    e->x = malloc(chunk * d * sizeof(float));
    e->normed = malloc(chunk * d * sizeof(float));
    e->projected = malloc(chunk * model_parts(config) * d * sizeof(float));
    e->attended = malloc(chunk * d * sizeof(float));
    e->hidden = malloc(chunk * ff * sizeof(float));
    const size_t longest = ff > d ? ff : d;
    e->block = malloc((longest > BLOCK ? longest : BLOCK) * sizeof(float));
    *out = &e->base;
    if (e->x && e->normed && e->projected && e->attended && e->hidden && e->block)
        return true;
    problem_set(problem, "out of memory for chunks of %zu tokens", chunk);
    /* The caller still owns the instance. */
    e->base.instance = NULL;
    engine_close(out);
    return false;
}
