#include "bench.h"

#include "terminal.h"

#include <math.h>
#include <stdlib.h>

/* One layer of attention with its operands in buffers. */
struct scene {
    struct bench_device *d;
    struct ratp_geometry geometry;
    struct ratp_rope rope;
    ratp_dtype dtype;
    uint64_t rows; /* that the buffers hold */
    ratp_buffer *q, *k, *v, *f, *out;
    ratp_policy *policy;
    ratp_cache *cache;
    ratp_seq **seqs;
    uint32_t *tokens; /* of each sequence, in a step */
    uint32_t count;
};

static bool make_buffer(struct scene *s, uint64_t bytes, ratp_dtype dtype, bool filled,
                        ratp_buffer **out, struct problem *problem)
{
    const struct ratp_buffer_params params = {.struct_size = sizeof params, .size = bytes};
    if (s->d->ratp->buffer_create(s->d->device, &params, out) != RATP_OK)
        return bench_failed(s->d, s->d->device, "buffer_create", problem);
    if (!filled)
        return true;
    enum { PIECE = 16 << 20 };
    uint64_t piece = bytes < PIECE ? bytes : PIECE;
    void *data = malloc(piece);
    if (!data)
        return problem_set(problem, "out of memory");
    bool good = true;
    for (uint64_t at = 0; good && at < bytes; at += piece) {
        uint64_t size = bytes - at < piece ? bytes - at : piece;
        fill_random(data, size, dtype, at + bytes);
        good = s->d->ratp->buffer_write(*out, at, data, size) == RATP_OK ||
               bench_failed(s->d, *out, "buffer_write", problem);
    }
    free(data);
    return good;
}

static void scene_close(struct scene *s)
{
    const struct ratp_api *ratp = s->d->ratp;
    for (uint32_t i = 0; s->seqs && i < s->count; i++)
        if (s->seqs[i])
            ratp->seq_destroy(&s->seqs[i]);
    free(s->seqs);
    free(s->tokens);
    if (s->cache)
        ratp->cache_destroy(&s->cache);
    if (s->policy)
        ratp->policy_destroy(&s->policy);
    ratp_buffer **buffers[] = {&s->q, &s->k, &s->v, &s->f, &s->out};
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++)
        if (*buffers[i])
            ratp->buffer_destroy(buffers[i]);
}

/* Buffers of `rows` query tokens and `keys` keys of `key_dtype`. */
static bool scene_open(struct scene *s, struct bench *b, uint32_t query_heads, uint64_t rows,
                       uint64_t keys, ratp_dtype key_dtype, bool memory, struct problem *problem)
{
    const struct bench_options *o = &b->options;
    *s = (struct scene){.d = &b->device, .dtype = b->dtype, .rows = rows};
    s->rope = (struct ratp_rope){.struct_size = sizeof s->rope, .style = RATP_ROPE_HALF};
    s->geometry = (struct ratp_geometry){
        .struct_size = sizeof s->geometry,
        .layers = 1,
        .query_heads = query_heads,
        .kv_heads = (uint32_t)o->kv_heads,
        .head_size = (uint32_t)o->head_size,
        .memory = memory,
        .rope = &s->rope,
    };
    uint64_t q_bytes = rows * query_heads * o->head_size * dtype_bytes(b->dtype);
    uint64_t k_bytes = keys * o->kv_heads * o->head_size * dtype_bytes(key_dtype);
    return make_buffer(s, q_bytes, b->dtype, true, &s->q, problem) &&
           make_buffer(s, q_bytes, b->dtype, false, &s->out, problem) &&
           make_buffer(s, k_bytes, key_dtype, true, &s->k, problem) &&
           make_buffer(s, k_bytes, key_dtype, true, &s->v, problem) &&
           (!memory || make_buffer(s, k_bytes, key_dtype, true, &s->f, problem));
}

/* A cache under `variant`, and `count` empty sequences. */
static bool scene_cache(struct scene *s, const struct bench *b, const struct ratp_variant *variant,
                        uint32_t count, struct problem *problem)
{
    const struct ratp_api *ratp = s->d->ratp;
    const struct ratp_range all = {0, 0};
    if (ratp->policy_create(s->d->instance, &s->policy) != RATP_OK)
        return bench_failed(s->d, s->d->instance, "policy_create", problem);
    if (ratp->policy_set(s->policy, all, all, variant) != RATP_OK)
        return bench_failed(s->d, s->policy, "policy_set", problem);
    const struct ratp_cache_params params = {
        .struct_size = sizeof params,
        .geometry = &s->geometry,
        .policy = s->policy,
        .retention = b->options.retention[0] == 'f' ? RATP_RETAIN_FULL : RATP_RETAIN_NEEDED,
    };
    if (ratp->cache_create(s->d->device, &params, &s->cache) != RATP_OK)
        return bench_failed(s->d, s->d->device, "cache_create", problem);
    s->count = count;
    s->seqs = calloc(count, sizeof *s->seqs);
    s->tokens = calloc(count, sizeof *s->tokens);
    if (!s->seqs || !s->tokens)
        return problem_set(problem, "out of memory");
    for (uint32_t i = 0; i < count; i++)
        if (ratp->seq_create(s->cache, &s->seqs[i]) != RATP_OK)
            return bench_failed(s->d, s->cache, "seq_create", problem);
    return true;
}

static bool renew_seqs(struct scene *s, struct problem *problem)
{
    for (uint32_t i = 0; i < s->count; i++)
        if (s->d->ratp->seq_destroy(&s->seqs[i]) != RATP_OK ||
            s->d->ratp->seq_create(s->cache, &s->seqs[i]) != RATP_OK)
            return bench_failed(s->d, s->cache, "seq_create", problem);
    return true;
}

static struct ratp_tensor tensor(ratp_buffer *buffer, ratp_dtype dtype)
{
    return (struct ratp_tensor){
        .struct_size = sizeof(struct ratp_tensor), .buffer = buffer, .dtype = dtype};
}

/* A step of `tokens` tokens of every sequence, until the device has done it. */
static bool run_step(struct scene *s, uint32_t tokens, double *seconds, struct problem *problem)
{
    const struct ratp_api *ratp = s->d->ratp;
    const struct ratp_tensor q = tensor(s->q, s->dtype), k = tensor(s->k, s->dtype),
                             v = tensor(s->v, s->dtype), f = tensor(s->f, s->dtype),
                             out = tensor(s->out, s->dtype);
    const struct ratp_attend_io io = {.struct_size = sizeof io, .q = &q, .k = &k, .v = &v,
                                      .f = s->f ? &f : NULL, .out = &out};
    for (uint32_t i = 0; i < s->count; i++)
        s->tokens[i] = tokens;
    const struct ratp_step_params params = {
        .struct_size = sizeof params, .count = s->count, .seqs = s->seqs, .n_tokens = s->tokens};
    ratp_step *step = NULL;
    double start = seconds_now();
    if (ratp->step_begin(s->cache, &params, &step) != RATP_OK)
        return bench_failed(s->d, s->cache, "step_begin", problem);
    if (ratp->step_attend(step, 0, &io) != RATP_OK || ratp->step_commit(&step) != RATP_OK) {
        bench_failed(s->d, step, "step_attend", problem);
        ratp->step_abort(&step);
        return false;
    }
    if (ratp->device_wait(s->d->device) != RATP_OK)
        return bench_failed(s->d, s->d->device, "device_wait", problem);
    *seconds = seconds_now() - start;
    return true;
}

/* `queries` queries at the end of `keys` keys, over the caller's tensors. */
static bool run_external(struct scene *s, const struct ratp_variant *variant, uint64_t batch,
                         uint64_t queries, uint64_t keys, double *seconds,
                         struct problem *problem)
{
    const struct ratp_api *ratp = s->d->ratp;
    const struct ratp_tensor q = tensor(s->q, s->dtype), k = tensor(s->k, RATP_F16),
                             v = tensor(s->v, RATP_F16), out = tensor(s->out, s->dtype);
    const struct ratp_external params = {
        .struct_size = sizeof params,
        .batch = (uint32_t)batch,
        .query_tokens = (uint32_t)queries,
        .key_tokens = (uint32_t)keys,
        .query_heads = s->geometry.query_heads,
        .kv_heads = s->geometry.kv_heads,
        .head_size = s->geometry.head_size,
        .causal = 1,
        .first_position = (uint32_t)(keys - queries),
        .variant = variant,
        .q = &q, .k = &k, .v = &v, .out = &out,
    };
    double start = seconds_now();
    if (ratp->attend_external(s->d->device, &params) != RATP_OK ||
        ratp->device_wait(s->d->device) != RATP_OK)
        return bench_failed(s->d, s->d->device, "attend_external", problem);
    *seconds = seconds_now() - start;
    return true;
}

static struct bench_timer timer_of(const struct bench *b)
{
    return (struct bench_timer){.wanted = (uint32_t)b->options.repeat,
                                .seconds = b->options.seconds};
}

static struct bench_result *new_result(struct bench *b, const struct ratp_variant *variant,
                                       const char *phase, uint64_t tokens, uint64_t batch)
{
    struct bench_result *r = &b->results[b->count++];
    *r = (struct bench_result){.phase = phase, .keys = "cache", .tokens = tokens, .batch = batch,
                               .heads = (uint32_t)b->options.heads,
                               .kv_heads = (uint32_t)b->options.kv_heads};
    variant_to_name(variant, r->variant, sizeof r->variant);
    return r;
}

/* Bytes of a token's K and V, and of its query and result. */
static double kv_bytes(const struct bench *b, uint32_t element)
{
    return 2.0 * (double)(b->options.kv_heads * b->options.head_size) * element;
}

static double query_bytes(const struct bench *b, double heads)
{
    return 2.0 * heads * (double)b->options.head_size * dtype_bytes(b->dtype);
}

static double pair_flop(const struct bench *b)
{
    return 4.0 * (double)(b->options.heads * b->options.head_size);
}

bool bench_prefill(struct bench *b, const struct ratp_variant *variant, uint64_t tokens,
                   struct problem *problem)
{
    struct scene s;
    struct bench_timer timer = timer_of(b);
    uint64_t rows = tokens * b->options.batch;
    bool good = scene_open(&s, b, (uint32_t)b->options.heads, rows, rows, b->dtype, true,
                           problem) &&
                scene_cache(&s, b, variant, (uint32_t)b->options.batch, problem);
    while (good && timer_wants(&timer)) {
        double seconds = 0;
        good = run_step(&s, (uint32_t)tokens, &seconds, problem) && renew_seqs(&s, problem);
        timer_add(&timer, seconds);
    }
    scene_close(&s);
    if (!good)
        return false;
    struct bench_result *r = new_result(b, variant, "prefill", tokens, b->options.batch);
    r->time = timer_result(&timer);
    r->flop = attended_pairs(variant, 0, tokens) * (double)b->options.batch * pair_flop(b);
    /* q, k, v, f in, K and V into the cache and out of it, the result. */
    r->bytes = (double)rows * (query_bytes(b, (double)b->options.heads) +
                               1.5 * kv_bytes(b, dtype_bytes(b->dtype)) + 2 * kv_bytes(b, 2));
    return true;
}

static bool fill_cache(struct scene *s, uint64_t tokens, uint64_t piece, struct problem *problem)
{
    for (uint64_t done = 0; done < tokens;) {
        uint64_t count = tokens - done < piece ? tokens - done : piece;
        double seconds;
        if (!run_step(s, (uint32_t)count, &seconds, problem))
            return false;
        done += count;
        progress_show("filling the cache", done, tokens);
    }
    return true;
}

bool bench_decode(struct bench *b, const struct ratp_variant *variant, uint64_t tokens,
                  struct problem *problem)
{
    enum { PIECE = 4096 };
    struct scene s;
    struct bench_timer timer = timer_of(b);
    uint64_t batch = b->options.batch, piece = tokens < PIECE ? tokens : PIECE;
    double fill = attended_pairs(variant, 0, tokens) * (double)batch * pair_flop(b);
    bool cached = fill <= b->options.fill * 1e9;
    bool good;
    if (cached)
        good = scene_open(&s, b, (uint32_t)b->options.heads, piece * batch, piece * batch,
                          b->dtype, true, problem) &&
               scene_cache(&s, b, variant, (uint32_t)batch, problem) &&
               fill_cache(&s, tokens - 1, piece, problem);
    else
        good = scene_open(&s, b, (uint32_t)b->options.heads, batch, tokens * batch, RATP_F16,
                          false, problem);
    while (good && timer_wants(&timer)) {
        double seconds = 0;
        good = cached ? run_step(&s, 1, &seconds, problem)
                      : run_external(&s, variant, batch, 1, tokens, &seconds, problem);
        timer_add(&timer, seconds);
    }
    scene_close(&s);
    if (!good)
        return false;
    struct bench_result *r = new_result(b, variant, "decode", tokens, batch);
    double pairs = (double)attended_keys(variant, tokens - 1) * (double)batch;
    r->keys = cached ? "cache" : "caller";
    r->time = timer_result(&timer);
    r->flop = pairs * pair_flop(b);
    r->bytes = pairs * kv_bytes(b, 2) +
               (double)batch * query_bytes(b, (double)b->options.heads);
    return true;
}

bool bench_scan(struct bench *b, uint64_t tokens, struct problem *problem)
{
    /* Each query attends itself alone, and there is one query head for each
     * key/value head: what is left is the memory, and the way into the cache. */
    const struct ratp_variant self = {.struct_size = sizeof self, .kind = RATP_STREAMING};
    uint32_t heads = (uint32_t)b->options.kv_heads;
    struct scene s;
    struct bench_timer timer = timer_of(b), attention = timer_of(b);
    bool good = scene_open(&s, b, heads, tokens, tokens, b->dtype, true, problem) &&
                scene_cache(&s, b, &self, 1, problem);
    while (good && timer_wants(&timer)) {
        double seconds = 0;
        good = run_step(&s, (uint32_t)tokens, &seconds, problem) && renew_seqs(&s, problem);
        timer_add(&timer, seconds);
    }
    /* The same attention over K and V as they lie: float16 stands in for any
     * 16-bit type. */
    while (good && b->dtype != RATP_F32 && timer_wants(&attention)) {
        double seconds = 0;
        good = run_external(&s, &self, 1, tokens, tokens, &seconds, problem);
        timer_add(&attention, seconds);
    }
    scene_close(&s);
    if (!good)
        return false;
    struct bench_result *r = new_result(b, &self, "memory scan", tokens, 1);
    r->heads = heads;
    r->time = timer_result(&timer);
    if (attention.count)
        r->attention_ms = timer_result(&attention).median;
    r->bytes = (double)tokens * (1.5 * kv_bytes(b, dtype_bytes(b->dtype)) + kv_bytes(b, 2));
    return true;
}
