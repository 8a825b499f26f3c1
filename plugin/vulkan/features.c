/* The table of device features, and what is asked of it: which a device or a host offers,
 * which are in use, and how they are enabled. */
#include "features.h"

#include "matrix.h"

#include <stddef.h>
#include <string.h>

/* For the member of a struct that has one feature, or a few that belong together. */
#define IN(STRUCT, MEMBER) .size = sizeof(STRUCT), .offset = offsetof(STRUCT, MEMBER)

static const struct ratp_vulkan_feature table[FEATURES] = {
    [FEATURE_BUFFER_ADDRESS] =
        {"bufferDeviceAddress", NULL, "kernels reach all memory by its address",
         VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_BUFFER_DEVICE_ADDRESS_FEATURES,
         IN(VkPhysicalDeviceBufferDeviceAddressFeatures, bufferDeviceAddress), .required = 1},
    [FEATURE_TIMELINE] =
        {"timelineSemaphore", NULL, "the ends of submissions are counted",
         VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_TIMELINE_SEMAPHORE_FEATURES,
         IN(VkPhysicalDeviceTimelineSemaphoreFeatures, timelineSemaphore), .required = 1},
    [FEATURE_STORAGE_16BIT] =
        {"storageBuffer16BitAccess", NULL, "float16 and bfloat16 are loaded as such",
         VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_16BIT_STORAGE_FEATURES,
         IN(VkPhysicalDevice16BitStorageFeatures, storageBuffer16BitAccess)},
    [FEATURE_FLOAT16] =
        {"shaderFloat16", NULL, "matrices of float16",
         VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_FLOAT16_INT8_FEATURES,
         IN(VkPhysicalDeviceShaderFloat16Int8Features, shaderFloat16)},
    [FEATURE_INT64] =
        {"shaderInt64", NULL, "cheaper addresses on devices that are CPUs",
         VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2,
         IN(VkPhysicalDeviceFeatures2, features.shaderInt64)},
    [FEATURE_SUBGROUP_SIZE] =
        {"subgroupSizeControl", VK_EXT_SUBGROUP_SIZE_CONTROL_EXTENSION_NAME,
         "subgroups of a size that a kernel counts on",
         VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_FEATURES_EXT,
         IN(VkPhysicalDeviceSubgroupSizeControlFeaturesEXT, subgroupSizeControl)},
    [FEATURE_FULL_SUBGROUPS] =
        {"computeFullSubgroups", VK_EXT_SUBGROUP_SIZE_CONTROL_EXTENSION_NAME,
         "kernels whose lanes exchange values",
         VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_FEATURES_EXT,
         IN(VkPhysicalDeviceSubgroupSizeControlFeaturesEXT, computeFullSubgroups)},
    [FEATURE_INTEGER_DOT] =
        {"shaderIntegerDotProduct", VK_KHR_SHADER_INTEGER_DOT_PRODUCT_EXTENSION_NAME,
         "products of 8-bit numbers",
         VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_INTEGER_DOT_PRODUCT_FEATURES_KHR,
         IN(VkPhysicalDeviceShaderIntegerDotProductFeaturesKHR, shaderIntegerDotProduct)},
    [FEATURE_HOST_IMPORT] =
        {VK_EXT_EXTERNAL_MEMORY_HOST_EXTENSION_NAME, VK_EXT_EXTERNAL_MEMORY_HOST_EXTENSION_NAME,
         "buffers over a host's own memory", 0, 0, 0, 0},
    [FEATURE_MEMORY_BUDGET] =
        {VK_EXT_MEMORY_BUDGET_EXTENSION_NAME, VK_EXT_MEMORY_BUDGET_EXTENSION_NAME,
         "no more memory is taken than the system has left", 0, 0, 0, 0},
    /* Shaders that use matrices are of the Vulkan memory model. Where that is enabled, the
     * atomics of the others, which are of the device's scope, need the second. */
    [FEATURE_MEMORY_MODEL] =
        {"vulkanMemoryModel", NULL, "needed beside cooperativeMatrix",
         VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_MEMORY_MODEL_FEATURES,
         IN(VkPhysicalDeviceVulkanMemoryModelFeatures, vulkanMemoryModel)},
    [FEATURE_MEMORY_MODEL_DEVICE] =
        {"vulkanMemoryModelDeviceScope", NULL, "needed beside cooperativeMatrix",
         VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_MEMORY_MODEL_FEATURES,
         IN(VkPhysicalDeviceVulkanMemoryModelFeatures, vulkanMemoryModelDeviceScope)},
    [FEATURE_MATRIX] =
        {"cooperativeMatrix", VK_KHR_COOPERATIVE_MATRIX_EXTENSION_NAME, "prompts on matrix units",
         VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_FEATURES_KHR,
         IN(VkPhysicalDeviceCooperativeMatrixFeaturesKHR, cooperativeMatrix)},
};
#undef IN

/* Where the structs that collect the features of a Vulkan version have them; type 0: nowhere. */
static const struct {
    VkStructureType type;
    uint32_t offset;
} collected[FEATURES] = {
#define IN(VERSION, STRUCT, MEMBER)                                                               \
    {VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_##VERSION##_FEATURES, offsetof(STRUCT, MEMBER)}
    [FEATURE_BUFFER_ADDRESS] = IN(1_2, VkPhysicalDeviceVulkan12Features, bufferDeviceAddress),
    [FEATURE_TIMELINE] = IN(1_2, VkPhysicalDeviceVulkan12Features, timelineSemaphore),
    [FEATURE_STORAGE_16BIT] = IN(1_1, VkPhysicalDeviceVulkan11Features, storageBuffer16BitAccess),
    [FEATURE_FLOAT16] = IN(1_2, VkPhysicalDeviceVulkan12Features, shaderFloat16),
    [FEATURE_SUBGROUP_SIZE] = IN(1_3, VkPhysicalDeviceVulkan13Features, subgroupSizeControl),
    [FEATURE_FULL_SUBGROUPS] = IN(1_3, VkPhysicalDeviceVulkan13Features, computeFullSubgroups),
    [FEATURE_INTEGER_DOT] = IN(1_3, VkPhysicalDeviceVulkan13Features, shaderIntegerDotProduct),
    [FEATURE_MEMORY_MODEL] = IN(1_2, VkPhysicalDeviceVulkan12Features, vulkanMemoryModel),
    [FEATURE_MEMORY_MODEL_DEVICE] =
        IN(1_2, VkPhysicalDeviceVulkan12Features, vulkanMemoryModelDeviceScope),
#undef IN
};

const char *const vk_recommended_extensions[] = {
    VK_EXT_SUBGROUP_SIZE_CONTROL_EXTENSION_NAME,
    VK_KHR_SHADER_INTEGER_DOT_PRODUCT_EXTENSION_NAME,
    VK_EXT_EXTERNAL_MEMORY_HOST_EXTENSION_NAME,
    VK_EXT_MEMORY_BUDGET_EXTENSION_NAME,
    VK_USES_MATRIX ? VK_KHR_COOPERATIVE_MATRIX_EXTENSION_NAME : NULL,
    NULL,
};

/* They go together. */
static const uint32_t matrix_features =
    1u << FEATURE_MEMORY_MODEL | 1u << FEATURE_MEMORY_MODEL_DEVICE | 1u << FEATURE_MATRIX;

static bool has(uint32_t set, enum vk_feature feature)
{
    return (set & feature_bit(feature)) != 0;
}

const struct ratp_vulkan_feature *vk_features(uint32_t *count)
{
    if (count)
        *count = VK_USES_MATRIX ? FEATURES : FEATURE_MEMORY_MODEL;
    return table;
}

/* ---- Chains of structs ---- */

static struct vk_feature_struct *link_of(struct vk_feature_chain *chain, VkStructureType type)
{
    uint32_t i = 0;
    while (i < chain->count && chain->link[i].type != type)
        i++;
    if (i == chain->count) {
        chain->link[chain->count++] = (struct vk_feature_struct){type, chain->first.pNext, {0}};
        chain->first.pNext = &chain->link[i];
    }
    return &chain->link[i];
}

void vk_chain_fill(struct vk_feature_chain *chain, uint32_t set)
{
    *chain = (struct vk_feature_chain){
        .first.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2};
    for (enum vk_feature f = 0; f < FEATURES; f++) {
        if (!has(set, f) || !table[f].type)
            continue;
        char *in = table[f].type == chain->first.sType ? (char *)&chain->first
                                                        : (char *)link_of(chain, table[f].type);
        memcpy(in + table[f].offset, &(VkBool32){VK_TRUE}, sizeof(VkBool32));
    }
}

static bool is_on(const void *in, uint32_t offset)
{
    VkBool32 value;
    memcpy(&value, (const char *)in + offset, sizeof value);
    return value != VK_FALSE;
}

uint32_t vk_chain_read(const VkPhysicalDeviceFeatures2 *first)
{
    uint32_t set = 0;
    for (const VkBaseInStructure *s = (const VkBaseInStructure *)first; s; s = s->pNext)
        for (enum vk_feature f = 0; f < FEATURES; f++)
            if ((table[f].type && s->sType == table[f].type && is_on(s, table[f].offset)) ||
                (collected[f].type && s->sType == collected[f].type &&
                 is_on(s, collected[f].offset)))
                set |= feature_bit(f);
    return set;
}

/* ---- Sets ---- */

uint32_t vk_features_confirmed(uint32_t set, uint32_t read)
{
    for (enum vk_feature f = 0; f < FEATURES; f++)
        if (table[f].type && !has(read, f))
            set &= ~feature_bit(f);
    return set;
}

uint32_t vk_features_with_extensions(uint32_t set, vk_has_extension *has_extension,
                                     const void *list, bool host)
{
    for (enum vk_feature f = 0; f < FEATURES; f++) {
        bool free = !table[f].extension || (host && collected[f].type);
        if (!free && !has_extension(list, table[f].extension))
            set &= ~feature_bit(f);
    }
    return set;
}

uint32_t vk_features_in_use(uint32_t offered)
{
    bool matrix = VK_USES_MATRIX && (offered & matrix_features) == matrix_features;
    return matrix ? offered : offered & ~matrix_features;
}

uint32_t vk_features_extensions(uint32_t set, const char **extensions)
{
    uint32_t count = 0;
    for (enum vk_feature f = 0; f < FEATURES; f++) {
        uint32_t i = 0;
        if (!has(set, f) || !table[f].extension)
            continue;
        while (i < count && strcmp(extensions[i], table[f].extension) != 0)
            i++;
        if (i == count)
            extensions[count++] = table[f].extension;
    }
    return count;
}

const char *vk_features_missing(uint32_t set)
{
    for (enum vk_feature f = 0; f < FEATURES; f++)
        if (table[f].required && !has(set, f))
            return table[f].name;
    return NULL;
}
