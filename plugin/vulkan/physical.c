/* What a physical device offers: its description, and the capabilities that kernels choose
 * by. */
#include "internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct extension_list {
    VkExtensionProperties *list;
    uint32_t count;
};

static bool offers(const void *extensions, const char *name)
{
    const struct extension_list *e = extensions;
    for (uint32_t i = 0; i < e->count; i++)
        if (!strncmp(e->list[i].extensionName, name, sizeof e->list[i].extensionName))
            return true;
    return false;
}

static struct extension_list list_extensions(const struct vk_calls *calls, VkPhysicalDevice handle)
{
    struct extension_list e = {0};
    uint32_t count = 0;
    if (calls->EnumerateDeviceExtensionProperties(handle, NULL, &count, NULL) != VK_SUCCESS)
        return e;
    const uint32_t room = count;
    e.list = calloc((size_t)room + 1, sizeof *e.list);
    if (e.list &&
        calls->EnumerateDeviceExtensionProperties(handle, NULL, &count, e.list) >= VK_SUCCESS)
        e.count = count < room ? count : room;
    return e;
}

/* More than any device has: what work is cut by stays small. */
enum { MOST_UNITS = 1 << 16 };

static void why_not(struct vk_physical *p, const char *reason)
{
    if (p->info.why_not[0])
        return;
    snprintf(p->info.why_not, sizeof p->info.why_not, "%s", reason);
}

static ratp_device_kind kind_of(VkPhysicalDeviceType type)
{
    switch (type) {
    case VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU:
        return RATP_DEVICE_DISCRETE;
    case VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU:
        return RATP_DEVICE_INTEGRATED;
    case VK_PHYSICAL_DEVICE_TYPE_CPU:
        return RATP_DEVICE_SOFTWARE;
    default:
        return RATP_DEVICE_OTHER;
    }
}

/* How many workgroups run at a time: known on AMD and NVIDIA, guessed elsewhere. */
static uint32_t compute_units(const struct vk_calls *calls, VkPhysicalDevice handle,
                              const struct extension_list *e, ratp_device_kind kind)
{
    if (kind == RATP_DEVICE_SOFTWARE) {
        long threads = sysconf(_SC_NPROCESSORS_ONLN);
        return threads > 0 ? (uint32_t)threads : 1;
    }
    if (offers(e, VK_AMD_SHADER_CORE_PROPERTIES_EXTENSION_NAME)) {
        VkPhysicalDeviceShaderCorePropertiesAMD amd = {
            .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_CORE_PROPERTIES_AMD};
        VkPhysicalDeviceProperties2 p = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2,
                                         .pNext = &amd};
        calls->GetPhysicalDeviceProperties2(handle, &p);
        uint32_t units = amd.shaderEngineCount * amd.shaderArraysPerEngineCount *
                         amd.computeUnitsPerShaderArray;
        if (units)
            return units;
    }
    if (offers(e, VK_NV_SHADER_SM_BUILTINS_EXTENSION_NAME)) {
        VkPhysicalDeviceShaderSMBuiltinsPropertiesNV nv = {
            .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_SM_BUILTINS_PROPERTIES_NV};
        VkPhysicalDeviceProperties2 p = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2,
                                         .pNext = &nv};
        calls->GetPhysicalDeviceProperties2(handle, &p);
        if (nv.shaderSMCount)
            return nv.shaderSMCount;
    }
    return kind == RATP_DEVICE_DISCRETE ? 32 : 8;
}

/* A family without graphics where there is one: it is what compute engines are reached by
 * that share nothing with a desktop. */
static void query_queues(const struct vk_calls *calls, struct vk_physical *p)
{
    enum { ROOM = 32 };
    VkQueueFamilyProperties families[ROOM];
    uint32_t count = ROOM;
    calls->GetPhysicalDeviceQueueFamilyProperties(p->handle, &count, families);
    p->queue_family = UINT32_MAX;
    for (uint32_t i = 0; i < count && i < ROOM; i++) {
        if (!(families[i].queueFlags & VK_QUEUE_COMPUTE_BIT) || !families[i].queueCount)
            continue;
        if (p->queue_family == UINT32_MAX ||
            (families[p->queue_family].queueFlags & ~families[i].queueFlags &
             VK_QUEUE_GRAPHICS_BIT))
            p->queue_family = i;
        if (p->compute_family_count < 8)
            p->compute_families[p->compute_family_count++] = i;
    }
    if (p->queue_family == UINT32_MAX)
        why_not(p, "has no queue family with compute");
}

static void query_memory(const struct vk_calls *calls, struct vk_physical *p)
{
    VkPhysicalDeviceMemoryProperties2 memory = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PROPERTIES_2};
    calls->GetPhysicalDeviceMemoryProperties2(p->handle, &memory);
    p->memory = memory.memoryProperties;
    for (uint32_t i = 0; i < p->memory.memoryHeapCount && i < VK_MAX_MEMORY_HEAPS; i++) {
        const VkMemoryHeap *heap = &p->memory.memoryHeaps[i];
        if (!(heap->flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT) || heap->size <= p->info.memory_bytes)
            continue;
        p->info.memory_bytes = heap->size;
        p->local_heap = i;
    }
}

uint64_t vk_physical_room(const struct vk_calls *calls, const struct vk_physical *p, uint32_t heap,
                          uint64_t taken)
{
    uint64_t size = p->memory.memoryHeaps[heap].size;
    if (vk_physical_has(p, FEATURE_MEMORY_BUDGET)) {
        VkPhysicalDeviceMemoryBudgetPropertiesEXT budget = {
            .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_BUDGET_PROPERTIES_EXT};
        VkPhysicalDeviceMemoryProperties2 all = {
            .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PROPERTIES_2, .pNext = &budget};
        calls->GetPhysicalDeviceMemoryProperties2(p->handle, &all);
        size = budget.heapBudget[heap] < size ? budget.heapBudget[heap] : size;
        taken = budget.heapUsage[heap];
    }
    return size > taken ? size - taken : 0;
}

/* The capabilities that single features stand for. */
static void take_features(struct vk_physical *p, uint32_t set)
{
    const uint32_t matrix = feature_bit(FEATURE_MATRIX) | feature_bit(FEATURE_MEMORY_MODEL) |
                            feature_bit(FEATURE_MEMORY_MODEL_DEVICE);
    p->features = set;
    p->caps.int64 = (set & feature_bit(FEATURE_INT64)) != 0;
    p->caps.storage_16bit = (set & feature_bit(FEATURE_STORAGE_16BIT)) != 0;
    p->caps.float16 = (set & feature_bit(FEATURE_FLOAT16)) != 0;
    p->caps.subgroup_size_control = (set & feature_bit(FEATURE_SUBGROUP_SIZE)) != 0;
    p->caps.integer_dot = (set & feature_bit(FEATURE_INTEGER_DOT)) != 0;
    p->caps.cooperative_matrix = (set & matrix) == matrix;
}

static void query_features(const struct vk_calls *calls, struct vk_physical *p,
                           const struct extension_list *e)
{
    struct vk_feature_chain chain;
    uint32_t possible = vk_features_with_extensions((1u << FEATURES) - 1, offers, e, false);
    vk_chain_fill(&chain, possible);
    calls->GetPhysicalDeviceFeatures2(p->handle, &chain.first);
    take_features(p, vk_features_confirmed(possible, vk_chain_read(&chain.first)));
    const char *missing = vk_features_missing(p->features);
    char reason[100];
    snprintf(reason, sizeof reason, "lacks the feature %s", missing ? missing : "");
    if (missing)
        why_not(p, reason);
}

static void query_properties(const struct vk_calls *calls, struct vk_physical *p,
                             const struct extension_list *e)
{
    VkPhysicalDeviceSubgroupSizeControlPropertiesEXT size = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_PROPERTIES_EXT};
    VkPhysicalDeviceExternalMemoryHostPropertiesEXT host = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_EXTERNAL_MEMORY_HOST_PROPERTIES_EXT};
    VkPhysicalDeviceMaintenance4PropertiesKHR maintenance = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MAINTENANCE_4_PROPERTIES_KHR};
    VkPhysicalDeviceVulkan12Properties v12 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_PROPERTIES};
    VkPhysicalDeviceVulkan11Properties v11 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_PROPERTIES, .pNext = &v12};
    VkPhysicalDeviceProperties2 all = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2,
                                       .pNext = &v11};
    if (p->caps.subgroup_size_control) {
        size.pNext = all.pNext;
        all.pNext = &size;
    }
    if (vk_physical_has(p, FEATURE_HOST_IMPORT)) {
        host.pNext = all.pNext;
        all.pNext = &host;
    }
    if (offers(e, VK_KHR_MAINTENANCE_4_EXTENSION_NAME)) {
        maintenance.pNext = all.pNext;
        all.pNext = &maintenance;
    }
    calls->GetPhysicalDeviceProperties2(p->handle, &all);

    const VkPhysicalDeviceLimits *limits = &all.properties.limits;
    p->max_allocation = v11.maxMemoryAllocationSize;
    if (maintenance.maxBufferSize && maintenance.maxBufferSize < p->max_allocation)
        p->max_allocation = maintenance.maxBufferSize;
    p->import_alignment = host.minImportedHostPointerAlignment;
    snprintf(p->info.driver, sizeof p->info.driver, "%.120s%s%.120s", v12.driverName,
             v12.driverInfo[0] ? " " : "", v12.driverInfo);
    p->caps.subgroup_size = v11.subgroupSize;
    p->caps.subgroup_min = p->caps.subgroup_max = v11.subgroupSize;
    if (p->caps.subgroup_size_control) {
        p->caps.subgroup_min = size.minSubgroupSize;
        p->caps.subgroup_max = size.maxSubgroupSize;
        p->caps.full_subgroups =
            vk_physical_has(p, FEATURE_FULL_SUBGROUPS) &&
            (size.requiredSubgroupSizeStages & VK_SHADER_STAGE_COMPUTE_BIT) != 0;
    }
    if (v11.subgroupSupportedStages & VK_SHADER_STAGE_COMPUTE_BIT)
        p->caps.subgroup_operations = v11.subgroupSupportedOperations;
    p->caps.shared_bytes = limits->maxComputeSharedMemorySize;
    p->caps.max_invocations = limits->maxComputeWorkGroupInvocations;
    if (limits->maxComputeWorkGroupSize[0] < p->caps.max_invocations)
        p->caps.max_invocations = limits->maxComputeWorkGroupSize[0];
    /* A pipeline of a required subgroup size has so many subgroups at most. */
    if (p->caps.full_subgroups &&
        size.maxComputeWorkgroupSubgroups * v11.subgroupSize < p->caps.max_invocations)
        p->caps.max_invocations = size.maxComputeWorkgroupSubgroups * v11.subgroupSize;
    memcpy(p->caps.max_groups, limits->maxComputeWorkGroupCount, sizeof p->caps.max_groups);
    p->caps.vendor_id = all.properties.vendorID;
    memcpy(p->cache_uuid, all.properties.pipelineCacheUUID, VK_UUID_SIZE);
}

void vk_physical_summarise(struct vk_physical *p)
{
    const struct vk_caps *c = &p->caps;
    p->info.max_allocation = p->max_allocation / VK_PIECE_ALIGNMENT * VK_PIECE_ALIGNMENT;
    p->info.subgroup_min = c->subgroup_min;
    p->info.subgroup_max = c->subgroup_max;
    p->info.shared_bytes = c->shared_bytes;
    p->info.usable = !p->info.why_not[0];
    p->info.features = (c->storage_16bit ? RATP_FEATURE_STORAGE_16BIT : 0u) |
                       (c->float16 ? RATP_FEATURE_FLOAT16 : 0u) |
                       (c->subgroup_size_control ? RATP_FEATURE_SUBGROUP_SIZE_CONTROL : 0u) |
                       (c->integer_dot ? RATP_FEATURE_INTEGER_DOT_PRODUCT : 0u) |
                       (c->cooperative_matrix ? RATP_FEATURE_COOPERATIVE_MATRIX : 0u) |
                       (vk_physical_has(p, FEATURE_HOST_IMPORT) ? RATP_FEATURE_HOST_IMPORT : 0u) |
                       (vk_physical_has(p, FEATURE_MEMORY_BUDGET) ? RATP_FEATURE_MEMORY_BUDGET
                                                                  : 0u);
}

void vk_physical_query(const struct vk_calls *calls, VkPhysicalDevice handle,
                       struct vk_physical *p)
{
    memset(p, 0, sizeof *p);
    p->handle = handle;
    p->info.struct_size = sizeof p->info;
    VkPhysicalDeviceProperties basic;
    calls->GetPhysicalDeviceProperties(handle, &basic);
    p->info.kind = kind_of(basic.deviceType);
    p->info.api_version = basic.apiVersion;
    p->info.vendor_id = basic.vendorID;
    p->info.device_id = basic.deviceID;
    snprintf(p->info.name, sizeof p->info.name, "%.255s", basic.deviceName);
    p->caps.software = p->info.kind == RATP_DEVICE_SOFTWARE;
    if (basic.apiVersion < VK_API_VERSION_1_2) {
        char reason[64];
        snprintf(reason, sizeof reason, "speaks Vulkan %u.%u, 1.2 is needed",
                 VK_API_VERSION_MAJOR(basic.apiVersion), VK_API_VERSION_MINOR(basic.apiVersion));
        why_not(p, reason);
        return;
    }
    struct extension_list e = list_extensions(calls, handle);
    query_features(calls, p, &e);
    query_properties(calls, p, &e);
    if (p->caps.cooperative_matrix && p->caps.float16)
        vk_matrix_query(calls, p);
    query_memory(calls, p);
    query_queues(calls, p);
    uint32_t units = compute_units(calls, handle, &e, p->info.kind);
    p->caps.compute_units = units < MOST_UNITS ? units : MOST_UNITS;
    free(e.list);
    const char *doubt = vk_physical_doubt(p);
    if (doubt)
        why_not(p, doubt);
    vk_physical_summarise(p);
}

static bool host_enabled(const void *device, const char *name)
{
    const struct ratp_vulkan_device *host = device;
    for (uint32_t i = 0; i < host->extension_count; i++)
        if (host->extensions[i] && !strcmp(host->extensions[i], name))
            return true;
    return false;
}

bool vk_physical_restrict(struct vk_physical *p, const struct ratp_vulkan_device *host,
                          const char **missing)
{
    uint32_t enabled = vk_features_confirmed(p->features, vk_chain_read(host->features));
    enabled = vk_features_with_extensions(enabled, host_enabled, host, true);
    *missing = vk_features_missing(enabled);
    if (*missing)
        return false;
    take_features(p, enabled);
    p->caps.full_subgroups &= vk_physical_has(p, FEATURE_FULL_SUBGROUPS) &&
                              vk_physical_has(p, FEATURE_SUBGROUP_SIZE);
    if (!p->caps.subgroup_size_control)
        p->caps.subgroup_min = p->caps.subgroup_max = p->caps.subgroup_size;
    if (!p->caps.cooperative_matrix || !p->caps.float16)
        p->caps.matrix = (struct vk_matrix){0};
    vk_physical_summarise(p);
    return true;
}

void vk_enabled_fill(struct vk_enabled *e, const struct vk_physical *p)
{
    uint32_t set = vk_features_in_use(p->features);
    vk_chain_fill(&e->chain, set);
    e->extension_count = vk_features_extensions(set, e->extensions);
}
