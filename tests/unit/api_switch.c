/* Changing what a sequence attends: what may follow what, and what is refused. */
#include "api_host.h"

#include <math.h>

enum { TOKENS = 40 };

static ratp_policy *policy_of(const char *json)
{
    ratp_policy *policy = NULL;
    CHECK_EQUAL(ratp->policy_from_json(instance, json, strlen(json), &policy), RATP_OK);
    return policy;
}

static ratp_cache *cache_of(const char *json, ratp_retention retention)
{
    struct ratp_geometry geometry = {sizeof geometry, LAYERS, QUERY_HEADS, KV_HEADS, HEAD_SIZE,
                                     .memory = 1};
    ratp_policy *policy = policy_of(json);
    struct ratp_cache_params params = {sizeof params, .geometry = &geometry, .policy = policy,
                                       .page_slots = 8, .retention = retention};
    ratp_cache *cache = NULL;
    CHECK_EQUAL(ratp->cache_create(device, &params, &cache), RATP_OK);
    CHECK_EQUAL(ratp->policy_destroy(&policy), RATP_OK);
    return cache;
}

/* Feeds the same tokens always, and keeps what comes out last. */
static void feed(ratp_cache *cache, ratp_seq *seq, uint32_t tokens, float *last)
{
    ratp_step *step = host_step(cache, seq, tokens);
    struct ratp_attend_io io = host_io();
    for (uint32_t layer = 0; layer < LAYERS; layer++)
        CHECK_EQUAL(ratp->step_attend(step, layer, &io), RATP_OK);
    CHECK_EQUAL(ratp->step_commit(&step), RATP_OK);
    memcpy(last, host_out() + (tokens - 1) * QUERY_HEADS * HEAD_SIZE,
           QUERY_HEADS * HEAD_SIZE * sizeof *last);
}

static void refuse(ratp_seq *seq, const char *json, ratp_status status, const char *part)
{
    ratp_policy *policy = policy_of(json);
    REFUSE(seq, ratp->seq_set_policy(seq, policy), status, part);
    CHECK_EQUAL(ratp->policy_destroy(&policy), RATP_OK);
}

static void allow(ratp_seq *seq, const char *json)
{
    ratp_policy *policy = policy_of(json);
    CHECK_EQUAL(ratp->seq_set_policy(seq, policy), RATP_OK);
    CHECK_EQUAL(ratp->policy_destroy(&policy), RATP_OK);
}

/* Out, and back again: the same token gives the same bits. */
static void test_there_and_back(void)
{
    ratp_cache *cache = cache_of("{}", RATP_RETAIN_FULL);
    ratp_seq *seq = host_seq(cache), *forks[3];
    float last[3][QUERY_HEADS * HEAD_SIZE], ignored[QUERY_HEADS * HEAD_SIZE];
    feed(cache, seq, TOKENS, ignored);
    for (int i = 0; i < 3; i++)
        CHECK_EQUAL(ratp->seq_fork(seq, &forks[i]), RATP_OK);
    allow(forks[1], "{\"default\": \"d8w4\"}");
    allow(forks[2], "{\"default\": \"streamw1\"}");
    CHECK_EQUAL(ratp->seq_set_policy(forks[2], NULL), RATP_OK);
    for (int i = 0; i < 3; i++)
        feed(cache, forks[i], 1, last[i]);
    CHECK(memcmp(last[0], last[2], sizeof last[0]) == 0);
    CHECK(memcmp(last[0], last[1], sizeof last[0]) != 0);
    for (int i = 0; i < 3; i++)
        CHECK_EQUAL(ratp->seq_destroy(&forks[i]), RATP_OK);
    CHECK_EQUAL(ratp->seq_destroy(&seq), RATP_OK);
    CHECK_EQUAL(ratp->cache_destroy(&cache), RATP_OK);
}

static void test_refusals(void)
{
    ratp_cache *cache = cache_of("{\"default\": \"d4w6s2\", \"rules\": "
                                 "[{\"layers\": 0, \"variant\": \"dense\"}]}", RATP_RETAIN_NEEDED);
    ratp_seq *seq = host_seq(cache);
    float last[QUERY_HEADS * HEAD_SIZE];
    feed(cache, seq, TOKENS, last);
    CHECK_EQUAL(ratp->seq_set_policy(NULL, NULL), RATP_INVALID_ARGUMENT);
    REFUSE(seq, ratp->seq_set_policy(seq, (ratp_policy *)cache), RATP_INVALID_ARGUMENT,
           "policy is the handle of a different kind: cache");
    refuse(seq, "{}", RATP_NOT_RETAINED,
           "layer 1 is to attend dense, but holds d4w6s2 of 40 tokens: token 2 is missing");
    refuse(seq, "{\"default\": \"d4w8s2\"}", RATP_NOT_RETAINED, "token 32 is missing");
    refuse(seq, "{\"rules\": [{\"layers\": 2, \"variant\": \"d4\"}]}", RATP_INVALID_ARGUMENT,
           "policy rule 0: layers begin at 2, the model has 2");
    refuse(seq, "{\"default\": \"d4w6s2\", \"rules\": [{\"heads\": 1, \"variant\": \"d3\"}]}",
           RATP_NOT_RETAINED, "layer 1 is to attend d3, but holds d4w6s2 of 40 tokens: token 2 is");

    ratp_instance *other = NULL;
    ratp_policy *foreign = NULL;
    CHECK_EQUAL(ratp->instance_create(NULL, &other, NULL, 0), RATP_OK);
    CHECK_EQUAL(ratp->policy_create(other, &foreign), RATP_OK);
    REFUSE(seq, ratp->seq_set_policy(seq, foreign), RATP_INVALID_ARGUMENT,
           "policy belongs to another instance");
    CHECK_EQUAL(ratp->policy_destroy(&foreign), RATP_OK);
    CHECK_EQUAL(ratp->instance_destroy(&other), RATP_OK);

    ratp_step *step = host_step(cache, seq, 1);
    REFUSE(seq, ratp->seq_set_policy(seq, NULL), RATP_WRONG_STATE, "part of an open step");
    CHECK_EQUAL(ratp->step_abort(&step), RATP_OK);
    CHECK_EQUAL(ratp->seq_set_policy(seq, NULL), RATP_OK);
    CHECK_EQUAL(ratp->seq_destroy(&seq), RATP_OK);
    CHECK_EQUAL(ratp->cache_destroy(&cache), RATP_OK);
}

static uint64_t bytes_of(ratp_seq *seq)
{
    struct ratp_seq_stats stats = {.struct_size = sizeof stats};
    CHECK_EQUAL(ratp->seq_stats(seq, &stats), RATP_OK);
    return stats.bytes;
}

/* With retention `needed` a switch to less frees what is no longer needed, and
 * the answers are those of a sequence that was always so. */
static void test_less(void)
{
    static const char *const steps[] = {
        "{\"default\": \"d2w4s6\"}",
        "{\"default\": \"d4w3s3\", \"rules\": [{\"heads\": 1, \"variant\": \"streamw3s1\"}]}",
        "{\"default\": \"d8w2\", \"rules\": [{\"heads\": 1, \"variant\": \"stream\"}]}",
    };
    ratp_cache *cache = cache_of("{}", RATP_RETAIN_NEEDED);
    ratp_cache *all = cache_of("{}", RATP_RETAIN_FULL);
    ratp_seq *seq = host_seq(cache), *same = host_seq(all);
    float last[QUERY_HEADS * HEAD_SIZE], wanted[QUERY_HEADS * HEAD_SIZE];
    feed(cache, seq, TOKENS, last);
    feed(all, same, TOKENS, wanted);
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        uint64_t before = bytes_of(seq);
        allow(seq, steps[i]);
        CHECK(bytes_of(seq) < before);
        allow(same, steps[i]);
        feed(cache, seq, 2, last);
        feed(all, same, 2, wanted);
        for (uint32_t c = 0; c < QUERY_HEADS * HEAD_SIZE; c++)
            CHECK(fabsf(last[c] - wanted[c]) < 1e-5f);
    }
    uint64_t count = 0;
    CHECK_EQUAL(ratp->seq_positions(seq, 0, 1, NULL, 0, &count), RATP_OK);
    CHECK_EQUAL(count, 0);
    CHECK_EQUAL(ratp->seq_positions(seq, 0, 0, NULL, 0, &count), RATP_OK);
    CHECK_EQUAL(count, 5 + 2); /* 7, 15, ... 39, and 44, 45 */
    refuse(seq, steps[1], RATP_NOT_RETAINED, "layer 0 is to attend d4w3s3");
    CHECK_EQUAL(ratp->seq_destroy(&seq), RATP_OK);
    CHECK_EQUAL(ratp->seq_destroy(&same), RATP_OK);
    CHECK_EQUAL(ratp->cache_destroy(&cache), RATP_OK);
    CHECK_EQUAL(ratp->cache_destroy(&all), RATP_OK);
}

/* A sequence may change while a step has others of its cache. */
static void test_beside_a_step(void)
{
    enum { SIZE = QUERY_HEADS * HEAD_SIZE };
    ratp_cache *cache = cache_of("{}", RATP_RETAIN_NEEDED);
    float last[2][SIZE];
    for (int i = 0; i < 2; i++) {
        ratp_seq *seq = host_seq(cache), *other = host_seq(cache);
        feed(cache, seq, TOKENS, last[i]);
        feed(cache, other, TOKENS, last[i]);
        ratp_step *step = host_step(cache, seq, 1);
        struct ratp_attend_io io = host_io();
        for (uint32_t layer = 0; layer < LAYERS; layer++) {
            if (i)
                allow(other, layer ? "{\"default\": \"d8w2\"}" : "{\"default\": \"d4w5s9\"}");
            CHECK_EQUAL(ratp->step_attend(step, layer, &io), RATP_OK);
        }
        CHECK_EQUAL(ratp->step_commit(&step), RATP_OK);
        memcpy(last[i], host_out(), sizeof last[i]);
        CHECK_EQUAL(ratp->seq_destroy(&seq), RATP_OK);
        CHECK_EQUAL(ratp->seq_destroy(&other), RATP_OK);
    }
    CHECK(memcmp(last[0], last[1], sizeof last[0]) == 0);
    CHECK_EQUAL(ratp->cache_destroy(&cache), RATP_OK);
}

/* A switch that finds no room leaves everything as it was. */
static void test_no_room(void)
{
    struct ratp_geometry geometry = {sizeof geometry, LAYERS, QUERY_HEADS, KV_HEADS, HEAD_SIZE,
                                     .max_tokens = 1024};
    struct ratp_cache_params params = {sizeof params, .geometry = &geometry, .budget = 5 * 2048,
                                       .page_slots = 8, .retention = RATP_RETAIN_NEEDED};
    ratp_cache *cache = NULL;
    CHECK_EQUAL(ratp->cache_create(device, &params, &cache), RATP_OK);
    ratp_seq *seq = host_seq(cache);
    struct ratp_attend_io io = host_io();
    io.f = NULL;
    ratp_step *step = host_step(cache, seq, TOKENS);
    for (uint32_t layer = 0; layer < LAYERS; layer++)
        CHECK_EQUAL(ratp->step_attend(step, layer, &io), RATP_OK);
    CHECK_EQUAL(ratp->step_commit(&step), RATP_OK);
    uint64_t before = bytes_of(seq);
    refuse(seq, "{\"default\": \"d2\"}", RATP_CACHE_FULL, "more pages of 2048 bytes are needed");
    CHECK_EQUAL(bytes_of(seq), before);
    CHECK_EQUAL(ratp->seq_destroy(&seq), RATP_OK);
    CHECK_EQUAL(ratp->cache_destroy(&cache), RATP_OK);
}

int main(int argc, char **argv)
{
    host_open(argc, argv);
    test_there_and_back();
    test_refusals();
    test_less();
    test_beside_a_step();
    test_no_room();
    host_close();
    return check_result();
}
