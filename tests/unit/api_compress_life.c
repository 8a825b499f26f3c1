/* SnapKV: what sequences go through after their prompt was compressed: forks, truncation,
 * other policies, and snapshots. */
#include "api_compress.h"

#include <stdlib.h>
#include <zlib.h>

static const char snap_json[] = "{\"default\": \"snapkv40o8n5\"}";
enum { CAPACITY = 40, PROMPT = 100, ROW = QUERY_HEADS * HEAD_SIZE };

static void set_policy(ratp_seq *seq, const char *json, ratp_status status, const char *part)
{
    ratp_policy *policy = NULL;
    CHECK_EQUAL(ratp->policy_from_json(instance, json, strlen(json), &policy), RATP_OK);
    if (status)
        REFUSE(seq, ratp->seq_set_policy(seq, policy), status, part);
    else
        CHECK_EQUAL(ratp->seq_set_policy(seq, policy), RATP_OK);
    CHECK_EQUAL(ratp->policy_destroy(&policy), RATP_OK);
}

/* A prompt, and `decoded` tokens after it. */
static ratp_seq *begun(ratp_cache *cache, uint32_t decoded)
{
    ratp_seq *seq = host_seq(cache);
    compress_feed(cache, seq, 0, PROMPT, RATP_PART_PROMPT);
    for (uint32_t t = PROMPT; t < PROMPT + decoded; t++)
        compress_feed(cache, seq, t, 1, RATP_PART_DECODE);
    return seq;
}

/* Whether two sequences that have the same past go on in the same way, bit for bit, also
 * through another compression. */
static void check_same(ratp_cache *a_cache, ratp_seq *a, ratp_cache *b_cache, ratp_seq *b,
                       uint32_t from, uint32_t count)
{
    static float kept[LAYERS][TOKENS * ROW];
    uint32_t a_positions[TOKENS], b_positions[TOKENS];
    bool same = true;
    for (uint32_t t = from; t < from + count; t++) {
        if (t == from + count / 2)
            CHECK_EQUAL(ratp->seq_compress(a), RATP_OK);
        compress_feed(a_cache, a, t, 1, RATP_PART_DECODE);
    }
    for (uint32_t l = 0; l < LAYERS; l++)
        memcpy(kept[l], compress_out[l], sizeof kept[l]);
    for (uint32_t t = from; t < from + count; t++) {
        if (t == from + count / 2)
            CHECK_EQUAL(ratp->seq_compress(b), RATP_OK);
        compress_feed(b_cache, b, t, 1, RATP_PART_DECODE);
    }
    for (uint32_t l = 0; l < LAYERS; l++) {
        same = same && !memcmp(kept[l] + (size_t)from * ROW, compress_out[l] + (size_t)from * ROW,
                               (size_t)count * ROW * sizeof(float));
        for (uint32_t h = 0; h < KV_HEADS; h++) {
            uint64_t n = compress_held(a, l, h, a_positions);
            same = same && compress_held(b, l, h, b_positions) == n &&
                   !memcmp(a_positions, b_positions, n * sizeof *a_positions);
        }
    }
    CHECK(same);
}

static void test_fork(void)
{
    ratp_cache *cache = compress_cache(&(struct compress_model){.policy = snap_json});
    for (uint32_t decoded = 0; decoded <= 5; decoded += 5) {
        ratp_seq *seq = begun(cache, decoded), *fork = NULL, *other = NULL;
        CHECK_EQUAL(ratp->seq_fork(seq, &fork), RATP_OK);
        CHECK_EQUAL(ratp->seq_fork(seq, &other), RATP_OK);
        compress_feed(cache, other, 20, 10, RATP_PART_PROMPT);
        CHECK_EQUAL(ratp->seq_compress(other), RATP_OK);
        CHECK_EQUAL(ratp->seq_destroy(&other), RATP_OK);
        check_same(cache, seq, cache, fork, PROMPT + decoded, 20);
        CHECK_EQUAL(ratp->seq_destroy(&seq), RATP_OK);
        CHECK_EQUAL(ratp->seq_destroy(&fork), RATP_OK);
    }
    compress_close(&cache);
}

static void test_truncate(void)
{
    ratp_cache *cache = compress_cache(&(struct compress_model){.policy = snap_json});
    ratp_seq *seq = begun(cache, 12), *same = begun(cache, 0);
    uint32_t positions[TOKENS];
    REFUSE(seq, ratp->seq_truncate(seq, PROMPT - 1), RATP_NOT_RETAINED,
           "length is 99, but layer 0 was compressed after token 99: that cannot be undone; "
           "truncate to 100 or more");
    REFUSE(seq, ratp->seq_truncate(seq, 1), RATP_NOT_RETAINED, "truncate to 100 or more");
    CHECK_EQUAL(compress_held(seq, 0, 0, positions), CAPACITY + 12);
    CHECK_EQUAL(ratp->seq_truncate(seq, PROMPT + 3), RATP_OK);
    CHECK_EQUAL(compress_held(seq, 0, 0, positions), CAPACITY + 3);
    CHECK_EQUAL(positions[CAPACITY + 2], PROMPT + 2);
    CHECK_EQUAL(compress_pages(seq), 6);
    CHECK_EQUAL(ratp->seq_truncate(seq, PROMPT), RATP_OK);
    CHECK_EQUAL(compress_pages(seq), 5);
    /* float32 caches hold the state exactly, but for the turn. */
    compress_feed(cache, seq, PROMPT, 1, RATP_PART_DECODE);
    float back[ROW];
    memcpy(back, compress_out[1] + PROMPT * ROW, sizeof back);
    compress_feed(cache, same, PROMPT, 1, RATP_PART_DECODE);
    double worst = 0;
    for (uint32_t c = 0; c < ROW; c++) {
        double x = (double)back[c] - (double)compress_out[1][PROMPT * ROW + c];
        worst = x * x > worst ? x * x : worst;
    }
    CHECK(worst < 1e-9);
    /* Empty, it is as good as new. */
    CHECK_EQUAL(ratp->seq_truncate(seq, 0), RATP_OK);
    CHECK_EQUAL(compress_pages(seq), 0);
    ratp_seq *fresh = host_seq(cache);
    compress_feed(cache, seq, 0, PROMPT, RATP_PART_PROMPT);
    compress_feed(cache, fresh, 0, PROMPT, RATP_PART_PROMPT);
    check_same(cache, seq, cache, fresh, PROMPT, 20);
    CHECK_EQUAL(ratp->seq_destroy(&seq), RATP_OK);
    CHECK_EQUAL(ratp->seq_destroy(&same), RATP_OK);
    CHECK_EQUAL(ratp->seq_destroy(&fresh), RATP_OK);
    compress_close(&cache);
}

static void test_snapshot(void)
{
    static unsigned char data[1 << 20], again[1 << 20];
    static const char hybrid[] = "{\"default\": \"snapkv40o8n5\", \"rules\": [{\"heads\": 1, "
                                 "\"layers\": 0, \"variant\": \"moba16k2:snapkv40o8n5\"}, "
                                 "{\"layers\": 1, \"heads\": 0, \"variant\": \"d4w6\"}]}";
    for (uint32_t i = 0; i < 12; i++) {
        struct compress_model model = {.policy = i % 2 ? hybrid : snap_json,
                                       .retention = i % 4 < 2 ? RATP_RETAIN_FULL
                                                              : RATP_RETAIN_NEEDED};
        uint32_t decoded = i / 4 * 3;
        ratp_cache *cache = compress_cache(&model), *other = compress_cache(&model);
        ratp_seq *seq = begun(cache, decoded), *loaded = NULL;
        uint64_t size = 0, size_again = 0;
        CHECK_EQUAL(ratp->seq_save(seq, data, sizeof data, &size), RATP_OK);
        if (!CHECK_EQUAL(ratp->seq_load(other, data, size, &loaded), RATP_OK)) {
            fprintf(stderr, "    %s\n", host_message(other));
            exit(1);
        }
        CHECK_EQUAL(ratp->seq_save(loaded, again, sizeof again, &size_again), RATP_OK);
        CHECK_EQUAL(size, size_again);
        CHECK(memcmp(data, again, size) == 0);
        check_same(cache, seq, other, loaded, PROMPT + decoded, 20);
        CHECK_EQUAL(ratp->seq_destroy(&seq), RATP_OK);
        CHECK_EQUAL(ratp->seq_destroy(&loaded), RATP_OK);
        compress_close(&cache);
        compress_close(&other);
    }
}

static void put_u32(unsigned char *at, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        at[i] = (unsigned char)(value >> 8 * i);
}

/* Other query heads: all but the queries. Numbers that cannot be: refused. */
static void test_snapshot_refused(void)
{
    static unsigned char data[1 << 20], changed[1 << 20];
    enum { STATE = LAYERS * KV_HEADS * 2 * HEAD_SIZE * 4, POSITIONS = LAYERS * KV_HEADS * CAPACITY * 4,
           QUERIES = LAYERS * KV_HEADS * 16 * GROUP * HEAD_SIZE * 4 };
    /* What stands in front of the rows, of one store. */
    enum { START = 24, HEAD = 148, QUERY_COUNT = HEAD + HEAD_SIZE / 2 * 4 + 108 + 12, WHEN = QUERY_COUNT + 4,
           GROUP_AT = WHEN + 4, TABLES = GROUP_AT + 4 };
    static const struct {
        bool position; /* its number is `at`, not a byte */
        uint64_t at;
        uint32_t value;
        const char *part;
    } wrong[] = {
        {false, QUERY_COUNT, 17, "byte 300: store 0 has 17 queries of 103 tokens, it may have 16"},
        {false, WHEN, 3, "when is 3 and group 2, they must be 0 to 2 and 1 to 16384"},
        {false, GROUP_AT, 0, "when is 2 and group 0"},
        {false, GROUP_AT, 3, "bytes of rows and state are to follow, and there are"},
        {true, 3, 64, "kept token 3 is 64, it must be "},
        {true, 39, 98, "kept token 39 is 98, it must be 99 to 99"},
    };
    struct compress_model model = {.policy = snap_json};
    ratp_cache *cache = compress_cache(&model), *other;
    model.query_heads = 3 * KV_HEADS;
    ratp_seq *seq = begun(cache, 3), *loaded = NULL;
    uint32_t positions[TOKENS], same[TOKENS];
    uint64_t size = 0;
    CHECK_EQUAL(ratp->seq_save(seq, data, sizeof data, &size), RATP_OK);
    const uint64_t positions_at = size - 4 - STATE - QUERIES - POSITIONS;
    const uint64_t sums[] = {START - 4, HEAD - 4, TABLES, size - 4};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        memcpy(changed, data, size);
        put_u32(changed + (wrong[i].position ? positions_at + 4 * wrong[i].at : wrong[i].at),
                wrong[i].value);
        for (size_t sum = 0; sum < sizeof sums / sizeof *sums; sum++)
            put_u32(changed + sums[sum], (uint32_t)crc32_z(0, changed, sums[sum]));
        REFUSE(cache, ratp->seq_load(cache, changed, size, &loaded), RATP_PARSE_ERROR,
               wrong[i].part);
    }
    other = compress_cache(&model);
    CHECK_EQUAL(ratp->seq_load(other, data, size, &loaded), RATP_OK);
    uint64_t held = compress_held(seq, 1, 0, positions);
    CHECK_EQUAL(compress_held(loaded, 1, 0, same), held);
    CHECK(memcmp(positions, same, held * sizeof *same) == 0);
    REFUSE(loaded, ratp->seq_compress(loaded), RATP_NOT_RETAINED, "feed 8 more tokens");
    CHECK_EQUAL(ratp->seq_destroy(&seq), RATP_OK);
    CHECK_EQUAL(ratp->seq_destroy(&loaded), RATP_OK);
    compress_close(&cache);
    compress_close(&other);
}

/* Heads that stay as they are go on; others want what they need. */
static void test_switch(void)
{
    static const char part[] = "{\"default\": \"snapkv40o8n5\", \"rules\": [{\"layers\": 1, "
                               "\"heads\": 1, \"variant\": \"streamw7\"}]}";
    for (uint32_t r = RATP_RETAIN_FULL; r <= RATP_RETAIN_NEEDED; r++) {
        bool needed = r == RATP_RETAIN_NEEDED;
        ratp_cache *cache = compress_cache(&(struct compress_model){
            .policy = snap_json, .retention = (ratp_retention)r});
        ratp_seq *seq = begun(cache, 5), *same = NULL;
        CHECK_EQUAL(ratp->seq_fork(seq, &same), RATP_OK);
        set_policy(seq, "{}", RATP_NOT_RETAINED,
                   "layer 0 is to attend dense, but holds snapkv40o8n5 of 105 tokens: token ");
        set_policy(seq, "{\"default\": \"snapkv41o8n5\"}", RATP_NOT_RETAINED,
                   "is to attend snapkv41o8n5, but holds snapkv40o8n5");
        set_policy(seq, "{\"default\": \"streamw90\"}", RATP_NOT_RETAINED, "fork a sequence before");
        /* 5 decoded tokens and the 8 that observed are all held. */
        set_policy(seq, "{\"default\": \"snapkv40o8n5\", \"rules\": [{\"layers\": 1, "
                        "\"heads\": 1, \"variant\": \"streamw13\"}]}",
                   needed ? RATP_OK : RATP_NOT_RETAINED, "layer 1 is to attend streamw13");
        set_policy(seq, part, needed ? RATP_OK : RATP_NOT_RETAINED, "layer 1 is to attend streamw7");
        uint32_t positions[TOKENS];
        CHECK_EQUAL(compress_held(seq, 0, 1, positions), CAPACITY + 5);
        CHECK_EQUAL(compress_held(seq, 1, 1, positions), needed ? 7 : CAPACITY + 5);
        set_policy(seq, "{\"default\": \"snapkv40o8n5\"}", needed ? RATP_NOT_RETAINED : RATP_OK,
                   "layer 0 was compressed as snapkv40o8n5, which heads are to join that were");
        CHECK_EQUAL(ratp->seq_truncate(seq, 103), needed ? RATP_NOT_RETAINED : RATP_OK);
        CHECK_EQUAL(ratp->seq_destroy(&seq), RATP_OK);

        /* Layer 0 alone goes on; its bits are those of the sequence that stayed. */
        if (needed) {
            float kept[ROW];
            CHECK_EQUAL(ratp->seq_fork(same, &seq), RATP_OK);
            set_policy(seq, part, RATP_OK, "");
            CHECK_EQUAL(ratp->seq_compress(seq), RATP_OK);
            CHECK_EQUAL(ratp->seq_compress(same), RATP_OK);
            compress_feed(cache, seq, 105, 1, RATP_PART_DECODE);
            memcpy(kept, compress_out[0] + 105 * ROW, sizeof kept);
            compress_feed(cache, same, 105, 1, RATP_PART_DECODE);
            CHECK(memcmp(kept, compress_out[0] + 105 * ROW, sizeof kept) == 0);
            CHECK_EQUAL(ratp->seq_destroy(&seq), RATP_OK);
        }
        CHECK_EQUAL(ratp->seq_destroy(&same), RATP_OK);
        compress_close(&cache);
    }
}

/* To snapkv, and from it before anything was compressed. */
static void test_switch_to(void)
{
    const struct ratp_variant snap = {sizeof snap, RATP_SNAPKV, .observe = 8, .capacity = 40,
                                      .kernel = 5};
    const struct ratp_variant variants[KV_HEADS] = {snap, snap};
    ratp_cache *cache = compress_cache(&(struct compress_model){.policy = "{}"});
    ratp_seq *seq = begun(cache, 3), *fork = NULL;
    uint32_t positions[TOKENS];
    set_policy(seq, snap_json, RATP_OK, "");
    REFUSE(seq, ratp->seq_compress(seq), RATP_NOT_RETAINED, "feed 8 more tokens");
    for (uint32_t t = 103; t < 111; t++)
        compress_feed(cache, seq, t, 1, RATP_PART_DECODE);
    CHECK_EQUAL(compress_held(seq, 0, 0, positions), 111);
    CHECK_EQUAL(ratp->seq_fork(seq, &fork), RATP_OK);
    CHECK_EQUAL(ratp->seq_compress(fork), RATP_OK);
    CHECK_EQUAL(compress_held(fork, 0, 0, positions), CAPACITY);
    CHECK_EQUAL(ratp->seq_destroy(&fork), RATP_OK);
    /* The next prompt arms it again. */
    CHECK_EQUAL(ratp->seq_fork(seq, &fork), RATP_OK);
    compress_feed(cache, fork, 111, 9, RATP_PART_PROMPT);
    const uint32_t length = 120;
    for (uint32_t t = 120; t < 124; t++)
        compress_feed(cache, fork, t, 1, RATP_PART_DECODE);
    CHECK_EQUAL(compress_held(fork, 0, 0, positions), CAPACITY + 4);
    compress_check(fork, 0, variants, 120, 124, 120, &length, 1);
    CHECK_EQUAL(ratp->seq_destroy(&fork), RATP_OK);
    /* Nothing is compressed yet: as dense. */
    set_policy(seq, "{\"default\": \"d4w6\"}", RATP_OK, "");
    set_policy(seq, "{}", RATP_OK, "");
    CHECK_EQUAL(ratp->seq_compress(seq), RATP_OK);
    CHECK_EQUAL(compress_held(seq, 0, 0, positions), 111);
    CHECK_EQUAL(ratp->seq_destroy(&seq), RATP_OK);
    /* One that is empty is as good as new. */
    seq = host_seq(cache);
    set_policy(seq, snap_json, RATP_OK, "");
    compress_feed(cache, seq, 0, PROMPT, RATP_PART_PROMPT);
    compress_feed(cache, seq, PROMPT, 1, RATP_PART_DECODE);
    CHECK_EQUAL(compress_held(seq, 0, 0, positions), CAPACITY + 1);
    CHECK_EQUAL(ratp->seq_destroy(&seq), RATP_OK);
    compress_close(&cache);
}

int main(int argc, char **argv)
{
    host_open(argc, argv);
    compress_start();
    RUN(test_fork);
    RUN(test_truncate);
    RUN(test_snapshot);
    RUN(test_snapshot_refused);
    RUN(test_switch);
    RUN(test_switch_to);
    host_close();
    return check_result();
}
