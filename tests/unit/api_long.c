/* Attention over very many keys, and very long prompts: software devices bound how long a kernel's
 * loops may run, and the work must be cut before that. */
#include "api_host.h"

#include <math.h>
#include <stdlib.h>

enum { HEADS = 8, GROUP = 2, KV = HEADS / GROUP };

static uint32_t random_state = 1;

static void fill(float *values, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        random_state = random_state * 1664525u + 1013904223u;
        values[i] = (float)(random_state >> 8) / (float)(1 << 23) - 1;
    }
}

/* The relative error of one row against the definition. */
static double row_error(const float *q, const float *k, const float *v, const float *out,
                        uint32_t keys, uint32_t size)
{
    const size_t stride = (size_t)KV * size;
    double sum[256] = {0}, total = 0, wrong = 0, length = 0;
    for (size_t j = 0; j < keys; j++) {
        double logit = 0;
        for (uint32_t c = 0; c < size; c++)
            logit += (double)q[c] * (double)k[j * stride + c];
        double weight = exp(logit / sqrt(size));
        total += weight;
        for (uint32_t c = 0; c < size; c++)
            sum[c] += weight * (double)v[j * stride + c];
    }
    for (uint32_t c = 0; c < size; c++) {
        double y = sum[c] / total;
        wrong += (y - (double)out[c]) * (y - (double)out[c]);
        length += y * y;
    }
    return sqrt(wrong / length);
}

static struct ratp_tensor tensor(float *host)
{
    return (struct ratp_tensor){.struct_size = sizeof(struct ratp_tensor), .host = host};
}

static void attend(uint32_t queries, uint32_t keys, uint32_t size)
{
    size_t rows = (size_t)queries * HEADS * size, cells = (size_t)keys * KV * size;
    float *data = malloc((2 * rows + 2 * cells) * sizeof *data);
    if (!CHECK(data != NULL))
        return;
    float *q = data, *out = q + rows, *k = out + rows, *v = k + cells;
    fill(data, 2 * rows + 2 * cells);
    const struct ratp_tensor tq = tensor(q), tk = tensor(k), tv = tensor(v), to = tensor(out);
    const struct ratp_external params = {
        .struct_size = sizeof params, .query_tokens = queries, .key_tokens = keys,
        .query_heads = HEADS, .kv_heads = KV, .head_size = size, .causal = 1,
        .first_position = keys - queries, .q = &tq, .k = &tk, .v = &tv, .out = &to};
    CHECK_EQUAL(ratp->attend_external(device, &params), RATP_OK);
    for (uint32_t i = 0; i < queries; i++)
        for (uint32_t h = 0; h < HEADS; h++) {
            size_t at = ((size_t)i * HEADS + h) * size;
            size_t head = h / GROUP * size;
            CHECK(row_error(q + at, k + head, v + head, out + at, keys - queries + i + 1, size) <
                  1e-4);
        }
    free(data);
}

static void test_prompt(void)
{
    attend(6, 20000, 64);
    attend(3, 150000, 8);
}

static void test_token(void)
{
    attend(1, 600000, 8);
}

/* A prompt of ones through gates that are half open, into dilated tokens and
 * window: what is kept soon is one, and so is what comes out. */
static void test_memory(void)
{
    enum { TOKENS = 40000, SIZE = 64, ROW = KV * SIZE };
    const struct ratp_geometry geometry = {.struct_size = sizeof geometry, .layers = 1,
                                           .query_heads = KV, .kv_heads = KV,
                                           .head_size = SIZE, .memory = 1};
    const struct ratp_variant variant = {sizeof variant, RATP_DILATED, .dilation = 64,
                                         .window = 16};
    ratp_policy *policy = NULL;
    CHECK_EQUAL(ratp->policy_create(instance, &policy), RATP_OK);
    CHECK_EQUAL(ratp->policy_set(policy, (struct ratp_range){0}, (struct ratp_range){0}, &variant),
                RATP_OK);
    const struct ratp_cache_params params = {.struct_size = sizeof params, .geometry = &geometry,
                                             .policy = policy,
                                             .retention = RATP_RETAIN_NEEDED};
    ratp_cache *cache = NULL;
    float *ones = malloc(2 * (size_t)TOKENS * ROW * sizeof *ones), *zeros, *out;
    CHECK_EQUAL(ratp->cache_create(device, &params, &cache), RATP_OK);
    zeros = calloc((size_t)TOKENS * ROW, sizeof *zeros);
    if (!CHECK(ones && zeros && cache))
        return;
    out = ones + (size_t)TOKENS * ROW;
    for (size_t i = 0; i < (size_t)TOKENS * ROW; i++)
        ones[i] = 1;
    const struct ratp_tensor t1 = tensor(ones), t0 = tensor(zeros), to = tensor(out);
    const struct ratp_attend_io io = {.struct_size = sizeof io, .q = &t0, .k = &t1, .v = &t1,
                                      .f = &t0, .out = &to};
    ratp_seq *seq = host_seq(cache);
    const uint32_t tokens[2] = {TOKENS, 1};
    for (int i = 0; i < 2; i++) {
        ratp_step *step = host_step(cache, seq, tokens[i]);
        CHECK_EQUAL(ratp->step_attend(step, 0, &io), RATP_OK);
        CHECK_EQUAL(ratp->step_commit(&step), RATP_OK);
        const float *last = out + (size_t)(tokens[i] - 1) * ROW;
        float worst = 0;
        for (uint32_t c = 0; c < ROW; c++)
            worst = fabsf(last[c] - 1) > worst ? fabsf(last[c] - 1) : worst;
        CHECK(worst < 1e-3f);
    }
    CHECK_EQUAL(ratp->seq_destroy(&seq), RATP_OK);
    CHECK_EQUAL(ratp->cache_destroy(&cache), RATP_OK);
    CHECK_EQUAL(ratp->policy_destroy(&policy), RATP_OK);
    free(ones);
    free(zeros);
}

int main(int argc, char **argv)
{
    host_open(argc, argv);
    RUN(test_prompt);
    RUN(test_token);
    RUN(test_memory);
    host_close();
    return check_result();
}
