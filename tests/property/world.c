#include "world.h"

#include "../naive.h"
#include "bounds.h"

#include <math.h>

enum { TENSOR_Q, TENSOR_K, TENSOR_V, TENSOR_F, TENSOR_O, TENSOR_COUNT };

static uint32_t heads_of(const struct world *w, int tensor)
{
    return tensor == TENSOR_Q || tensor == TENSOR_O ? w->geometry.query_heads
                                                    : w->geometry.kv_heads;
}

static uint32_t channels_of(const struct world *w, int tensor)
{
    return tensor == TENSOR_V || tensor == TENSOR_O ? w->geometry.value_size
                                                    : w->geometry.head_size;
}

/* The input of one token: values with few bits, the same in every dtype. */
static void make_row(const struct world *w, uint32_t id, uint32_t layer, uint32_t token, int tensor,
                     float *row)
{
    struct random r = {w->seed ^ (uint64_t)id << 48 ^ (uint64_t)layer << 40 ^
                       (uint64_t)tensor << 32 ^ token};
    uint32_t size = heads_of(w, tensor) * channels_of(w, tensor);
    for (uint32_t i = 0; i < size; i++)
        row[i] = (float)((int32_t)random_in(&r, 0, 128) - 64) / 32;
}

static float *make_rows(const struct world *w, const struct world_seq *seq, uint32_t layer,
                        int tensor)
{
    size_t size = (size_t)heads_of(w, tensor) * channels_of(w, tensor);
    float *rows = malloc(seq->tokens * size * sizeof *rows);
    for (uint32_t t = 0; t < seq->tokens; t++)
        make_row(w, seq->ids[t], layer, t, tensor, rows + t * size);
    return rows;
}

bool world_open(struct world *w, struct host *host, ratp_device *device, uint64_t seed)
{
    *w = (struct world){.host = host, .device = device, .random = {seed}, .seed = seed};
    const struct ratp_api *api = host->api;
    struct ratp_device_info info = {.struct_size = sizeof info};
    host_ok(host, device, api->device_info(device, &info), "device_info");
    bool quick = info.kind == RATP_DEVICE_REFERENCE;
    w->hypothetical.state = ~seed;
    w->thin = seed % 4 == 3;
    w->future_lengths = quick ? FUTURE_TOKENS + 1 : 12;
    w->future_samples = quick ? FUTURE_SAMPLES : 1;
    w->future_policies = quick ? MAX_POLICIES : 1;
    if (!world_draw(w))
        return false;
    w->params.policy = w->policies[0];
    bool opened = host_ok(host, device, api->cache_create(device, &w->params, &w->cache),
                          "cache_create");
    struct ratp_cache_params spare = w->params;
    spare.page_slots = w->spare_slots;
    opened &= host_ok(host, device, api->cache_create(device, &spare, &w->spare), "cache_create");
    for (uint32_t i = 0; opened && i < w->count; i++) {
        struct world_seq *s = &w->seqs[i];
        s->id = i;
        s->ids = calloc(w->max_tokens, sizeof *s->ids);
        s->policies = calloc(w->max_tokens, sizeof *s->policies);
        s->prompt = calloc(w->max_tokens, 1);
        host_ok(host, w->cache, api->seq_create(w->cache, &s->seq), "seq_create");
        for (uint32_t l = 0; l < w->geometry.layers; l++) {
            size_t rows = (size_t)w->max_tokens * w->geometry.query_heads;
            s->out[l] = calloc(rows * w->geometry.value_size, sizeof(float));
            s->lse[l] = calloc(rows, sizeof(float));
        }
    }
    return opened;
}

static uint32_t element_size(ratp_dtype dtype)
{
    return dtype == RATP_F32 ? 4 : 2;
}

/* All test values are multiples of 1/32 below 2 in size: exact in bfloat16,
 * and in float16 by a small table-free conversion. */
static uint16_t to_16(float value, ratp_dtype dtype)
{
    union {
        float f;
        uint32_t u;
    } x = {value};
    if (dtype == RATP_BF16)
        return (uint16_t)(x.u >> 16);
    if (value == 0)
        return 0;
    uint32_t exponent = (x.u >> 23 & 255) - 127 + 15;
    return (uint16_t)(x.u >> 16 & 0x8000) | (uint16_t)(exponent << 10) |
           (uint16_t)(x.u >> 13 & 0x3ff);
}

static float from_16(uint16_t bits, ratp_dtype dtype)
{
    union {
        uint32_t u;
        float f;
    } x = {(uint32_t)bits << 16};
    if (dtype == RATP_BF16)
        return x.f;
    float magnitude = (bits >> 10 & 31)
                          ? ldexpf((float)((bits & 0x3ff) | 0x400), (bits >> 10 & 31) - 25)
                          : ldexpf((float)(bits & 0x3ff), -24);
    return bits & 0x8000 ? -magnitude : magnitude;
}

/* One operand in host memory or in a buffer, with padding after every token. */
struct slab {
    struct ratp_tensor tensor;
    unsigned char *bytes;
    size_t size;
};

static void slab_open(struct world *w, struct slab *s, uint32_t rows, uint32_t row_values,
                      uint32_t head_values, ratp_dtype dtype)
{
    uint32_t pad = random_in(&w->random, 0, 3) * 16;
    size_t stride = (size_t)row_values * element_size(dtype) + pad;
    s->size = rows * stride;
    s->bytes = calloc(1, s->size);
    s->tensor = (struct ratp_tensor){
        .struct_size = sizeof s->tensor,
        .host = s->bytes,
        .dtype = dtype,
        .token_stride = stride,
        .head_stride = (uint64_t)head_values * element_size(dtype),
    };
    if (!w->buffers)
        return;
    struct ratp_buffer_params params = {.struct_size = sizeof params, .size = s->size + 64};
    host_ok(w->host, w->device,
            w->host->api->buffer_create(w->device, &params, &s->tensor.buffer), "buffer_create");
    s->tensor.host = NULL;
    s->tensor.offset = 64;
}

static void slab_put(const struct slab *s, uint32_t row, const float *values, uint32_t count)
{
    unsigned char *at = s->bytes + row * s->tensor.token_stride;
    for (uint32_t i = 0; i < count; i++) {
        uint16_t half = s->tensor.dtype == RATP_F32 ? 0 : to_16(values[i], s->tensor.dtype);
        if (s->tensor.dtype == RATP_F32)
            memcpy(at + 4 * (size_t)i, &values[i], 4);
        else
            memcpy(at + 2 * (size_t)i, &half, 2);
    }
}

static void slab_get(const struct slab *s, uint32_t row, float *values, uint32_t count)
{
    const unsigned char *at = s->bytes + row * s->tensor.token_stride;
    for (uint32_t i = 0; i < count; i++) {
        uint16_t half;
        memcpy(&half, at + 2 * (size_t)i, 2);
        if (s->tensor.dtype == RATP_F32)
            memcpy(&values[i], at + 4 * (size_t)i, 4);
        else
            values[i] = from_16(half, s->tensor.dtype);
    }
}

static void slab_close(struct world *w, struct slab *s)
{
    if (s->tensor.buffer)
        host_ok(w->host, s->tensor.buffer, w->host->api->buffer_destroy(&s->tensor.buffer),
                "buffer_destroy");
    free(s->bytes);
}

/* Operands live until the step is over: recorded work reads them then. */
struct batch {
    uint32_t count, rows;
    struct world_seq *seqs[MAX_SEQS];
    ratp_seq *handles[MAX_SEQS];
    uint32_t n[MAX_SEQS];
    ratp_part_kind kinds[MAX_SEQS];
    struct slab in[MAX_LAYERS][TENSOR_COUNT], out[MAX_LAYERS], lse[MAX_LAYERS];
    struct slab sinks[MAX_LAYERS];
};

static void put_input(struct world *w, struct batch *b, uint32_t layer, int t)
{
    uint32_t size = heads_of(w, t) * channels_of(w, t);
    struct slab *slab = &b->in[layer][t];
    float *values = malloc(size * sizeof *values);
    slab_open(w, slab, b->rows, size, channels_of(w, t), w->io_dtype);
    uint32_t row = 0;
    for (uint32_t i = 0; i < b->count; i++)
        for (uint32_t k = 0; k < b->n[i]; k++, row++) {
            b->seqs[i]->ids[b->seqs[i]->tokens + k] = b->seqs[i]->id;
            b->seqs[i]->policies[b->seqs[i]->tokens + k] = b->seqs[i]->policy;
            b->seqs[i]->prompt[b->seqs[i]->tokens + k] =
                b->kinds[i] == RATP_PART_PROMPT || (b->kinds[i] == RATP_PART_AUTO && b->n[i] > 1);
            make_row(w, b->seqs[i]->id, layer, b->seqs[i]->tokens + k, t, values);
            slab_put(slab, row, values, size);
        }
    free(values);
    if (w->buffers)
        host_ok(w->host, slab->tensor.buffer,
                w->host->api->buffer_write(slab->tensor.buffer, 64, slab->bytes, slab->size),
                "buffer_write");
}

static void put_sinks(struct world *w, struct slab *slab, uint32_t layer)
{
    uint32_t heads = w->geometry.query_heads;
    slab_open(w, slab, 1, heads, heads, RATP_F32);
    slab_put(slab, 0, w->sinks[layer], heads);
    if (w->buffers)
        host_ok(w->host, slab->tensor.buffer,
                w->host->api->buffer_write(slab->tensor.buffer, 64, slab->bytes, slab->size),
                "buffer_write");
}

static bool attend_layer(struct world *w, ratp_step *step, struct batch *b, uint32_t layer)
{
    const struct ratp_geometry *g = &w->geometry;
    struct slab *in = b->in[layer];
    for (int t = 0; t < TENSOR_COUNT; t++)
        if ((t != TENSOR_F || g->memory) && (t != TENSOR_O || w->output_gate))
            put_input(w, b, layer, t);
    slab_open(w, &b->out[layer], b->rows, g->query_heads * g->value_size, g->value_size,
              w->io_dtype);
    slab_open(w, &b->lse[layer], b->rows, g->query_heads, 1, RATP_F32);
    if (w->sunk)
        put_sinks(w, &b->sinks[layer], layer);
    struct ratp_attend_io io = {
        .struct_size = sizeof io,
        .q = &in[TENSOR_Q].tensor,
        .k = &in[TENSOR_K].tensor,
        .v = &in[TENSOR_V].tensor,
        .f = g->memory ? &in[TENSOR_F].tensor : NULL,
        .o = w->output_gate ? &in[TENSOR_O].tensor : NULL,
        .out = &b->out[layer].tensor,
        .lse = &b->lse[layer].tensor,
        .sinks = w->sunk ? &b->sinks[layer].tensor : NULL,
    };
    return host_ok(w->host, step, w->host->api->step_attend(step, layer, &io), "step_attend");
}

static void keep_output(struct world *w, struct batch *b, uint32_t layer)
{
    struct slab *both[] = {&b->out[layer], &b->lse[layer]};
    for (int i = 0; w->buffers && i < 2; i++)
        host_ok(w->host, both[i]->tensor.buffer,
                w->host->api->buffer_read(both[i]->tensor.buffer, 64, both[i]->bytes,
                                          both[i]->size),
                "buffer_read");
    uint32_t heads = w->geometry.query_heads, size = heads * w->geometry.value_size;
    uint32_t row = 0;
    for (uint32_t i = 0; i < b->count; i++)
        for (uint32_t k = 0; k < b->n[i]; k++, row++) {
            size_t token = b->seqs[i]->tokens + k;
            slab_get(both[0], row, b->seqs[i]->out[layer] + token * size, size);
            slab_get(both[1], row, b->seqs[i]->lse[layer] + token * heads, heads);
        }
}

static void draw_batch(struct world *w, struct batch *b)
{
    struct random *r = &w->random;
    for (uint32_t i = 0; i < w->count; i++) {
        struct world_seq *s = &w->seqs[i];
        uint32_t left = w->max_tokens - s->tokens;
        if (!left || random_chance(r, 30))
            continue;
        uint32_t n = random_chance(r, 50) ? 1 : random_in(r, 1, left < 70 ? left : 70);
        b->seqs[b->count] = s;
        b->handles[b->count] = s->seq;
        b->kinds[b->count] =
            random_chance(r, 60) ? RATP_PART_AUTO : (ratp_part_kind)random_in(r, 0, 2);
        b->n[b->count++] = n;
        b->rows += n;
    }
}

void world_check_slots(struct world *w, const struct world_seq *s)
{
    const struct ratp_variant *v = &w->variants[s->policy][0][0];
    for (uint32_t l = 0; l < w->geometry.layers; l++)
        for (uint32_t h = 0; h < w->geometry.kv_heads; h++)
            if (memcmp(&w->variants[s->policy][l][h], v, sizeof *v))
                return;
    if (w->params.retention != RATP_RETAIN_NEEDED || v->kind == RATP_DENSE || v->dilation == 1 ||
        v->kind > RATP_STREAMING || v->prompt)
        return;
    struct ratp_seq_stats stats = {.struct_size = sizeof stats};
    host_ok(w->host, s->seq, w->host->api->seq_stats(s->seq, &stats), "seq_stats");
    CHECK(stats.length == s->tokens);
    uint32_t dilated = v->kind == RATP_DILATED ? s->tokens / v->dilation : 0;
    CHECK(stats.pages * w->params.page_slots <=
          v->sinks + v->window + dilated + 2 * w->params.page_slots);
}

bool world_step(struct world *w, bool commit)
{
    const struct ratp_api *api = w->host->api;
    struct batch b = {0};
    draw_batch(w, &b);
    if (!b.count) {
        for (uint32_t i = 0; i < w->count; i++)
            if (w->seqs[i].tokens < w->max_tokens)
                return true;
        return false;
    }
    struct ratp_step_params params = {
        .struct_size = sizeof params, .count = b.count, .seqs = b.handles, .n_tokens = b.n,
        .kinds = b.kinds};
    ratp_step *step = NULL;
    static struct futures before[MAX_SEQS], after;
    for (uint32_t i = 0; i < b.count && !commit; i++)
        world_futures(w, b.seqs[i], &before[i]);
    if (!host_ok(w->host, w->cache, api->step_begin(w->cache, &params, &step), "step_begin"))
        return false;
    uint32_t layers = commit ? w->geometry.layers : random_in(&w->random, 0, w->geometry.layers);
    uint32_t first = random_in(&w->random, 0, w->geometry.layers - 1);
    bool good = true;
    for (uint32_t l = 0; good && l < layers; l++)
        good = attend_layer(w, step, &b, (first + l) % w->geometry.layers);
    if (commit && good)
        good = host_ok(w->host, step, api->step_commit(&step), "step_commit");
    else
        host_ok(w->host, step, api->step_abort(&step), "step_abort");
    CHECK(step == NULL);
    for (uint32_t l = 0; commit && good && l < layers; l++)
        keep_output(w, &b, l);
    for (uint32_t l = 0; l < w->geometry.layers; l++) {
        for (int t = 0; t < TENSOR_COUNT; t++)
            slab_close(w, &b.in[l][t]);
        slab_close(w, &b.out[l]);
        slab_close(w, &b.lse[l]);
        slab_close(w, &b.sinks[l]);
    }
    for (uint32_t i = 0; i < b.count && !commit; i++) {
        world_futures(w, b.seqs[i], &after);
        if (!futures_equal(&before[i], &after, "after an abort"))
            fprintf(stderr, "  seed %llu, sequence %u, retention %d, a step of %u tokens\n",
                    (unsigned long long)w->seed, b.seqs[i]->id, (int)w->params.retention, b.n[i]);
    }
    w->hypothetical.state++;
    for (uint32_t i = 0; commit && good && i < b.count; i++) {
        b.seqs[i]->tokens += b.n[i];
        world_check_slots(w, b.seqs[i]);
    }
    return good;
}

/* Queries whose choice of keys was so close that the rounding of K may turn it. The
 * state after a truncation is rounded once more, and its error lives on. */
static void leave_out_close(const struct world *w, const struct world_seq *s, uint32_t layer,
                            const double *gap, const double *out, const double *lse)
{
    size_t rows = (size_t)s->tokens * w->geometry.query_heads, size = w->geometry.value_size;
    for (size_t i = 0; i < rows; i++) {
        if (gap[i] > 10 * dtype_bound(w->params.k_dtype))
            continue;
        for (size_t c = 0; c < size; c++)
            s->out[layer][i * size + c] = (float)out[i * size + c];
        s->lse[layer][i] = (float)lse[i];
    }
}

static void check_layer(struct world *w, const struct world_seq *s, uint32_t layer)
{
    const struct ratp_geometry *g = &w->geometry;
    struct naive_layer naive = {
        .query_heads = g->query_heads, .kv_heads = g->kv_heads,
        .head_size = g->head_size, .value_size = g->value_size,
        .softcap = (double)g->softcap, .rope = &w->rope,
        .sinks = w->sunk ? w->sinks[layer] : NULL,
    };
    float *in[TENSOR_COUNT];
    for (int t = 0; t < TENSOR_COUNT; t++)
        in[t] = make_rows(w, s, layer, t);
    const struct naive_tokens tokens = {
        .count = s->tokens, .q = in[TENSOR_Q], .k = in[TENSOR_K], .v = in[TENSOR_V],
        .f = g->memory ? in[TENSOR_F] : NULL, .o = w->output_gate ? in[TENSOR_O] : NULL,
        .prompt = s->prompt,
    };
    size_t rows = (size_t)s->tokens * g->query_heads, values = rows * g->value_size;
    double *out = malloc(values * sizeof *out), *lse = malloc(rows * sizeof *lse);
    double *one_out = malloc(values * sizeof *out), *one_lse = malloc(rows * sizeof *lse);
    double *gap = malloc(rows * sizeof *gap), *one_gap = malloc(rows * sizeof *gap);
    size_t row = rows / s->tokens, row_values = values / s->tokens;
    for (uint32_t p = 0; p < MAX_POLICIES; p++) {
        bool used = false;
        for (uint32_t t = 0; t < s->tokens; t++)
            used |= s->policies[t] == p;
        if (used)
            CHECK(naive_sequence(&naive, w->variants[p][layer], g->kv_heads, &tokens,
                                 &(struct naive_answer){
                                     .out = one_out, .lse = one_lse, .gap = one_gap}));
        for (uint32_t t = 0; t < s->tokens; t++)
            if (s->policies[t] == p) {
                memcpy(out + t * row_values, one_out + t * row_values, row_values * sizeof *out);
                memcpy(lse + t * row, one_lse + t * row, row * sizeof *lse);
                memcpy(gap + t * row, one_gap + t * row, row * sizeof *gap);
            }
    }
    free(one_out);
    free(one_lse);
    free(one_gap);
    double bound = dtype_bound(w->params.k_dtype);
    bound = fmax(bound, dtype_bound(w->params.v_dtype));
    bound = fmax(bound, dtype_bound(w->io_dtype));
    leave_out_close(w, s, layer, gap, out, lse);
    double out_error = distance(s->out[layer], out, values);
    double lse_error = distance(s->lse[layer], lse, rows);
    CHECK(out_error <= bound);
    CHECK(lse_error <= bound);
    if (!(out_error <= bound && lse_error <= bound))
        fprintf(stderr,
                "  seed %llu sequence %u layer %u: out %.2e, lse %.2e, bound %.0e; kind %d D %u W %u "
                "S %u, heads %u/%u size %u/%u, tokens %u, memory %u, retention %d, io %d k %d v %d\n",
                (unsigned long long)w->seed, s->id, layer, out_error, lse_error, bound,
                (int)w->variants[0][layer][0].kind, w->variants[0][layer][0].dilation, w->variants[0][layer][0].window,
                w->variants[0][layer][0].sinks, g->query_heads, g->kv_heads, g->head_size, g->value_size,
                s->tokens, g->memory, (int)w->params.retention, (int)w->io_dtype,
                (int)w->params.k_dtype, (int)w->params.v_dtype);
    for (int t = 0; t < TENSOR_COUNT; t++)
        free(in[t]);
    free(out);
    free(lse);
    free(gap);
}

void world_check(struct world *w)
{
    for (uint32_t i = 0; i < w->count; i++)
        for (uint32_t l = 0; w->seqs[i].tokens && l < w->geometry.layers; l++)
            check_layer(w, &w->seqs[i], l);
}

/* It holds nothing any more. */
static void close_cache(struct world *w, ratp_cache **cache)
{
    struct ratp_cache_stats stats = {.struct_size = sizeof stats};
    host_ok(w->host, *cache, w->host->api->cache_stats(*cache, &stats), "cache_stats");
    CHECK(stats.pages_used == 0 && stats.used_bytes == 0 && stats.state_bytes == 0);
    CHECK(stats.sequences == 0);
    host_ok(w->host, *cache, w->host->api->cache_destroy(cache), "cache_destroy");
}

void world_close(struct world *w)
{
    const struct ratp_api *api = w->host->api;
    for (uint32_t i = 0; i < w->count; i++) {
        host_ok(w->host, w->seqs[i].seq, api->seq_destroy(&w->seqs[i].seq), "seq_destroy");
        for (uint32_t l = 0; l < w->geometry.layers; l++) {
            free(w->seqs[i].out[l]);
            free(w->seqs[i].lse[l]);
        }
        free(w->seqs[i].ids);
        free(w->seqs[i].policies);
        free(w->seqs[i].prompt);
    }
    close_cache(w, &w->cache);
    close_cache(w, &w->spare);
    for (uint32_t p = 0; p < MAX_POLICIES; p++)
        host_ok(w->host, w->policies[p], api->policy_destroy(&w->policies[p]), "policy_destroy");
}
