/* Snapshots that are refused: damaged ones, ones of another model, and calls with
 * wrong arguments. Nothing changes by them. api_snapshot_files.c has the files. */
#include "api_snapshot_forged.h"

static void test_arguments(void)
{
    ratp_cache *cache = snapshot_cache(device, &needed);
    ratp_seq *seq = host_seq(cache), *out = NULL;
    unsigned char data[64];
    uint64_t size = 7;
    snapshot_feed(cache, seq, 10);
    CHECK_EQUAL(ratp->seq_save(NULL, NULL, 0, &size), RATP_INVALID_ARGUMENT);
    CHECK_EQUAL(ratp->seq_save_file(NULL, "x"), RATP_INVALID_ARGUMENT);
    CHECK_EQUAL(ratp->seq_load(NULL, data, sizeof data, &out), RATP_INVALID_ARGUMENT);
    CHECK_EQUAL(ratp->seq_load_file(NULL, "x", &out), RATP_INVALID_ARGUMENT);
    REFUSE(cache, ratp->seq_save((ratp_seq *)cache, NULL, 0, &size), RATP_INVALID_ARGUMENT,
           "seq is the handle of a different kind: cache");
    REFUSE(seq, ratp->seq_load((ratp_cache *)seq, data, sizeof data, &out), RATP_INVALID_ARGUMENT,
           "cache is the handle of a different kind: sequence");
    REFUSE(seq, ratp->seq_save(seq, NULL, 0, NULL), RATP_INVALID_ARGUMENT, "needed is NULL");
    REFUSE(seq, ratp->seq_save(seq, NULL, 5, &size), RATP_INVALID_ARGUMENT,
           "data is NULL and size is 5");
    CHECK_EQUAL(size, 7);
    memset(data, 0x55, sizeof data);
    CHECK_EQUAL(ratp->seq_save(seq, NULL, 0, &size), RATP_OK);
    char message[100];
    snprintf(message, sizeof message, "size is 64, the snapshot takes %llu bytes",
             (unsigned long long)size);
    size = 0;
    REFUSE(seq, ratp->seq_save(seq, data, sizeof data, &size), RATP_INVALID_ARGUMENT, message);
    CHECK(size > sizeof data);
    REFUSE(seq, ratp->seq_save(seq, data, 0, &size), RATP_INVALID_ARGUMENT, "size is 0, the");
    for (size_t i = 0; i < sizeof data; i++)
        CHECK_EQUAL(data[i], 0x55);
    out = seq;
    REFUSE(cache, ratp->seq_load(cache, NULL, 0, &out), RATP_INVALID_ARGUMENT, "data is NULL");
    CHECK(!out);
    REFUSE(cache, ratp->seq_load(cache, data, sizeof data, NULL), RATP_INVALID_ARGUMENT,
           "out is NULL");
    REFUSE(cache, ratp->seq_load_file(cache, "x", NULL), RATP_INVALID_ARGUMENT, "out is NULL");
    REFUSE(cache, ratp->seq_load(cache, data, sizeof data, &out), RATP_PARSE_ERROR,
           "this is no snapshot");
    REFUSE(seq, ratp->seq_save_file(seq, NULL), RATP_INVALID_ARGUMENT, "path is NULL");
    REFUSE(seq, ratp->seq_save_file(seq, ""), RATP_INVALID_ARGUMENT, "path is empty");
    REFUSE(cache, ratp->seq_load_file(cache, NULL, &out), RATP_INVALID_ARGUMENT, "path is NULL");
    REFUSE(cache, ratp->seq_load_file(cache, "", &out), RATP_INVALID_ARGUMENT, "path is empty");

    struct bytes saved = snapshot_save(seq);
    ratp_step *step = host_step(cache, seq, 1);
    REFUSE(seq, ratp->seq_save(seq, NULL, 0, &size), RATP_WRONG_STATE, "part of an open step");
    REFUSE(seq, ratp->seq_save_file(seq, "x"), RATP_WRONG_STATE, "part of an open step");
    CHECK_EQUAL(ratp->seq_load(cache, saved.data, saved.size, &out), RATP_OK);
    CHECK_EQUAL(ratp->step_abort(&step), RATP_OK);
    struct bytes again = snapshot_save(out);
    CHECK(again.size == saved.size && memcmp(again.data, saved.data, saved.size) == 0);
    free(again.data);
    free(saved.data);
    CHECK_EQUAL(ratp->seq_destroy(&out), RATP_OK);
    CHECK_EQUAL(ratp->seq_destroy(&seq), RATP_OK);
    snapshot_close(&cache);
}

/* Without what lies between the fields. */
static bool same(const struct ratp_cache_stats *a, const struct ratp_cache_stats *b)
{
    return a->budget_bytes == b->budget_bytes && a->pool_bytes == b->pool_bytes &&
           a->used_bytes == b->used_bytes && a->state_bytes == b->state_bytes &&
           a->scratch_bytes == b->scratch_bytes && a->page_bytes == b->page_bytes &&
           a->pages_total == b->pages_total && a->pages_used == b->pages_used &&
           a->sequences == b->sequences && a->pages_free == b->pages_free &&
           a->pages_shared == b->pages_shared;
}

/* Refused, with a message, and the cache is as it was. */
static void refuse(ratp_cache *cache, const void *data, uint64_t size, ratp_status status,
                   const char *part)
{
    ratp_seq *out = (ratp_seq *)cache;
    struct ratp_cache_stats before = snapshot_stats(cache), after;
    REFUSE(cache, ratp->seq_load(cache, data, size, &out), status, part);
    CHECK(!out);
    after = snapshot_stats(cache);
    CHECK(same(&before, &after));
}

/* Every bit, and every length. */
static void test_damage(void)
{
    ratp_cache *cache = snapshot_cache(device, &needed);
    ratp_seq *seq = host_seq(cache), *out = NULL;
    snapshot_feed(cache, seq, 9);
    struct bytes saved = snapshot_save(seq);
    for (uint64_t i = 0; i < saved.size; i++) {
        unsigned char *part = malloc(i ? i : 1);
        memcpy(part, saved.data, i);
        refuse(cache, part, i, RATP_PARSE_ERROR, i < SHORTEST ? "cut short" : "byte 8: ");
        free(part);
        for (int bit = 0; bit < 8; bit++) {
            saved.data[i] ^= (unsigned char)(1 << bit);
            refuse(cache, saved.data, saved.size, RATP_PARSE_ERROR,
                   i < 8 ? "no snapshot" : i < 16 ? "says that it has" : "the snapshot is damaged");
            saved.data[i] ^= (unsigned char)(1 << bit);
        }
    }
    CHECK_EQUAL(ratp->seq_load(cache, saved.data, saved.size, &out), RATP_OK);
    CHECK_EQUAL(ratp->seq_destroy(&out), RATP_OK);
    CHECK_EQUAL(ratp->seq_destroy(&seq), RATP_OK);
    free(saved.data);
    snapshot_close(&cache);
}

/* Writes a number over the one at `at`, and checksums that are right for it. */
static void forge(struct bytes s, uint64_t at, uint32_t value)
{
    put_number(s.data + at, value, 4);
    forge_sums(s, ROWS);
}

/* Numbers that are wrong under checksums that are right. */
static void test_forged(void)
{
    static const struct {
        uint64_t at;
        uint32_t value;
        ratp_status status;
        const char *part;
    } forged[] = {
        {VERSION, 2, RATP_UNSUPPORTED,
         "byte 16: the snapshot has version 2, this library reads version 1"},
        {LENGTH, 10, RATP_PARSE_ERROR,
         "store 0 has 4 and 2 tokens, of 10 from token 6 on it must have"},
        {LENGTH, 5, RATP_PARSE_ERROR, "the ring of store 0 begins at token"},
        {LENGTH, 1001, RATP_INVALID_ARGUMENT,
         "length is 1001 in the snapshot, a sequence of the cache has at most 1000 tokens"},
        {LENGTH, UINT32_MAX, RATP_INVALID_ARGUMENT, "length is 4294967295 in the snapshot"},
        {RUN_COUNT, 0, RATP_PARSE_ERROR,
         "byte 28: the snapshot has 0 runs, a cache of 4 heads has 1 to 4"},
        {RUN_COUNT, 5, RATP_PARSE_ERROR, "byte 28: the snapshot has 5 runs, a cache of 4"},
        {RUN_COUNT, UINT32_MAX, RATP_PARSE_ERROR, "byte 28: the snapshot has 4294967295 runs"},
        {STORE_COUNT, 5, RATP_PARSE_ERROR,
         "byte 32: the snapshot has 5 stores, a cache of 4 heads has 1 to 4"},
        {STORE_COUNT, 0, RATP_PARSE_ERROR, "byte 32: the snapshot has 0 stores"},
        {NUMBERS, 3, RATP_INVALID_ARGUMENT, "geometry.layers is 3 in the snapshot, 2 in the cache"},
        {RUNS, 0, RATP_PARSE_ERROR, "byte 148: run 0 has 0 heads, it must be 1 to 4"},
        {RUNS, 5, RATP_PARSE_ERROR, "byte 148: run 0 has 5 heads, it must be 1 to 4"},
        {PROMPT, 6, RATP_PARSE_ERROR, "byte 152: run 0: prompt.kind is 6"},
        {PROMPT + 4, 0, RATP_PARSE_ERROR, "byte 152: run 0: prompt.dilation is 0"},
        {DECODE, 3, RATP_PARSE_ERROR, "byte 204: run 0: variant.dilation is 4, for kind quest"},
        {DECODE, UINT32_MAX, RATP_PARSE_ERROR, "byte 204: run 0: variant.kind is -1"},
        {DECODE + 4, 1, RATP_PARSE_ERROR,
         "byte 204: run 0: variant.kind is 1, dense is written as 0"},
        {DECODE + 4, 1 << 25, RATP_PARSE_ERROR, "run 0: variant.dilation is 33554432"},
        {DECODE + 8, 9, RATP_PARSE_ERROR, "its variants make 3"},
        {DECODE + 48, 1, RATP_PARSE_ERROR, "run 0: variant.pool is 1, for kind dilated it must"},
        {STORES, 10, RATP_PARSE_ERROR, "the ring of store 0 begins at token 10 of 9"},
        {STORES, 8, RATP_PARSE_ERROR, "store 0 has 4 and 2 tokens, of 9 from token 8"},
        {STORES, 0, RATP_PARSE_ERROR, "store 0 has 4 and 2 tokens, of 9 from token 0"},
        {STORES + 4, 3, RATP_PARSE_ERROR, "store 0 has 3 and"},
        {STORES + STORE + 8, 90, RATP_PARSE_ERROR, "store 1 has 0 and 90 tokens"},
        {STORES + 12, 1, RATP_PARSE_ERROR, "store 0 has 1 queries of 9 tokens, it may have 0"},
        {WHEN, 1, RATP_PARSE_ERROR, "when is 1 and group 0, without tokens of snapkv they must"},
        {WHEN + 4, 2, RATP_PARSE_ERROR, "when is 0 and group 2"},
    };
    ratp_cache *cache = snapshot_cache(device, &needed);
    ratp_seq *seq = host_seq(cache);
    snapshot_feed(cache, seq, 9);
    struct bytes saved = snapshot_save(seq), copy = {malloc(saved.size + 4), saved.size};
    if (!CHECK(copy.data && saved.size > STORES))
        exit(1);
    for (size_t i = 0; i < sizeof forged / sizeof *forged; i++) {
        memcpy(copy.data, saved.data, saved.size);
        forge(copy, forged[i].at, forged[i].value);
        refuse(cache, copy.data, copy.size, forged[i].status, forged[i].part);
    }
    /* Two runs with one variant. */
    memcpy(copy.data, saved.data, saved.size);
    memcpy(copy.data + RUNS + RUN, copy.data + RUNS, RUN);
    forge(copy, RUNS, 1);
    refuse(cache, copy.data, copy.size, RATP_PARSE_ERROR, "run 1 has the variants of run 0");
    /* A window that is not all there. */
    memcpy(copy.data, saved.data, saved.size);
    forge(copy, STORES, 8);
    forge(copy, STORES + 8, 1);
    refuse(cache, copy.data, copy.size, RATP_PARSE_ERROR,
           "the ring of store 0 begins at token 8 of 9, after the window of 3");
    /* Fewer runs than heads, and another number of stores than the variants make. */
    static const struct {
        uint64_t count;
        uint32_t value;
        const char *part;
    } fewer[] = {{RUN_COUNT, 3, "3 runs have 3 heads, the geometry has 4"},
                 {STORE_COUNT, 3, "byte 32: the snapshot has 3 stores, its variants make 2"}};
    for (int i = 0; i < 2; i++) {
        memcpy(copy.data, saved.data, saved.size);
        put_number(copy.data + fewer[i].count, fewer[i].value, 4);
        forge_sums(copy, i ? ROWS + STORE : ROWS - RUN);
        refuse(cache, copy.data, copy.size, RATP_PARSE_ERROR, fewer[i].part);
    }
    /* Bytes that nothing asks for. */
    memcpy(copy.data, saved.data, saved.size);
    copy.size += 4;
    forge(copy, SIZE, (uint32_t)copy.size);
    refuse(cache, copy.data, copy.size, RATP_PARSE_ERROR, "bytes of rows and state are to follow");
    /* A head, and nothing else. */
    copy.size = SHORTEST;
    forge(copy, SIZE, (uint32_t)copy.size);
    refuse(cache, copy.data, copy.size, RATP_PARSE_ERROR,
           "byte 148: 476 bytes of variants and stores are to");
    free(copy.data);
    free(saved.data);
    CHECK_EQUAL(ratp->seq_destroy(&seq), RATP_OK);
    snapshot_close(&cache);
}

/* Good snapshots of other caches. */
static void test_misfits(void)
{
    static const float factors[HEAD_SIZE / 2] = {1, 1, 1, 1.25f, 1, 1, 1, 1};
    struct ratp_rope rope = {sizeof rope, .style = RATP_ROPE_HALF}, ropes[9];
    for (int i = 0; i < 9; i++)
        ropes[i] = rope;
    ropes[0].style = RATP_ROPE_INTERLEAVED;
    ropes[1].size = 8;
    ropes[2].theta = 500000;
    ropes[3].scale = 2;
    ropes[4].factors = factors;
    for (int i = 5; i < 9; i++)
        ropes[i].yarn_factor = 4, ropes[i].yarn_context = 64;
    ropes[6].yarn_context = 32;
    ropes[7].yarn_beta_fast = 16;
    ropes[8].yarn_attention = 1.5;
    static const struct {
        int rope, against; /* -1: the plain one */
        const char *part;
    } turned[] = {
        {0, -1, "rope.style is 1 in the snapshot, 2 in the cache"},
        {1, -1, "rope.size is 16 in the snapshot, 8 in the cache"},
        {2, -1, "rope.theta is 10000 in the snapshot, 500000 in the cache"},
        {3, -1, "rope.scale is 1 in the snapshot, 2 in the cache"},
        {4, -1, "rope.factors[3] is 1 in the snapshot, 1.25 in the cache"},
        {5, -1, "rope.yarn_context is 0 in the snapshot, 64 in the cache"},
        {6, 5, "rope.yarn_context is 64 in the snapshot, 32 in the cache"},
        {7, 5, "rope.yarn_beta_fast is 32 in the snapshot, 16 in the cache"},
        {8, 5, "rope.yarn_attention is 1.13"},
    };
    struct snapshot_model model = needed;
    for (size_t i = 0; i < sizeof turned / sizeof *turned; i++) {
        model.rope = turned[i].against < 0 ? &rope : &ropes[turned[i].against];
        ratp_cache *cache = snapshot_cache(device, &model);
        ratp_seq *seq = host_seq(cache);
        snapshot_feed(cache, seq, 9);
        struct bytes saved = snapshot_save(seq);
        model.rope = &ropes[turned[i].rope];
        ratp_cache *other = snapshot_cache(device, &model);
        refuse(other, saved.data, saved.size, RATP_INVALID_ARGUMENT, turned[i].part);
        free(saved.data);
        CHECK_EQUAL(ratp->seq_destroy(&seq), RATP_OK);
        snapshot_close(&cache);
        snapshot_close(&other);
    }
    const struct {
        struct snapshot_model model;
        const char *part;
    } others[] = {
        {{"{}", .retention = RATP_RETAIN_FULL}, "retention is 1 in the snapshot, 0 in the cache"},
        {{"{}", .k_dtype = RATP_F32}, "k_dtype is 2 in the snapshot, 1 in the cache"},
        {{"{}", .v_dtype = RATP_BF16}, "v_dtype is 2 in the snapshot, 3 in the cache"},
        {{"{}", .no_memory = true}, "geometry.memory is 1 in the snapshot, 0 in the cache"},
        {{"{}", .no_memory = true, .value_size = 24},
         "geometry.value_size is 16 in the snapshot, 24 in the cache"},
        {{"{}", .first_kv_head = 1}, "geometry.first_kv_head is 0 in the snapshot, 1 in the cache"},
        {{"{}", .retention = RATP_RETAIN_NEEDED, .max_tokens = 8},
         "length is 9 in the snapshot, a sequence of the cache has at most 8 tokens"},
    };
    ratp_cache *cache = snapshot_cache(device, &needed);
    ratp_seq *seq = host_seq(cache);
    snapshot_feed(cache, seq, 9);
    struct bytes saved = snapshot_save(seq);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        ratp_cache *other = snapshot_cache(device, &others[i].model);
        refuse(other, saved.data, saved.size, RATP_INVALID_ARGUMENT, others[i].part);
        snapshot_close(&other);
    }
    free(saved.data);
    CHECK_EQUAL(ratp->seq_destroy(&seq), RATP_OK);
    snapshot_close(&cache);
}

/* Neither the state nor the pages find room; what is there is left alone. */
static void test_full(void)
{
    enum { STATE = 2 * LAYERS * KV_HEADS * 2 * HEAD_SIZE * 4, PAGE = 8 * LAYERS * KV_HEADS * 64 };
    struct snapshot_model model = {"{}", .page_slots = 8};
    ratp_cache *cache = snapshot_cache(device, &model);
    ratp_seq *seq = host_seq(cache), *out = NULL, *first = NULL;
    snapshot_feed(cache, seq, 40);
    struct bytes saved = snapshot_save(seq);
    static const uint64_t budgets[] = {2 * STATE + 9 * PAGE, 2 * STATE - 1 + 5 * PAGE};
    for (int i = 0; i < 2; i++) {
        model.budget = budgets[i];
        ratp_cache *other = snapshot_cache(device, &model);
        CHECK_EQUAL(ratp->seq_load(other, saved.data, saved.size, &first), RATP_OK);
        struct ratp_cache_stats before = snapshot_stats(other), after;
        out = first;
        REFUSE(other, ratp->seq_load(other, saved.data, saved.size, &out), RATP_CACHE_FULL,
               i ? "a memory state takes" : "more pages of");
        CHECK(!out);
        after = snapshot_stats(other);
        CHECK(after.pages_used == before.pages_used && after.used_bytes == before.used_bytes);
        CHECK(after.state_bytes == before.state_bytes && after.sequences == before.sequences);
        struct bytes again = snapshot_save(first);
        CHECK(again.size == saved.size && memcmp(again.data, saved.data, saved.size) == 0);
        free(again.data);
        CHECK_EQUAL(ratp->seq_destroy(&first), RATP_OK);
        CHECK_EQUAL(ratp->seq_load(other, saved.data, saved.size, &out), RATP_OK);
        CHECK_EQUAL(ratp->seq_destroy(&out), RATP_OK);
        snapshot_close(&other);
    }
    free(saved.data);
    CHECK_EQUAL(ratp->seq_destroy(&seq), RATP_OK);
    snapshot_close(&cache);
}

int main(int argc, char **argv)
{
    host_open(argc, argv);
    RUN(test_arguments);
    RUN(test_damage);
    RUN(test_forged);
    RUN(test_misfits);
    RUN(test_full);
    host_close();
    return check_result();
}
