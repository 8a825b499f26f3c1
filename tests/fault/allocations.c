/* Host memory that runs out: a whole life, in which the n-th allocation fails,
 * for n = 0, 1, 2, ... until none does. The failed call answers with a status
 * and a message and has changed nothing: made again it succeeds, and the
 * numbers at the end are those of a life without a failure. */
#include "../check.h"
#include "../futures.h"

#include <ratplus.h>
#include <stdlib.h>
#include <unistd.h>

/* ---- Allocation, through the linker's --wrap ---- */

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
int __real_posix_memalign(void **out, size_t alignment, size_t size);
void __real_free(void *pointer);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);
int __wrap_posix_memalign(void **out, size_t alignment, size_t size);
void __wrap_free(void *pointer);

static long countdown = -1; /* allocations until one fails; below 0: none does */
static bool injected;
static long live;

static bool runs_out(void)
{
    if (countdown < 0 || countdown-- > 0)
        return false;
    injected = true;
    return true;
}

void *__wrap_malloc(size_t size)
{
    void *p = runs_out() ? NULL : __real_malloc(size);
    live += p != NULL;
    return p;
}

void *__wrap_calloc(size_t count, size_t size)
{
    void *p = runs_out() ? NULL : __real_calloc(count, size);
    live += p != NULL;
    return p;
}

void *__wrap_realloc(void *old, size_t size)
{
    void *p = runs_out() ? NULL : __real_realloc(old, size);
    live += p != NULL && !old;
    return p;
}

int __wrap_posix_memalign(void **out, size_t alignment, size_t size)
{
    int error = runs_out() ? 12 : __real_posix_memalign(out, alignment, size);
    live += !error;
    return error;
}

void __wrap_free(void *pointer)
{
    live -= pointer != NULL;
    __real_free(pointer);
}

/* ---- The life ---- */

enum { LAYERS = 3, HEADS = 4, KV_HEADS = 2, SIZE = 16, MAX_ROWS = 96, STEPS = 5, FORK_STEPS = 2,
       LOAD_STEPS = 1, SNAP_STEPS = 4, ALL_STEPS = STEPS + FORK_STEPS + LOAD_STEPS + SNAP_STEPS };
enum { COUNT = MAX_ROWS * HEADS * SIZE };

static const struct ratp_api *ratp;
static float in[LAYERS][COUNT];
static float out[ALL_STEPS][LAYERS][COUNT], first_out[ALL_STEPS][LAYERS][COUNT];
static char path[] = "/tmp/ratplus-allocations-XXXXXX";
static float external_out[3][COUNT], first_external[3][COUNT];

/* Whether a call has to be made again: it failed because memory ran out. */
static bool again(ratp_status status, const void *object, const char *call)
{
    char text[300] = "reason";
    if (status == RATP_OK)
        return false;
    if (object)
        ratp->last_error(object, text, sizeof text);
    if (!CHECK(injected) || !CHECK_EQUAL(status, RATP_OUT_OF_MEMORY) || !CHECK(text[0])) {
        fprintf(stderr, "    %s: %s: %s\n", call, ratp->status_name(status), text);
        exit(1);
    }
    injected = false;
    return true;
}

#define TWICE(object, call) \
    (void)(again(call, object, #call) && CHECK_EQUAL(call, RATP_OK))

struct usage {
    uint64_t lengths[2], pages[2], used;
};

/* What a failed call leaves as it was. Nothing is made to fail while it is looked at. */
struct state {
    struct usage usage;
    struct futures futures[2];
};

static struct usage usage_of(ratp_cache *cache, ratp_seq *const *seqs)
{
    struct usage u = {0};
    struct ratp_cache_stats stats = {.struct_size = sizeof stats};
    CHECK_EQUAL(ratp->cache_stats(cache, &stats), RATP_OK);
    u.used = stats.pages_used;
    for (int i = 0; i < 2; i++) {
        struct ratp_seq_stats s = {.struct_size = sizeof s};
        CHECK_EQUAL(ratp->seq_stats(seqs[i], &s), RATP_OK);
        u.lengths[i] = s.length;
        u.pages[i] = s.pages;
    }
    return u;
}

static void read_state(ratp_cache *cache, ratp_seq *const *seqs, struct state *state)
{
    const struct future_view view = {.api = ratp, .layers = LAYERS, .kv_heads = KV_HEADS,
                                     .lengths = 12};
    long held = countdown;
    countdown = -1;
    for (int i = 0; i < 2; i++)
        futures_read(&view, seqs[i], &state->futures[i]);
    state->usage = usage_of(cache, seqs);
    countdown = held;
}

static void check_state(ratp_cache *cache, ratp_seq *const *seqs, const struct state *before)
{
    static struct state after;
    read_state(cache, seqs, &after);
    CHECK(memcmp(&before->usage, &after.usage, sizeof after.usage) == 0);
    for (int i = 0; i < 2; i++)
        futures_equal(&before->futures[i], &after.futures[i], "after a failure");
}

/* As TWICE, for calls that a pair of sequences outlives as it was. */
#define UNDONE(cache, seqs, object, call)         \
    do {                                          \
        static struct state undone;               \
        read_state(cache, seqs, &undone);         \
        if (again(call, object, #call)) {         \
            check_state(cache, seqs, &undone);    \
            CHECK_EQUAL(call, RATP_OK);           \
        }                                         \
    } while (0)

/* One forward pass; an abort, where it is tried, must undo it. */
static void pass(ratp_cache *cache, ratp_seq *const *seqs, const uint32_t *tokens, int number)
{
    struct ratp_step_params params = {sizeof params, .count = 2, .seqs = seqs, .n_tokens = tokens};
    static struct state before;
    read_state(cache, seqs, &before);
    for (int attempt = 0; attempt < 3; attempt++) {
        ratp_step *step = NULL;
        bool failed = again(ratp->step_begin(cache, &params, &step), cache, "step_begin");
        CHECK_EQUAL(failed, !step);
        for (int layer = 0; layer < LAYERS && !failed; layer++) {
            struct ratp_tensor t = {sizeof t, .host = in[layer]};
            struct ratp_tensor to = {sizeof to, .host = out[number][layer]};
            struct ratp_attend_io io = {sizeof io, &t, &t, &t, &t, &t, &to, .sinks = &t};
            failed = again(ratp->step_attend(step, (uint32_t)layer, &io), step, "step_attend");
        }
        if (!failed && attempt > 0)
            failed = again(ratp->step_commit(&step), step, "step_commit");
        if (!failed && attempt > 0)
            return;
        CHECK_EQUAL(ratp->step_abort(&step), RATP_OK);
        check_state(cache, seqs, &before);
    }
    CHECK(!"a pass succeeds in three attempts");
}

static void external(ratp_device *device)
{
    const struct ratp_variant variant = {sizeof variant, RATP_DILATED, .dilation = 4, .window = 5,
                                         .sinks = 1};
    static const float slopes[HEADS] = {0.5f, 0.25f};
    struct ratp_tensor t = {sizeof t, .host = in[0]}, to = {sizeof to, .host = external_out[0]};
    const struct ratp_tensor mask = {sizeof mask, .host = in[1]};
    struct ratp_external p = {sizeof p, 2, 8, 24, HEADS, KV_HEADS, SIZE, .causal = 1,
                              .first_position = 16, .variant = &variant,
                              .q = &t, .k = &t, .v = &t, .mask = &mask, .out = &to,
                              .slopes = slopes, .sinks = &t};
    TWICE(device, ratp->attend_external(device, &p));
    const struct ratp_variant quest = {sizeof quest, RATP_QUEST, .page = 8, .budget = 16};
    struct ratp_buffer_params size = {.struct_size = sizeof size};
    ratp_buffer *summaries = NULL;
    p.variant = &quest;
    p.mask = NULL;
    p.slopes = NULL;
    to.host = external_out[1];
    TWICE(device, ratp->attend_external(device, &p));
    TWICE(device, ratp->external_summary_bytes(device, &p, &size.size));
    TWICE(device, ratp->buffer_create(device, &size, &summaries));
    p.summaries = summaries;
    to.host = external_out[2];
    TWICE(device, ratp->attend_external(device, &p));
    CHECK(memcmp(external_out[1], external_out[2], sizeof external_out[1]) == 0);
    CHECK_EQUAL(ratp->buffer_destroy(&summaries), RATP_OK);
}

/* Sequences that are saved, to memory and to a file, and loaded go on. */
static void reload(ratp_cache *cache, ratp_seq *const *seqs)
{
    static const uint32_t tokens[2] = {1, 5};
    static unsigned char data[1 << 18];
    ratp_seq *loaded[2] = {NULL, NULL};
    uint64_t size = 0;
    struct usage before = usage_of(cache, seqs);
    UNDONE(cache, seqs, seqs[0], ratp->seq_save(seqs[0], data, sizeof data, &size));
    UNDONE(cache, seqs, seqs[1], ratp->seq_save_file(seqs[1], path));
    UNDONE(cache, seqs, cache, ratp->seq_load(cache, data, size, &loaded[0]));
    UNDONE(cache, seqs, cache, ratp->seq_load_file(cache, path, &loaded[1]));
    pass(cache, loaded, tokens, STEPS + FORK_STEPS);
    for (int i = 0; i < 2; i++)
        CHECK_EQUAL(ratp->seq_destroy(&loaded[i]), RATP_OK);
    struct usage after = usage_of(cache, seqs);
    CHECK(memcmp(&before, &after, sizeof before) == 0);
}

/* Prompts that are compressed by the first decoded token, and when asked. */
static void compress(ratp_instance *instance, ratp_cache *cache)
{
    static const char json[] = "{\"default\": \"snapkv20o6n3\", \"rules\": ["
                               "{\"layers\": 1, \"variant\": \"d8w12s2\"}]}";
    static const char other_json[] = "{\"default\": \"snapkv20o6n3\", \"rules\": ["
                                     "{\"layers\": 1, \"variant\": \"streamw5\"}]}";
    static const uint32_t tokens[SNAP_STEPS][2] = {{40, 30}, {1, 1}, {9, 1}, {1, 3}};
    static unsigned char data[1 << 18];
    ratp_policy *policies[2] = {NULL, NULL};
    ratp_seq *seqs[2] = {NULL, NULL}, *loaded = NULL;
    uint64_t size = 0, count = 0;
    uint32_t positions[64];
    int number = STEPS + FORK_STEPS + LOAD_STEPS;
    TWICE(instance, ratp->policy_from_json(instance, json, sizeof json - 1, &policies[0]));
    TWICE(instance, ratp->policy_from_json(instance, other_json, sizeof other_json - 1,
                                           &policies[1]));
    TWICE(cache, ratp->seq_create(cache, &seqs[0]));
    TWICE(seqs[0], ratp->seq_set_policy(seqs[0], policies[0]));
    TWICE(seqs[0], ratp->seq_fork(seqs[0], &seqs[1]));
    for (int i = 0; i < 3; i++)
        pass(cache, seqs, tokens[i], number + i);
    UNDONE(cache, seqs, seqs[0], ratp->seq_compress(seqs[0]));
    TWICE(seqs[0], ratp->seq_positions(seqs[0], 0, 1, positions, 64, &count));
    CHECK_EQUAL(count, 20);
    UNDONE(cache, seqs, seqs[0], ratp->seq_set_policy(seqs[0], policies[1]));
    UNDONE(cache, seqs, seqs[1], ratp->seq_save(seqs[1], data, sizeof data, &size));
    CHECK_EQUAL(ratp->seq_destroy(&seqs[1]), RATP_OK);
    TWICE(cache, ratp->seq_load(cache, data, size, &seqs[1]));
    TWICE(seqs[1], ratp->seq_fork(seqs[1], &loaded));
    pass(cache, seqs, tokens[3], number + 3);
    CHECK_EQUAL(ratp->seq_destroy(&loaded), RATP_OK);
    for (int i = 0; i < 2; i++) {
        CHECK_EQUAL(ratp->seq_destroy(&seqs[i]), RATP_OK);
        CHECK_EQUAL(ratp->policy_destroy(&policies[i]), RATP_OK);
    }
}

static void life(void)
{
    static const char json[] = "{\"default\": \"d8w12s2\", \"rules\": ["
                               "{\"layers\": 1, \"variant\": \"streamw20s3\"},"
                               "{\"layers\": 2, \"variant\": \"dense\"}]}";
    static const char other_json[] = "{\"default\": \"d8w12s2\", \"rules\": ["
                                     "{\"layers\": 1, \"variant\": \"streamw20s3\"},"
                                     "{\"layers\": 2, \"variant\": \"d5w3\"}]}";
    ratp_instance *instance = NULL;
    ratp_device *device = NULL;
    ratp_policy *policy = NULL, *other = NULL;
    ratp_cache *cache = NULL;
    ratp_buffer *buffer = NULL;
    ratp_seq *seqs[2] = {NULL, NULL};
    struct ratp_instance_params quiet = {sizeof quiet, .no_vulkan = 1};
    struct ratp_rope rope = {sizeof rope, .style = RATP_ROPE_HALF};
    struct ratp_geometry geometry = {sizeof geometry, LAYERS, HEADS, KV_HEADS, SIZE, .memory = 1,
                                     .max_tokens = 4096, .rope = &rope};
    struct ratp_buffer_params size = {sizeof size, .size = 1000};
    struct ratp_variant variant = {.struct_size = sizeof variant};
    TWICE(NULL, ratp->instance_create(&quiet, &instance, NULL, 0));
    TWICE(instance, ratp->device_open(instance, NULL, &device));
    TWICE(instance, ratp->policy_from_json(instance, json, sizeof json - 1, &policy));
    TWICE(instance, ratp->policy_from_json(instance, other_json, sizeof other_json - 1, &other));
    TWICE(policy, ratp->policy_variant(policy, 1, 0, RATP_PART_DECODE, &variant));
    TWICE(device, ratp->buffer_create(device, &size, &buffer));
    struct ratp_cache_params params = {sizeof params, &geometry, policy, .page_slots = 8,
                                       .retention = RATP_RETAIN_NEEDED};
    TWICE(device, ratp->cache_create(device, &params, &cache));
    for (int i = 0; i < 2; i++)
        TWICE(cache, ratp->seq_create(cache, &seqs[i]));
    static const uint32_t tokens[STEPS][2] = {{40, 1}, {1, 50}, {1, 1}, {30, 1}, {1, 33}};
    for (int i = 0; i < STEPS; i++)
        pass(cache, seqs, tokens[i], i);
    /* A fork that writes to shared pages, and one that loses its end. */
    ratp_seq *forks[2] = {NULL, NULL};
    for (int i = 0; i < 2; i++)
        UNDONE(cache, seqs, seqs[i], ratp->seq_fork(seqs[i], &forks[i]));
    UNDONE(cache, forks, forks[0], ratp->seq_truncate(forks[0], 72));
    UNDONE(cache, forks, forks[1], ratp->seq_set_policy(forks[1], other));
    for (int i = 0; i < FORK_STEPS; i++)
        pass(cache, forks, tokens[i + 2], STEPS + i);
    for (int i = 0; i < 2; i++)
        CHECK_EQUAL(ratp->seq_destroy(&forks[i]), RATP_OK);
    reload(cache, seqs);
    compress(instance, cache);
    external(device);
    for (int i = 0; i < 2; i++)
        CHECK_EQUAL(ratp->seq_destroy(&seqs[i]), RATP_OK);
    CHECK_EQUAL(ratp->cache_destroy(&cache), RATP_OK);
    CHECK_EQUAL(ratp->buffer_destroy(&buffer), RATP_OK);
    CHECK_EQUAL(ratp->policy_destroy(&policy), RATP_OK);
    CHECK_EQUAL(ratp->policy_destroy(&other), RATP_OK);
    CHECK_EQUAL(ratp->device_close(&device), RATP_OK);
    CHECK_EQUAL(ratp->instance_destroy(&instance), RATP_OK);
}

static void test_allocations(void)
{
    long before = live;
    life();
    CHECK_EQUAL(live, before);
    memcpy(first_out, out, sizeof out);
    memcpy(first_external, external_out, sizeof external_out);
    long failures = 0;
    for (;; failures++) {
        memset(out, 0, sizeof out);
        countdown = failures;
        life();
        CHECK(memcmp(first_out, out, sizeof out) == 0);
        CHECK(memcmp(first_external, external_out, sizeof external_out) == 0);
        if (!CHECK_EQUAL(live, before))
            break;
        if (countdown >= 0)
            break;
    }
    countdown = -1;
    printf("%ld allocations were made to fail\n", failures);
    CHECK(failures > 50);
}

int main(void)
{
    ratp = ratp_get_api(RATP_ABI_MAJOR, NULL, 0);
    int file = mkstemp(path);
    if (!CHECK(file >= 0) || !CHECK(close(file) == 0))
        return check_result();
    for (int layer = 0; layer < LAYERS; layer++)
        for (int i = 0; i < COUNT; i++)
            in[layer][i] = (float)((i * 7 + layer * 3) % 23) / 11 - 1;
    RUN(test_allocations);
    remove(path);
    return check_result();
}
