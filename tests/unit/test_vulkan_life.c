/* How steps, devices and processes end when something goes wrong on a Vulkan device: a step
 * that failed half-way, work that never ends, a device that is lost while it works, and a
 * child process that has inherited a device. */
#include "vulkan_world.h"

#include "cache/cache.h"

#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* A step that waits for the gate between its layers. */
static void commit_gated(struct world *w)
{
    struct ratp_vulkan_point point = {gate, 1};
    ratp_step *step = begin(w);
    CHECK(good(step, attend(w, step, 0)));
    CHECK(good(step, vulkan->step_sync(step, &point, NULL)));
    CHECK(good(step, attend(w, step, 1)));
    CHECK(good(step, ratp->step_commit(&step)));
    atomic_store(&working, true);
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* ---- A step that failed half-way ---- */

/* After a failure everything but an abort is refused. */
static void check_broken(struct world *w, ratp_step **step, VkCommandBuffer commands)
{
    for (uint32_t layer = 0; layer < LAYERS; layer++) {
        CHECK_EQUAL(attend(w, *step, layer), RATP_WRONG_STATE);
        CHECK_CONTAINS(message_of(*step), "abort");
    }
    CHECK_EQUAL(vulkan->step_sync(*step, NULL, NULL), RATP_WRONG_STATE);
    CHECK_CONTAINS(message_of(*step), "abort");
    CHECK_EQUAL(vulkan->step_record(*step, commands), RATP_WRONG_STATE);
    CHECK_CONTAINS(message_of(*step), "abort");
    CHECK_EQUAL(ratp->step_commit(step), RATP_WRONG_STATE);
    CHECK_CONTAINS(message_of(*step), "abort");
    CHECK(good(*step, ratp->step_abort(step)));
}

/* One pass with step_sync around its layers, in which a Vulkan call fails from the nth on: a
 * single lack of memory is mended where there is memory to give back. */
static void broken_pass(struct world *w, const char *call, int nth)
{
    static const char *const names[] = {"step_sync", "step_attend", "step_sync", "step_attend",
                                        "step_commit"};
    ratp_step *step = begin(w);
    ratp_status status = RATP_OK;
    break_call(call, nth, VK_ERROR_OUT_OF_HOST_MEMORY);
    for_good = true;
    for (int i = 0; i < 5 && !status; i++) {
        status = i == 4    ? ratp->step_commit(&step)
                 : i % 2   ? attend(w, step, (uint32_t)i / 2)
                           : vulkan->step_sync(step, NULL, NULL);
        if (!CHECK_EQUAL(status != RATP_OK, fired) || !CHECK(!status || status == RATP_OUT_OF_MEMORY))
            fprintf(stderr, "    %s with vk%s, call %d: status %d\n", names[i], call, nth,
                    (int)status);
    }
    target = NULL;
    for_good = false;
    if (step)
        check_broken(w, &step, (VkCommandBuffer)(uintptr_t)16);
    struct ratp_seq_stats stats = {.struct_size = sizeof stats};
    CHECK(good(w->seq, ratp->seq_stats(w->seq, &stats)));
    CHECK_EQUAL(stats.length, fired ? 0 : TOKENS);
    CHECK(good(w->seq, ratp->seq_truncate(w->seq, 0)));
}

static void test_broken_steps(void)
{
    static const char *const calls[] = {"CreateCommandPool", "AllocateCommandBuffers",
                                        "ResetCommandPool", "BeginCommandBuffer",
                                        "EndCommandBuffer", "QueueSubmit"};
    static float first[TOKENS * ROW], again[TOKENS * ROW];
    struct world w;
    if (!world_open(&w, 0))
        return;
    whole_pass(&w, first);
    watch_device(inside(w.device));
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
        for (int nth = 0; nth < 8; nth++) {
            broken_pass(&w, calls[i], nth);
            memset(again, 0, sizeof again);
            whole_pass(&w, again);
            CHECK(memcmp(first, again, sizeof first) == 0);
            if (!fired)
                break;
        }
    world_close(&w);
}

/* ---- Work that does not end ---- */

static void test_limit(void)
{
    static float out[TOKENS * ROW];
    struct world w;
    ratp_buffer *shared = NULL;
    void *host = NULL;
    double began = seconds();
    if (!world_open(&w, 300) || !make_gate(inside(w.device)))
        return;
    struct opener opener = opener_of(inside(w.device));
    CHECK(posix_memalign(&host, 65536, 65536) == 0);
    struct ratp_buffer_params params = {.struct_size = sizeof params, .size = 65536, .host = host};
    /* Not every driver takes host memory. */
    ratp_status import = ratp->buffer_create(w.device, &params, &shared);
    CHECK(import == RATP_OK || import == RATP_UNSUPPORTED);
    watch_device(inside(w.device));
    commit_gated(&w);
    CHECK_EQUAL(ratp->device_wait(w.device), RATP_DEVICE_LOST);
    CHECK_CONTAINS(message_of(w.device), "300 ms");
    CHECK_CONTAINS(lost_line, "300 ms");
    CHECK_EQUAL(ratp->buffer_read(w.buffers[TENSOR_OUT], 0, out, BYTES), RATP_DEVICE_LOST);
    if (shared) {
        CHECK_EQUAL(ratp->buffer_destroy(&shared), RATP_DEVICE_LOST);
        CHECK(!shared);
        CHECK_CONTAINS(message_of(w.device), "must stay");
    }
    world_empty(&w);
    CHECK_EQUAL(ratp->device_close(&w.device), RATP_DEVICE_LOST);
    CHECK(!w.device);
    CHECK_CONTAINS(message_of(instance), "left");
    CHECK_CONTAINS(lost_line, "left");
    CHECK_EQUAL(atomic_load(&destroyed_early), 0);
    CHECK(seconds() - began < 60);
    /* The work goes on with what was left to it, and other devices do too. */
    open_gate(&opener);
    CHECK(opener.wait(opener.device) == VK_SUCCESS);
    if (CHECK(world_open(&w, 0))) {
        whole_pass(&w, out);
        world_close(&w);
    }
    /* `host` is the device's until the process ends. */
    gate = VK_NULL_HANDLE;
}

/* It ends after all, before the device is closed: nothing is left. */
static void test_late(void)
{
    struct world w;
    if (!world_open(&w, 200) || !make_gate(inside(w.device)))
        return;
    struct opener opener = opener_of(inside(w.device));
    watch_device(inside(w.device));
    commit_gated(&w);
    CHECK_EQUAL(ratp->device_wait(w.device), RATP_DEVICE_LOST);
    open_gate(&opener);
    CHECK(opener.wait(opener.device) == VK_SUCCESS);
    CHECK_EQUAL(ratp->device_wait(w.device), RATP_DEVICE_LOST);
    world_close(&w);
    CHECK(gate == VK_NULL_HANDLE); /* destroyed with the VkDevice */
}

/* A driver that says VK_TIMEOUT for ever of work that is long done. */
static void test_endless_timeout(void)
{
    struct world w;
    double began = seconds();
    if (!world_open(&w, 200))
        return;
    watch_device(inside(w.device));
    make_gate(inside(w.device));
    struct opener opener = opener_of(inside(w.device));
    commit_gated(&w);
    for_good = true;
    break_call("WaitSemaphores", 0, VK_TIMEOUT);
    CHECK_EQUAL(ratp->device_wait(w.device), RATP_DEVICE_LOST);
    CHECK(fired);
    open_gate(&opener);
    CHECK(opener.wait(opener.device) == VK_SUCCESS);
    world_close(&w);
    for_good = false;
    target = NULL;
    CHECK(seconds() - began < 30);
}

/* Host memory is the host's again when its buffer is destroyed, on a lost device too. */
static void test_host_memory(void)
{
    struct world w;
    ratp_buffer *shared = NULL;
    void *host = NULL;
    pthread_t thread;
    if (!world_open(&w, 0) || !make_gate(inside(w.device)))
        return;
    struct opener opener = opener_of(inside(w.device));
    CHECK(posix_memalign(&host, 65536, 65536) == 0);
    struct ratp_buffer_params params = {.struct_size = sizeof params, .size = 65536, .host = host};
    ratp_status import = ratp->buffer_create(w.device, &params, &shared);
    CHECK(import == RATP_OK || import == RATP_UNSUPPORTED);
    watch_device(inside(w.device));
    commit_gated(&w);
    break_call("WaitSemaphores", 0, VK_ERROR_DEVICE_LOST);
    CHECK_EQUAL(ratp->device_wait(w.device), RATP_DEVICE_LOST);
    target = NULL;
    CHECK(pthread_create(&thread, NULL, open_gate_later, &opener) == 0);
    if (shared) {
        CHECK_EQUAL(ratp->buffer_destroy(&shared), RATP_OK);
        CHECK(!atomic_load(&working));
    }
    pthread_join(thread, NULL);
    world_close(&w);
    CHECK_EQUAL(atomic_load(&destroyed_early), 0);
    free(host);
}

/* ---- A child process ---- */

/* Everything that would reach the driver, in the child. `step` has one layer to go. */
static void use_inherited(struct world *w, ratp_step *step, ratp_buffer *mapped)
{
    float data[8] = {0};
    void *address = NULL;
    size_t size = 0;
    ratp_buffer *buffer = NULL;
    ratp_cache *cache = NULL;
    ratp_device *device = NULL;
    struct ratp_buffer_params bytes = {.struct_size = sizeof bytes, .size = 100};
    struct ratp_geometry geometry = {.struct_size = sizeof geometry, .layers = 1, .query_heads = 1,
                                     .kv_heads = 1, .head_size = HEAD};
    struct ratp_cache_params params = {.struct_size = sizeof params, .geometry = &geometry};
    struct ratp_tensor rows = {.struct_size = sizeof rows, .host = data};
    struct ratp_external external = {
        .struct_size = sizeof external, .q = &rows, .k = &rows, .v = &rows, .out = &rows,
        .batch = 1, .query_tokens = 1, .key_tokens = 1, .query_heads = 1, .kv_heads = 1,
        .head_size = 8, .value_size = 8};
    CHECK_EQUAL(ratp->device_wait(w->device), RATP_DEVICE_LOST);
    CHECK_CONTAINS(message_of(w->device), "fork()");
    CHECK_EQUAL(ratp->buffer_create(w->device, &bytes, &buffer), RATP_DEVICE_LOST);
    CHECK_EQUAL(ratp->buffer_write(w->buffers[0], 0, data, sizeof data), RATP_DEVICE_LOST);
    CHECK_EQUAL(ratp->buffer_read(w->buffers[0], 0, data, sizeof data), RATP_DEVICE_LOST);
    CHECK_EQUAL(ratp->buffer_map(mapped, &address), RATP_DEVICE_LOST);
    CHECK_EQUAL(ratp->attend_external(w->device, &external), RATP_DEVICE_LOST);
    CHECK_CONTAINS(message_of(w->device), "fork()");
    CHECK_EQUAL(vulkan->pipeline_cache_save(w->device, NULL, &size), RATP_DEVICE_LOST);
    CHECK_EQUAL(attend(w, step, 1), RATP_DEVICE_LOST);
    CHECK_CONTAINS(message_of(step), "fork()");
    CHECK_EQUAL(vulkan->step_sync(step, NULL, NULL), RATP_DEVICE_LOST);
    CHECK(good(step, ratp->step_abort(&step)));
    step = NULL;
    uint32_t tokens = 1;
    struct ratp_step_params next = {.struct_size = sizeof next, .count = 1, .seqs = &w->seq,
                                    .n_tokens = &tokens};
    CHECK_EQUAL(ratp->step_begin(w->cache, &next, &step), RATP_DEVICE_LOST);
    CHECK_CONTAINS(message_of(w->cache), "fork()");
    ratp_status status = ratp->cache_create(w->device, &params, &cache);
    CHECK(status == RATP_OK || status == RATP_DEVICE_LOST);
    CHECK_EQUAL(ratp->cache_destroy(&cache), RATP_OK);
    struct ratp_device_params name = {.struct_size = sizeof name, .name = device_name};
    CHECK_EQUAL(ratp->device_open(instance, &name, &device), RATP_WRONG_STATE);
    CHECK_CONTAINS(message_of(instance), "fork()");
    name.name = "reference";
    CHECK(good(instance, ratp->device_open(instance, &name, &device)));
    CHECK(good(instance, ratp->device_close(&device)));
}

static void inherit(struct world *w, ratp_step *step, ratp_buffer *mapped)
{
    struct ratp_instance_params params = {.struct_size = sizeof params, .no_vulkan = 1};
    static float out[TOKENS * ROW];
    use_inherited(w, step, mapped);
    CHECK(good(w->device, ratp->buffer_destroy(&mapped)));
    world_close(w);
    CHECK(good(instance, ratp->instance_destroy(&instance)));
    /* The library works in the child, if the driver may not: SwiftShader hangs. */
    CHECK_EQUAL(ratp->instance_create(&params, &instance, NULL, 0), RATP_OK);
    CHECK(good(instance, ratp->device_open(instance, NULL, &w->device)));
    if (world_fill(w))
        whole_pass(w, out);
    world_close(w);
    CHECK(good(instance, ratp->instance_destroy(&instance)));
}

static void test_fork(void)
{
    static float first[TOKENS * ROW], again[TOKENS * ROW];
    struct world w;
    struct ratp_buffer_params bytes = {.struct_size = sizeof bytes, .size = 100,
                                       .kind = RATP_MEMORY_HOST};
    ratp_buffer *mapped = NULL;
    if (!world_open(&w, 0))
        return;
    CHECK(good(w.device, ratp->buffer_create(w.device, &bytes, &mapped)));
    whole_pass(&w, first);
    ratp_step *step = begin(&w);
    CHECK(good(step, attend(&w, step, 0)));
    /* As if other threads were inside of the device just then. */
    struct vk_device *d = inside(w.device);
    pthread_mutex_t *const mutexes[] = {&d->queue_lock, &d->lock, &d->pipeline_lock,
                                        &d->transfer_lock};
    struct lock *const locks[] = {&w.device->staging_lock, &w.device->spares.lock,
                                  &w.device->object.lock, &w.cache->memory_lock};
    for (int i = 0; i < 4; i++) {
        pthread_mutex_lock(mutexes[i]);
        lock_take(locks[i]);
    }
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        alarm(60); /* a hang ends so */
        check_failures = 0;
        inherit(&w, step, mapped);
        fflush(NULL);
        _exit(check_failures ? 1 : 0);
    }
    for (int i = 0; i < 4; i++) {
        lock_give(locks[i]);
        pthread_mutex_unlock(mutexes[i]);
    }
    int status = -1;
    CHECK(child > 0 && waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    /* The parent knows nothing of it. */
    CHECK(good(step, attend(&w, step, 1)));
    CHECK(good(step, ratp->step_commit(&step)));
    CHECK(good(w.buffers[TENSOR_OUT],
               ratp->buffer_read(w.buffers[TENSOR_OUT], 0, again, BYTES)));
    CHECK(memcmp(first, again, sizeof first) == 0);
    CHECK(good(w.device, ratp->buffer_destroy(&mapped)));
    world_close(&w);
}

int main(int argc, char **argv)
{
    device_name = argc > 1 ? argv[1] : "software";
    if (!start(true))
        return check_result();
    RUN(test_broken_steps);
    RUN(test_late);
    RUN(test_fork);
    RUN(test_limit);
    CHECK(good(instance, ratp->instance_destroy(&instance)));
    if (!start(false))
        return check_result();
    RUN(test_host_memory);
    RUN(test_endless_timeout);
    CHECK(good(instance, ratp->instance_destroy(&instance)));
    CHECK_EQUAL(messages, 0);
    return check_result();
}
