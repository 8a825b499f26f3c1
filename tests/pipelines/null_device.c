#include "null_device.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_EXTENSIONS = 16 };
static const VkDeviceSize HEAP_SIZE = (VkDeviceSize)8 << 30;

static VkSemaphore only_semaphore = (VkSemaphore)(uintptr_t)1;
static uint64_t counter; /* of all semaphores: every submission is done at once */
static unsigned pipelines;
static PFN_vkCreateComputePipelines create_pipelines;

static VkResult create_semaphore(VkDevice device, const VkSemaphoreCreateInfo *info,
                                 const VkAllocationCallbacks *allocator, VkSemaphore *out)
{
    (void)device, (void)info, (void)allocator;
    *out = only_semaphore;
    return VK_SUCCESS;
}

static void destroy_semaphore(VkDevice device, VkSemaphore semaphore,
                              const VkAllocationCallbacks *allocator)
{
    (void)device, (void)semaphore, (void)allocator;
}

static VkResult read_counter(VkDevice device, VkSemaphore semaphore, uint64_t *value)
{
    (void)device, (void)semaphore;
    *value = counter;
    return VK_SUCCESS;
}

static VkResult wait_semaphores(VkDevice device, const VkSemaphoreWaitInfo *info, uint64_t timeout)
{
    (void)device, (void)info, (void)timeout;
    return VK_SUCCESS;
}

static VkResult submit(VkQueue queue, uint32_t count, const VkSubmitInfo *infos, VkFence fence)
{
    (void)queue, (void)fence;
    for (uint32_t i = 0; i < count; i++)
        for (const VkBaseInStructure *s = infos[i].pNext; s; s = s->pNext)
            if (s->sType == VK_STRUCTURE_TYPE_TIMELINE_SEMAPHORE_SUBMIT_INFO) {
                const VkTimelineSemaphoreSubmitInfo *t = (const void *)s;
                for (uint32_t k = 0; k < t->signalSemaphoreValueCount; k++)
                    if (t->pSignalSemaphoreValues[k] > counter)
                        counter = t->pSignalSemaphoreValues[k];
            }
    return VK_SUCCESS;
}

/* Device memory is host memory that only the library's own copies touch. */
static VkResult allocate(VkDevice device, const VkMemoryAllocateInfo *info,
                         const VkAllocationCallbacks *allocator, VkDeviceMemory *out)
{
    (void)device, (void)allocator;
    void *memory = calloc(1, info->allocationSize);
    *out = (VkDeviceMemory)(uintptr_t)memory;
    return memory ? VK_SUCCESS : VK_ERROR_OUT_OF_HOST_MEMORY;
}

static void free_memory(VkDevice device, VkDeviceMemory memory,
                        const VkAllocationCallbacks *allocator)
{
    (void)device, (void)allocator;
    free((void *)(uintptr_t)memory);
}

static VkResult map(VkDevice device, VkDeviceMemory memory, VkDeviceSize offset, VkDeviceSize size,
                    VkMemoryMapFlags flags, void **out)
{
    (void)device, (void)size, (void)flags;
    *out = (char *)(uintptr_t)memory + offset;
    return VK_SUCCESS;
}

static VkResult bind(VkDevice device, VkBuffer buffer, VkDeviceMemory memory, VkDeviceSize offset)
{
    (void)device, (void)buffer, (void)memory, (void)offset;
    return VK_SUCCESS;
}

static VkDeviceSize buffer_size;

static VkResult create_buffer(VkDevice device, const VkBufferCreateInfo *info,
                              const VkAllocationCallbacks *allocator, VkBuffer *out)
{
    buffer_size = info->size;
    return vkCreateBuffer(device, info, allocator, out);
}

/* The library asks right after it has made the buffer. */
static void requirements(VkDevice device, VkBuffer buffer, VkMemoryRequirements *out)
{
    (void)device, (void)buffer;
    *out = (VkMemoryRequirements){
        .size = buffer_size, .alignment = 256, .memoryTypeBits = 1};
}

static VkDeviceAddress address(VkDevice device, const VkBufferDeviceAddressInfo *info)
{
    (void)device, (void)info;
    return 1u << 20;
}

static VkResult create_pool(VkDevice device, const VkCommandPoolCreateInfo *info,
                            const VkAllocationCallbacks *allocator, VkCommandPool *out)
{
    (void)device, (void)info, (void)allocator;
    *out = (VkCommandPool)(uintptr_t)1;
    return VK_SUCCESS;
}

static void destroy_pool(VkDevice device, VkCommandPool pool,
                         const VkAllocationCallbacks *allocator)
{
    (void)device, (void)pool, (void)allocator;
}

static VkResult reset_pool(VkDevice device, VkCommandPool pool, VkCommandPoolResetFlags flags)
{
    (void)device, (void)pool, (void)flags;
    return VK_SUCCESS;
}

static VkResult allocate_commands(VkDevice device, const VkCommandBufferAllocateInfo *info,
                                  VkCommandBuffer *out)
{
    static int commands;
    (void)device;
    for (uint32_t i = 0; i < info->commandBufferCount; i++)
        out[i] = (VkCommandBuffer)(void *)&commands;
    return VK_SUCCESS;
}

static VkResult begin(VkCommandBuffer c, const VkCommandBufferBeginInfo *info)
{
    (void)c, (void)info;
    return VK_SUCCESS;
}

static VkResult end(VkCommandBuffer c)
{
    (void)c;
    return VK_SUCCESS;
}

static void barrier(VkCommandBuffer c, VkPipelineStageFlags from, VkPipelineStageFlags to,
                    VkDependencyFlags flags, uint32_t memory_count, const VkMemoryBarrier *memory,
                    uint32_t buffer_count, const VkBufferMemoryBarrier *buffers,
                    uint32_t image_count, const VkImageMemoryBarrier *images)
{
    (void)c, (void)from, (void)to, (void)flags, (void)memory_count, (void)memory;
    (void)buffer_count, (void)buffers, (void)image_count, (void)images;
}

static void bind_pipeline(VkCommandBuffer c, VkPipelineBindPoint point, VkPipeline pipeline)
{
    (void)c, (void)point, (void)pipeline;
}

static void push(VkCommandBuffer c, VkPipelineLayout layout, VkShaderStageFlags stages,
                 uint32_t offset, uint32_t size, const void *values)
{
    (void)c, (void)layout, (void)stages, (void)offset, (void)size, (void)values;
}

static void dispatch(VkCommandBuffer c, uint32_t x, uint32_t y, uint32_t z)
{
    (void)c, (void)x, (void)y, (void)z;
}

static void copy(VkCommandBuffer c, VkBuffer from, VkBuffer to, uint32_t count,
                 const VkBufferCopy *regions)
{
    (void)c, (void)from, (void)to, (void)count, (void)regions;
}

static void fill(VkCommandBuffer c, VkBuffer buffer, VkDeviceSize offset, VkDeviceSize size,
                 uint32_t value)
{
    (void)c, (void)buffer, (void)offset, (void)size, (void)value;
}

static VkResult count_pipelines(VkDevice device, VkPipelineCache cache, uint32_t count,
                                const VkComputePipelineCreateInfo *infos,
                                const VkAllocationCallbacks *allocator, VkPipeline *out)
{
    VkResult result = create_pipelines(device, cache, count, infos, allocator, out);
    if (result == VK_SUCCESS)
        pipelines += count;
    return result;
}

unsigned null_device_pipelines(void)
{
    return pipelines;
}

static PFN_vkVoidFunction device_call(VkDevice device, const char *name)
{
    static const struct {
        const char *name;
        PFN_vkVoidFunction call;
    } answered[] = {
        {"vkCreateSemaphore", (PFN_vkVoidFunction)create_semaphore},
        {"vkDestroySemaphore", (PFN_vkVoidFunction)destroy_semaphore},
        {"vkGetSemaphoreCounterValue", (PFN_vkVoidFunction)read_counter},
        {"vkWaitSemaphores", (PFN_vkVoidFunction)wait_semaphores},
        {"vkQueueSubmit", (PFN_vkVoidFunction)submit},
        {"vkAllocateMemory", (PFN_vkVoidFunction)allocate},
        {"vkFreeMemory", (PFN_vkVoidFunction)free_memory},
        {"vkCreateBuffer", (PFN_vkVoidFunction)create_buffer},
        {"vkGetBufferMemoryRequirements", (PFN_vkVoidFunction)requirements},
        {"vkMapMemory", (PFN_vkVoidFunction)map},
        {"vkBindBufferMemory", (PFN_vkVoidFunction)bind},
        {"vkGetBufferDeviceAddress", (PFN_vkVoidFunction)address},
        {"vkCreateCommandPool", (PFN_vkVoidFunction)create_pool},
        {"vkDestroyCommandPool", (PFN_vkVoidFunction)destroy_pool},
        {"vkResetCommandPool", (PFN_vkVoidFunction)reset_pool},
        {"vkAllocateCommandBuffers", (PFN_vkVoidFunction)allocate_commands},
        {"vkBeginCommandBuffer", (PFN_vkVoidFunction)begin},
        {"vkEndCommandBuffer", (PFN_vkVoidFunction)end},
        {"vkCmdPipelineBarrier", (PFN_vkVoidFunction)barrier},
        {"vkCmdBindPipeline", (PFN_vkVoidFunction)bind_pipeline},
        {"vkCmdPushConstants", (PFN_vkVoidFunction)push},
        {"vkCmdDispatch", (PFN_vkVoidFunction)dispatch},
        {"vkCmdCopyBuffer", (PFN_vkVoidFunction)copy},
        {"vkCmdFillBuffer", (PFN_vkVoidFunction)fill},
        {"vkCreateComputePipelines", (PFN_vkVoidFunction)count_pipelines},
    };
    for (size_t i = 0; i < sizeof answered / sizeof *answered; i++)
        if (strcmp(name, answered[i].name) == 0)
            return answered[i].call;
    return vkGetDeviceProcAddr(device, name);
}

static void memory_properties(VkPhysicalDevice device, VkPhysicalDeviceMemoryProperties2 *out)
{
    (void)device;
    out->memoryProperties = (VkPhysicalDeviceMemoryProperties){
        .memoryTypeCount = 1,
        .memoryTypes = {{.propertyFlags = VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT |
                                          VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT |
                                          VK_MEMORY_PROPERTY_HOST_COHERENT_BIT |
                                          VK_MEMORY_PROPERTY_HOST_CACHED_BIT}},
        .memoryHeapCount = 1,
        .memoryHeaps = {{.size = HEAP_SIZE, .flags = VK_MEMORY_HEAP_DEVICE_LOCAL_BIT}},
    };
    for (VkBaseOutStructure *s = out->pNext; s; s = s->pNext)
        if (s->sType == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_BUDGET_PROPERTIES_EXT)
            ((VkPhysicalDeviceMemoryBudgetPropertiesEXT *)(void *)s)->heapBudget[0] = HEAP_SIZE;
}

static PFN_vkVoidFunction instance_call(VkInstance instance, const char *name)
{
    if (strncmp(name, "vkGetPhysicalDeviceMemoryProperties2", 36) == 0)
        return (PFN_vkVoidFunction)memory_properties;
    if (strcmp(name, "vkGetDeviceProcAddr") == 0)
        return (PFN_vkVoidFunction)device_call;
    return vkGetInstanceProcAddr(instance, name);
}

/* Those of the library's recommended extensions that the device has. */
static uint32_t choose_extensions(VkPhysicalDevice device, const char *const *wanted,
                                  const char **chosen)
{
    uint32_t count = 0, found = 0;
    vkEnumerateDeviceExtensionProperties(device, NULL, &count, NULL);
    VkExtensionProperties *list = calloc(count + 1, sizeof *list);
    if (!list)
        return 0;
    vkEnumerateDeviceExtensionProperties(device, NULL, &count, list);
    for (; *wanted && found < MAX_EXTENSIONS; wanted++)
        for (uint32_t i = 0; i < count; i++)
            if (strcmp(*wanted, list[i].extensionName) == 0) {
                chosen[found++] = *wanted;
                break;
            }
    free(list);
    return found;
}

bool null_device_make(const char *const *wanted, struct ratp_vulkan_device *out,
                      const char **why)
{
    static const char *extensions[MAX_EXTENSIONS];
    static VkPhysicalDeviceVulkan13Features v13 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_3_FEATURES};
    static VkPhysicalDeviceVulkan12Features v12 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES, .pNext = &v13};
    static VkPhysicalDeviceVulkan11Features v11 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES, .pNext = &v12};
    static VkPhysicalDeviceFeatures2 features = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2, .pNext = &v11};
    const VkApplicationInfo application = {.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO,
                                           .apiVersion = VK_API_VERSION_1_3};
    const VkInstanceCreateInfo ici = {.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO,
                                      .pApplicationInfo = &application};
    uint32_t count = 1;
    const float priority = 1;
    const VkDeviceQueueCreateInfo queue = {.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
                                           .queueCount = 1, .pQueuePriorities = &priority};

    *out = (struct ratp_vulkan_device){.struct_size = sizeof *out,
                                       .get_instance_proc_addr = instance_call,
                                       .api_version = VK_API_VERSION_1_3};
    *why = "vkCreateInstance failed";
    if (vkCreateInstance(&ici, NULL, &out->instance) != VK_SUCCESS)
        return false;
    *why = "there is no Vulkan device";
    if (vkEnumeratePhysicalDevices(out->instance, &count, &out->physical_device) < VK_SUCCESS ||
        count == 0)
        return false;
    vkGetPhysicalDeviceFeatures2(out->physical_device, &features);
    out->features = &features;
    out->extensions = extensions;
    out->extension_count = choose_extensions(out->physical_device, wanted, extensions);
    const VkDeviceCreateInfo dci = {
        .sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO, .pNext = &features,
        .queueCreateInfoCount = 1, .pQueueCreateInfos = &queue,
        .enabledExtensionCount = out->extension_count, .ppEnabledExtensionNames = extensions,
    };
    *why = "vkCreateDevice failed";
    if (vkCreateDevice(out->physical_device, &dci, NULL, &out->device) != VK_SUCCESS)
        return false;
    create_pipelines =
        (PFN_vkCreateComputePipelines)vkGetDeviceProcAddr(out->device, "vkCreateComputePipelines");
    return true;
}
