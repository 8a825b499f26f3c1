/* Forks and truncation: what is shared, what it costs, and what is refused. */
#include "api_host.h"

#include <stdlib.h>

enum { TOKENS = 40, SLOTS = 8 };

static struct ratp_seq_stats stats_of(ratp_seq *seq)
{
    struct ratp_seq_stats stats = {.struct_size = sizeof stats};
    CHECK_EQUAL(ratp->seq_stats(seq, &stats), RATP_OK);
    return stats;
}

static struct ratp_cache_stats total(ratp_cache *cache)
{
    struct ratp_cache_stats stats = {.struct_size = sizeof stats};
    CHECK_EQUAL(ratp->cache_stats(cache, &stats), RATP_OK);
    return stats;
}

static ratp_cache *cache_of(const char *json, ratp_retention retention, uint64_t budget)
{
    struct ratp_geometry geometry = {sizeof geometry, LAYERS, QUERY_HEADS, KV_HEADS, HEAD_SIZE,
                                     .memory = 1};
    struct ratp_cache_params params = {sizeof params, .geometry = &geometry, .budget = budget,
                                       .page_slots = SLOTS, .retention = retention};
    ratp_policy *policy = NULL;
    ratp_cache *cache = NULL;
    CHECK_EQUAL(ratp->policy_from_json(instance, json, strlen(json), &policy), RATP_OK);
    params.policy = policy;
    CHECK_EQUAL(ratp->cache_create(device, &params, &cache), RATP_OK);
    CHECK_EQUAL(ratp->policy_destroy(&policy), RATP_OK);
    return cache;
}

static void feed(ratp_cache *cache, ratp_seq *seq, uint32_t tokens)
{
    ratp_step *step = host_step(cache, seq, tokens);
    struct ratp_attend_io io = host_io();
    for (uint32_t layer = 0; layer < LAYERS; layer++)
        CHECK_EQUAL(ratp->step_attend(step, layer, &io), RATP_OK);
    CHECK_EQUAL(ratp->step_commit(&step), RATP_OK);
}

static void test_sharing(void)
{
    ratp_cache *cache = cache_of("{}", RATP_RETAIN_FULL, 0);
    ratp_seq *seq = host_seq(cache), *fork = NULL;
    feed(cache, seq, TOKENS - 4);
    uint64_t pages = stats_of(seq).pages;
    CHECK_EQUAL(pages, TOKENS / SLOTS);
    CHECK_EQUAL(ratp->seq_fork(seq, &fork), RATP_OK);
    CHECK_EQUAL(stats_of(fork).length, TOKENS - 4);
    CHECK_EQUAL(stats_of(fork).number, stats_of(seq).number + 1);
    CHECK_EQUAL(stats_of(fork).pages_shared, pages);
    CHECK_EQUAL(total(cache).pages_used, pages);
    CHECK_EQUAL(total(cache).pages_shared, pages);
    CHECK_EQUAL(total(cache).pages_free, total(cache).pages_total - pages);

    /* A step that is aborted leaves the sharing as it was; one that is not has
     * a copy of the page that it writes to, and no other. */
    ratp_step *step = host_step(cache, fork, 1);
    CHECK_EQUAL(total(cache).pages_used, pages + 1);
    CHECK_EQUAL(ratp->step_abort(&step), RATP_OK);
    CHECK_EQUAL(total(cache).pages_used, pages);
    CHECK_EQUAL(stats_of(seq).pages_shared, pages);
    feed(cache, fork, 1);
    CHECK_EQUAL(total(cache).pages_used, pages + 1);
    CHECK_EQUAL(stats_of(seq).pages_shared, pages - 1);
    feed(cache, seq, 1);
    CHECK_EQUAL(total(cache).pages_used, pages + 1);

    /* On a page's border nothing is copied. */
    CHECK_EQUAL(ratp->seq_truncate(fork, 16), RATP_OK);
    CHECK_EQUAL(stats_of(fork).pages, 2);
    feed(cache, fork, 1);
    CHECK_EQUAL(stats_of(fork).pages_shared, 2);
    CHECK_EQUAL(ratp->seq_truncate(fork, 0), RATP_OK);
    CHECK_EQUAL(stats_of(fork).pages, 0);
    CHECK_EQUAL(total(cache).pages_shared, 0);
    CHECK_EQUAL(ratp->seq_destroy(&seq), RATP_OK);
    CHECK_EQUAL(ratp->seq_destroy(&fork), RATP_OK);
    CHECK_EQUAL(total(cache).pages_used, 0);
    CHECK_EQUAL(ratp->cache_destroy(&cache), RATP_OK);
}

static void test_refusals(void)
{
    ratp_cache *cache = cache_of("{\"default\": \"d16w4s2\"}", RATP_RETAIN_NEEDED, 0);
    ratp_seq *seq = host_seq(cache), *fork = (ratp_seq *)cache;
    feed(cache, seq, TOKENS);
    REFUSE(seq, ratp->seq_fork(seq, NULL), RATP_INVALID_ARGUMENT, "out is NULL");
    CHECK_EQUAL(ratp->seq_fork(NULL, &fork), RATP_INVALID_ARGUMENT);
    CHECK(!fork);
    REFUSE(cache, ratp->seq_fork((ratp_seq *)cache, &fork), RATP_INVALID_ARGUMENT,
           "seq is the handle of a different kind: cache");
    CHECK_EQUAL(ratp->seq_truncate(NULL, 0), RATP_INVALID_ARGUMENT);
    REFUSE(seq, ratp->seq_truncate(seq, TOKENS + 1), RATP_INVALID_ARGUMENT,
           "length is 41, the sequence has 40 tokens");
    REFUSE(seq, ratp->seq_truncate(seq, UINT64_MAX), RATP_INVALID_ARGUMENT,
           "length is 18446744073709551615");
    REFUSE(seq, ratp->seq_truncate(seq, 20), RATP_NOT_RETAINED,
           "length is 20, but layer 0 no longer holds token 16");
    CHECK_EQUAL(stats_of(seq).length, TOKENS);
    CHECK_EQUAL(ratp->seq_truncate(seq, TOKENS), RATP_OK);

    ratp_step *step = host_step(cache, seq, 1);
    REFUSE(seq, ratp->seq_fork(seq, &fork), RATP_WRONG_STATE, "part of an open step");
    REFUSE(seq, ratp->seq_truncate(seq, 0), RATP_WRONG_STATE, "part of an open step");
    CHECK_EQUAL(ratp->step_abort(&step), RATP_OK);
    CHECK_EQUAL(ratp->seq_truncate(seq, 0), RATP_OK);
    CHECK_EQUAL(stats_of(seq).pages, 0);
    feed(cache, seq, TOKENS);
    CHECK_EQUAL(ratp->seq_destroy(&seq), RATP_OK);
    CHECK_EQUAL(ratp->cache_destroy(&cache), RATP_OK);
}

/* A full cache says who holds most, and a fork of shared pages fits in it until
 * it is written to. */
static void test_full(void)
{
    ratp_cache *cache = cache_of("{}", RATP_RETAIN_FULL, 14000);
    ratp_seq *seq = host_seq(cache), *fork = NULL;
    feed(cache, seq, 12);
    CHECK_EQUAL(ratp->seq_fork(seq, &fork), RATP_OK);
    feed(cache, seq, 1);
    uint32_t tokens = 60;
    struct ratp_step_params params = {
        sizeof params, .count = 1, .seqs = &fork, .n_tokens = &tokens};
    ratp_step *step = NULL;
    REFUSE(cache, ratp->step_begin(cache, &params, &step), RATP_CACHE_FULL, "more pages of");
    CHECK_CONTAINS(host_message(cache), "most by: sequence ");
    CHECK_CONTAINS(host_message(cache), "sequence 2 holds ");
    CHECK_EQUAL(stats_of(fork).pages, 2);
    CHECK_EQUAL(stats_of(fork).pages_shared, 1);
    feed(cache, fork, 1);
    CHECK_EQUAL(ratp->seq_destroy(&fork), RATP_OK);
    CHECK_EQUAL(ratp->seq_destroy(&seq), RATP_OK);
    CHECK_EQUAL(ratp->cache_destroy(&cache), RATP_OK);
}

int main(int argc, char **argv)
{
    host_open(argc, argv);
    test_sharing();
    test_refusals();
    test_full();
    host_close();
    return check_result();
}
