/* Runs the plugin and times it: everything is in buffers, and a run ends when
 * the device is done. */
#include "bench.h"
#include "plugin.h"
#include "terminal.h"
#include "variant.h"

#include <stdlib.h>

/* A shorter prompt compiles the same pipelines, when its work is enough for the
 * forms that large prompts get. */
#define WARM_TOKENS 256
#define WARM_FLOPS 1e9
#define WARM_STEPS 3

/* One layer's operands, packed. */
struct operands {
    ratp_buffer *buffers[6];
    struct ratp_tensor tensors[6];
    struct ratp_attend_io io;
};

/* A cache with sequences, one for each of the batch. */
struct cached {
    struct bench *bench;
    uint32_t batch;
    ratp_policy *policy;
    ratp_cache *cache;
    ratp_seq **seqs;
    uint32_t *n_tokens;
    struct operands operands;
};

static bool row_add(struct bench *b, const struct row *row, struct problem *problem)
{
    if (b->row_count == MAX_ROWS)
        return problem_set(problem, "more than %d rows", MAX_ROWS);
    b->rows[b->row_count++] = *row;
    return true;
}

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

static bool operands_create(struct bench *b, uint64_t rows, uint32_t query_heads,
                            struct operands *o, struct problem *problem)
{
    const ratp_dtype dtype = b->options.dtype;
    const uint64_t head = rows * b->options.head_size * dtype_size(dtype);
    const uint64_t q = head * query_heads, k = head * b->options.kv_heads;
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

static bool seqs_destroy(struct cached *c, struct problem *problem)
{
    for (uint32_t i = 0; c->seqs && i < c->batch; i++)
        if (c->seqs[i] && !check(c->bench, c->bench->ratp->seq_destroy(&c->seqs[i]), c->seqs[i],
                                 "drop a sequence", problem))
            return false;
    return true;
}

static bool seqs_create(struct cached *c, struct problem *problem)
{
    for (uint32_t i = 0; i < c->batch; i++)
        if (!check(c->bench, c->bench->ratp->seq_create(c->cache, &c->seqs[i]), c->cache,
                   "a sequence", problem))
            return false;
    return true;
}

static void cached_close(struct cached *c)
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

struct shape {
    const struct ratp_variant *variant;
    uint32_t query_heads, tokens, batch;
    ratp_retention retention;
};

static bool cached_open(struct bench *b, const struct shape *shape, struct cached *c,
                        struct problem *problem)
{
    const struct bench_options *o = &b->options;
    const struct ratp_api *ratp = b->ratp;
    *c = (struct cached){.bench = b, .batch = shape->batch};
    c->seqs = calloc(shape->batch, sizeof(ratp_seq *));
    c->n_tokens = calloc(shape->batch, sizeof *c->n_tokens);
    if (!c->seqs || !c->n_tokens) {
        problem_set(problem, "out of memory");
        goto error;
    }
    const struct ratp_rope rope = {.struct_size = sizeof rope, .style = RATP_ROPE_HALF};
    const struct ratp_geometry geometry = {
        .struct_size = sizeof geometry,
        .layers = 1,
        .query_heads = shape->query_heads,
        .kv_heads = o->kv_heads,
        .head_size = o->head_size,
        .memory = 1,
        .max_tokens = shape->tokens + o->repeat + WARM_STEPS,
        .rope = &rope,
    };
    const struct ratp_range all = {0, 0};
    if (!check(b, ratp->policy_create(b->instance, &c->policy), b->instance, "a policy",
               problem) ||
        !check(b, ratp->policy_set(c->policy, all, all, shape->variant), c->policy,
               "the variant", problem))
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
        !operands_create(b, (uint64_t)shape->tokens * shape->batch, shape->query_heads,
                         &c->operands, problem))
        goto error;
    return true;

error:
    cached_close(c);
    return false;
}

/* `tokens` new ones of each sequence. */
static bool timed_step(struct cached *c, uint32_t tokens, double *seconds,
                       struct problem *problem)
{
    struct bench *b = c->bench;
    const struct ratp_api *ratp = b->ratp;
    for (uint32_t i = 0; i < c->batch; i++)
        c->n_tokens[i] = tokens;
    const struct ratp_step_params params = {.struct_size = sizeof params,
                                            .count = c->batch,
                                            .seqs = c->seqs,
                                            .n_tokens = c->n_tokens};
    ratp_step *step = NULL;
    const double start = seconds_now();
    if (!check(b, ratp->step_begin(c->cache, &params, &step), c->cache, "begin a step", problem))
        return false;
    if (!check(b, ratp->step_attend(step, 0, &c->operands.io), step, "attend", problem) ||
        !check(b, ratp->step_commit(&step), step, "commit a step", problem)) {
        ratp->step_abort(&step);
        return false;
    }
    if (!check(b, ratp->device_wait(b->device), b->device, "wait", problem))
        return false;
    *seconds = seconds_now() - start;
    return true;
}

/* Prompts through new sequences; the last run's stay. */
static bool time_prompts(struct cached *c, const struct ratp_variant *variant, uint32_t tokens,
                         struct stopwatch *watch, struct problem *problem)
{
    double seconds;
    uint32_t warm = WARM_TOKENS;
    while (warm < tokens &&
           work_prefill(&c->bench->options, variant, warm, c->batch).flops < WARM_FLOPS)
        warm *= 2;
    warm = warm < tokens ? warm : tokens;
    if (!seqs_create(c, problem) || !timed_step(c, warm, &seconds, problem))
        return false;
    while (stopwatch_wants_more(watch)) {
        if (!seqs_destroy(c, problem) || !seqs_create(c, problem) ||
            !timed_step(c, tokens, &seconds, problem))
            return false;
        stopwatch_add(watch, seconds);
    }
    return true;
}

static bool time_tokens(struct cached *c, struct stopwatch *watch, struct problem *problem)
{
    double seconds;
    for (int i = 0; i < WARM_STEPS; i++)
        if (!timed_step(c, 1, &seconds, problem))
            return false;
    while (stopwatch_wants_more(watch)) {
        if (!timed_step(c, 1, &seconds, problem))
            return false;
        stopwatch_add(watch, seconds);
    }
    return true;
}

static bool held_bytes(struct cached *c, uint64_t *bytes, struct problem *problem)
{
    struct ratp_cache_stats stats = {.struct_size = sizeof stats};
    if (!check(c->bench, c->bench->ratp->cache_stats(c->cache, &stats), c->cache,
               "the cache's statistics", problem))
        return false;
    *bytes = stats.used_bytes + stats.state_bytes;
    return true;
}

static void row_begin(const struct bench *b, enum phase phase, const struct shape *shape,
                      struct row *row)
{
    *row = (struct row){
        .phase = phase,
        .tokens = shape->tokens,
        .batch = shape->batch,
        .query_heads = shape->query_heads,
        .kv_heads = b->options.kv_heads,
    };
    variant_to_name(shape->variant, row->variant, sizeof row->variant);
}

bool measure_cached(struct bench *b, const struct ratp_variant *variant, uint32_t tokens,
                    uint32_t batch, bool prefill, bool decode, struct problem *problem)
{
    const struct bench_options *o = &b->options;
    const struct shape shape = {variant, o->query_heads, tokens, batch, o->retention};
    struct cached c;
    struct stopwatch *prompts = NULL, *steps = NULL;
    struct row row;
    bool good = false;
    if (!cached_open(b, &shape, &c, problem))
        return false;
    if (!stopwatch_open(prefill ? o->repeat : 1, &prompts, problem) ||
        !stopwatch_open(o->repeat, &steps, problem) ||
        !time_prompts(&c, variant, tokens, prompts, problem))
        goto error;
    if (prefill) {
        row_begin(b, PHASE_PREFILL, &shape, &row);
        row.time = stopwatch_read(prompts);
        row.work = work_prefill(o, variant, tokens, batch);
        if (!held_bytes(&c, &row.cache_bytes, problem) || !row_add(b, &row, problem))
            goto error;
    }
    if (decode) {
        row_begin(b, PHASE_DECODE, &shape, &row);
        if (!held_bytes(&c, &row.cache_bytes, problem) || !time_tokens(&c, steps, problem))
            goto error;
        row.time = stopwatch_read(steps);
        row.work = work_decode(o, variant, tokens + WARM_STEPS + row.time.runs / 2, batch);
        if (!row_add(b, &row, problem))
            goto error;
    }
    good = true;

error:
    stopwatch_close(prompts);
    stopwatch_close(steps);
    cached_close(&c);
    return good;
}

static bool timed_external(struct bench *b, const struct ratp_external *params, double *seconds,
                           struct problem *problem)
{
    const double start = seconds_now();
    if (!check(b, b->ratp->attend_external(b->device, params), b->device, "attend", problem) ||
        !check(b, b->ratp->device_wait(b->device), b->device, "wait", problem))
        return false;
    *seconds = seconds_now() - start;
    return true;
}

/* `queries` at the end of T keys; adds no row. */
static bool time_external(struct bench *b, const struct shape *shape, uint32_t queries,
                          struct timing *time, struct problem *problem)
{
    const struct bench_options *o = &b->options;
    const uint64_t head = (uint64_t)shape->batch * o->head_size;
    const uint64_t q_size = head * queries * shape->query_heads * dtype_size(o->dtype);
    const uint64_t k_size = head * shape->tokens * o->kv_heads * dtype_size(o->cache_dtype);
    const struct {
        uint64_t size;
        ratp_dtype dtype;
    } list[4] = {{q_size, o->dtype}, {k_size, o->cache_dtype}, {k_size, o->cache_dtype},
                 {q_size, o->dtype}};
    ratp_buffer *buffers[4] = {NULL};
    struct ratp_tensor t[4];
    struct stopwatch *watch = NULL;
    double seconds;
    bool good = false;
    for (int i = 0; i < 4; i++) {
        if (!numbers_create(b, list[i].size, list[i].dtype, &buffers[i], problem))
            goto error;
        t[i] = (struct ratp_tensor){
            .struct_size = sizeof *t, .buffer = buffers[i], .dtype = list[i].dtype};
    }
    const struct ratp_external params = {
        .struct_size = sizeof params,
        .batch = shape->batch,
        .query_tokens = queries,
        .key_tokens = shape->tokens,
        .query_heads = shape->query_heads,
        .kv_heads = o->kv_heads,
        .head_size = o->head_size,
        .causal = 1,
        .first_position = shape->tokens - queries,
        .variant = shape->variant,
        .q = &t[0], .k = &t[1], .v = &t[2], .out = &t[3],
    };
    if (!stopwatch_open(o->repeat, &watch, problem))
        goto error;
    for (int i = 0; i < WARM_STEPS; i++)
        if (!timed_external(b, &params, &seconds, problem))
            goto error;
    while (stopwatch_wants_more(watch)) {
        if (!timed_external(b, &params, &seconds, problem))
            goto error;
        stopwatch_add(watch, seconds);
    }
    *time = stopwatch_read(watch);
    good = true;

error:
    stopwatch_close(watch);
    for (int i = 0; i < 4; i++)
        if (buffers[i])
            b->ratp->buffer_destroy(&buffers[i]);
    return good;
}

bool measure_external(struct bench *b, const struct ratp_variant *variant, uint32_t tokens,
                      uint32_t batch, struct problem *problem)
{
    const struct bench_options *o = &b->options;
    const struct shape shape = {variant, o->query_heads, tokens, batch, o->retention};
    struct row row;
    row_begin(b, PHASE_EXTERNAL, &shape, &row);
    row.work = work_external(o, variant, tokens, batch);
    return time_external(b, &shape, 1, &row.time, problem) && row_add(b, &row, problem);
}

bool measure_scan(struct bench *b, uint32_t tokens, uint32_t batch, struct problem *problem)
{
    const struct ratp_variant own_token = {.struct_size = sizeof own_token,
                                           .kind = RATP_STREAMING};
    const struct shape shape = {&own_token, b->options.kv_heads, tokens, batch,
                                RATP_RETAIN_FULL};
    struct cached c;
    struct stopwatch *watch = NULL;
    struct timing attention;
    struct row row;
    bool good = false;
    if (!cached_open(b, &shape, &c, problem))
        return false;
    if (!stopwatch_open(b->options.repeat, &watch, problem) ||
        !time_prompts(&c, &own_token, tokens, watch, problem))
        goto error;
    row_begin(b, PHASE_SCAN, &shape, &row);
    row.time = stopwatch_read(watch);
    row.work = work_scan(&b->options, tokens, batch);
    if (!time_external(b, &shape, tokens, &attention, problem))
        goto error;
    row.attention_seconds = attention.median;
    good = held_bytes(&c, &row.cache_bytes, problem) && row_add(b, &row, problem);

error:
    stopwatch_close(watch);
    cached_close(&c);
    return good;
}
