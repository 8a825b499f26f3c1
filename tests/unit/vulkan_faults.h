/* Vulkan calls of one open device that can be made to fail, and a watch over what is
 * destroyed while the device still works. For one device at a time. */
#ifndef TEST_VULKAN_FAULTS_H
#define TEST_VULKAN_FAULTS_H

#include "vulkan/internal.h"

#include <stdatomic.h>
#include <string.h>

static const char *target; /* the call that fails; NULL: none */
static int countdown;      /* calls of it that still succeed */
static VkResult injected;
static bool fired;
static bool for_good; /* it fails each time from then on, not once */

static bool hit(const char *name)
{
    if (!target || strcmp(target, name))
        return false;
    if (countdown > 0 || (countdown < 0 && !for_good)) {
        countdown--;
        return false;
    }
    countdown--;
    return fired = true;
}

static inline void break_call(const char *name, int nth, VkResult result)
{
    target = name;
    countdown = nth;
    injected = result;
    fired = false;
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
enum { CALLS = sizeof call_names / sizeof *call_names };

/* ---- Destroyed while the device works ---- */

static atomic_bool working;         /* something that was submitted has not ended */
static atomic_uint destroyed_early; /* calls that destroyed something meanwhile */
static VkSemaphore gate;            /* destroyed with the device, if it is the device's own */
static atomic_bool opening;         /* a thread is inside of the driver, to signal it */

#define DESTROYERS(X)                                                                             \
    X(DestroyCommandPool, (VkDevice a, VkCommandPool b, const VkAllocationCallbacks *c),          \
      (a, b, c))                                                                                  \
    X(DestroyBuffer, (VkDevice a, VkBuffer b, const VkAllocationCallbacks *c), (a, b, c))         \
    X(FreeMemory, (VkDevice a, VkDeviceMemory b, const VkAllocationCallbacks *c), (a, b, c))      \
    X(DestroyPipeline, (VkDevice a, VkPipeline b, const VkAllocationCallbacks *c), (a, b, c))     \
    X(DestroySemaphore, (VkDevice a, VkSemaphore b, const VkAllocationCallbacks *c), (a, b, c))

#define WRAPPER(name, parameters, arguments)                                                      \
    static PFN_vk##name real_##name;                                                              \
    static VKAPI_ATTR void VKAPI_CALL fake_##name parameters                                      \
    {                                                                                             \
        if (atomic_load(&working))                                                                \
            atomic_fetch_add(&destroyed_early, 1);                                                \
        real_##name arguments;                                                                    \
    }
DESTROYERS(WRAPPER)
#undef WRAPPER

static PFN_vkDestroyDevice real_DestroyDevice;
static VKAPI_ATTR void VKAPI_CALL fake_DestroyDevice(VkDevice a, const VkAllocationCallbacks *b)
{
    if (atomic_load(&working))
        atomic_fetch_add(&destroyed_early, 1);
    while (atomic_load(&opening)) {
    }
    real_DestroySemaphore(a, gate, NULL);
    gate = VK_NULL_HANDLE;
    real_DestroyDevice(a, b);
}

static inline void watch_device(struct vk_device *d)
{
#define REPLACE(name, parameters, arguments)                                                      \
    real_##name = d->vk.vk##name;                                                                 \
    d->vk.vk##name = fake_##name;
    FAULTY_CALLS(REPLACE)
    DESTROYERS(REPLACE)
    REPLACE(DestroyDevice, , )
#undef REPLACE
}

#endif
