/* What is [any thread] is called from several at once, on one instance and one
 * device; caches of one device are used in parallel, each by one thread. */
#include "api_host.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { THREADS = 4, ROUNDS = 6, QUERIES = 3, KEYS = 40, COUNT = KEYS * QUERY_HEADS * HEAD_SIZE };

struct worker {
    pthread_t thread;
    uint32_t failures; /* CHECK is for one thread */
    float in[COUNT], out[QUERIES * QUERY_HEADS * HEAD_SIZE];
    float step_out[MAX_ROWS * QUERY_HEADS * HEAD_SIZE];
};

static void expect(struct worker *w, bool good)
{
    w->failures += !good;
}

static void attend_external(struct worker *w)
{
    struct ratp_tensor in = {sizeof in, .host = w->in}, out = {sizeof out, .host = w->out};
    struct ratp_external p = {sizeof p, 1, QUERIES, KEYS, QUERY_HEADS, KV_HEADS, HEAD_SIZE,
                              .q = &in, .k = &in, .v = &in, .out = &out};
    expect(w, ratp->attend_external(device, &p) == RATP_OK);
    p.query_tokens = 0;
    expect(w, ratp->attend_external(device, &p) == RATP_INVALID_ARGUMENT);
}

static void use_instance(struct worker *w)
{
    static const char good[] = "{\"default\": \"d4\"}", bad[] = "{\"default\": \"d4\"";
    char text[200];
    ratp_policy *policy = NULL;
    struct ratp_device_info info = {.struct_size = sizeof info};
    expect(w, ratp->policy_from_json(instance, bad, sizeof bad - 1, &policy) == RATP_PARSE_ERROR);
    expect(w, ratp->policy_from_json(instance, good, sizeof good - 1, &policy) == RATP_OK);
    expect(w, ratp->last_error(instance, text, sizeof text) == strlen(text));
    expect(w, ratp->device_describe(instance, 0, &info) == RATP_OK);
    expect(w, ratp->policy_destroy(&policy) == RATP_OK);
}

static void use_device(struct worker *w)
{
    float back[16] = {0};
    ratp_buffer *buffer = NULL;
    struct ratp_buffer_params params = {sizeof params, .size = sizeof back};
    expect(w, ratp->buffer_create(device, &params, &buffer) == RATP_OK);
    expect(w, ratp->buffer_write(buffer, 0, w->in, sizeof back) == RATP_OK);
    expect(w, ratp->buffer_read(buffer, 0, back, sizeof back) == RATP_OK);
    expect(w, memcmp(back, w->in, sizeof back) == 0);
    expect(w, ratp->device_wait(device) == RATP_OK);
    expect(w, ratp->buffer_destroy(&buffer) == RATP_OK);
}

static void feed(struct worker *w, ratp_cache *cache, ratp_seq *seq, uint32_t tokens)
{
    struct ratp_tensor in = {sizeof in, .host = w->in}, out = {sizeof out, .host = w->step_out};
    struct ratp_attend_io io = {sizeof io, &in, &in, &in, &in, .out = &out};
    struct ratp_step_params params = {sizeof params, .count = 1, .seqs = &seq, .n_tokens = &tokens};
    ratp_step *step = NULL;
    expect(w, ratp->step_begin(cache, &params, &step) == RATP_OK);
    for (uint32_t layer = 0; layer < LAYERS && step; layer++)
        expect(w, ratp->step_attend(step, layer, &io) == RATP_OK);
    expect(w, ratp->step_commit(&step) == RATP_OK);
}

static void *work(void *argument)
{
    struct worker *w = argument;
    struct ratp_geometry geometry = {sizeof geometry, LAYERS, QUERY_HEADS, KV_HEADS, HEAD_SIZE,
                                     .memory = 1};
    struct ratp_cache_params params = {sizeof params, .geometry = &geometry};
    ratp_cache *cache = NULL;
    ratp_seq *seq = NULL;
    expect(w, ratp->cache_create(device, &params, &cache) == RATP_OK);
    expect(w, ratp->seq_create(cache, &seq) == RATP_OK);
    for (uint32_t round = 0; round < ROUNDS; round++) {
        attend_external(w);
        use_instance(w);
        use_device(w);
        feed(w, cache, seq, round ? 1 : 20);
    }
    expect(w, ratp->seq_destroy(&seq) == RATP_OK);
    expect(w, ratp->cache_destroy(&cache) == RATP_OK);
    return NULL;
}

static void test_threads(void)
{
    struct worker *workers = calloc(THREADS + 1, sizeof *workers);
    if (!CHECK(workers))
        return;
    for (uint32_t i = 0; i <= THREADS; i++)
        for (int j = 0; j < COUNT; j++)
            workers[i].in[j] = (float)(j % 19) / 9 - 1;
    work(&workers[THREADS]);
    for (uint32_t i = 0; i < THREADS; i++)
        CHECK_EQUAL(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    for (uint32_t i = 0; i < THREADS; i++)
        CHECK_EQUAL(pthread_join(workers[i].thread, NULL), 0);
    for (uint32_t i = 0; i < THREADS; i++) {
        CHECK_EQUAL(workers[i].failures, 0);
        CHECK(memcmp(workers[i].out, workers[THREADS].out, sizeof workers[i].out) == 0);
        CHECK(memcmp(workers[i].step_out, workers[THREADS].step_out,
                     sizeof workers[i].step_out) == 0);
    }
    CHECK_EQUAL(workers[THREADS].failures, 0);
    free(workers);
}

/* A device with room for what every thread uses, and not for what all of them keep: each
 * takes from the others what they do not use, while they take and free it. */
enum { SHARERS = 3, SHARES = 24, MIB = 1 << 20, SHARED_BUDGET = 84 * MIB, IN_USE = 48 * MIB };

struct sharer {
    pthread_t thread;
    ratp_device *device;
    ratp_policy *policy;
    uint32_t seed, failures;
    char why[400];
};

static pthread_barrier_t all_shared;

static uint32_t draw(struct sharer *w, uint32_t below)
{
    w->seed = w->seed * 1664525u + 1013904223u;
    return (w->seed >> 8) % below;
}

static void share_once(struct sharer *w, ratp_cache *cache, ratp_seq *seq)
{
    /* 8 KiB a token, and up to 8 MiB, in pages of one size or of another; or a buffer of
     * as much. */
    uint32_t tokens = 64 + draw(w, 960);
    struct ratp_step_params params = {sizeof params, .count = 1, .seqs = &seq, .n_tokens = &tokens};
    struct ratp_buffer_params size = {sizeof size, .size = (uint64_t)tokens * 8192};
    const void *object = cache;
    ratp_step *step = NULL;
    ratp_buffer *buffer = NULL;
    ratp_status status = RATP_OK;
    w->failures += ratp->seq_set_policy(seq, draw(w, 2) ? w->policy : NULL) != RATP_OK;
    if (draw(w, 4)) {
        status = ratp->step_begin(cache, &params, &step);
    } else {
        object = w->device;
        status = ratp->buffer_create(w->device, &size, &buffer);
    }
    if (status) {
        w->failures++;
        ratp->last_error(object, w->why, sizeof w->why);
    }
    struct ratp_cache_stats stats = {.struct_size = sizeof stats};
    w->failures += ratp->cache_stats(cache, &stats) != RATP_OK;
    w->failures += ratp->step_abort(&step) != RATP_OK;
    w->failures += ratp->buffer_destroy(&buffer) != RATP_OK;
}

static void *share(void *argument)
{
    struct sharer *w = argument;
    struct ratp_geometry geometry = {sizeof geometry, 4, 8, 8, 64, .max_tokens = 4096};
    struct ratp_cache_params params = {sizeof params, .geometry = &geometry,
                                       .retention = RATP_RETAIN_NEEDED};
    for (int life = 0; life < 3; life++) {
        ratp_cache *cache = NULL;
        ratp_seq *seq = NULL;
        w->failures += ratp->cache_create(w->device, &params, &cache) != RATP_OK;
        w->failures += ratp->seq_create(cache, &seq) != RATP_OK;
        for (int i = 0; i < SHARES && seq; i++)
            share_once(w, cache, seq);
        pthread_barrier_wait(&all_shared); /* what it keeps stays there for the others */
        w->failures += ratp->seq_destroy(&seq) != RATP_OK;
        w->failures += ratp->cache_destroy(&cache) != RATP_OK;
    }
    return NULL;
}

static const char *device_name;

static void test_shared_budget(void)
{
    struct ratp_device_params params = {sizeof params, .name = device_name,
                                        .memory_budget = SHARED_BUDGET};
    struct sharer sharers[SHARERS] = {{0}};
    ratp_device *small = NULL;
    CHECK_EQUAL(ratp->device_open(instance, &params, &small), RATP_OK);
    struct ratp_buffer_params rest = {sizeof rest, .size = IN_USE};
    ratp_buffer *buffer = NULL;
    CHECK_EQUAL(ratp->buffer_create(small, &rest, &buffer), RATP_OK);
    static const char json[] = "{\"rules\": [{\"layers\": \"0-1\", \"variant\": \"streamw2000\"}]}";
    ratp_policy *policy = NULL;
    CHECK_EQUAL(ratp->policy_from_json(instance, json, sizeof json - 1, &policy), RATP_OK);
    CHECK_EQUAL(pthread_barrier_init(&all_shared, NULL, SHARERS), 0);
    for (uint32_t i = 0; i < SHARERS; i++) {
        sharers[i].device = small;
        sharers[i].policy = policy;
        sharers[i].seed = i;
        CHECK_EQUAL(pthread_create(&sharers[i].thread, NULL, share, &sharers[i]), 0);
    }
    for (uint32_t i = 0; i < SHARERS; i++) {
        CHECK_EQUAL(pthread_join(sharers[i].thread, NULL), 0);
        if (!CHECK_EQUAL(sharers[i].failures, 0))
            fprintf(stderr, "    %s\n", sharers[i].why);
    }
    CHECK_EQUAL(pthread_barrier_destroy(&all_shared), 0);
    CHECK_EQUAL(ratp->policy_destroy(&policy), RATP_OK);
    CHECK_EQUAL(ratp->buffer_destroy(&buffer), RATP_OK);
    CHECK_EQUAL(ratp->device_close(&small), RATP_OK);
}

/* Two threads on one cache: the one that comes second is told so, and what the
 * first does is not disturbed. */
struct intruder {
    pthread_t thread;
    ratp_cache *cache;
    atomic_bool done;
    uint32_t refused, others;
};

static void *intrude(void *argument)
{
    struct intruder *w = argument;
    while (!atomic_load(&w->done)) {
        struct ratp_cache_stats stats = {.struct_size = sizeof stats};
        ratp_status status = ratp->cache_stats(w->cache, &stats);
        w->refused += status == RATP_WRONG_STATE;
        w->others += status != RATP_WRONG_STATE && status != RATP_OK;
    }
    return NULL;
}

/* True: the call was refused because of the other thread; try again. */
static bool refused(ratp_status status, const void *object)
{
    char text[200] = "";
    if (status) /* else the object may be gone */
        ratp->last_error(object, text, sizeof text);
    if (status == RATP_WRONG_STATE && strncmp(text, "another thread is inside", 24) == 0)
        return true;
    CHECK_EQUAL(status, RATP_OK);
    return false;
}

static void test_intruder(void)
{
    struct intruder w = {.cache = host_cache()};
    ratp_seq *seq = host_seq(w.cache);
    struct ratp_attend_io io = host_io();
    uint32_t tokens = MAX_ROWS, rounds = 0;
    CHECK_EQUAL(pthread_create(&w.thread, NULL, intrude, &w), 0);
    for (; rounds < 12; rounds++) {
        struct ratp_step_params params = {
            sizeof params, .count = 1, .seqs = &seq, .n_tokens = &tokens};
        ratp_step *step = NULL;
        while (refused(ratp->step_begin(w.cache, &params, &step), w.cache))
            ;
        for (uint32_t layer = 0; layer < LAYERS && step; layer++)
            while (refused(ratp->step_attend(step, layer, &io), step))
                ;
        while (refused(ratp->step_commit(&step), step))
            ;
    }
    atomic_store(&w.done, true);
    CHECK_EQUAL(pthread_join(w.thread, NULL), 0);
    CHECK(w.refused > 0);
    CHECK_EQUAL(w.others, 0);
    struct ratp_seq_stats stats = {.struct_size = sizeof stats};
    CHECK_EQUAL(ratp->seq_stats(seq, &stats), RATP_OK);
    CHECK_EQUAL(stats.length, rounds * MAX_ROWS);
    CHECK_EQUAL(ratp->seq_destroy(&seq), RATP_OK);
    CHECK_EQUAL(ratp->cache_destroy(&w.cache), RATP_OK);
}

int main(int argc, char **argv)
{
    host_open(argc, argv);
    device_name = argc > 1 ? argv[1] : "reference";
    RUN(test_threads);
    RUN(test_intruder);
    RUN(test_shared_budget);
    host_close();
    return check_result();
}
