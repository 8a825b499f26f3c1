/* The Vulkan layer by itself: memory, copies, streams, pipelines, import.
 * Runs under the validation layer with synchronisation checks; one message
 * fails it. */
#include "check.h"

#include "vulkan/internal.h"

#include "vulkan_add.spv.h"

#include <stdlib.h>

static const struct vk_shader add_shader = {
    .name = "test add",
    .code = vulkan_add_spv,
    .size = sizeof vulkan_add_spv,
    .push_bytes = 16,
};

struct push {
    uint32_t lo, hi, count, unused;
};

static struct vk_instance *instance;
static uint32_t device_index;
static struct vk_device *device;
static struct error err;
static unsigned messages;
static bool loss_expected;

static void on_log(void *user, ratp_log_level level, const char *message)
{
    (void)user;
    if (level == RATP_LOG_ERROR && !loss_expected) {
        messages++;
        fprintf(stderr, "%s\n", message);
    }
}

static bool good(ratp_status status)
{
    if (status != RATP_OK)
        fprintf(stderr, "status %d: %s\n", (int)status, err.text);
    return status == RATP_OK;
}

static ratp_status add(struct vk_stream *s, const struct mem *m, uint32_t addend, uint32_t count)
{
    struct push push = {(uint32_t)m->address, (uint32_t)(m->address >> 32), count, 0};
    return vk_dispatch(s, &add_shader, &addend, 1, &push, sizeof push, (count + 63) / 64, 1, 1,
                       &err);
}

static void test_ranges(void)
{
    struct ranges r;
    uint64_t a, b, c, d;
    CHECK(ranges_init(&r, 1000));
    CHECK(ranges_take(&r, 100, &a) && ranges_take(&r, 200, &b) && ranges_take(&r, 300, &c));
    CHECK(!ranges_take(&r, 401, &d));
    CHECK(ranges_take(&r, 400, &d) && r.count == 0);
    ranges_give(&r, a, 100);
    ranges_give(&r, c, 300);
    CHECK_EQUAL(r.count, 2);
    ranges_give(&r, b, 200);
    CHECK_EQUAL(r.count, 1);
    CHECK(ranges_take(&r, 600, &a) && a == 0);
    ranges_give(&r, a, 600);
    ranges_give(&r, d, 400);
    CHECK(r.count == 1 && r.list[0].size == 1000 && r.taken == 0);
    ranges_fini(&r);
}

/* Random pieces never overlap, and all space comes back. */
static void test_ranges_random(void)
{
    enum { PIECES = 64, TOTAL = 4096 };
    struct range piece[PIECES] = {{0}};
    static uint8_t owner[TOTAL];
    struct ranges r;
    uint32_t seed = 1;
    bool overlap = false;
    CHECK(ranges_init(&r, TOTAL));
    for (int round = 0; round < 20000; round++) {
        seed = seed * 1664525u + 1013904223u;
        struct range *p = &piece[seed >> 8 & (PIECES - 1)];
        if (p->size) {
            memset(owner + p->offset, 0, p->size);
            ranges_give(&r, p->offset, p->size);
            p->size = 0;
        } else {
            p->size = 1 + (seed >> 16) % 200;
            if (!ranges_take(&r, p->size, &p->offset)) {
                p->size = 0;
                continue;
            }
            for (uint64_t i = 0; i < p->size; i++)
                overlap |= owner[p->offset + i]++ != 0;
        }
    }
    for (int i = 0; i < PIECES; i++)
        if (piece[i].size)
            ranges_give(&r, piece[i].offset, piece[i].size);
    CHECK(!overlap);
    CHECK(r.count == 1 && r.list[0].size == TOTAL && r.taken == 0);
    ranges_fini(&r);
}

static void test_memory(void)
{
    struct vk_memory_stats before, during, after;
    struct mem m[40];
    vk_memory_stats(device, &before);
    for (int i = 0; i < 40; i++)
        CHECK(good(vk_mem_alloc(device, 1000 + (uint64_t)i * 777, (enum mem_kind)(i % 3), "test",
                                &m[i], &err)));
    vk_memory_stats(device, &during);
    CHECK_EQUAL(during.pieces, before.pieces + 40);
    CHECK(during.blocks <= before.blocks + 3);
    for (int i = 0; i < 40; i++) {
        CHECK(m[i].address % 256 == 0 && m[i].size == 1000 + (uint64_t)i * 777);
        if (i % 3 != MEM_DEVICE && CHECK(m[i].host != NULL))
            memset(m[i].host, i, m[i].size);
    }
    for (int i = 0; i < 40; i++)
        for (uint64_t k = 0; m[i].host && i % 3 != MEM_DEVICE && k < m[i].size; k++)
            if (((uint8_t *)m[i].host)[k] != i) {
                CHECK(!"pieces overlap");
                break;
            }
    for (int i = 0; i < 40; i++)
        vk_mem_free(device, &m[i]);
    CHECK(m[0].handle == NULL && m[0].address == 0);
    vk_memory_stats(device, &after);
    CHECK_EQUAL(after.pieces, before.pieces);
    CHECK_EQUAL(after.used, before.used);
    CHECK_EQUAL(vk_mem_alloc(device, UINT64_MAX / 2, MEM_DEVICE, "huge", &m[0], &err),
                RATP_OUT_OF_MEMORY);
    CHECK_CONTAINS(err.text, "huge");
    CHECK_EQUAL(vk_mem_alloc(device, 0, MEM_DEVICE, "empty", &m[0], &err), RATP_INVALID_ARGUMENT);
}

static void test_budget(void)
{
    struct vk_device *small = NULL;
    struct vk_memory_stats stats;
    struct mem m[16], big;
    if (!CHECK(good(vk_device_open(instance, device_index, 1 << 20, 0, &small, &err))))
        return;
    int count = 0;
    while (count < 16 && vk_mem_alloc(small, 100000, MEM_DEVICE, "part", &m[count], &err) == RATP_OK)
        count++;
    CHECK(count >= 8 && count <= 10);
    CHECK_CONTAINS(err.text, "budget is 1048576");
    vk_memory_stats(small, &stats);
    CHECK(stats.allocated <= 1 << 20);
    CHECK_EQUAL(vk_mem_alloc(small, 900000, MEM_DEVICE, "big", &big, &err), RATP_OUT_OF_MEMORY);
    for (int i = 0; i < count; i++)
        vk_mem_free(small, &m[i]);
    CHECK(good(vk_mem_alloc(small, 900000, MEM_DEVICE, "big", &big, &err)));
    vk_mem_free(small, &big);
    vk_device_close(&small);
    CHECK(small == NULL);
}

static void test_copies(void)
{
    enum { SIZE = 9000001 };
    uint8_t *data = malloc(SIZE), *back = calloc(1, SIZE);
    struct mem a, b;
    for (uint32_t i = 0; data && i < SIZE; i++)
        data[i] = (uint8_t)(i * 2654435761u >> 24);
    if (!CHECK(data && back) ||
        !CHECK(good(vk_mem_alloc(device, SIZE, MEM_DEVICE, "a", &a, &err))) ||
        !CHECK(good(vk_mem_alloc(device, SIZE + 3, MEM_DEVICE, "b", &b, &err))))
        return;
    struct vk_stream *s = NULL;
    ticket t = 0;
    /* Once through the mapped address where there is one, once staged. */
    for (int staged = 0; staged < 2; staged++) {
        if (staged)
            a.host = b.host = NULL;
        memset(back, 0, SIZE);
        CHECK(good(vk_mem_write(device, &a, 0, data, SIZE, &err)));
        CHECK(good(vk_stream_begin(device, &s, &err)));
        CHECK(good(vk_fill_zero(s, &b, 0, SIZE + 3, &err)));
        CHECK(good(vk_copy(s, &b, 3, &a, 0, SIZE, &err)));
        CHECK(good(vk_stream_submit(s, &t, &err)));
        CHECK(good(vk_mem_read(device, &b, 3, back, SIZE, &err)));
        CHECK(!memcmp(data, back, SIZE));
        CHECK(good(vk_mem_read(device, &b, 0, back, 3, &err)));
        CHECK(back[0] == 0 && back[2] == 0);
    }
    CHECK_EQUAL(vk_mem_read(device, &a, SIZE, back, 1, &err), RATP_INVALID_ARGUMENT);
    CHECK_CONTAINS(err.text, "9000001");
    vk_mem_free(device, &a);
    vk_mem_free(device, &b);
    free(data);
    free(back);
}

static void test_dispatch(void)
{
    enum { COUNT = 1000 };
    static uint32_t words[COUNT];
    struct mem m;
    struct vk_stream *s = NULL;
    ticket t = 0;
    CHECK(good(vk_mem_alloc(device, sizeof words, MEM_READBACK, "words", &m, &err)));
    memset(m.host, 0, sizeof words);
    CHECK(good(vk_stream_begin(device, &s, &err)));
    for (uint32_t i = 1; i <= 4; i++) {
        CHECK(good(add(s, &m, i, COUNT)));
        vk_barrier(s);
    }
    CHECK(good(add(s, &m, 100, COUNT)));
    CHECK(good(vk_dispatch(s, &add_shader, NULL, 0, words, 16, 0, 1, 1, &err)));
    const struct vk_caps *caps = vk_device_caps(device);
    if (caps->max_groups[0] < UINT32_MAX) {
        CHECK_EQUAL(vk_dispatch(s, &add_shader, NULL, 0, words, 16, caps->max_groups[0] + 1, 1, 1,
                                &err),
                    RATP_UNSUPPORTED);
        CHECK_CONTAINS(err.text, "workgroups along x");
    }
    CHECK_EQUAL(vk_dispatch(s, &add_shader, NULL, 0, words, 12, 1, 1, 1, &err), RATP_INTERNAL);
    CHECK(good(vk_stream_submit(s, &t, &err)));
    /* A second stream is ordered after the first. */
    CHECK(good(vk_stream_begin(device, &s, &err)));
    CHECK(good(add(s, &m, 1000, COUNT)));
    CHECK(good(vk_stream_submit(s, &t, &err)));
    CHECK(good(vk_wait(device, t, &err)) && vk_passed(device, t));
    CHECK(good(vk_mem_read(device, &m, 0, words, sizeof words, &err)));
    CHECK(words[0] == 1110 && words[COUNT - 1] == 1110);
    CHECK_EQUAL(vk_wait(device, vk_latest(device) + 1, &err), RATP_INTERNAL);
    vk_mem_free(device, &m);
}

/* Memory that a recorded stream uses is not given out again before it has run. */
static void test_deferred_free(void)
{
    struct vk_memory_stats before, during, after;
    struct mem m;
    struct vk_stream *s = NULL;
    ticket t = 0;
    vk_memory_stats(device, &before);
    CHECK(good(vk_mem_alloc(device, 4096, MEM_DEVICE, "deferred", &m, &err)));
    CHECK(good(vk_stream_begin(device, &s, &err)));
    CHECK(good(vk_fill_zero(s, &m, 0, 4096, &err)));
    vk_mem_free(device, &m);
    vk_memory_stats(device, &during);
    CHECK_EQUAL(during.pieces, before.pieces + 1);
    CHECK(good(vk_stream_submit(s, &t, &err)));
    CHECK(good(vk_wait(device, t, &err)));
    vk_memory_stats(device, &after);
    CHECK_EQUAL(after.pieces, before.pieces);
}

static void test_streams(void)
{
    struct vk_stream *s = NULL, *seen[4] = {0};
    struct mem m;
    ticket t = 0;
    int kinds = 0;
    CHECK(good(vk_mem_alloc(device, 256, MEM_DEVICE, "word", &m, &err)));
    for (int round = 0; round < 50; round++) {
        CHECK(good(vk_stream_begin(device, &s, &err)));
        CHECK(good(vk_fill_zero(s, &m, 0, 256, &err)));
        CHECK(good(vk_stream_submit(s, &t, &err)));
        CHECK(good(vk_wait(device, t, &err)));
        bool known = false;
        for (int i = 0; i < kinds; i++)
            known |= seen[i] == s;
        if (!known && CHECK(kinds < 4))
            seen[kinds++] = s;
    }
    CHECK(kinds <= 2);
    CHECK(good(vk_stream_begin(device, &s, &err)));
    ticket latest = vk_latest(device);
    CHECK(good(vk_stream_submit(s, &t, &err)));
    CHECK_EQUAL(t, latest);
    CHECK(good(vk_stream_begin(device, &s, &err)));
    vk_stream_drop(s);
    vk_mem_free(device, &m);
}

static void *submit_many(void *user)
{
    struct mem *m = user;
    for (int i = 0; i < 30; i++) {
        struct vk_stream *s = NULL;
        ticket t = 0;
        struct error e;
        if (vk_stream_begin(device, &s, &e) != RATP_OK)
            return NULL;
        uint32_t one = 1;
        struct push push = {(uint32_t)m->address, (uint32_t)(m->address >> 32), 64, 0};
        vk_dispatch(s, &add_shader, &one, 1, &push, sizeof push, 1, 1, 1, &e);
        if (vk_stream_submit(s, &t, &e) != RATP_OK || vk_wait(device, t, &e) != RATP_OK)
            return NULL;
    }
    return user;
}

static void test_threads(void)
{
    pthread_t thread[4];
    struct mem m;
    uint32_t words[64] = {0};
    CHECK(good(vk_mem_alloc(device, 256, MEM_DEVICE, "shared", &m, &err)));
    CHECK(good(vk_mem_write(device, &m, 0, words, 256, &err)));
    for (int i = 0; i < 4; i++)
        CHECK(!pthread_create(&thread[i], NULL, submit_many, &m));
    for (int i = 0; i < 4; i++) {
        void *result = NULL;
        pthread_join(thread[i], &result);
        CHECK(result != NULL);
    }
    CHECK(good(vk_mem_read(device, &m, 0, words, 256, &err)));
    CHECK_EQUAL(words[63], 120);
    vk_mem_free(device, &m);
}

static void test_pipeline_cache(void)
{
    size_t size = 0;
    CHECK(good(vk_pipeline_cache_save(device, NULL, &size, &err)) && size > 32);
    size += 4096;
    uint8_t *data = malloc(size);
    size_t room = size;
    if (!CHECK(data) || !CHECK(good(vk_pipeline_cache_save(device, data, &size, &err))))
        return;
    CHECK(size <= room);
    CHECK(good(vk_pipeline_cache_load(device, data, size, &err)));
    size_t little = 10;
    CHECK_EQUAL(vk_pipeline_cache_save(device, data + size, &little, &err), RATP_INVALID_ARGUMENT);
    CHECK(little >= size);
    for (size_t i = 0; i < size; i += 1 + size / 97) {
        data[i] ^= 0x40;
        CHECK_EQUAL(vk_pipeline_cache_load(device, data, size, &err), RATP_PARSE_ERROR);
        data[i] ^= 0x40;
    }
    /* Of a driver that had nothing to save: a header, and no bytes behind it. */
    const uint32_t nothing[4] = {0x31435052, 0x811c9dc5};
    const uint32_t wrong[4] = {0x31435052, 0x811c9dc4};
    CHECK(good(vk_pipeline_cache_load(device, nothing, sizeof nothing, &err)));
    CHECK_EQUAL(vk_pipeline_cache_load(device, wrong, sizeof wrong, &err), RATP_PARSE_ERROR);
    for (size_t cut = 0; cut < size; cut += 1 + size / 31)
        CHECK_EQUAL(vk_pipeline_cache_load(device, data, cut, &err), RATP_PARSE_ERROR);
    free(data);
}

static void test_host_memory(void)
{
    struct ratp_device_info info;
    struct mem m;
    vk_device_info(device, &info);
    uint8_t *page = aligned_alloc(65536, 65536);
    if (!CHECK(page))
        return;
    memset(page, 1, 65536);
    ratp_status status = vk_mem_import(device, page, 65536, &m, &err);
    if (!(info.features & RATP_FEATURE_HOST_IMPORT)) {
        CHECK_EQUAL(status, RATP_UNSUPPORTED);
    } else if (CHECK(good(status))) {
        struct vk_stream *s = NULL;
        ticket t = 0;
        CHECK(good(vk_stream_begin(device, &s, &err)));
        CHECK(good(add(s, &m, 2, 16)));
        CHECK(good(vk_stream_submit(s, &t, &err)));
        CHECK(good(vk_wait(device, t, &err)));
        CHECK(page[0] == 3 && page[1] == 1 && page[60] == 3 && page[64] == 1);
        struct mem refused;
        CHECK_EQUAL(vk_mem_import(device, page + 64, 4096, &refused, &err) == RATP_OK, false);
        vk_mem_free(device, &m);
    }
    free(page);
}

/* The library's own device plays the host's. */
static void test_import(void)
{
    struct ratp_vulkan_device host;
    struct vk_device *guest = NULL;
    struct log log = {on_log, NULL, RATP_LOG_WARNING};
    struct mem m, over, word;
    uint32_t words[64] = {0};
    struct vk_stream *s = NULL;
    ticket t = 0;
    vk_device_handles(device, &host);
    if (!CHECK(good(vk_device_import(&log, &host, &guest, &err))))
        return;
    CHECK(good(vk_mem_alloc(device, 512, MEM_DEVICE, "host's", &m, &err)));
    CHECK(good(vk_mem_write(device, &m, 256, words, 256, &err)));
    CHECK(good(vk_mem_wrap(guest, vk_mem_buffer(&m), m.handle_offset + 256, 256, &over, &err)));
    CHECK(over.address == m.address + 256);
    CHECK(good(vk_mem_alloc(guest, 256, MEM_DEVICE, "guest's", &word, &err)));
    CHECK(good(vk_stream_begin(guest, &s, &err)));
    CHECK(good(add(s, &over, 7, 64)));
    CHECK(good(vk_copy(s, &word, 0, &over, 0, 256, &err)));
    CHECK(good(vk_stream_submit(s, &t, &err)));
    CHECK(good(vk_mem_read(guest, &word, 0, words, 256, &err)));
    CHECK_EQUAL(words[63], 7);
    vk_mem_free(guest, &over);
    vk_mem_free(guest, &word);
    vk_device_close(&guest);
    CHECK(good(vk_mem_read(device, &m, 256, words, 256, &err)));
    CHECK_EQUAL(words[0], 7);
    vk_mem_free(device, &m);

    VkPhysicalDeviceFeatures2 nothing = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2};
    host.features = &nothing;
    CHECK_EQUAL(vk_device_import(&log, &host, &guest, &err), RATP_UNSUPPORTED);
    CHECK_CONTAINS(err.text, "bufferDeviceAddress");
    host.queue_family = 77;
    vk_device_handles(device, &host);
    host.queue_family = 77;
    CHECK_EQUAL(vk_device_import(&log, &host, &guest, &err), RATP_INVALID_ARGUMENT);
    host.device = VK_NULL_HANDLE;
    CHECK_EQUAL(vk_device_import(&log, &host, &guest, &err), RATP_INVALID_ARGUMENT);
}

/* A lost device answers every call at once, and can be closed. */
static void test_lost(void)
{
    struct vk_device *doomed = NULL;
    struct vk_stream *s = NULL, *other = NULL;
    struct mem m, n;
    uint32_t word = 0;
    ticket t = 0;
    size_t size = 0;
    if (!CHECK(good(vk_device_open(instance, device_index, 0, 0, &doomed, &err))))
        return;
    CHECK(good(vk_mem_alloc(doomed, 64, MEM_DEVICE, "word", &m, &err)));
    CHECK(good(vk_stream_begin(doomed, &s, &err)));
    CHECK(good(vk_fill_zero(s, &m, 0, 64, &err)));
    loss_expected = true;
    CHECK_EQUAL(vk_failed(doomed, VK_ERROR_DEVICE_LOST, "a test", &err), RATP_DEVICE_LOST);
    loss_expected = false;
    CHECK_CONTAINS(err.text, "a test");
    CHECK_EQUAL(vk_fill_zero(s, &m, 0, 64, &err), RATP_DEVICE_LOST);
    CHECK_EQUAL(add(s, &m, 1, 16), RATP_DEVICE_LOST);
    CHECK_EQUAL(vk_stream_submit(s, &t, &err), RATP_DEVICE_LOST);
    CHECK_EQUAL(vk_stream_begin(doomed, &other, &err), RATP_DEVICE_LOST);
    CHECK_EQUAL(vk_mem_alloc(doomed, 64, MEM_DEVICE, "word", &n, &err), RATP_DEVICE_LOST);
    CHECK_EQUAL(vk_mem_write(doomed, &m, 0, &word, 4, &err), RATP_DEVICE_LOST);
    CHECK_EQUAL(vk_mem_read(doomed, &m, 0, &word, 4, &err), RATP_DEVICE_LOST);
    CHECK_EQUAL(vk_wait(doomed, vk_latest(doomed), &err), RATP_DEVICE_LOST);
    CHECK_EQUAL(vk_pipeline_cache_save(doomed, NULL, &size, &err), RATP_DEVICE_LOST);
    vk_mem_free(doomed, &m);
    vk_device_close(&doomed);
}

int main(void)
{
    struct log log = {on_log, NULL, RATP_LOG_WARNING};
    RUN(test_ranges);
    RUN(test_ranges_random);
    ratp_status status = vk_instance_create(&log, true, &instance, &err);
    if (!CHECK(good(status)))
        return check_result();
    for (device_index = 0; device_index < vk_device_count(instance); device_index++) {
        struct ratp_device_info info;
        vk_device_describe(instance, device_index, &info);
        printf("device %u: %s (%s)%s%s\n", device_index, info.name, info.driver,
               info.usable ? "" : ": ", info.why_not);
        if (!info.usable)
            continue;
        if (!CHECK(good(vk_device_open(instance, device_index, 0, 0, &device, &err))))
            continue;
        RUN(test_memory);
        RUN(test_budget);
        RUN(test_copies);
        RUN(test_dispatch);
        RUN(test_deferred_free);
        RUN(test_streams);
        RUN(test_threads);
        RUN(test_pipeline_cache);
        RUN(test_host_memory);
        RUN(test_import);
        RUN(test_lost);
        vk_device_close(&device);
    }
    vk_instance_destroy(&instance);
    CHECK_EQUAL(messages, 0);
    return check_result();
}
