/* Every Vulkan call that can fail does so once, in each place where it is
 * made: the status says what happened, nothing is lost, and after a lack of
 * memory the same work succeeds. */
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

static const char *target; /* the call that fails; NULL: none */
static int countdown;      /* calls of it that still succeed */
static VkResult injected;
static bool fired;

static bool hit(const char *name)
{
    if (!target || strcmp(target, name) || countdown-- != 0)
        return false;
    return fired = true;
}

#define FAULTY_CALLS(X)                                                                           \
    X(AllocateMemory, (VkDevice a, const VkMemoryAllocateInfo *b, const VkAllocationCallbacks *c, \
                       VkDeviceMemory *e), (a, b, c, e))                                          \
    X(CreateBuffer, (VkDevice a, const VkBufferCreateInfo *b, const VkAllocationCallbacks *c,     \
                     VkBuffer *e), (a, b, c, e))                                                  \
    X(BindBufferMemory, (VkDevice a, VkBuffer b, VkDeviceMemory c, VkDeviceSize e), (a, b, c, e)) \
    X(MapMemory, (VkDevice a, VkDeviceMemory b, VkDeviceSize c, VkDeviceSize e,                   \
                  VkMemoryMapFlags f, void **g), (a, b, c, e, f, g))                              \
    X(CreateCommandPool, (VkDevice a, const VkCommandPoolCreateInfo *b,                           \
                          const VkAllocationCallbacks *c, VkCommandPool *e), (a, b, c, e))        \
    X(AllocateCommandBuffers, (VkDevice a, const VkCommandBufferAllocateInfo *b,                  \
                               VkCommandBuffer *c), (a, b, c))                                    \
    X(BeginCommandBuffer, (VkCommandBuffer a, const VkCommandBufferBeginInfo *b), (a, b))         \
    X(EndCommandBuffer, (VkCommandBuffer a), (a))                                                 \
    X(ResetCommandPool, (VkDevice a, VkCommandPool b, VkCommandPoolResetFlags c), (a, b, c))      \
    X(QueueSubmit, (VkQueue a, uint32_t b, const VkSubmitInfo *c, VkFence e), (a, b, c, e))       \
    X(WaitSemaphores, (VkDevice a, const VkSemaphoreWaitInfo *b, uint64_t c), (a, b, c))          \
    X(CreateShaderModule, (VkDevice a, const VkShaderModuleCreateInfo *b,                         \
                           const VkAllocationCallbacks *c, VkShaderModule *e), (a, b, c, e))      \
    X(CreatePipelineLayout, (VkDevice a, const VkPipelineLayoutCreateInfo *b,                     \
                             const VkAllocationCallbacks *c, VkPipelineLayout *e), (a, b, c, e))  \
    X(CreateComputePipelines, (VkDevice a, VkPipelineCache b, uint32_t c,                         \
                               const VkComputePipelineCreateInfo *e,                              \
                               const VkAllocationCallbacks *f, VkPipeline *g),                    \
      (a, b, c, e, f, g))                                                                         \
    X(GetPipelineCacheData, (VkDevice a, VkPipelineCache b, size_t *c, void *e), (a, b, c, e))    \
    X(CreatePipelineCache, (VkDevice a, const VkPipelineCacheCreateInfo *b,                       \
                            const VkAllocationCallbacks *c, VkPipelineCache *e), (a, b, c, e))    \
    X(MergePipelineCaches, (VkDevice a, VkPipelineCache b, uint32_t c, const VkPipelineCache *e), \
      (a, b, c, e))

#define WRAPPER(name, parameters, arguments)                                                      \
    static PFN_vk##name real_##name;                                                              \
    static VKAPI_ATTR VkResult VKAPI_CALL fake_##name parameters                                  \
    {                                                                                             \
        return hit(#name) ? injected : real_##name arguments;                                     \
    }
FAULTY_CALLS(WRAPPER)
#undef WRAPPER

static const char *const call_names[] = {
#define NAME(name, parameters, arguments) #name,
    FAULTY_CALLS(NAME)
#undef NAME
};

static struct vk_instance *instance;
static unsigned messages;

static void on_log(void *user, ratp_log_level level, const char *message)
{
    (void)user;
    if (level == RATP_LOG_ERROR && strstr(message, "validation")) {
        messages++;
        fprintf(stderr, "%s\n", message);
    }
}

static struct vk_device *open_faulty(void)
{
    struct vk_device *d = NULL;
    struct error err;
    uint32_t index = 0;
    while (index + 1 < vk_device_count(instance) && !instance->physical[index].info.usable)
        index++;
    if (vk_device_open(instance, index, 0, &d, &err) != RATP_OK)
        return NULL;
#define REPLACE(name, parameters, arguments)                                                      \
    real_##name = d->vk.vk##name;                                                                 \
    d->vk.vk##name = fake_##name;
    FAULTY_CALLS(REPLACE)
#undef REPLACE
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
    target = name;
    countdown = nth;
    fired = false;
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
    injected = VK_ERROR_OUT_OF_DEVICE_MEMORY;
    for (size_t i = 0; i < sizeof call_names / sizeof *call_names; i++) {
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
    injected = VK_ERROR_DEVICE_LOST;
    for (int i = 0; i < 2; i++) {
        for (int nth = 0; nth < 2; nth++) {
            struct error err = {""};
            struct vk_device *d = open_faulty();
            if (!CHECK(d))
                return;
            target = calls[i];
            countdown = nth;
            fired = false;
            ratp_status status = scenario(d, 5, &err);
            target = NULL;
            if (fired) { /* a wait for what is done already asks nothing */
                CHECK_EQUAL(status, RATP_DEVICE_LOST);
                CHECK_CONTAINS(err.text, calls[i]);
                CHECK_EQUAL(scenario(d, 6, &err), RATP_DEVICE_LOST);
            }
            d->vk.vkDeviceWaitIdle(d->handle); /* the device is not really lost */
            vk_device_close(&d);
        }
    }
}

int main(void)
{
    struct log log = {on_log, NULL, RATP_LOG_ERROR};
    struct error err;
    if (!CHECK(vk_instance_create(&log, true, &instance, &err) == RATP_OK))
        return check_result();
    RUN(test_no_memory);
    RUN(test_loss);
    vk_instance_destroy(&instance);
    CHECK_EQUAL(messages, 0);
    return check_result();
}
