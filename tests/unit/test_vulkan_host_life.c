/* How steps and an imported device end when something goes wrong: what the host has submitted
 * of a step is waited for whatever fails, no wait is endless, and the host's device goes on. */
#include "vulkan_world.h"

#include <stdlib.h>

static struct vk_instance *host_instance;
static struct vk_device *host; /* plays the engine: its calls never fail */
static VkCommandPool pool;
static VkSemaphore timeline; /* the host's points */
static uint64_t reached;     /* by its submissions, on the timeline */
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

static bool open_host(void)
{
    struct log log = {on_log, NULL, RATP_LOG_WARNING};
    struct error err;
    uint32_t index = 0;
    if (!CHECK(vk_instance_create(&log, true, &host_instance, &err) == RATP_OK))
        return false;
    while (index + 1 < vk_device_count(host_instance) &&
           !host_instance->physical[index].info.usable)
        index++;
    return CHECK(vk_device_open(host_instance, index, 0, 0, &host, &err) == RATP_OK);
}

static bool host_objects(void)
{
    VkCommandPoolCreateInfo info = {.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
                                    .queueFamilyIndex = host->physical.queue_family};
    reached = 0;
    if (!make_gate(host))
        return false;
    timeline = gate;
    return make_gate(host) &&
           CHECK(host->vk.vkCreateCommandPool(host->handle, &info, NULL, &pool) == VK_SUCCESS);
}

/* The host's own objects; its queue is idle. */
static void free_host_objects(void)
{
    host->vk.vkDestroyCommandPool(host->handle, pool, NULL);
    host->vk.vkDestroySemaphore(host->handle, timeline, NULL);
    host->vk.vkDestroySemaphore(host->handle, gate, NULL);
    gate = VK_NULL_HANDLE;
}

static bool world_import(struct world *w, uint64_t wait_limit_ms)
{
    struct ratp_vulkan_device params;
    *w = (struct world){0};
    queue_locks = queue_unlocks = 0;
    vk_device_handles(host, &params);
    params.lock_queue = lock_queue;
    params.unlock_queue = unlock_queue;
    params.wait_limit_ms = wait_limit_ms;
    if (!CHECK(good(instance, vulkan->device_import(instance, &params, &w->device))) ||
        !world_fill(w) || !host_objects())
        return false;
    watch_device(inside(w->device));
    return true;
}

/* The library's handles are gone; the host's device still works. */
static void check_host(void)
{
    struct mem m = {0};
    struct error err;
    uint32_t in = 5, out = 0;
    CHECK_EQUAL(queue_locks, queue_unlocks);
    CHECK_EQUAL(atomic_load(&destroyed_early), 0);
    CHECK_EQUAL(vk_mem_alloc(host, 64, MEM_DEVICE, "word", &m, &err), RATP_OK);
    m.host = NULL; /* through the queue */
    CHECK_EQUAL(vk_mem_write(host, &m, 0, &in, sizeof in, &err), RATP_OK);
    CHECK_EQUAL(vk_mem_read(host, &m, 0, &out, sizeof out, &err), RATP_OK);
    CHECK_EQUAL(out, in);
    vk_mem_free(host, &m);
}

static VkCommandBuffer begin_commands(void)
{
    VkCommandBuffer commands = VK_NULL_HANDLE;
    VkCommandBufferAllocateInfo info = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
                                        .commandPool = pool, .commandBufferCount = 1};
    VkCommandBufferBeginInfo begin = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO};
    CHECK(host->vk.vkAllocateCommandBuffers(host->handle, &info, &commands) == VK_SUCCESS);
    CHECK(host->vk.vkBeginCommandBuffer(commands, &begin) == VK_SUCCESS);
    return commands;
}

/* Submits them, to run when the gate is open; the point tells when they have. */
static struct ratp_vulkan_point submit_gated(VkCommandBuffer commands)
{
    struct ratp_vulkan_point done = {timeline, ++reached};
    const uint64_t open = 1;
    const VkPipelineStageFlags stages = VK_PIPELINE_STAGE_ALL_COMMANDS_BIT;
    VkTimelineSemaphoreSubmitInfo values = {
        .sType = VK_STRUCTURE_TYPE_TIMELINE_SEMAPHORE_SUBMIT_INFO,
        .waitSemaphoreValueCount = 1, .pWaitSemaphoreValues = &open,
        .signalSemaphoreValueCount = 1, .pSignalSemaphoreValues = &done.value};
    VkSubmitInfo info = {
        .sType = VK_STRUCTURE_TYPE_SUBMIT_INFO, .pNext = &values,
        .waitSemaphoreCount = 1, .pWaitSemaphores = &gate, .pWaitDstStageMask = &stages,
        .commandBufferCount = 1, .pCommandBuffers = &commands,
        .signalSemaphoreCount = 1, .pSignalSemaphores = &timeline};
    CHECK(host->vk.vkEndCommandBuffer(commands) == VK_SUCCESS);
    CHECK(host->vk.vkQueueSubmit(host->queue, 1, &info, VK_NULL_HANDLE) == VK_SUCCESS);
    atomic_store(&working, true);
    return done;
}

/* A step that is recorded and submitted behind the gate. */
static ratp_step *record_gated(struct world *w, struct ratp_vulkan_point *done)
{
    ratp_step *step = begin(w);
    VkCommandBuffer commands = begin_commands();
    CHECK(good(step, vulkan->step_record(step, commands)));
    for (uint32_t layer = 0; layer < LAYERS; layer++)
        CHECK(good(step, attend(w, step, layer)));
    *done = submit_gated(commands);
    return step;
}

/* step_record fails: nothing of the step was recorded, and nothing can be any more. */
static void test_record(void)
{
    static const char *const calls[] = {"CreateCommandPool", "ResetCommandPool",
                                        "BeginCommandBuffer"};
    static float out[TOKENS * ROW];
    struct world w;
    if (!world_import(&w, 0))
        return;
    VkCommandBuffer commands = begin_commands();
    for (int i = 0; i < 3; i++) {
        ratp_step *step = begin(&w);
        break_call(calls[i], 0, VK_ERROR_OUT_OF_HOST_MEMORY);
        ratp_status status = vulkan->step_record(step, commands);
        target = NULL;
        CHECK_EQUAL(status, fired ? RATP_OUT_OF_MEMORY : RATP_OK);
        CHECK(fired || i == 0); /* a stream of before may have a pool */
        if (fired) {
            CHECK_EQUAL(vulkan->step_record(step, commands), RATP_WRONG_STATE);
            CHECK_CONTAINS(message_of(step), "abort");
            CHECK_EQUAL(attend(&w, step, 0), RATP_WRONG_STATE);
        }
        CHECK(good(step, ratp->step_abort(&step)));
    }
    CHECK(host->vk.vkEndCommandBuffer(commands) == VK_SUCCESS);
    whole_pass(&w, out);
    world_close(&w);
    check_host();
    free_host_objects();
}

/* step_recorded fails while the host's submission is under way. */
static void test_recorded(VkResult result)
{
    struct world w;
    struct ratp_vulkan_point done;
    pthread_t thread;
    struct opener opener = opener_of(host);
    if (!world_import(&w, 0))
        return;
    ratp_step *step = record_gated(&w, &done);
    break_call("QueueSubmit", 0, result);
    CHECK(pthread_create(&thread, NULL, open_gate_later, &opener) == 0);
    CHECK_EQUAL(vulkan->step_recorded(step, done),
                result == VK_ERROR_DEVICE_LOST ? RATP_DEVICE_LOST : RATP_OUT_OF_MEMORY);
    target = NULL;
    CHECK(fired);
    CHECK(!atomic_load(&working));
    CHECK_EQUAL(ratp->step_commit(&step), RATP_WRONG_STATE);
    CHECK_CONTAINS(message_of(step), "abort");
    CHECK(good(step, ratp->step_abort(&step)));
    pthread_join(thread, NULL);
    world_close(&w);
    check_host();
    free_host_objects();
}

static void test_recorded_no_memory(void)
{
    test_recorded(VK_ERROR_OUT_OF_DEVICE_MEMORY);
}

static void test_recorded_lost(void)
{
    test_recorded(VK_ERROR_DEVICE_LOST);
}

/* The host never signals what a step waits for. With `untold` the library could not even
 * make its queue wait for it. What it may use is left on the host's device, and that is why
 * the host is not closed afterwards. */
static void never_signalled(bool untold)
{
    struct world w;
    struct ratp_vulkan_point done;
    struct opener opener = opener_of(host);
    if (!world_import(&w, 200))
        return;
    ratp_step *step = record_gated(&w, &done);
    if (untold)
        break_call("QueueSubmit", 0, VK_ERROR_OUT_OF_DEVICE_MEMORY);
    CHECK_EQUAL(vulkan->step_recorded(step, done), untold ? RATP_OUT_OF_MEMORY : RATP_OK);
    target = NULL;
    if (untold)
        CHECK(good(step, ratp->step_abort(&step)));
    else
        CHECK(good(step, ratp->step_commit(&step)));
    CHECK_EQUAL(ratp->device_wait(w.device), RATP_DEVICE_LOST);
    CHECK_CONTAINS(lost_line, "200 ms");
    world_empty(&w);
    CHECK_EQUAL(ratp->device_close(&w.device), RATP_DEVICE_LOST);
    CHECK(!w.device);
    CHECK_CONTAINS(lost_line, "must not be destroyed");
    CHECK_EQUAL(atomic_load(&destroyed_early), 0);
    open_gate(&opener);
    CHECK(opener.wait(opener.device) == VK_SUCCESS);
    check_host();
    free_host_objects();
}

static void test_never_signalled(void)
{
    never_signalled(false);
}

static void test_never_signalled_untold(void)
{
    never_signalled(true);
}

int main(void)
{
    if (!start(true) || !open_host())
        return check_result();
    RUN(test_record);
    RUN(test_recorded_no_memory);
    RUN(test_recorded_lost);
    RUN(test_never_signalled);
    RUN(test_never_signalled_untold);
    CHECK(good(instance, ratp->instance_destroy(&instance)));
    CHECK_EQUAL(messages, 0);
    return check_result();
}
