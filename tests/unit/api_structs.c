/* struct_size in both directions: a shorter, older struct and a longer, newer
 * one, of every struct that crosses the ABI; and which device a name means. */
#include "api_host.h"

#include <stdlib.h>

/* A struct with room behind it, as a host of a newer version has. */
union newer {
    size_t struct_size;
    struct ratp_device_params device;
    struct ratp_buffer_params buffer;
    struct ratp_cache_params cache;
    struct ratp_geometry geometry;
    struct ratp_step_params step;
    struct ratp_attend_io io;
    struct ratp_tensor tensor;
    struct ratp_variant variant;
    struct ratp_instance_params instance;
    struct ratp_external external;
    struct ratp_merge merge;
    unsigned char bytes[512];
};

/* Grows `value` by 16 bytes, the last of which is `last`. */
static union newer grown(const void *value, size_t size, unsigned char last)
{
    union newer n = {.bytes = {0}};
    memcpy(n.bytes, value, size);
    n.struct_size = size + 16;
    n.bytes[size + 15] = last;
    return n;
}

#define GROWN(value, last) grown(&(value), sizeof(value), last)

static void test_newer(void)
{
    char why[300] = "";
    struct ratp_instance_params quiet = {sizeof quiet, .no_vulkan = 1};
    union newer n = GROWN(quiet, 0);
    ratp_instance *other = NULL;
    CHECK_EQUAL(ratp->instance_create(&n.instance, &other, why, sizeof why), RATP_OK);
    CHECK_EQUAL(ratp->instance_destroy(&other), RATP_OK);
    n = GROWN(quiet, 1);
    CHECK_EQUAL(ratp->instance_create(&n.instance, &other, why, sizeof why), RATP_UNSUPPORTED);
    CHECK_CONTAINS(why, "params->struct_size is 56, this library knows 40, and byte 55");

    struct ratp_device_params which = {sizeof which, .name = "reference"};
    ratp_device *reference = NULL;
    n = GROWN(which, 0);
    CHECK_EQUAL(ratp->device_open(instance, &n.device, &reference), RATP_OK);
    CHECK_EQUAL(ratp->device_close(&reference), RATP_OK);
    n = GROWN(which, 9);
    REFUSE(instance, ratp->device_open(instance, &n.device, &reference), RATP_UNSUPPORTED,
           "a field of a newer version is in use");

    struct ratp_buffer_params size = {sizeof size, .size = 64};
    ratp_buffer *buffer = NULL;
    n = GROWN(size, 0);
    CHECK_EQUAL(ratp->buffer_create(device, &n.buffer, &buffer), RATP_OK);
    CHECK_EQUAL(ratp->buffer_destroy(&buffer), RATP_OK);
    n = GROWN(size, 1);
    REFUSE(device, ratp->buffer_create(device, &n.buffer, &buffer), RATP_UNSUPPORTED, "params");
    n.struct_size = 5000;
    REFUSE(device, ratp->buffer_create(device, &n.buffer, &buffer), RATP_INVALID_ARGUMENT,
           "params->struct_size is 5000, at most 4096");

    struct ratp_geometry geometry = {sizeof geometry, 1, 1, 1, 16, .memory = 1};
    union newer g = GROWN(geometry, 0);
    struct ratp_cache_params params = {sizeof params, .geometry = &g.geometry};
    ratp_cache *cache = NULL;
    n = GROWN(params, 0);
    CHECK_EQUAL(ratp->cache_create(device, &n.cache, &cache), RATP_OK);
    CHECK_EQUAL(ratp->cache_destroy(&cache), RATP_OK);
    n = GROWN(params, 1);
    REFUSE(device, ratp->cache_create(device, &n.cache, &cache), RATP_UNSUPPORTED, "params->");
    g = GROWN(geometry, 1);
    n = GROWN(params, 0);
    REFUSE(device, ratp->cache_create(device, &n.cache, &cache), RATP_UNSUPPORTED,
           "params->geometry->");

    struct ratp_variant d16 = {sizeof d16, RATP_DILATED, .dilation = 16};
    ratp_policy *policy = NULL;
    struct ratp_range all = {0, 0};
    CHECK_EQUAL(ratp->policy_create(instance, &policy), RATP_OK);
    n = GROWN(d16, 0);
    CHECK_EQUAL(ratp->policy_set(policy, all, all, &n.variant), RATP_OK);
    n = GROWN(d16, 1);
    REFUSE(policy, ratp->policy_set(policy, all, all, &n.variant), RATP_UNSUPPORTED, "variant");
    CHECK_EQUAL(ratp->policy_destroy(&policy), RATP_OK);
}

static void test_newer_steps(void)
{
    ratp_cache *cache = host_cache();
    ratp_seq *seq = host_seq(cache);
    ratp_step *step = NULL;
    uint32_t tokens = 3;
    struct ratp_step_params params = {sizeof params, .count = 1, .seqs = &seq, .n_tokens = &tokens};
    union newer n = GROWN(params, 1);
    REFUSE(cache, ratp->step_begin(cache, &n.step, &step), RATP_UNSUPPORTED, "params");
    n = GROWN(params, 0);
    CHECK_EQUAL(ratp->step_begin(cache, &n.step, &step), RATP_OK);
    struct ratp_attend_io io = host_io();
    n = GROWN(io, 1);
    REFUSE(step, ratp->step_attend(step, 0, &n.io), RATP_UNSUPPORTED, "io->struct_size");
    union newer tensor = GROWN(*io.q, 1);
    io.q = &tensor.tensor;
    REFUSE(step, ratp->step_attend(step, 0, &io), RATP_UNSUPPORTED, "io->q->struct_size");
    tensor.bytes[tensor.struct_size - 1] = 0;
    n = GROWN(io, 0);
    CHECK_EQUAL(ratp->step_attend(step, 0, &n.io), RATP_OK);
    CHECK_EQUAL(ratp->step_abort(&step), RATP_OK);
    CHECK_EQUAL(ratp->seq_destroy(&seq), RATP_OK);
    CHECK_EQUAL(ratp->cache_destroy(&cache), RATP_OK);
}

static void test_older(void)
{
    /* Only what had to be there; the bytes behind are not read. */
    struct ratp_buffer_params size = {.struct_size = 16, .size = 64, .kind = 99};
    ratp_buffer *buffer = NULL;
    CHECK_EQUAL(ratp->buffer_create(device, &size, &buffer), RATP_OK);
    CHECK_EQUAL(ratp->buffer_destroy(&buffer), RATP_OK);
    struct ratp_geometry geometry = {sizeof geometry, 1, 1, 1, 16, .total_kv_heads = 77,
                                     .first_kv_head = 99};
    geometry.struct_size = offsetof(struct ratp_geometry, value_size);
    struct ratp_cache_params params = {sizeof params, .geometry = &geometry, .retention = 99};
    params.struct_size = offsetof(struct ratp_cache_params, policy);
    ratp_cache *cache = NULL;
    CHECK_EQUAL(ratp->cache_create(device, &params, &cache), RATP_OK);
    CHECK_EQUAL(ratp->cache_destroy(&cache), RATP_OK);
    struct ratp_variant dense = {12, RATP_DENSE, .dilation = 99, .window = 99, .sinks = 99};
    struct ratp_range all = {0, 0};
    ratp_policy *policy = NULL;
    CHECK_EQUAL(ratp->policy_create(instance, &policy), RATP_OK);
    CHECK_EQUAL(ratp->policy_set(policy, all, all, &dense), RATP_OK);
    /* As ABI 1.0 had it. */
    struct ratp_variant d4 = {24, RATP_DILATED, .dilation = 4, .window = 3, .sinks = 2, .page = 9,
                              .pool = 9, .prompt = &dense};
    char text[64];
    CHECK_EQUAL(ratp->policy_set(policy, all, all, &d4), RATP_OK);
    CHECK_EQUAL(ratp->policy_to_json(policy, text, sizeof text, NULL), RATP_OK);
    CHECK(strcmp(text, "{\"default\": \"d4w3s2\", \"rules\": []}") == 0);
    CHECK_EQUAL(ratp->policy_destroy(&policy), RATP_OK);

    cache = host_cache();
    ratp_seq *seq = host_seq(cache);
    ratp_step *step = host_step(cache, seq, 2);
    struct ratp_attend_io io = host_io();
    struct ratp_tensor q = {.struct_size = offsetof(struct ratp_tensor, offset), .host = io.q->host,
                            .offset = 3, .dtype = 77, .token_stride = 1};
    io.q = &q;
    io.lse = (const struct ratp_tensor *)&q.host; /* not a tensor, and not read */
    io.struct_size = offsetof(struct ratp_attend_io, lse);
    CHECK_EQUAL(ratp->step_attend(step, 0, &io), RATP_OK);
    CHECK_EQUAL(ratp->step_abort(&step), RATP_OK);
    CHECK_EQUAL(ratp->seq_destroy(&seq), RATP_OK);
    CHECK_EQUAL(ratp->cache_destroy(&cache), RATP_OK);
}

/* Structs that the library fills. */
static void test_filled(void)
{
    ratp_cache *cache = host_cache();
    ratp_seq *seq = host_seq(cache);
    union {
        struct ratp_cache_stats stats;
        unsigned char bytes[sizeof(struct ratp_cache_stats) + 32];
    } room;
    memset(&room, 0xaa, sizeof room);
    room.stats.struct_size = sizeof room.stats + 16;
    CHECK_EQUAL(ratp->cache_stats(cache, &room.stats), RATP_OK);
    CHECK_EQUAL(room.stats.sequences, 1);
    CHECK_EQUAL(room.stats.struct_size, sizeof room.stats + 16);
    CHECK_EQUAL(room.bytes[sizeof room.stats + 15], 0);
    CHECK_EQUAL(room.bytes[sizeof room.stats + 16], 0xaa);
    memset(&room, 0xaa, sizeof room);
    room.stats.struct_size = offsetof(struct ratp_cache_stats, pool_bytes);
    CHECK_EQUAL(ratp->cache_stats(cache, &room.stats), RATP_OK);
    CHECK_EQUAL(room.stats.budget_bytes, 0);
    CHECK_EQUAL(room.stats.pool_bytes, 0xaaaaaaaaaaaaaaaaull);
    struct ratp_device_info info;
    memset(&info, 0xaa, sizeof info);
    info.struct_size = offsetof(struct ratp_device_info, driver);
    CHECK_EQUAL(ratp->device_info(device, &info), RATP_OK);
    CHECK_EQUAL(info.usable, 1);
    CHECK_EQUAL((unsigned char)info.driver[0], 0xaa);
    CHECK_EQUAL(ratp->seq_destroy(&seq), RATP_OK);
    CHECK_EQUAL(ratp->cache_destroy(&cache), RATP_OK);
}

/* How much memory there is still, under a budget: what is taken counts, and the rest can be had. */
static void test_memory_free(void)
{
    enum { MEBIBYTE = 1 << 20, ALIGNMENT = 4096 };
    struct ratp_device_info info = {.struct_size = sizeof info};
    struct ratp_device_params params = {.struct_size = sizeof params,
                                        .memory_budget = 48 * MEBIBYTE};
    struct ratp_buffer_params size = {.struct_size = sizeof size, .size = 16 * MEBIBYTE};
    ratp_device *other = NULL;
    ratp_buffer *first = NULL, *rest = NULL;
    CHECK_EQUAL(ratp->device_info(device, &info), RATP_OK);
    CHECK(info.memory_free > 0 && info.memory_free <= info.memory_bytes);
    params.name = info.kind == RATP_DEVICE_REFERENCE ? "reference" : info.name;
    if (!CHECK_EQUAL(ratp->device_open(instance, &params, &other), RATP_OK))
        return;
    CHECK_EQUAL(ratp->device_info(other, &info), RATP_OK);
    CHECK(info.memory_free > 32 * MEBIBYTE && info.memory_free <= 48 * MEBIBYTE);
    CHECK_EQUAL(ratp->buffer_create(other, &size, &first), RATP_OK);
    CHECK_EQUAL(ratp->device_info(other, &info), RATP_OK);
    CHECK(info.memory_free > 0 && info.memory_free <= 32 * MEBIBYTE);
    size.size = info.memory_free / ALIGNMENT * ALIGNMENT;
    CHECK_EQUAL(ratp->buffer_create(other, &size, &rest), RATP_OK);
    CHECK_EQUAL(ratp->device_info(other, &info), RATP_OK);
    CHECK(info.memory_free < ALIGNMENT);
    CHECK_EQUAL(ratp->buffer_destroy(&first), RATP_OK);
    CHECK_EQUAL(ratp->buffer_destroy(&rest), RATP_OK);
    CHECK_EQUAL(ratp->device_close(&other), RATP_OK);
}

/* The largest allocation is what the refusal of a larger one says. */
static void test_max_allocation(void)
{
    struct ratp_device_info info = {.struct_size = sizeof info};
    ratp_buffer *buffer = NULL;
    char part[64];
    CHECK_EQUAL(ratp->device_info(device, &info), RATP_OK);
    const struct ratp_buffer_params size = {.struct_size = sizeof size,
                                            .size = info.max_allocation + 1};
    if (info.kind == RATP_DEVICE_REFERENCE)
        return; /* it asks the system */
    snprintf(part, sizeof part, "%llu", (unsigned long long)info.max_allocation);
    REFUSE(device, ratp->buffer_create(device, &size, &buffer), RATP_OUT_OF_MEMORY, part);
}

static void open_by(const char *name, ratp_device_kind wanted)
{
    struct ratp_device_params params = {sizeof params, .name = name};
    struct ratp_device_info info = {.struct_size = sizeof info};
    ratp_device *other = NULL;
    if (!CHECK_EQUAL(ratp->device_open(instance, &params, &other), RATP_OK))
        return;
    CHECK_EQUAL(ratp->device_info(other, &info), RATP_OK);
    CHECK_EQUAL(info.kind, wanted);
    CHECK_EQUAL(ratp->device_close(&other), RATP_OK);
}

static void test_names(void)
{
    uint32_t count = 0;
    ratp_device_kind best = RATP_DEVICE_REFERENCE;
    CHECK_EQUAL(ratp->device_count(instance, &count), RATP_OK);
    for (uint32_t i = 0; i < count; i++) {
        struct ratp_device_info info = {.struct_size = sizeof info};
        char index[16], part[8];
        CHECK_EQUAL(ratp->device_describe(instance, i, &info), RATP_OK);
        if (!info.usable) {
            CHECK(info.why_not[0]);
            continue;
        }
        CHECK(!info.why_not[0]);
        if (info.kind < best)
            best = info.kind;
        snprintf(index, sizeof index, "%u", i);
        open_by(index, info.kind);
        snprintf(part, sizeof part, "%.7s", info.name);
        if (i == 0 || i + 1 == count)
            open_by(part, info.kind);
    }
    open_by(NULL, best);
    open_by("", best);
    open_by("Reference", RATP_DEVICE_REFERENCE);
    ratp_device *other = NULL;
    CHECK_EQUAL(ratp->device_open(instance, NULL, &other), RATP_OK);
    CHECK_EQUAL(ratp->device_close(&other), RATP_OK);
}

int main(int argc, char **argv)
{
    host_open(argc, argv);
    RUN(test_newer);
    RUN(test_newer_steps);
    RUN(test_older);
    RUN(test_filled);
    RUN(test_memory_free);
    RUN(test_max_allocation);
    RUN(test_names);
    host_close();
    return check_result();
}
