/* Attention over very many keys: software devices bound how long a kernel's
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

int main(int argc, char **argv)
{
    host_open(argc, argv);
    RUN(test_prompt);
    RUN(test_token);
    host_close();
    return check_result();
}
