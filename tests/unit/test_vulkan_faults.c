/* Every Vulkan call that can fail does so once, in each place where it is
 * made: the status says what happened, nothing is lost, and after a lack of
 * memory the same work succeeds. */
#include "check.h"

#include "vulkan_faults.h"

#include "vulkan_add.spv.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

static const struct vk_shader add_shader = {
    .name = "test add",
    .code = vulkan_add_spv,
    .size = sizeof vulkan_add_spv,
    .push_bytes = 16,
};

static struct vk_instance *instance, *checked, *plain; /* one of: with validation, without */
static unsigned messages;

static void on_log(void *user, ratp_log_level level, const char *message)
{
    (void)user;
    if (level == RATP_LOG_ERROR && strstr(message, "validation")) {
        messages++;
        fprintf(stderr, "%s\n", message);
    }
}

static struct vk_device *open_own(void)
{
    struct vk_device *d = NULL;
    struct error err;
    uint32_t index = 0;
    while (index + 1 < vk_device_count(instance) && !instance->physical[index].info.usable)
        index++;
    return vk_device_open(instance, index, 0, 0, &d, &err) == RATP_OK ? d : NULL;
}

static struct vk_device *open_faulty(void)
{
    struct vk_device *d = open_own();
    if (d)
        watch_device(d);
    return d;
}

/* A bit of everything: memory, a staged write, a dispatch, a read, the pipeline
 * cache. `constant` makes a new pipeline. */
static ratp_status scenario(struct vk_device *d, uint32_t constant, struct error *err)
{
    uint32_t words[64] = {0};
    struct mem device_memory, upload = {0}, unmapped;
    struct vk_stream *s = NULL;
    ticket t = 0;
    uint8_t saved[65536];
    size_t size = sizeof saved;
    ratp_status status =
        vk_mem_alloc(d, sizeof words, MEM_DEVICE, "words", &device_memory, err);
    if (!status)
        status = vk_mem_alloc(d, sizeof words, MEM_UPLOAD, "upload", &upload, err);
    unmapped = device_memory;
    unmapped.host = NULL;
    if (!status)
        status = vk_mem_write(d, &unmapped, 0, words, sizeof words, err);
    if (!status)
        status = vk_stream_begin(d, &s, err);
    if (!status) {
        struct {
            uint64_t address;
            uint32_t count, unused;
        } push = {device_memory.address, 64, 0};
        status = vk_dispatch(s, &add_shader, &constant, 1, &push, sizeof push, 1, 1, 1, err);
        struct ratp_vulkan_point none = {0};
        if (!status)
            status = vk_stream_sync(s, &none, &none, err);
        if (!status)
            status = vk_copy(s, &upload, 0, &device_memory, 0, 128, err);
        if (status)
            vk_stream_drop(s);
        else
            status = vk_stream_submit(s, &t, err);
    }
    if (!status)
        status = vk_wait(d, t, err);
    if (!status)
        status = vk_mem_read(d, &unmapped, 0, words, sizeof words, err);
    if (!status && words[63] != constant)
        status = fail(err, RATP_INTERNAL, "a wrong result: %u", words[63]);
    if (!status)
        status = vk_pipeline_cache_save(d, saved, &size, err);
    if (!status)
        status = vk_pipeline_cache_load(d, saved, size, err);
    vk_mem_free(d, &device_memory);
    vk_mem_free(d, &upload);
    return status;
}

/* The statuses that a call may end in when a Vulkan call inside it failed: an
 * allocation may succeed after all, in another kind of memory or when repeated. */
static void try_call(struct vk_device *d, const char *name, int nth, uint32_t *constant)
{
    struct error err = {""};
    struct vk_memory_stats before, after;
    vk_memory_stats(d, &before);
    break_call(name, nth, VK_ERROR_OUT_OF_DEVICE_MEMORY);
    ratp_status status = scenario(d, ++*constant, &err);
    target = NULL;
    if (fired && !CHECK(status == RATP_OUT_OF_MEMORY || status == RATP_OK))
        fprintf(stderr, "    vk%s, call %d: status %d: %s\n", name, nth, (int)status, err.text);
    if (!CHECK(scenario(d, ++*constant, &err) == RATP_OK))
        fprintf(stderr, "    after vk%s, call %d: %s\n", name, nth, err.text);
    vk_wait(d, vk_latest(d), NULL);
    vk_memory_stats(d, &after);
    CHECK(after.pieces <= before.pieces + 2); /* the staging memory stays */
}

static void test_no_memory(void)
{
    uint32_t constant = 0;
    for (size_t i = 0; i < CALLS; i++) {
        bool any = false;
        for (int nth = 0; nth < 8; nth++) {
            /* A new device: much is made only once. */
            struct vk_device *d = open_faulty();
            if (!CHECK(d))
                return;
            try_call(d, call_names[i], nth, &constant);
            vk_device_close(&d);
            any |= fired;
            if (!fired)
                break;
        }
        /* Nothing waits for work that happens to be done already. */
        if (!CHECK(any || !strcmp(call_names[i], "WaitSemaphores")))
            fprintf(stderr, "    vk%s was never called\n", call_names[i]);
    }
}

static void test_loss(void)
{
    static const char *const calls[] = {"QueueSubmit", "WaitSemaphores"};
    for (int i = 0; i < 2; i++) {
        for (int nth = 0; nth < 2; nth++) {
            struct error err = {""};
            struct vk_device *d = open_faulty();
            if (!CHECK(d))
                return;
            break_call(calls[i], nth, VK_ERROR_DEVICE_LOST);
            ratp_status status = scenario(d, 5, &err);
            target = NULL;
            if (fired) { /* a wait for what is done already asks nothing */
                CHECK_EQUAL(status, RATP_DEVICE_LOST);
                CHECK_CONTAINS(err.text, calls[i]);
                CHECK_EQUAL(scenario(d, 6, &err), RATP_DEVICE_LOST);
            }
            vk_device_close(&d);
        }
    }
}

/* ---- Closing a device that works ---- */

static uint32_t queue_locks, queue_unlocks;

static void lock_queue(void *user)
{
    (void)user;
    queue_locks++;
}

static void unlock_queue(void *user)
{
    (void)user;
    queue_unlocks++;
}

/* A device on the VkDevice of `host`. */
static struct vk_device *import_faulty(const struct vk_device *host)
{
    struct log log = {on_log, NULL, RATP_LOG_ERROR};
    struct vk_device *d = NULL;
    struct error err;
    struct ratp_vulkan_device params;
    vk_device_handles(host, &params);
    params.lock_queue = lock_queue;
    params.unlock_queue = unlock_queue;
    if (vk_device_import(&log, &params, &d, &err) != RATP_OK)
        return NULL;
    watch_device(d);
    return d;
}

static bool make_gate(struct vk_device *d)
{
    VkSemaphoreTypeCreateInfo type = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_TYPE_CREATE_INFO,
                                      .semaphoreType = VK_SEMAPHORE_TYPE_TIMELINE};
    VkSemaphoreCreateInfo info = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO, .pNext = &type};
    return d->vk.vkCreateSemaphore(d->handle, &info, NULL, &gate) == VK_SUCCESS;
}

/* Work that waits for the gate to have this value, and uses a command buffer, a pipeline and
 * memory. */
static ratp_status submit_gated(struct vk_device *d, const struct mem *m, uint64_t value,
                                ticket *out, struct error *err)
{
    struct vk_stream *s = NULL;
    struct ratp_vulkan_point point = {gate, value};
    uint32_t constant = 1;
    struct {
        uint64_t address;
        uint32_t count, unused;
    } push = {m->address, 64, 0};
    ratp_status status = vk_stream_begin(d, &s, err);
    if (status)
        return status;
    status = vk_stream_sync(s, &point, NULL, err);
    if (!status)
        status = vk_dispatch(s, &add_shader, &constant, 1, &push, sizeof push, 1, 1, 1, err);
    if (status) {
        vk_stream_drop(s);
        return status;
    }
    return vk_stream_submit(s, out, err);
}

struct opener {
    PFN_vkSignalSemaphore signal;
    VkDevice device;
};

static void *open_gate(void *user)
{
    const struct opener *o = user;
    const struct timespec moment = {.tv_nsec = 150 * 1000 * 1000};
    nanosleep(&moment, NULL);
    atomic_store(&working, false);
    o->signal(o->device, &(VkSemaphoreSignalInfo){
        .sType = VK_STRUCTURE_TYPE_SEMAPHORE_SIGNAL_INFO, .semaphore = gate, .value = 1});
    atomic_store(&opening, false);
    return NULL;
}

/* Closes the device while something of it waits for the gate, after `call` failed with
 * `result`: in a call before (`during` false), or within the closing. */
static void close_working(struct vk_device *d, const char *call, VkResult result, bool during)
{
    struct error err = {""};
    struct mem m = {0};
    ticket first = 0, second = 0;
    pthread_t thread;
    struct opener opener = {d->vk.vkSignalSemaphore, d->handle};
    if (!CHECK(make_gate(d)))
        return;
    CHECK_EQUAL(vk_mem_alloc(d, 1 << 20, MEM_DEVICE, "words", &m, &err), RATP_OK);
    CHECK_EQUAL(submit_gated(d, &m, 1, &first, &err), RATP_OK);
    atomic_store(&working, true);
    atomic_store(&destroyed_early, 0);
    break_call(call, 0, result);
    if (!during) {
        ratp_status status = submit_gated(d, &m, 1, &second, &err);
        if (!status)
            status = vk_wait(d, second, &err);
        CHECK_EQUAL(status, result == VK_ERROR_DEVICE_LOST ? RATP_DEVICE_LOST
                                                           : RATP_OUT_OF_MEMORY);
        CHECK(fired);
    }
    atomic_store(&opening, true);
    if (!CHECK(pthread_create(&thread, NULL, open_gate, &opener) == 0))
        return;
    vk_mem_free(d, &m);
    vk_device_close(&d);
    target = NULL;
    CHECK(fired);
    CHECK(!atomic_load(&working));
    CHECK_EQUAL(atomic_load(&destroyed_early), 0);
    pthread_join(thread, NULL);
}

static void test_close_working(void)
{
    static const struct {
        const char *call;
        VkResult result;
        bool during;
    } ways[] = {
        {"QueueSubmit", VK_ERROR_DEVICE_LOST, false},
        {"QueueSubmit", VK_ERROR_OUT_OF_DEVICE_MEMORY, false},
        {"WaitSemaphores", VK_ERROR_DEVICE_LOST, false},
        {"WaitSemaphores", VK_ERROR_OUT_OF_HOST_MEMORY, true},
        {"WaitSemaphores", VK_ERROR_DEVICE_LOST, true},
    };
    /* The validation layer may wait for ten seconds, and say itself that this is its bug,
     * for a semaphore that the host signals while a queue waits for it. */
    instance = plain;
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        struct vk_device *d = open_faulty();
        if (!CHECK(d))
            return;
        close_working(d, ways[i].call, ways[i].result, ways[i].during);
    }
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        uint32_t constant = 7;
        struct error err = {""};
        struct vk_device *host = open_own();
        struct vk_device *d = host ? import_faulty(host) : NULL;
        if (!CHECK(d))
            return;
        queue_locks = queue_unlocks = 0;
        close_working(d, ways[i].call, ways[i].result, ways[i].during);
        CHECK(queue_locks > 0);
        CHECK_EQUAL(queue_locks, queue_unlocks);
        host->vk.vkDestroySemaphore(host->handle, gate, NULL);
        gate = VK_NULL_HANDLE;
        CHECK_EQUAL(scenario(host, constant, &err), RATP_OK);
        vk_device_close(&host);
    }
    instance = checked;
}

/* Memory is used again while the device is never idle, whichever way it was freed. */
static void test_busy_device(void)
{
    enum { ROUNDS = 30 };
    instance = plain;
    struct vk_device *d = open_faulty();
    struct error err = {""};
    struct vk_memory_stats before, after;
    ticket last = 0;
    if (!CHECK(d) || !CHECK(make_gate(d)))
        return;
    vk_memory_stats(d, &before);
    for (uint64_t i = 1; i <= ROUNDS; i++) {
        struct mem m, spare;
        ticket t = 0;
        CHECK_EQUAL(vk_mem_alloc(d, 1 << 20, MEM_DEVICE, "words", &m, &err), RATP_OK);
        CHECK_EQUAL(vk_mem_alloc(d, 1 << 20, MEM_DEVICE, "spare", &spare, &err), RATP_OK);
        CHECK_EQUAL(submit_gated(d, &m, i, &t, &err), RATP_OK);
        vk_mem_free(d, &m);
        vk_mem_free_spare(d, &spare);
        /* The round before ends, and this one waits. */
        VkSemaphoreSignalInfo open = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_SIGNAL_INFO,
                                      .semaphore = gate, .value = i - 1};
        if (i > 1)
            CHECK_EQUAL(d->vk.vkSignalSemaphore(d->handle, &open), VK_SUCCESS);
        CHECK_EQUAL(vk_wait(d, last, &err), RATP_OK);
        last = t;
    }
    vk_memory_stats(d, &after);
    CHECK(after.pieces <= before.pieces + 4);
    d->vk.vkSignalSemaphore(d->handle, &(VkSemaphoreSignalInfo){
        .sType = VK_STRUCTURE_TYPE_SEMAPHORE_SIGNAL_INFO, .semaphore = gate, .value = ROUNDS});
    vk_device_close(&d);
    instance = checked;
}

int main(void)
{
    struct log log = {on_log, NULL, RATP_LOG_ERROR};
    struct error err;
    if (!CHECK(vk_instance_create(&log, true, &checked, &err) == RATP_OK) ||
        !CHECK(vk_instance_create(&log, false, &plain, &err) == RATP_OK))
        return check_result();
    instance = checked;
    RUN(test_no_memory);
    RUN(test_loss);
    RUN(test_close_working);
    RUN(test_busy_device);
    vk_instance_destroy(&checked);
    vk_instance_destroy(&plain);
    CHECK_EQUAL(messages, 0);
    return check_result();
}
