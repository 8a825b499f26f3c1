/* SnapKV: when a prompt is compressed, what stays of it, and what that means for pages,
 * steps that are aborted, and queries that are not known. */
#include "api_compress.h"

#include <stdlib.h>

static const struct ratp_variant snap = {sizeof snap, RATP_SNAPKV, .observe = 8, .capacity = 40,
                                         .kernel = 5};
static const char snap_json[] = "{\"default\": \"snapkv40o8n5\"}";
enum { CAPACITY = 40, OBSERVE = 8 };

/* A prompt in chunks of `chunk`, then decoded tokens; both retentions. */
static void play(uint32_t chunk, ratp_retention retention)
{
    const struct ratp_variant variants[KV_HEADS] = {snap, snap};
    const uint32_t prompt = 100, end = 112;
    ratp_cache *cache =
        compress_cache(&(struct compress_model){.policy = snap_json, .retention = retention});
    ratp_seq *seq = host_seq(cache);
    for (uint32_t t = 0, n; t < prompt; t += n) {
        n = prompt - t < chunk ? prompt - t : chunk;
        compress_feed(cache, seq, t, n, RATP_PART_PROMPT);
    }
    uint32_t positions[TOKENS];
    uint64_t before = compress_pages(seq);
    CHECK_EQUAL(compress_held(seq, 0, 0, positions), prompt);
    for (uint32_t t = prompt; t < end; t++) {
        compress_feed(cache, seq, t, 1, RATP_PART_AUTO);
        CHECK_EQUAL(compress_held(seq, 1, 1, positions), CAPACITY + t + 1 - prompt);
        CHECK_EQUAL(positions[CAPACITY - OBSERVE], prompt - OBSERVE);
    }
    CHECK_EQUAL(before, 13);
    CHECK_EQUAL(compress_pages(seq), 7);
    for (uint32_t l = 0; l < LAYERS; l++)
        compress_check(seq, l, variants, 0, end, prompt, &prompt, 1);
    CHECK_EQUAL(ratp->seq_destroy(&seq), RATP_OK);
    compress_close(&cache);
}

static void test_prompts(void)
{
    static const uint32_t chunks[] = {100, 33, 9, 5, 1};
    for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++)
        play(chunks[i], i % 2 ? RATP_RETAIN_FULL : RATP_RETAIN_NEEDED);
    play(100, RATP_RETAIN_FULL);
}

/* Shorter prompts are kept whole, also when they grow later. */
static void test_short(void)
{
    const struct ratp_variant variants[KV_HEADS] = {snap, snap};
    ratp_cache *cache = compress_cache(&(struct compress_model){.policy = snap_json});
    for (uint32_t prompt = CAPACITY - 1; prompt <= CAPACITY; prompt++) {
        ratp_seq *seq = host_seq(cache);
        uint32_t positions[TOKENS];
        compress_feed(cache, seq, 0, prompt, RATP_PART_PROMPT);
        for (uint32_t t = prompt; t < 60; t++)
            compress_feed(cache, seq, t, 1, RATP_PART_DECODE);
        CHECK_EQUAL(compress_held(seq, 0, 0, positions), 60);
        compress_feed(cache, seq, 60, 10, RATP_PART_PROMPT);
        compress_feed(cache, seq, 70, 1, RATP_PART_DECODE);
        CHECK_EQUAL(compress_held(seq, 0, 0, positions), 71);
        compress_check(seq, 0, variants, 0, 71, prompt, NULL, 0);
        CHECK_EQUAL(ratp->seq_compress(seq), RATP_OK);
        CHECK_EQUAL(compress_held(seq, 0, 0, positions), CAPACITY);
        CHECK_EQUAL(ratp->seq_destroy(&seq), RATP_OK);
    }
    compress_close(&cache);
}

/* Asked for in the middle of a prompt, and again later: by itself, and when asked. */
static void test_asked(void)
{
    const struct ratp_variant variants[KV_HEADS] = {snap, snap};
    const uint32_t lengths[] = {60, 110, 130};
    ratp_cache *cache = compress_cache(&(struct compress_model){.policy = snap_json});
    ratp_seq *seq = host_seq(cache);
    uint32_t positions[TOKENS];
    CHECK_EQUAL(ratp->seq_compress(seq), RATP_OK);
    compress_feed(cache, seq, 0, 60, RATP_PART_PROMPT);
    CHECK_EQUAL(ratp->seq_compress(seq), RATP_OK);
    CHECK_EQUAL(ratp->seq_compress(seq), RATP_OK);
    CHECK_EQUAL(compress_held(seq, 0, 1, positions), CAPACITY);
    CHECK_EQUAL(compress_pages(seq), 5);
    compress_feed(cache, seq, 60, 50, RATP_PART_PROMPT);
    CHECK_EQUAL(compress_held(seq, 0, 1, positions), CAPACITY + 50);
    for (uint32_t t = 110; t < 130; t++)
        compress_feed(cache, seq, t, 1, RATP_PART_DECODE);
    for (uint32_t l = 0; l < LAYERS; l++)
        compress_check(seq, l, variants, 0, 130, 110, lengths, 2);
    CHECK_EQUAL(ratp->seq_compress(seq), RATP_OK);
    for (uint32_t t = 130; t < 135; t++)
        compress_feed(cache, seq, t, 1, RATP_PART_DECODE);
    for (uint32_t l = 0; l < LAYERS; l++)
        compress_check(seq, l, variants, 0, 135, 110, lengths, 3);
    CHECK_EQUAL(ratp->seq_destroy(&seq), RATP_OK);
    compress_close(&cache);
}

/* Heads of a layer that keep all, what is dilated, and what two kinds of snapkv keep. */
static void test_hybrid(void)
{
    static const char json[] =
        "{\"default\": \"d4w6s2\", \"rules\": [{\"layers\": 0, \"heads\": 1, \"variant\": "
        "\"snapkv40o8n5\"}, {\"layers\": 1, \"heads\": 0, \"variant\": \"d8w12:snapkv30o16n3avg\"}, "
        "{\"layers\": 1, \"heads\": 1, \"variant\": \"moba16k2:snapkv30o16n3avg\"}]}";
    const struct ratp_variant dilated = {sizeof dilated, RATP_DILATED, .dilation = 4, .window = 6,
                                         .sinks = 2};
    const struct ratp_variant wide = {sizeof wide, RATP_DILATED, .dilation = 8, .window = 12};
    const struct ratp_variant moba = {sizeof moba, RATP_MOBA, .block = 16, .topk = 2};
    struct ratp_variant avg = {sizeof avg, RATP_SNAPKV, .observe = 16, .capacity = 30,
                               .kernel = 3, .pool = RATP_POOL_AVG, .prompt = &wide};
    struct ratp_variant avg_moba = avg;
    avg_moba.prompt = &moba;
    const struct ratp_variant first[KV_HEADS] = {dilated, snap}, second[KV_HEADS] = {avg, avg_moba};
    const uint32_t prompt = 90;
    for (uint32_t r = RATP_RETAIN_FULL; r <= RATP_RETAIN_NEEDED; r++) {
        ratp_cache *cache = compress_cache(
            &(struct compress_model){.policy = json, .retention = (ratp_retention)r});
        ratp_seq *seq = host_seq(cache), *other = host_seq(cache);
        compress_feed(cache, seq, 0, 50, RATP_PART_PROMPT);
        compress_feed(cache, other, 0, 10, RATP_PART_PROMPT);
        compress_feed(cache, seq, 50, 40, RATP_PART_PROMPT);
        for (uint32_t t = 90; t < 100; t++)
            compress_feed(cache, seq, t, 1, RATP_PART_DECODE);
        compress_check(seq, 0, first, 50, 100, prompt, &prompt, 1);
        compress_check(seq, 1, second, 50, 100, prompt, &prompt, 1);
        CHECK_EQUAL(ratp->seq_destroy(&seq), RATP_OK);
        CHECK_EQUAL(ratp->seq_destroy(&other), RATP_OK);
        compress_close(&cache);
    }
}

/* Sequences of unlike policies in one step: each is compressed as it would be alone. */
static void test_batch(void)
{
    static const char json[] = "{\"default\": \"snapkv40o8n5\", \"rules\": [{\"layers\": 0, "
                               "\"heads\": 0, \"variant\": \"d4w6\"}]}";
    const struct ratp_variant dilated = {sizeof dilated, RATP_DILATED, .dilation = 4, .window = 6};
    const struct ratp_variant alike[KV_HEADS] = {snap, snap}, mixed[KV_HEADS] = {dilated, snap};
    const uint32_t prompt = 90, end = 100;
    ratp_cache *cache = compress_cache(
        &(struct compress_model){.policy = snap_json, .retention = RATP_RETAIN_NEEDED});
    ratp_seq *seqs[2] = {host_seq(cache), host_seq(cache)};
    ratp_policy *policy = NULL;
    CHECK_EQUAL(ratp->policy_from_json(instance, json, strlen(json), &policy), RATP_OK);
    CHECK_EQUAL(ratp->seq_set_policy(seqs[1], policy), RATP_OK);
    CHECK_EQUAL(ratp->policy_destroy(&policy), RATP_OK);
    compress_feed_two(cache, seqs, 0, 50, RATP_PART_PROMPT);
    compress_feed_two(cache, seqs, 50, 40, RATP_PART_PROMPT);
    compress_feed_two(cache, seqs, 90, 1, RATP_PART_DECODE);
    for (uint32_t s = 0; s < 2; s++) {
        for (uint32_t t = 91; t < end; t++)
            compress_feed(cache, seqs[s], t, 1, RATP_PART_DECODE);
        compress_check(seqs[s], 0, s ? mixed : alike, 91, end, prompt, &prompt, 1);
        compress_check(seqs[s], 1, alike, 91, end, prompt, &prompt, 1);
        CHECK_EQUAL(ratp->seq_destroy(&seqs[s]), RATP_OK);
    }
    compress_close(&cache);
}

/* An abort leaves what was there, before and after the layers. */
static void test_abort(void)
{
    const struct ratp_variant variants[KV_HEADS] = {snap, snap};
    const uint32_t prompt = 100;
    ratp_cache *cache = compress_cache(&(struct compress_model){.policy = snap_json});
    ratp_seq *seq = host_seq(cache);
    compress_feed(cache, seq, 0, prompt, RATP_PART_PROMPT);
    struct ratp_cache_stats before = {.struct_size = sizeof before}, after = before;
    CHECK_EQUAL(ratp->cache_stats(cache, &before), RATP_OK);
    for (uint32_t layers = 0; layers <= LAYERS; layers++)
        for (uint32_t rows = 1; rows < 30; rows += 14) {
            uint32_t positions[TOKENS];
            ratp_step *step = compress_begin(cache, seq, rows, RATP_PART_DECODE);
            REFUSE(seq, ratp->seq_compress(seq), RATP_WRONG_STATE, "part of an open step");
            for (uint32_t l = 0; l < layers; l++)
                compress_attend(step, l, prompt);
            CHECK_EQUAL(ratp->step_abort(&step), RATP_OK);
            CHECK_EQUAL(compress_held(seq, 0, 0, positions), prompt);
            CHECK_EQUAL(ratp->cache_stats(cache, &after), RATP_OK);
            CHECK_EQUAL(after.pages_used, before.pages_used);
            CHECK_EQUAL(after.state_bytes, before.state_bytes);
        }
    for (uint32_t t = prompt; t < 110; t++)
        compress_feed(cache, seq, t, 1, RATP_PART_DECODE);
    for (uint32_t l = 0; l < LAYERS; l++)
        compress_check(seq, l, variants, prompt, 110, prompt, &prompt, 1);
    /* Compressed a second time, and back. */
    ratp_step *step = compress_begin(cache, seq, 1, RATP_PART_DECODE);
    CHECK_EQUAL(ratp->step_abort(&step), RATP_OK);
    for (uint32_t l = 0; l < LAYERS; l++)
        compress_check(seq, l, variants, prompt, 110, prompt, &prompt, 1);
    CHECK_EQUAL(ratp->seq_destroy(&seq), RATP_OK);
    compress_close(&cache);
}

/* Too few queries are known: asked, that is refused; by itself, it waits. */
static void test_unknown(void)
{
    const struct ratp_variant variants[KV_HEADS] = {snap, snap};
    ratp_cache *cache = compress_cache(&(struct compress_model){.policy = snap_json});
    ratp_seq *seq = host_seq(cache);
    uint32_t positions[TOKENS];
    CHECK_EQUAL(ratp->seq_compress(NULL), RATP_INVALID_ARGUMENT);
    REFUSE((ratp_seq *)cache, ratp->seq_compress((ratp_seq *)cache), RATP_INVALID_ARGUMENT,
           "seq is the handle of a different kind: cache");
    compress_feed(cache, seq, 0, 100, RATP_PART_PROMPT);
    CHECK_EQUAL(ratp->seq_truncate(seq, 92), RATP_OK);
    ratp_seq *fork = NULL;
    CHECK_EQUAL(ratp->seq_fork(seq, &fork), RATP_OK);
    CHECK_EQUAL(ratp->seq_compress(fork), RATP_OK);
    CHECK_EQUAL(compress_held(fork, 0, 0, positions), CAPACITY);
    CHECK_EQUAL(ratp->seq_destroy(&fork), RATP_OK);
    CHECK_EQUAL(ratp->seq_truncate(seq, 83), RATP_OK);
    REFUSE(seq, ratp->seq_compress(seq), RATP_NOT_RETAINED,
           "layer 0 is compressed by its last 8 queries, and of 83 tokens only the last 0 queries "
           "are known; feed 8 more tokens");
    compress_feed(cache, seq, 83, 3, RATP_PART_PROMPT);
    REFUSE(seq, ratp->seq_compress(seq), RATP_NOT_RETAINED, "feed 5 more tokens");
    for (uint32_t t = 86; t < 92; t++) {
        compress_feed(cache, seq, t, 1, RATP_PART_DECODE);
        CHECK_EQUAL(compress_held(seq, 0, 0, positions), t < 91 ? t + 1 : CAPACITY + 1);
    }
    const uint32_t at = 91;
    for (uint32_t l = 0; l < LAYERS; l++)
        compress_check(seq, l, variants, 83, 92, 86, &at, 1);
    CHECK_EQUAL(ratp->seq_destroy(&seq), RATP_OK);
    compress_close(&cache);
}

/* What stays needs room beside what is there. */
static void test_full(void)
{
    /* A page: 8 slots of 4 heads' K and V in float32; states and queries beside them. */
    enum { PAGE = 8 * LAYERS * KV_HEADS * 2 * HEAD_SIZE * 4, PROMPT = 100, PAGES = 13,
           STATES = 2 * LAYERS * KV_HEADS * 2 * HEAD_SIZE * 4,
           QUERIES = LAYERS * KV_HEADS * 3 * OBSERVE * GROUP * HEAD_SIZE * 4,
           POSITIONS = LAYERS * KV_HEADS * CAPACITY * 4, STAY = CAPACITY / 8 };
    static const uint64_t missing[] = {1 + POSITIONS, 1, 0};
    for (size_t i = 0; i < 3; i++) {
        struct compress_model model = {
            .policy = snap_json,
            .budget = STATES + QUERIES + POSITIONS + (PAGES + STAY) * PAGE - missing[i]};
        ratp_cache *cache = compress_cache(&model);
        ratp_seq *seq = host_seq(cache);
        uint32_t positions[TOKENS];
        compress_feed(cache, seq, 0, PROMPT, RATP_PART_PROMPT);
        uint64_t pages = compress_pages(seq);
        ratp_status status = ratp->seq_compress(seq);
        CHECK_EQUAL(status, missing[i] ? RATP_CACHE_FULL : RATP_OK);
        if (missing[i]) {
            CHECK_CONTAINS(host_message(seq), "the cache is full: ");
            uint32_t one = 1;
            struct ratp_step_params params = {sizeof params, .count = 1, .seqs = &seq,
                                              .n_tokens = &one};
            ratp_step *step = NULL;
            REFUSE(cache, ratp->step_begin(cache, &params, &step), RATP_CACHE_FULL,
                   "the cache is full: ");
            CHECK(!step);
            CHECK_EQUAL(compress_pages(seq), pages);
            CHECK_EQUAL(compress_held(seq, 0, 0, positions), PROMPT);
        }
        CHECK_EQUAL(ratp->seq_destroy(&seq), RATP_OK);
        compress_close(&cache);
    }
}

/* Every type of the cache: near what float32 gives. */
static void test_dtypes(void)
{
    static float exact[5 * QUERY_HEADS * 32];
    for (ratp_dtype dtype = RATP_F32; dtype <= RATP_Q8_0; dtype++) {
        ratp_cache *cache = compress_cache(&(struct compress_model){
            .policy = snap_json, .dtype = dtype, .head_size = 32, .page_slots = 16});
        ratp_seq *seq = host_seq(cache);
        compress_feed(cache, seq, 0, 100, RATP_PART_PROMPT);
        for (uint32_t t = 100; t < 105; t++)
            compress_feed(cache, seq, t, 1, RATP_PART_DECODE);
        uint32_t positions[TOKENS];
        CHECK_EQUAL(compress_held(seq, 0, 0, positions), CAPACITY + 5);
        const float *out = compress_out[0] + (size_t)100 * QUERY_HEADS * 32;
        double difference = 0, size = 0;
        if (dtype == RATP_F32)
            memcpy(exact, out, sizeof exact);
        for (size_t i = 0; i < sizeof exact / sizeof *exact; i++) {
            difference += (double)((out[i] - exact[i]) * (out[i] - exact[i]));
            size += (double)(exact[i] * exact[i]);
        }
        CHECK(size > 1);
        CHECK(difference <= 1e-3 * size);
        CHECK_EQUAL(ratp->seq_destroy(&seq), RATP_OK);
        compress_close(&cache);
    }
}

int main(int argc, char **argv)
{
    host_open(argc, argv);
    compress_start();
    RUN(test_prompts);
    RUN(test_short);
    RUN(test_asked);
    RUN(test_hybrid);
    RUN(test_batch);
    RUN(test_abort);
    RUN(test_unknown);
    RUN(test_full);
    RUN(test_dtypes);
    host_close();
    return check_result();
}
