/* The plugin's side of a measurement: everything is in buffers. */
#include "cached.h"
#include "plugin.h"
#include "terminal.h"

#include <stdlib.h>

static bool check(struct bench *b, ratp_status status, const void *object, const char *what,
                  struct problem *problem)
{
    return plugin_check(b->ratp, status, object, what, problem);
}

static void operands_destroy(struct bench *b, struct operands *o)
{
    for (size_t i = 0; i < sizeof o->buffers / sizeof *o->buffers; i++)
        if (o->buffers[i])
            b->ratp->buffer_destroy(&o->buffers[i]);
}

static bool operands_create(struct bench *b, const struct shape *shape, struct operands *o,
                            struct problem *problem)
{
    const ratp_dtype dtype = b->options.dtype;
    const uint64_t head = shape->rows * shape->head_size * dtype_size(dtype);
    const uint64_t q = head * shape->query_heads, k = head * shape->kv_heads;
    const uint64_t sizes[] = {q, k, k, k, q, q};
    struct ratp_tensor *t = o->tensors;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        if (!numbers_create(b, sizes[i], dtype, &o->buffers[i], problem))
            return false;
        t[i] = (struct ratp_tensor){
            .struct_size = sizeof *t, .buffer = o->buffers[i], .dtype = dtype};
    }
    o->io = (struct ratp_attend_io){
        .struct_size = sizeof o->io,
        .q = &t[0], .k = &t[1], .v = &t[2], .f = &t[3], .o = &t[4], .out = &t[5],
    };
    return true;
}

bool seqs_destroy(struct cached *c, struct problem *problem)
{
    for (uint32_t i = 0; c->seqs && i < c->batch; i++)
        if (c->seqs[i] && !check(c->bench, c->bench->ratp->seq_destroy(&c->seqs[i]), c->seqs[i],
                                 "drop a sequence", problem))
            return false;
    return true;
}

bool seqs_create(struct cached *c, struct problem *problem)
{
    for (uint32_t i = 0; i < c->batch; i++)
        if (!check(c->bench, c->bench->ratp->seq_create(c->cache, &c->seqs[i]), c->cache,
                   "a sequence", problem))
            return false;
    return true;
}

void cached_close(struct cached *c)
{
    const struct ratp_api *ratp = c->bench->ratp;
    struct problem ignored;
    seqs_destroy(c, &ignored);
    if (c->cache)
        ratp->cache_destroy(&c->cache);
    if (c->policy)
        ratp->policy_destroy(&c->policy);
    operands_destroy(c->bench, &c->operands);
    free(c->seqs);
    free(c->n_tokens);
}

bool policy_make(struct bench *b, const struct ratp_variant *variant, ratp_policy **out,
                 struct problem *problem)
{
    const struct ratp_range all = {0, 0};
    return check(b, b->ratp->policy_create(b->instance, out), b->instance, "a policy", problem) &&
           check(b, b->ratp->policy_set(*out, all, all, variant), *out, "the variant", problem);
}

bool cached_open(struct bench *b, const struct shape *shape, struct cached *c,
                 struct problem *problem)
{
    const struct bench_options *o = &b->options;
    const struct ratp_api *ratp = b->ratp;
    *c = (struct cached){.bench = b, .batch = shape->batch, .layers = shape->layers};
    c->seqs = calloc(shape->batch, sizeof(ratp_seq *));
    c->n_tokens = calloc(shape->batch, sizeof *c->n_tokens);
    if (!c->seqs || !c->n_tokens) {
        problem_set(problem, "out of memory");
        goto error;
    }
    const struct ratp_rope rope = {.struct_size = sizeof rope, .style = RATP_ROPE_HALF};
    const struct ratp_geometry geometry = {
        .struct_size = sizeof geometry,
        .layers = shape->layers,
        .query_heads = shape->query_heads,
        .kv_heads = shape->kv_heads,
        .head_size = shape->head_size,
        .memory = 1,
        .max_tokens = shape->tokens + 2 * (o->repeat + WARM_STEPS), /* decoded twice at most */
        .rope = &rope,
    };
    if (!policy_make(b, shape->variant, &c->policy, problem))
        goto error;
    const struct ratp_cache_params params = {
        .struct_size = sizeof params,
        .geometry = &geometry,
        .policy = c->policy,
        .k_dtype = o->cache_dtype,
        .v_dtype = o->cache_dtype,
        .retention = shape->retention,
    };
    if (!check(b, ratp->cache_create(b->device, &params, &c->cache), b->device, "a cache",
               problem) ||
        !operands_create(b, shape, &c->operands, problem))
        goto error;
    return true;

error:
    cached_close(c);
    return false;
}

bool timed_step(struct cached *c, uint32_t first, uint32_t count, uint32_t tokens,
                double *seconds, struct problem *problem)
{
    struct bench *b = c->bench;
    const struct ratp_api *ratp = b->ratp;
    for (uint32_t i = 0; i < count; i++)
        c->n_tokens[i] = tokens;
    const struct ratp_step_params params = {.struct_size = sizeof params,
                                            .count = count,
                                            .seqs = c->seqs + first,
                                            .n_tokens = c->n_tokens};
    ratp_step *step = NULL;
    const double start = seconds_now();
    if (!check(b, ratp->step_begin(c->cache, &params, &step), c->cache, "begin a step", problem))
        return false;
    bool good = true;
    for (uint32_t layer = 0; good && layer < c->layers; layer++)
        good = check(b, ratp->step_attend(step, layer, &c->operands.io), step, "attend", problem);
    if (!good || !check(b, ratp->step_commit(&step), step, "commit a step", problem)) {
        ratp->step_abort(&step);
        return false;
    }
    if (!check(b, ratp->device_wait(b->device), b->device, "wait", problem))
        return false;
    *seconds = (seconds_now() - start) / c->layers;
    return true;
}

bool time_tokens(struct cached *c, struct stopwatch *watch, struct problem *problem)
{
    double seconds;
    for (int i = 0; i < WARM_STEPS; i++)
        if (!timed_step(c, 0, c->batch, 1, &seconds, problem))
            return false;
    while (stopwatch_wants_more(watch)) {
        if (!timed_step(c, 0, c->batch, 1, &seconds, problem))
            return false;
        stopwatch_add(watch, seconds);
    }
    return true;
}

