/* Prompts that choose blocks of keys, long enough that the kernels take them in several
 * waves, against the naive program. */
#include "../naive.h"
#include "../random.h"
#include "api_host.h"

#include <stdlib.h>

struct layer {
    uint32_t query_heads, kv_heads, size;
    uint32_t block, topk, page_slots;
    ratp_selection selection;
    uint32_t parts[3]; /* tokens of each step, up to the first 0 */
    ratp_dtype dtype;  /* of the cache */
};

static float *random_rows(struct random *r, size_t count)
{
    float *values = malloc(count * sizeof *values);
    for (size_t i = 0; values && i < count; i++)
        values[i] = roundf(random_normal(r) * 256) / 256; /* also in float16 */
    return values;
}

static struct ratp_tensor tensor(float *host)
{
    return (struct ratp_tensor){.struct_size = sizeof(struct ratp_tensor), .host = host};
}

/* The steps of a sequence; `out` and `lse` get every token's. */
static void play(const struct layer *layer, const struct ratp_variant *variant, float *q, float *k,
                 float *v, float *out, float *lse)
{
    const struct ratp_geometry geometry = {
        .struct_size = sizeof geometry, .layers = 1, .query_heads = layer->query_heads,
        .kv_heads = layer->kv_heads, .head_size = layer->size};
    ratp_policy *policy = NULL;
    ratp_cache *cache = NULL;
    CHECK_EQUAL(ratp->policy_create(instance, &policy), RATP_OK);
    CHECK_EQUAL(ratp->policy_set(policy, (struct ratp_range){0}, (struct ratp_range){0}, variant),
                RATP_OK);
    const struct ratp_cache_params params = {.struct_size = sizeof params, .geometry = &geometry,
                                             .policy = policy, .k_dtype = layer->dtype,
                                             .v_dtype = layer->dtype,
                                             .page_slots = layer->page_slots};
    CHECK_EQUAL(ratp->cache_create(device, &params, &cache), RATP_OK);
    ratp_seq *seq = host_seq(cache);
    size_t done = 0;
    for (int i = 0; i < 3 && layer->parts[i]; i++) {
        size_t row = done * layer->query_heads, cell = done * layer->kv_heads * layer->size;
        const struct ratp_tensor tq = tensor(q + row * layer->size), tk = tensor(k + cell),
                                 tv = tensor(v + cell), to = tensor(out + row * layer->size),
                                 tl = tensor(lse + row);
        const struct ratp_attend_io io = {.struct_size = sizeof io, .q = &tq, .k = &tk, .v = &tv,
                                          .out = &to, .lse = &tl};
        ratp_step *step = host_step(cache, seq, layer->parts[i]);
        CHECK_EQUAL(ratp->step_attend(step, 0, &io), RATP_OK);
        CHECK_EQUAL(ratp->step_commit(&step), RATP_OK);
        done += layer->parts[i];
    }
    CHECK_EQUAL(ratp->seq_destroy(&seq), RATP_OK);
    CHECK_EQUAL(ratp->cache_destroy(&cache), RATP_OK);
    CHECK_EQUAL(ratp->policy_destroy(&policy), RATP_OK);
}

/* Each row by itself: one that a wave has lost or mixed up does not hide among many. */
static void compare(const struct layer *layer, size_t rows, const struct naive_answer *want,
                    const float *out, const float *lse)
{
    size_t compared = 0;
    for (size_t i = 0; i < rows; i++) {
        if (want->gap[i] < 1e-4)
            continue;
        double wrong = 0, length = 0;
        for (uint32_t c = 0; c < layer->size; c++) {
            double y = want->out[i * layer->size + c];
            wrong += pow((double)out[i * layer->size + c] - y, 2);
            length += y * y;
        }
        CHECK(sqrt(wrong / length) < 2e-5);
        CHECK(fabs((double)lse[i] - want->lse[i]) < 1e-4);
        compared++;
    }
    CHECK(compared > rows / 2);
}

static void test_layer(const struct layer *layer)
{
    const struct ratp_variant variant = {.struct_size = sizeof variant, .kind = RATP_MOBA,
                                         .block = layer->block, .topk = layer->topk,
                                         .selection = layer->selection};
    const struct naive_layer naive = {.query_heads = layer->query_heads,
                                      .kv_heads = layer->kv_heads, .head_size = layer->size};
    struct random r = {7};
    uint32_t tokens = layer->parts[0] + layer->parts[1] + layer->parts[2];
    size_t rows = (size_t)tokens * layer->query_heads, values = rows * layer->size;
    size_t cells = (size_t)tokens * layer->kv_heads * layer->size;
    float *q = random_rows(&r, values), *k = random_rows(&r, cells), *v = random_rows(&r, cells);
    float *out = random_rows(&r, values), *lse = random_rows(&r, rows);
    const struct naive_answer want = {.out = malloc(values * sizeof *want.out),
                                      .lse = malloc(rows * sizeof *want.lse),
                                      .gap = malloc(rows * sizeof *want.gap)};
    const struct naive_tokens all = {.count = tokens, .q = q, .k = k, .v = v};
    if (CHECK(q && k && v && out && lse && want.out && want.lse && want.gap) &&
        CHECK(naive_sequence(&naive, &variant, 1, &all, &want))) {
        play(layer, &variant, q, k, v, out, lse);
        compare(layer, rows, &want, out, lse);
    }
    free(want.out);
    free(want.lse);
    free(want.gap);
    free(q);
    free(k);
    free(v);
    free(out);
    free(lse);
}

/* 64 MiB of partial results hold 96 tokens of these. */
static void test_many_waves(void)
{
    test_layer(&(struct layer){32, 4, 256, 8, 16, 16, RATP_SELECT_HEAD, {250}, RATP_F32});
}

/* Prompts that begin and end within blocks, a few tokens, and groups that choose together. */
static void test_pieces(void)
{
    test_layer(&(struct layer){6, 2, 64, 24, 3, 8, RATP_SELECT_HEAD, {77, 130, 5}, RATP_F32});
    test_layer(&(struct layer){6, 2, 64, 24, 3, 8, RATP_SELECT_GROUP, {1, 150, 60}, RATP_F32});
    test_layer(&(struct layer){
        6, 2, 64, 24, 3, 8, RATP_SELECT_HEAD, {77, 130, 5}, RATP_F16});
    test_layer(&(struct layer){
        2, 2, 128, 64, 3, 64, RATP_SELECT_HEAD, {300}, RATP_F16});
}

/* All that is chosen is the query's own block, and blocks longer than the prompt. */
static void test_own_block(void)
{
    test_layer(&(struct layer){2, 2, 32, 16, 1, 16, RATP_SELECT_HEAD, {100}, RATP_F32});
    test_layer(&(struct layer){2, 2, 32, 256, 3, 256, RATP_SELECT_HEAD, {100, 90}, RATP_F32});
}

int main(int argc, char **argv)
{
    host_open(argc, argv);
    RUN(test_many_waves);
    RUN(test_pieces);
    RUN(test_own_block);
    host_close();
    return check_result();
}
