/* A driver's word is not believed where a crash would follow. */
#include "internal.h"

ratp_status vk_made_nothing(const char *call, struct error *err)
{
    return fail(err, RATP_OUT_OF_MEMORY, "%s answered with success, and a handle of 0", call);
}

bool vk_is_address(uint64_t address, uint64_t size)
{
    return address != 0 && address <= UINT64_MAX - size;
}

static bool is_power_of_two(uint64_t n)
{
    return n && (n & (n - 1)) == 0;
}

static const char *doubt_memory(const VkPhysicalDeviceMemoryProperties *m)
{
    if (m->memoryTypeCount < 1 || m->memoryTypeCount > VK_MAX_MEMORY_TYPES)
        return "reports no memory types, or more than Vulkan has";
    if (m->memoryHeapCount < 1 || m->memoryHeapCount > VK_MAX_MEMORY_HEAPS)
        return "reports no memory heaps, or more than Vulkan has";
    for (uint32_t i = 0; i < m->memoryTypeCount; i++)
        if (m->memoryTypes[i].heapIndex >= m->memoryHeapCount)
            return "reports a memory type of a heap that it does not have";
    return NULL;
}

/* The least that Vulkan promises, which the kernels count on. */
enum { LEAST_SHARED = 16384, LEAST_INVOCATIONS = 128, LEAST_GROUPS = 65535,
       LEAST_ALLOCATION = 1 << 20 };

const char *vk_physical_doubt(const struct vk_physical *p)
{
    const struct vk_caps *c = &p->caps;
    const char *why = doubt_memory(&p->memory);
    if (why)
        return why;
    if (!is_power_of_two(c->subgroup_size) || c->subgroup_size > 128)
        return "reports a subgroup size that is no power of two from 1 to 128";
    if (c->shared_bytes < LEAST_SHARED)
        return "reports less than 16384 bytes of shared memory, which Vulkan promises";
    if (c->max_invocations < LEAST_INVOCATIONS)
        return "reports workgroups of less than 128 invocations, which Vulkan promises";
    for (int i = 0; i < 3; i++)
        if (c->max_groups[i] < LEAST_GROUPS)
            return "reports less than 65535 workgroups, which Vulkan promises";
    if (p->max_allocation < LEAST_ALLOCATION)
        return "reports allocations of less than 1 MiB";
    if (vk_physical_has(p, FEATURE_HOST_IMPORT) && !is_power_of_two(p->import_alignment))
        return "reports an alignment of host memory that is no power of two";
    return NULL;
}

/* What the files of this folder call. vkGetMemoryHostPointerPropertiesEXT, of an
 * extension, is looked for where it is called. */
#define DEVICE_CALLS(X)                                                                           \
    X(AllocateCommandBuffers)                                                                     \
    X(AllocateMemory)                                                                             \
    X(BeginCommandBuffer)                                                                         \
    X(BindBufferMemory)                                                                           \
    X(CmdBindPipeline)                                                                            \
    X(CmdCopyBuffer)                                                                              \
    X(CmdDispatch)                                                                                \
    X(CmdFillBuffer)                                                                              \
    X(CmdPipelineBarrier)                                                                         \
    X(CmdPushConstants)                                                                           \
    X(CreateBuffer)                                                                               \
    X(CreateCommandPool)                                                                          \
    X(CreateComputePipelines)                                                                     \
    X(CreatePipelineCache)                                                                        \
    X(CreatePipelineLayout)                                                                       \
    X(CreateSemaphore)                                                                            \
    X(CreateShaderModule)                                                                         \
    X(DestroyBuffer)                                                                              \
    X(DestroyCommandPool)                                                                         \
    X(DestroyDevice)                                                                              \
    X(DestroyPipeline)                                                                            \
    X(DestroyPipelineCache)                                                                       \
    X(DestroyPipelineLayout)                                                                      \
    X(DestroySemaphore)                                                                           \
    X(DestroyShaderModule)                                                                        \
    X(DeviceWaitIdle)                                                                             \
    X(EndCommandBuffer)                                                                           \
    X(FreeMemory)                                                                                 \
    X(GetBufferDeviceAddress)                                                                     \
    X(GetBufferMemoryRequirements)                                                                \
    X(GetDeviceQueue)                                                                             \
    X(GetPipelineCacheData)                                                                       \
    X(GetSemaphoreCounterValue)                                                                   \
    X(MapMemory)                                                                                  \
    X(MergePipelineCaches)                                                                        \
    X(QueueSubmit)                                                                                \
    X(QueueWaitIdle)                                                                              \
    X(ResetCommandPool)                                                                           \
    X(WaitSemaphores)

const char *vk_table_lacks(const struct VolkDeviceTable *table)
{
#define LACKS(name)                                                                               \
    if (!table->vk##name)                                                                         \
        return "vk" #name;
    DEVICE_CALLS(LACKS)
#undef LACKS
    return NULL;
}
