/* Runs the plugin and times it: everything is in buffers, and a run ends when
 * the device is done. */
#include "cached.h"
#include "plugin.h"
#include "terminal.h"
#include "variant.h"

/* A shorter prompt compiles the same pipelines, when its work is enough for the
 * forms that large prompts get. */
#define WARM_TOKENS 256
#define WARM_FLOPS 1e9

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

/* A prompt of `tokens` through new sequences, in place of those that were there. */
static bool timed_prompt(struct cached *c, uint32_t tokens, double *seconds,
                         struct problem *problem)
{
    return seqs_destroy(c, problem) && seqs_create(c, problem) &&
           timed_step(c, 0, c->batch, tokens, seconds, problem);
}

/* The prompt that goes before those that are timed: it has `least` tokens, if they do. */
static uint32_t warm_tokens(const struct cached *c, const struct ratp_variant *variant,
                            uint32_t least, uint32_t tokens)
{
    uint32_t warm = WARM_TOKENS;
    while (warm < tokens &&
           (warm < least ||
            work_prefill(&c->bench->options, variant, warm, c->batch).flops < WARM_FLOPS))
        warm *= 2;
    return warm < tokens ? warm : tokens;
}

/* Prompts through new sequences; the last run's stay. */
static bool time_prompts(struct cached *c, const struct ratp_variant *variant, uint32_t tokens,
                         struct stopwatch *watch, struct problem *problem)
{
    double seconds;
    if (!timed_prompt(c, warm_tokens(c, variant, 1, tokens), &seconds, problem))
        return false;
    while (stopwatch_wants_more(watch)) {
        if (!timed_prompt(c, tokens, &seconds, problem))
            return false;
        stopwatch_add(watch, seconds);
    }
    return true;
}

/* Of all sequences; it ends when the device is done. The seconds are one layer's part. */
static bool timed_compression(struct cached *c, double *seconds, struct problem *problem)
{
    struct bench *b = c->bench;
    const double start = seconds_now();
    for (uint32_t i = 0; i < c->batch; i++)
        if (!check(b, b->ratp->seq_compress(c->seqs[i]), c->seqs[i], "compress a sequence",
                   problem))
            return false;
    if (!check(b, b->ratp->device_wait(b->device), b->device, "wait", problem))
        return false;
    *seconds = (seconds_now() - start) / c->layers;
    return true;
}

/* Prompts through new sequences, each followed by its compression. */
static bool time_compressions(struct cached *c, const struct ratp_variant *variant,
                              uint32_t tokens, struct stopwatch *prompts,
                              struct stopwatch *compressions, struct problem *problem)
{
    const uint32_t warm = warm_tokens(c, variant, variant->capacity + 1, tokens);
    double prompt, compression;
    if (!timed_prompt(c, warm, &prompt, problem) || !timed_compression(c, &compression, problem))
        return false;
    while (stopwatch_wants_more(prompts) && stopwatch_wants_more(compressions)) {
        if (!timed_prompt(c, tokens, &prompt, problem) ||
            !timed_compression(c, &compression, problem))
            return false;
        stopwatch_add(prompts, prompt);
        stopwatch_add(compressions, compression);
    }
    return true;
}

/* A layer's part of what the sequences hold. */
static bool held_bytes(struct cached *c, uint64_t *bytes, struct problem *problem)
{
    struct ratp_cache_stats stats = {.struct_size = sizeof stats};
    if (!check(c->bench, c->bench->ratp->cache_stats(c->cache, &stats), c->cache,
               "the cache's statistics", problem))
        return false;
    *bytes = (stats.used_bytes + stats.state_bytes) / c->layers;
    return true;
}

/* All of a prompt is one step. */
static struct shape shape_of(const struct bench_options *o, const struct ratp_variant *variant,
                             uint32_t tokens, uint32_t batch)
{
    return (struct shape){
        .variant = variant,
        .query_heads = o->query_heads,
        .kv_heads = o->kv_heads,
        .head_size = o->head_size,
        .tokens = tokens,
        .batch = batch,
        .layers = o->layers,
        .rows = (uint64_t)tokens * batch,
        .retention = o->retention,
    };
}

static void row_begin(enum phase phase, const struct shape *shape, struct row *row)
{
    *row = (struct row){
        .phase = phase,
        .tokens = shape->tokens,
        .batch = shape->batch,
        .query_heads = shape->query_heads,
        .kv_heads = shape->kv_heads,
    };
    variant_to_name(shape->variant, row->variant, sizeof row->variant);
}

bool measure_cached(struct bench *b, const struct ratp_variant *variant, uint32_t tokens,
                    uint32_t batch, bool prefill, bool decode, struct problem *problem)
{
    const struct bench_options *o = &b->options;
    const struct shape shape = shape_of(o, variant, tokens, batch);
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
        row_begin(PHASE_PREFILL, &shape, &row);
        row.time = stopwatch_read(prompts);
        row.work = work_prefill(o, variant, tokens, batch);
        if (!held_bytes(&c, &row.cache_bytes, problem) || !row_add(b, &row, problem))
            goto error;
    }
    if (decode) {
        row_begin(PHASE_DECODE, &shape, &row);
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
    const ratp_dtype cache = o->cache_dtype == RATP_Q8_0 ? RATP_F16 : o->cache_dtype;
    const uint64_t k_size = head * shape->tokens * o->kv_heads * dtype_size(cache);
    const struct {
        uint64_t size;
        ratp_dtype dtype;
    } list[4] = {{q_size, o->dtype}, {k_size, cache}, {k_size, cache}, {q_size, o->dtype}};
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
    const struct shape shape = shape_of(o, variant, tokens, batch);
    struct row row;
    row_begin(PHASE_EXTERNAL, &shape, &row);
    row.work = work_external(o, variant, tokens, batch);
    return time_external(b, &shape, 1, &row.time, problem) && row_add(b, &row, problem);
}

bool measure_compress(struct bench *b, const struct ratp_variant *variant, uint32_t tokens,
                      uint32_t batch, struct problem *problem)
{
    const struct bench_options *o = &b->options;
    const struct shape shape = shape_of(o, variant, tokens, batch);
    struct cached c;
    struct stopwatch *prompts = NULL, *compressions = NULL;
    struct row row;
    bool good = false;
    if (!cached_open(b, &shape, &c, problem))
        return false;
    if (!stopwatch_open(o->repeat, &prompts, problem) ||
        !stopwatch_open(o->repeat, &compressions, problem) ||
        !time_compressions(&c, variant, tokens, prompts, compressions, problem))
        goto error;
    row_begin(PHASE_COMPRESS, &shape, &row);
    row.time = stopwatch_read(compressions);
    row.work = work_compress(o, variant, tokens, batch);
    row.prompt_seconds = stopwatch_read(prompts).median;
    good = held_bytes(&c, &row.cache_bytes, problem) && row_add(b, &row, problem);

error:
    stopwatch_close(prompts);
    stopwatch_close(compressions);
    cached_close(&c);
    return good;
}

bool measure_scan(struct bench *b, uint32_t tokens, uint32_t batch, struct problem *problem)
{
    const struct ratp_variant own_token = {.struct_size = sizeof own_token,
                                           .kind = RATP_STREAMING};
    struct shape shape = shape_of(&b->options, &own_token, tokens, batch);
    shape.query_heads = shape.kv_heads;
    shape.layers = 1; /* as in the call without a cache, which has no layers */
    shape.retention = RATP_RETAIN_FULL;
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
    row_begin(PHASE_SCAN, &shape, &row);
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
