/* What could become of a sequence still can, after a step is aborted and after a call
 * fails: in the window's ring, in snapkv's ring of queries, and where memory runs out. */
#include "api_compress.h"

#include "../futures.h"

#include <stdlib.h>

enum { POLICIES = 4 };

static ratp_policy *policies[POLICIES];
static bool quick; /* the device: much is looked at */

static void futures_of(ratp_seq *seq, struct futures *out)
{
    const struct future_view view = {
        .api = ratp, .policies = policies, .policy_count = quick ? POLICIES : 1, .layers = LAYERS,
        .kv_heads = KV_HEADS, .lengths = quick ? FUTURE_TOKENS : 4,
        .samples = quick ? FUTURE_SAMPLES : 0, .seed = 3};
    futures_read(&view, seq, out);
}

static void feed_one_by_one(ratp_cache *cache, ratp_seq *seq, uint32_t from, uint32_t end)
{
    for (uint32_t t = from; t < end; t++)
        compress_feed(cache, seq, t, 1, RATP_PART_AUTO);
}

/* Steps of some length and kind after `tokens` tokens, aborted after each number of layers. */
static void abort_all(ratp_cache *cache, ratp_seq *seq, uint32_t tokens, uint32_t most)
{
    static struct futures before, after;
    for (uint32_t rows = 1; rows <= most; rows += quick && rows < 20 ? 1 : 7)
        for (uint32_t layers = quick ? 0 : 1; layers <= LAYERS; layers += quick ? 1 : LAYERS) {
            ratp_part_kind kind = rows % 2 ? RATP_PART_DECODE : RATP_PART_PROMPT;
            futures_of(seq, &before);
            ratp_step *step = compress_begin(cache, seq, rows, kind);
            for (uint32_t l = 0; l < layers; l++)
                compress_attend(step, l, tokens);
            CHECK_EQUAL(ratp->step_abort(&step), RATP_OK);
            futures_of(seq, &after);
            if (!futures_equal(&before, &after, "after an abort"))
                fprintf(stderr, "    %u tokens, a step of %u, %u layers\n", tokens, rows, layers);
        }
}

/* A ring of 16 slots for a window of 8, full for the first time, and later. */
static void test_window(void)
{
    ratp_cache *cache = compress_cache(&(struct compress_model){
        .policy = "{\"default\": \"streamw8\"}", .retention = RATP_RETAIN_NEEDED});
    ratp_seq *seq = host_seq(cache), *fork = NULL;
    feed_one_by_one(cache, seq, 0, 16);
    uint64_t pages = compress_pages(seq);
    abort_all(cache, seq, 16, 140);
    CHECK_EQUAL(compress_pages(seq), pages);
    CHECK_EQUAL(ratp->seq_fork(seq, &fork), RATP_OK);
    CHECK_EQUAL(ratp->seq_truncate(fork, 8), RATP_OK);
    CHECK_EQUAL(ratp->seq_destroy(&fork), RATP_OK);
    for (uint32_t t = 16; t < 50; t += 3) {
        abort_all(cache, seq, t, 12);
        feed_one_by_one(cache, seq, t, t + 3);
        CHECK_EQUAL(compress_pages(seq), pages);
    }
    /* What a truncation has taken back is written anew. */
    CHECK_EQUAL(ratp->seq_truncate(seq, 52 - 4), RATP_OK);
    abort_all(cache, seq, 48, 20);
    CHECK_EQUAL(ratp->seq_destroy(&seq), RATP_OK);
    compress_close(&cache);
}

/* A token that is decoded takes no page, and neither do as many as half of what the ring
 * has beyond the window: so much of it is left without a position that can be asked for. */
static void test_no_page(void)
{
    ratp_cache *cache = compress_cache(&(struct compress_model){
        .policy = "{\"default\": \"streamw8\"}", .retention = RATP_RETAIN_NEEDED});
    ratp_seq *seq = host_seq(cache);
    compress_feed(cache, seq, 0, 20, RATP_PART_PROMPT);
    for (uint32_t t = 20, rows; t < 140; t += rows) {
        struct ratp_cache_stats before = {.struct_size = sizeof before}, after = before;
        rows = 1 + t % 4;
        CHECK_EQUAL(ratp->cache_stats(cache, &before), RATP_OK);
        ratp_step *step = compress_begin(cache, seq, rows, RATP_PART_DECODE);
        CHECK_EQUAL(ratp->cache_stats(cache, &after), RATP_OK);
        CHECK_EQUAL(after.pages_used, before.pages_used);
        for (uint32_t l = 0; l < LAYERS; l++)
            compress_attend(step, l, t);
        CHECK_EQUAL(ratp->step_commit(&step), RATP_OK);
        /* As much is the way back. */
        ratp_seq *fork = NULL;
        CHECK_EQUAL(ratp->seq_fork(seq, &fork), RATP_OK);
        if (t > 32)
            CHECK_EQUAL(ratp->seq_truncate(fork, t + rows - 4), RATP_OK);
        CHECK_EQUAL(ratp->seq_destroy(&fork), RATP_OK);
    }
    CHECK_EQUAL(ratp->seq_destroy(&seq), RATP_OK);
    compress_close(&cache);
}

/* Of a ring that is shared, a step copies the pages that it writes to. */
static void test_shared_ring(void)
{
    ratp_cache *cache = compress_cache(&(struct compress_model){
        .policy = "{\"default\": \"d16w40s2\"}", .retention = RATP_RETAIN_NEEDED});
    ratp_seq *seq = host_seq(cache), *fork = NULL;
    static struct futures before, after;
    compress_feed(cache, seq, 0, 70, RATP_PART_PROMPT);
    uint64_t pages = compress_pages(seq);
    CHECK_EQUAL(ratp->seq_fork(seq, &fork), RATP_OK);
    futures_of(seq, &before);
    abort_all(cache, fork, 70, 50);
    compress_feed(cache, fork, 70, 1, RATP_PART_DECODE);
    struct ratp_seq_stats stats = {.struct_size = sizeof stats};
    CHECK_EQUAL(ratp->seq_stats(fork, &stats), RATP_OK);
    CHECK_EQUAL(stats.pages_shared, pages - 1);
    compress_feed(cache, fork, 71, 20, RATP_PART_DECODE);
    CHECK_EQUAL(ratp->seq_destroy(&fork), RATP_OK);
    futures_of(seq, &after);
    before.shared = 0;
    CHECK(futures_equal(&before, &after, "of a fork's parent"));
    CHECK_EQUAL(ratp->seq_destroy(&seq), RATP_OK);
    compress_close(&cache);
}

static void test_queries(void)
{
    ratp_cache *cache = compress_cache(
        &(struct compress_model){.policy = "{\"default\": \"snapkv12o4\"}"});
    ratp_seq *seq = host_seq(cache), *fork = NULL;
    compress_feed(cache, seq, 0, 40, RATP_PART_PROMPT);
    ratp_step *step = compress_begin(cache, seq, 20, RATP_PART_PROMPT);
    for (uint32_t l = 0; l < LAYERS; l++)
        compress_attend(step, l, 40);
    CHECK_EQUAL(ratp->step_abort(&step), RATP_OK);
    CHECK_EQUAL(ratp->seq_fork(seq, &fork), RATP_OK);
    CHECK_EQUAL(ratp->seq_truncate(fork, 36), RATP_OK);
    CHECK_EQUAL(ratp->seq_compress(fork), RATP_OK);
    CHECK_EQUAL(ratp->seq_destroy(&fork), RATP_OK);
    abort_all(cache, seq, 40, 60);
    for (uint32_t t = 40, rows = 1; t + rows < TOKENS - 20; t += rows, rows = rows % 9 + 1) {
        compress_feed(cache, seq, t, rows, t % 3 ? RATP_PART_DECODE : RATP_PART_PROMPT);
        abort_all(cache, seq, t + rows, 18);
    }
    CHECK_EQUAL(ratp->seq_destroy(&seq), RATP_OK);
    compress_close(&cache);
}

/* ---- Memory that runs out ---- */

/* In a cache that is full there may be no room to try: a snapshot is tried elsewhere. */
static void futures_elsewhere(ratp_cache *roomy, ratp_seq *seq, struct futures *out)
{
    static unsigned char data[1 << 21];
    uint64_t size = 0;
    ratp_seq *loaded = NULL;
    CHECK_EQUAL(ratp->seq_save(seq, data, sizeof data, &size), RATP_OK);
    CHECK_EQUAL(ratp->seq_load(roomy, data, size, &loaded), RATP_OK);
    futures_of(loaded, out);
    CHECK_EQUAL(ratp->seq_destroy(&loaded), RATP_OK);
    struct ratp_seq_stats stats = {.struct_size = sizeof stats};
    CHECK_EQUAL(ratp->seq_stats(seq, &stats), RATP_OK);
    out->tokens = (uint32_t)stats.length;
    out->pages = stats.pages;
    out->shared = stats.pages_shared;
    out->bytes = stats.bytes;
}

/* Calls that need memory, on sequences of which the second shares its pages with a third;
 * false: the number is too large. */
static bool call(uint32_t number, ratp_cache *cache, ratp_seq *const seqs[2], ratp_status *status)
{
    static unsigned char data[1 << 21];
    static const uint32_t rows[][2] = {{1, 1}, {1, 9}, {3, 40}, {1, 60}, {60, 1}, {30, 30}};
    enum { STEPS = sizeof rows / sizeof *rows };
    if (number < 2 * STEPS) {
        const ratp_part_kind kinds[2] = {RATP_PART_DECODE, number < STEPS ? RATP_PART_DECODE
                                                                          : RATP_PART_PROMPT};
        const struct ratp_step_params params = {sizeof params, .count = 2, .seqs = seqs,
                                                .n_tokens = rows[number % STEPS], .kinds = kinds};
        ratp_step *step = NULL;
        *status = ratp->step_begin(cache, &params, &step);
        CHECK(!step == (*status != RATP_OK));
        CHECK_EQUAL(ratp->step_abort(&step), RATP_OK);
        return true;
    }
    number -= 2 * STEPS;
    ratp_seq *seq = seqs[number % 2], *made = NULL;
    uint64_t size = 0;
    if (number / 2 == 0) {
        *status = ratp->seq_fork(seq, &made);
    } else if (number / 2 == 1) {
        CHECK_EQUAL(ratp->seq_save(seq, data, sizeof data, &size), RATP_OK);
        *status = ratp->seq_load(cache, data, size, &made);
    } else if (number / 2 < 2 + POLICIES + 1) {
        /* These change the sequence where they succeed: then they are not made on it. */
        if (!ratp->seq_fork(seq, &made)) {
            *status = RATP_OK;
            CHECK_EQUAL(ratp->seq_destroy(&made), RATP_OK);
            return true;
        }
        *status = number / 2 == 2 ? ratp->seq_compress(seq)
                                  : ratp->seq_set_policy(seq, policies[number / 2 - 3]);
    } else {
        return false;
    }
    CHECK(!made == (*status != RATP_OK || number / 2 > 1));
    CHECK_EQUAL(ratp->seq_destroy(&made), RATP_OK);
    return true;
}

/* Budgets from what is there to what is enough. */
static void test_full(void)
{
    struct compress_model model = {
        .policy = "{\"default\": \"snapkv20o6\", \"rules\": [{\"layers\": 1, \"heads\": 1, "
                  "\"variant\": \"d4w12s2\"}]}",
        .retention = RATP_RETAIN_NEEDED};
    ratp_cache *roomy = compress_cache(&model);
    uint32_t refused = 0, made = 0, numbers = 0;
    for (uint64_t more = 0; more < 24; more += quick ? 1 : 8) {
        static struct futures before[2], after;
        model.budget = (67 + more * more / 3) << 10;
        ratp_cache *cache = compress_cache(&model);
        ratp_seq *seqs[2] = {host_seq(cache), host_seq(cache)}, *third = NULL;
        compress_feed(cache, seqs[0], 0, 45, RATP_PART_PROMPT);
        compress_feed(cache, seqs[1], 0, 30, RATP_PART_PROMPT);
        CHECK_EQUAL(ratp->seq_fork(seqs[1], &third), RATP_OK);
        for (int i = 0; i < 2; i++)
            futures_elsewhere(roomy, seqs[i], &before[i]);
        ratp_status status = RATP_OK;
        for (uint32_t n = 0; call(n, cache, seqs, &status); n++, numbers++) {
            made += status == RATP_OK;
            refused += status == RATP_CACHE_FULL;
            if (!CHECK(status == RATP_OK || status == RATP_CACHE_FULL ||
                       status == RATP_NOT_RETAINED))
                fprintf(stderr, "    call %u: %s\n", n, ratp->status_name(status));
            /* Where one of the last kind succeeded, nothing is left to be compared. */
            if (status == RATP_OK && n >= 16)
                break;
            for (int i = 0; i < 2; i++) {
                futures_elsewhere(roomy, seqs[i], &after);
                if (!futures_equal(&before[i], &after, "after a lack of memory"))
                    fprintf(stderr, "    call %u, budget %llu, sequence %d\n", n,
                            (unsigned long long)model.budget, i);
            }
        }
        CHECK_EQUAL(ratp->seq_destroy(&third), RATP_OK);
        for (int i = 0; i < 2; i++)
            CHECK_EQUAL(ratp->seq_destroy(&seqs[i]), RATP_OK);
        compress_close(&cache);
    }
    printf("%u calls, %u refused, %u made\n", numbers, refused, made);
    CHECK(!quick || (refused > 40 && made > 40));
    compress_close(&roomy);
}

int main(int argc, char **argv)
{
    static const char *const names[POLICIES] = {"snapkv12o4", "streamw3", "dense", "d8w12s2"};
    struct ratp_device_info info = {.struct_size = sizeof info};
    host_open(argc, argv);
    CHECK_EQUAL(ratp->device_info(device, &info), RATP_OK);
    quick = info.kind == RATP_DEVICE_REFERENCE;
    compress_start();
    for (int i = 0; i < POLICIES; i++) {
        char json[80];
        snprintf(json, sizeof json, "{\"default\": \"%s\"}", names[i]);
        CHECK_EQUAL(ratp->policy_from_json(instance, json, strlen(json), &policies[i]), RATP_OK);
    }
    RUN(test_window);
    RUN(test_no_page);
    RUN(test_shared_ring);
    RUN(test_queries);
    RUN(test_full);
    for (int i = 0; i < POLICIES; i++)
        CHECK_EQUAL(ratp->policy_destroy(&policies[i]), RATP_OK);
    host_close();
    return check_result();
}
