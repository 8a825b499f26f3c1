#include "api_compress.h"

#include "../naive.h"
#include "../random.h"

#include <stdlib.h>

float compress_out[LAYERS][TOKENS * QUERY_HEADS * 32];

static float in_q[LAYERS][TOKENS * QUERY_HEADS * 32];
static float in_k[LAYERS][TOKENS * KV_HEADS * 32], in_v[LAYERS][TOKENS * KV_HEADS * 32];
static float in_f[LAYERS][TOKENS * KV_HEADS * 32];
static uint32_t head_size;
static const struct ratp_rope rope = {sizeof rope, .style = RATP_ROPE_HALF};

void compress_start(void)
{
    struct random r = {7};
    for (uint32_t l = 0; l < LAYERS; l++) {
        for (uint32_t i = 0; i < TOKENS * QUERY_HEADS * 32; i++)
            in_q[l][i] = 2 * random_normal(&r);
        for (uint32_t i = 0; i < TOKENS * KV_HEADS * 32; i++) {
            in_k[l][i] = random_normal(&r);
            in_v[l][i] = random_normal(&r);
            in_f[l][i] = random_normal(&r);
        }
    }
}

ratp_cache *compress_cache(const struct compress_model *model)
{
    head_size = model->head_size ? model->head_size : HEAD_SIZE;
    ratp_dtype dtype = model->dtype ? model->dtype : RATP_F32;
    uint32_t query_heads = model->query_heads ? model->query_heads : QUERY_HEADS;
    struct ratp_geometry geometry = {sizeof geometry, LAYERS, query_heads, KV_HEADS, head_size,
                                     .memory = 1, .max_tokens = 4096, .rope = &rope};
    struct ratp_cache_params params = {sizeof params, .geometry = &geometry,
                                       .budget = model->budget, .k_dtype = dtype, .v_dtype = dtype,
                                       .page_slots = model->page_slots ? model->page_slots : 8,
                                       .retention = model->retention};
    ratp_policy *policy = NULL;
    ratp_cache *cache = NULL;
    CHECK_EQUAL(ratp->policy_from_json(instance, model->policy, strlen(model->policy), &policy),
                RATP_OK);
    params.policy = policy;
    if (!CHECK_EQUAL(ratp->cache_create(device, &params, &cache), RATP_OK)) {
        fprintf(stderr, "%s\n", host_message(device));
        exit(1);
    }
    CHECK_EQUAL(ratp->policy_destroy(&policy), RATP_OK);
    return cache;
}

ratp_step *compress_begin(ratp_cache *cache, ratp_seq *seq, uint32_t count, ratp_part_kind kind)
{
    struct ratp_step_params params = {sizeof params, .count = 1, .seqs = &seq,
                                      .n_tokens = &count, .kinds = &kind};
    ratp_step *step = NULL;
    if (!CHECK_EQUAL(ratp->step_begin(cache, &params, &step), RATP_OK)) {
        fprintf(stderr, "%s\n", host_message(cache));
        exit(1);
    }
    return step;
}

void compress_attend(ratp_step *step, uint32_t layer, uint32_t from)
{
    size_t q = (size_t)from * QUERY_HEADS * head_size, k = (size_t)from * KV_HEADS * head_size;
    struct ratp_tensor tq = {sizeof tq, .host = in_q[layer] + q};
    struct ratp_tensor tk = {sizeof tk, .host = in_k[layer] + k};
    struct ratp_tensor tv = {sizeof tv, .host = in_v[layer] + k};
    struct ratp_tensor tf = {sizeof tf, .host = in_f[layer] + k};
    struct ratp_tensor out = {sizeof out, .host = compress_out[layer] + q};
    struct ratp_attend_io io = {sizeof io, .q = &tq, .k = &tk, .v = &tv, .f = &tf, .out = &out};
    CHECK_EQUAL(ratp->step_attend(step, layer, &io), RATP_OK);
}

void compress_feed(ratp_cache *cache, ratp_seq *seq, uint32_t from, uint32_t count,
                   ratp_part_kind kind)
{
    ratp_step *step = compress_begin(cache, seq, count, kind);
    for (uint32_t layer = 0; layer < LAYERS; layer++)
        compress_attend(step, layer, from);
    CHECK_EQUAL(ratp->step_commit(&step), RATP_OK);
}

void compress_feed_two(ratp_cache *cache, ratp_seq *const seqs[2], uint32_t from, uint32_t count,
                       ratp_part_kind kind)
{
    static float q[2 * TOKENS * QUERY_HEADS * 32], k[2 * TOKENS * KV_HEADS * 32];
    static float v[2 * TOKENS * KV_HEADS * 32], f[2 * TOKENS * KV_HEADS * 32];
    static float results[2 * TOKENS * QUERY_HEADS * 32];
    const uint32_t counts[2] = {count, count};
    const ratp_part_kind kinds[2] = {kind, kind};
    const struct ratp_step_params params = {sizeof params, .count = 2, .seqs = seqs,
                                            .n_tokens = counts, .kinds = kinds};
    size_t q_row = (size_t)QUERY_HEADS * head_size, k_row = (size_t)KV_HEADS * head_size;
    ratp_step *step = NULL;
    CHECK_EQUAL(ratp->step_begin(cache, &params, &step), RATP_OK);
    for (uint32_t l = 0; l < LAYERS; l++) {
        for (uint32_t i = 0; i < 2; i++) {
            memcpy(q + i * count * q_row, in_q[l] + from * q_row, count * q_row * sizeof *q);
            memcpy(k + i * count * k_row, in_k[l] + from * k_row, count * k_row * sizeof *k);
            memcpy(v + i * count * k_row, in_v[l] + from * k_row, count * k_row * sizeof *v);
            memcpy(f + i * count * k_row, in_f[l] + from * k_row, count * k_row * sizeof *f);
        }
        struct ratp_tensor tq = {sizeof tq, .host = q}, tk = {sizeof tk, .host = k};
        struct ratp_tensor tv = {sizeof tv, .host = v}, tf = {sizeof tf, .host = f};
        struct ratp_tensor out = {sizeof out, .host = results};
        struct ratp_attend_io io = {sizeof io, .q = &tq, .k = &tk, .v = &tv, .f = &tf, .out = &out};
        CHECK_EQUAL(ratp->step_attend(step, l, &io), RATP_OK);
    }
    CHECK_EQUAL(ratp->step_commit(&step), RATP_OK);
}

uint64_t compress_held(ratp_seq *seq, uint32_t layer, uint32_t head, uint32_t positions[TOKENS])
{
    uint64_t count = 0, again = 0;
    CHECK_EQUAL(ratp->seq_positions(seq, layer, head, positions, TOKENS, &count), RATP_OK);
    CHECK_EQUAL(ratp->seq_positions(seq, layer, head, NULL, 0, &again), RATP_OK);
    CHECK_EQUAL(count, again);
    return count;
}

uint64_t compress_pages(ratp_seq *seq)
{
    struct ratp_seq_stats stats = {.struct_size = sizeof stats};
    CHECK_EQUAL(ratp->seq_stats(seq, &stats), RATP_OK);
    return stats.pages;
}

void compress_close(ratp_cache **cache)
{
    struct ratp_cache_stats stats = {.struct_size = sizeof stats};
    CHECK_EQUAL(ratp->cache_stats(*cache, &stats), RATP_OK);
    CHECK(!stats.pages_used && !stats.state_bytes && !stats.sequences);
    CHECK_EQUAL(ratp->cache_destroy(cache), RATP_OK);
}

void compress_check(ratp_seq *seq, uint32_t layer, const struct ratp_variant variants[KV_HEADS],
                    uint32_t first, uint32_t count, uint32_t prompt, const uint32_t *lengths,
                    uint32_t length_count)
{
    static double out[TOKENS * QUERY_HEADS * 32];
    static unsigned char prompts[TOKENS], held[KV_HEADS * TOKENS];
    struct naive_layer naive = {QUERY_HEADS, KV_HEADS, head_size, .rope = &rope};
    for (uint32_t t = 0; t < TOKENS; t++)
        prompts[t] = t < prompt;
    struct naive_tokens tokens = {count, in_q[layer], in_k[layer], in_v[layer], in_f[layer], NULL,
                                  prompts, lengths, length_count, .gone = true};
    struct naive_answer answer = {.out = out, .held = held};
    memset(held, 1, sizeof held);
    if (!CHECK(naive_sequence(&naive, variants, KV_HEADS, &tokens, &answer)))
        return;
    size_t row = (size_t)QUERY_HEADS * head_size;
    double difference = 0, size = 0;
    for (size_t i = first * row; i < count * row; i++) {
        double x = (double)compress_out[layer][i] - out[i];
        difference += x * x;
        size += out[i] * out[i];
    }
    if (!CHECK(difference <= 4e-10 * size))
        fprintf(stderr, "    layer %u: error %.2e\n", layer, sqrt(difference / size));
    for (uint32_t h = 0; seq && h < KV_HEADS; h++) {
        uint32_t positions[TOKENS] = {0};
        uint64_t n = compress_held(seq, layer, h, positions), wanted = 0;
        if (variants[h].kind != RATP_SNAPKV)
            continue;
        bool same = true;
        for (uint32_t t = 0; t < count; t++)
            if (held[h * count + t])
                same = same && wanted < n && positions[wanted++] == t;
        CHECK(same);
        CHECK_EQUAL(n, wanted);
    }
}
