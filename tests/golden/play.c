#include "play.h"

#include "oracle.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One run's settings. */
struct manner {
    ratp_dtype cache;
    ratp_retention retention;
    uint32_t chunk; /* tokens of a step; 0: the prompt at once, then one by one */
    bool state;     /* what the memory holds at the end is wanted */
};

struct run {
    const struct golden_device *device;
    const struct golden_layer *layer;
    struct manner manner;
    ratp_policy *policy;
    ratp_cache *cache;
    ratp_seq **seqs;
    uint32_t *counts, *positions;
    float *pack[7]; /* a step's q, k, v, f, o, out, lse */
    float *out, *lse; /* [batch][token][head]... of the whole run */
    const double *gaps; /* [batch][token][head]; see golden_gaps */
    struct problem *problem;
};

static const char *manner_name(const struct manner *m, char *text, size_t size)
{
    static const char *const types[] = {"", "float32", "float16", "bfloat16"};
    char feeding[32] = "prompt, then steps";
    if (m->chunk)
        snprintf(feeding, sizeof feeding, "chunks of %u", m->chunk);
    snprintf(text, size, "%s cache, retention %s, %s", types[m->cache],
             m->retention == RATP_RETAIN_FULL ? "full" : "needed", m->state ? "state" : feeding);
    return text;
}

/* GOLDEN_SKIPPED when the library says that it does not have something. */
static enum golden_status refused(struct run *r, const char *call, const void *object,
                                  ratp_status status)
{
    char text[400], name[80];
    r->device->api->last_error(object, text, sizeof text);
    if (status == RATP_UNSUPPORTED)
        problem_set(r->problem, "%s: %s", call, text);
    else
        problem_set(r->problem, "%s: %s: %s: %s", manner_name(&r->manner, name, sizeof name), call,
                    r->device->api->status_name(status), text);
    return status == RATP_UNSUPPORTED ? GOLDEN_SKIPPED : GOLDEN_FAILED;
}

static enum golden_status wrong(struct run *r, const char *what, double error, double bound)
{
    char name[80];
    problem_set(r->problem, "%s: %s: error %.2e above %.0e",
                manner_name(&r->manner, name, sizeof name), what, error, bound);
    return GOLDEN_FAILED;
}

static enum golden_status set_policy(struct run *r)
{
    const struct ratp_api *api = r->device->api;
    const struct golden_layer *layer = r->layer;
    static const struct ratp_variant own_token = {.struct_size = sizeof own_token,
                                                  .kind = RATP_STREAMING};
    struct ratp_range all = {0, 0};
    ratp_status status = api->policy_create(r->device->instance, &r->policy);
    if (status)
        return refused(r, "policy_create", r->device->instance, status);
    for (uint32_t h = 0; h < layer->kv_heads && !status; h++) {
        struct ratp_range heads = {layer->variants == 1 ? 0 : h, layer->variants == 1 ? 0 : 1};
        const struct ratp_variant *variant =
            r->manner.state ? &own_token : &layer->variant[h % layer->variants];
        status = api->policy_set(r->policy, all, heads, variant);
    }
    return status ? refused(r, "policy_set", r->policy, status) : GOLDEN_PASSED;
}

static enum golden_status start(struct run *r)
{
    const struct ratp_api *api = r->device->api;
    const struct golden_layer *layer = r->layer;
    enum golden_status set = set_policy(r);
    if (set != GOLDEN_PASSED)
        return set;
    struct ratp_geometry geometry = {
        .struct_size = sizeof geometry,
        .layers = 1,
        .query_heads = layer->query_heads,
        .kv_heads = layer->kv_heads,
        .head_size = layer->head_size,
        .memory = layer->f != NULL,
        .scale = (float)layer->scale,
        .softcap = r->manner.state ? 0 : (float)layer->softcap,
        .max_tokens = layer->tokens + layer->head_size,
        .rope = &layer->rope,
    };
    struct ratp_cache_params params = {
        .struct_size = sizeof params,
        .geometry = &geometry,
        .policy = r->policy,
        .page_slots = 16,
        .k_dtype = r->manner.cache,
        .v_dtype = r->manner.cache,
        .retention = r->manner.retention,
    };
    ratp_status status = api->cache_create(r->device->device, &params, &r->cache);
    if (status)
        return refused(r, "cache_create", r->device->device, status);
    size_t rows = (size_t)layer->batch * (layer->tokens > layer->head_size ? layer->tokens
                                                                           : layer->head_size);
    size_t row = (size_t)layer->query_heads * layer->head_size;
    r->seqs = calloc(layer->batch, sizeof(ratp_seq *));
    r->counts = calloc(layer->batch, sizeof *r->counts);
    r->out = calloc(rows * row, sizeof *r->out);
    r->lse = calloc(rows * layer->query_heads, sizeof *r->lse);
    r->positions = calloc(layer->tokens, sizeof *r->positions);
    bool ok = r->seqs && r->counts && r->positions && r->out && r->lse;
    for (size_t i = 0; i < sizeof r->pack / sizeof *r->pack; i++) {
        r->pack[i] = malloc(rows * row * sizeof(float));
        ok = ok && r->pack[i];
    }
    if (!ok) {
        problem_set(r->problem, "no memory for %zu rows", rows);
        return GOLDEN_FAILED;
    }
    for (uint32_t b = 0; b < layer->batch; b++) {
        status = api->seq_create(r->cache, &r->seqs[b]);
        if (status)
            return refused(r, "seq_create", r->cache, status);
    }
    return GOLDEN_PASSED;
}

static void finish(struct run *r)
{
    const struct ratp_api *api = r->device->api;
    for (uint32_t b = 0; r->seqs && b < r->layer->batch; b++)
        if (r->seqs[b])
            api->seq_destroy(&r->seqs[b]);
    if (r->cache)
        api->cache_destroy(&r->cache);
    if (r->policy)
        api->policy_destroy(&r->policy);
    free(r->seqs);
    free(r->counts);
    free(r->positions);
    free(r->out);
    free(r->lse);
    for (size_t i = 0; i < sizeof r->pack / sizeof *r->pack; i++)
        free(r->pack[i]);
}

/* What is in r->pack: `tokens` new tokens of each sequence. */
static enum golden_status step(struct run *r, uint32_t tokens, bool gate)
{
    const struct ratp_api *api = r->device->api;
    struct ratp_tensor tensors[7];
    for (uint32_t i = 0; i < 7; i++)
        tensors[i] = (struct ratp_tensor){.struct_size = sizeof *tensors, .host = r->pack[i]};
    for (uint32_t b = 0; b < r->layer->batch; b++)
        r->counts[b] = tokens;
    struct ratp_step_params params = {.struct_size = sizeof params,
                                      .count = r->layer->batch,
                                      .seqs = r->seqs,
                                      .n_tokens = r->counts};
    struct ratp_attend_io io = {.struct_size = sizeof io,
                                .q = &tensors[0],
                                .k = &tensors[1],
                                .v = &tensors[2],
                                .f = r->layer->f ? &tensors[3] : NULL,
                                .o = gate ? &tensors[4] : NULL,
                                .out = &tensors[5],
                                .lse = &tensors[6]};
    ratp_step *open;
    ratp_status status = api->step_begin(r->cache, &params, &open);
    if (status)
        return refused(r, "step_begin", r->cache, status);
    status = api->step_attend(open, 0, &io);
    if (!status)
        status = api->step_commit(&open);
    if (!status)
        return GOLDEN_PASSED;
    enum golden_status result = refused(r, "step_attend or step_commit", open, status);
    api->step_abort(&open);
    return result;
}

/* Copies tokens [token, token + tokens) of every sequence to or from rows that
 * follow each other. */
static void copy_rows(const struct golden_layer *layer, uint32_t token, uint32_t tokens,
                      size_t row, const float *from, float *to, bool pack)
{
    for (uint32_t b = 0; from && b < layer->batch; b++) {
        size_t whole = ((size_t)b * layer->tokens + token) * row;
        size_t packed = (size_t)b * tokens * row;
        memcpy(to + (pack ? packed : whole), from + (pack ? whole : packed),
               tokens * row * sizeof *to);
    }
}

/* How many of the positions the token t attends, itself counted. 0: what is held does not
 * tell. */
static uint32_t attended_of(const struct run *r, const struct ratp_variant *v, uint32_t t,
                            const uint32_t *positions, uint64_t held)
{
    uint32_t seen = 1;
    bool decoded = t >= r->layer->prefill;
    if (v->kind == RATP_MOBA || (v->kind == RATP_QUEST && decoded))
        return 0;
    /* The prompt is compressed when the first token after it comes. */
    if (v->kind == RATP_SNAPKV && decoded)
        return t > r->layer->prefill ? (uint32_t)held + 1 : 0;
    bool dense = v->kind == RATP_DENSE || v->kind == RATP_QUEST || v->kind == RATP_SNAPKV;
    for (uint64_t i = 0; i < held; i++) {
        uint32_t j = positions[i];
        seen += dense || t - j <= v->window || j < v->sinks ||
                (v->kind == RATP_DILATED && (j + 1) % v->dilation == 0);
    }
    return seen;
}

/* What snapkv kept of the prompt is what the golden file says. */
static enum golden_status check_kept(struct run *r, uint32_t t, uint32_t b, uint32_t h,
                                     const uint32_t *positions, uint64_t held)
{
    const struct golden_layer *layer = r->layer;
    if (!layer->kept || t <= layer->prefill)
        return GOLDEN_PASSED;
    if (r->manner.cache != RATP_F32)
        return GOLDEN_PASSED; /* rounding may keep others */
    const uint32_t *kept = layer->kept + ((size_t)b * layer->kv_heads + h) * layer->capacity;
    if (held >= layer->capacity && !memcmp(positions, kept, layer->capacity * sizeof *kept))
        return GOLDEN_PASSED;
    char name[80];
    problem_set(r->problem, "%s: token %u, sequence %u, head %u: other tokens were kept",
                manner_name(&r->manner, name, sizeof name), t, b, h);
    return GOLDEN_FAILED;
}

/* The next token, t, attends so many of the tokens that the cache holds, and itself. */
static enum golden_status check_attended(struct run *r, uint32_t t, uint32_t *positions)
{
    const struct golden_layer *layer = r->layer;
    uint32_t group = layer->query_heads / layer->kv_heads;
    for (uint32_t b = 0; layer->attended && b < layer->batch; b++)
        for (uint32_t h = 0; h < layer->kv_heads; h++) {
            uint64_t held;
            ratp_status status = r->device->api->seq_positions(r->seqs[b], 0, h, positions,
                                                               layer->tokens, &held);
            if (status)
                return refused(r, "seq_positions", r->seqs[b], status);
            enum golden_status kept = check_kept(r, t, b, h, positions, held);
            if (kept != GOLDEN_PASSED)
                return kept;
            const struct ratp_variant *variant = &layer->variant[h % layer->variants];
            uint32_t seen = attended_of(r, variant, t, positions, held);
            uint32_t wanted = layer->attended[((size_t)b * layer->tokens + t) *
                                                  layer->query_heads + h * group];
            if (seen == wanted || seen == 0)
                continue;
            char name[80];
            problem_set(r->problem, "%s: token %u attends %u tokens, not %u",
                        manner_name(&r->manner, name, sizeof name), t, seen, wanted);
            return GOLDEN_FAILED;
        }
    return GOLDEN_PASSED;
}

/* How many tokens from t on are fed together. */
static uint32_t next_tokens(const struct run *r, uint32_t t)
{
    const struct golden_layer *layer = r->layer;
    uint32_t end = golden_has_prompt(layer) && !r->manner.state ? layer->prefill : layer->tokens;
    uint32_t tokens = r->manner.chunk ? r->manner.chunk : t ? 1 : layer->prefill;
    if (t >= end)
        return 1;
    /* A prompt's last token would be taken for a decoded one if it came alone. */
    if (tokens > end - t || (end < layer->tokens && tokens + 1 == end - t))
        tokens = end - t;
    return tokens;
}

static enum golden_status feed(struct run *r)
{
    const struct golden_layer *layer = r->layer;
    size_t q_row = (size_t)layer->query_heads * layer->head_size;
    size_t k_row = (size_t)layer->kv_heads * layer->head_size;
    uint32_t tokens;
    for (uint32_t t = 0; t < layer->tokens; t += tokens) {
        tokens = next_tokens(r, t);
        copy_rows(layer, t, tokens, q_row, layer->q, r->pack[0], true);
        copy_rows(layer, t, tokens, k_row, layer->k, r->pack[1], true);
        copy_rows(layer, t, tokens, k_row, layer->v, r->pack[2], true);
        copy_rows(layer, t, tokens, k_row, layer->f, r->pack[3], true);
        copy_rows(layer, t, tokens, q_row, layer->o, r->pack[4], true);
        enum golden_status status =
            r->manner.state ? GOLDEN_PASSED : check_attended(r, t, r->positions);
        if (status == GOLDEN_PASSED)
            status = step(r, tokens, layer->o != NULL);
        if (status != GOLDEN_PASSED)
            return status;
        copy_rows(layer, t, tokens, q_row, r->pack[5], r->out, false);
        copy_rows(layer, t, tokens, layer->query_heads, r->pack[6], r->lse, false);
    }
    return GOLDEN_PASSED;
}

/* |got - wanted| / |wanted| over the tokens of one sequence and head; the worst of all.
 * Without the rows whose keys were chosen by less than `bound`: the cache's rounding may
 * choose others. */
static double worst_error(const struct run *r, uint32_t channels, double bound, const float *got,
                          const float *wanted)
{
    const struct golden_layer *layer = r->layer;
    double worst = 0;
    for (uint32_t b = 0; b < layer->batch; b++)
        for (uint32_t h = 0; h < layer->query_heads; h++) {
            double difference = 0, size = 0;
            for (uint32_t t = 0; t < layer->tokens; t++) {
                size_t n = ((size_t)b * layer->tokens + t) * layer->query_heads + h;
                for (uint32_t c = 0; c < channels && r->gaps[n] > bound; c++) {
                    double x = (double)got[n * channels + c];
                    double y = (double)wanted[n * channels + c];
                    difference += (x - y) * (x - y);
                    size += y * y;
                }
            }
            double error = sqrt(difference / size);
            worst = error <= worst ? worst : error; /* NaN is worse than anything */
        }
    return worst;
}

/* The memory is not in the ABI, but it shows: tokens whose gates keep all of it
 * and that attend only themselves give V as their output and, with unit vectors
 * as queries, K as their log-sum-exp, channel by channel. */
static enum golden_status read_state(struct run *r, double *error)
{
    const struct golden_layer *layer = r->layer;
    uint32_t d = layer->head_size, hq = layer->query_heads, group = hq / layer->kv_heads;
    size_t k_count = (size_t)layer->batch * d * layer->kv_heads * d;
    memset(r->pack[0], 0, (size_t)layer->batch * d * hq * d * sizeof(float));
    for (size_t n = 0; n < (size_t)layer->batch * d * hq; n++)
        r->pack[0][n * d + n / hq % d] = 1;
    for (size_t n = 0; n < k_count; n++) {
        r->pack[1][n] = r->pack[2][n] = 0;
        r->pack[3][n] = 100;
    }
    enum golden_status status = step(r, d, false);
    if (status != GOLDEN_PASSED)
        return status;
    double difference = 0, size = 0;
    for (uint32_t b = 0; b < layer->batch; b++)
        for (uint32_t h = 0; h < layer->kv_heads; h++)
            for (uint32_t c = 0; c < d; c++) {
                size_t row = ((size_t)b * d + c) * hq + h * group;
                size_t at = ((size_t)b * layer->kv_heads + h) * d + c;
                double k = (double)r->pack[6][row] / (double)(float)layer->scale;
                double v = (double)r->pack[5][row * d + c];
                double k_wanted = (double)layer->last_k[at], v_wanted = (double)layer->last_v[at];
                difference += (k - k_wanted) * (k - k_wanted) + (v - v_wanted) * (v - v_wanted);
                size += k_wanted * k_wanted + v_wanted * v_wanted;
            }
    *error = sqrt(difference / size);
    return GOLDEN_PASSED;
}

static enum golden_status play_once(const struct golden_device *device,
                                    const struct golden_layer *layer, const double *gaps,
                                    struct manner manner, struct golden_errors *errors,
                                    struct problem *problem)
{
    static const double bounds[] = {0, 2e-5, 1e-3, 8e-3, 1e-2};
    double bound = bounds[manner.cache], *out = &errors->out[manner.cache];
    double *lse = &errors->lse[manner.cache];
    struct run r = {.device = device, .layer = layer, .manner = manner, .gaps = gaps,
                    .problem = problem};
    enum golden_status status = start(&r);
    if (status == GOLDEN_PASSED)
        status = feed(&r);
    if (status == GOLDEN_PASSED && manner.state) {
        status = read_state(&r, &errors->state);
        if (status == GOLDEN_PASSED && !(errors->state <= bound))
            status = wrong(&r, "last_k and last_v", errors->state, bound);
    } else if (status == GOLDEN_PASSED) {
        double error = worst_error(&r, layer->head_size, bound, r.out, layer->out);
        *out = error <= *out ? *out : error;
        if (!(error <= bound))
            status = wrong(&r, "out", error, bound);
        if (layer->lse) {
            error = worst_error(&r, 1, bound, r.lse, layer->lse);
            *lse = error <= *lse ? *lse : error;
            if (status == GOLDEN_PASSED && !(error <= bound))
                status = wrong(&r, "lse", error, bound);
        }
    }
    errors->runs++;
    finish(&r);
    return status;
}

static enum golden_status play_all(const struct golden_device *device,
                                   const struct golden_layer *layer, const double *gaps,
                                   struct golden_errors *errors, struct problem *problem)
{
    const uint32_t chunks[] = {0, layer->tokens, 33, 7, 1};
    const ratp_dtype last = layer->head_size % 32 ? RATP_BF16 : RATP_Q8_0;
    for (ratp_dtype cache = RATP_F32; cache <= last; cache++)
        for (uint32_t retention = RATP_RETAIN_FULL; retention <= RATP_RETAIN_NEEDED; retention++)
            for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++) {
                if (cache != RATP_F32 && i > 0)
                    break;
                if (chunks[i] == 1 && golden_has_prompt(layer))
                    break; /* single tokens are decoded */
                struct manner manner = {
                    .cache = cache, .retention = (ratp_retention)retention, .chunk = chunks[i]};
                enum golden_status status =
                    play_once(device, layer, gaps, manner, errors, problem);
                if (status != GOLDEN_PASSED)
                    return status;
            }
    struct manner state = {.cache = RATP_F32, .retention = RATP_RETAIN_NEEDED, .state = true,
                           .chunk = layer->tokens};
    if (layer->f && layer->last_k && layer->last_v)
        return play_once(device, layer, gaps, state, errors, problem);
    return GOLDEN_PASSED;
}

enum golden_status golden_play(const struct golden_device *device, const struct golden_layer *layer,
                               struct golden_errors *errors, struct problem *problem)
{
    memset(errors, 0, sizeof *errors);
    errors->state = -1;
    for (ratp_dtype type = 0; type <= RATP_Q8_0; type++)
        errors->lse[type] = layer->lse ? 0 : -1;
    if (layer->head_size % 32)
        errors->out[RATP_Q8_0] = -1;
    double *gaps = golden_gaps(layer);
    if (!gaps) {
        problem_set(problem, "no memory for the naive program");
        return GOLDEN_FAILED;
    }
    enum golden_status status = play_all(device, layer, gaps, errors, problem);
    free(gaps);
    return status;
}
