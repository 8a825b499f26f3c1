/* The table of device features: what it says of itself, chains that are written and read by
 * it, and hosts that enable features in one struct or another. */
#include "check.h"

#include "vulkan/internal.h"

#include <string.h>

static uint32_t bits(const enum vk_feature *list, uint32_t count)
{
    uint32_t set = 0;
    for (uint32_t i = 0; i < count; i++)
        set |= feature_bit(list[i]);
    return set;
}
#define SET(...)                                                                                  \
    bits((enum vk_feature[]){__VA_ARGS__},                                                        \
         sizeof((enum vk_feature[]){__VA_ARGS__}) / sizeof(enum vk_feature))

static bool is_recommended(const char *name)
{
    for (const char *const *e = vk_recommended_extensions; *e; e++)
        if (!strcmp(*e, name))
            return true;
    return false;
}

static void test_table(void)
{
    uint32_t count = 0, required = 0, extensions = 0;
    const struct ratp_vulkan_feature *list = vk_features(&count);
    CHECK(vk_features(NULL) == list);
    CHECK(count > FEATURE_MEMORY_BUDGET && count <= FEATURES);
    for (uint32_t i = 0; i < FEATURES; i++) {
        CHECK(list[i].name && list[i].gives);
        CHECK(list[i].type || list[i].extension);
        /* Every struct of single features fits the chain's. */
        if (list[i].type && list[i].type != VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2)
            CHECK(list[i].size <= sizeof(struct vk_feature_struct) &&
                  list[i].offset + sizeof(VkBool32) <= list[i].size &&
                  list[i].offset >= offsetof(struct vk_feature_struct, member));
        if (i < count) {
            required += list[i].required;
            CHECK(!list[i].extension || is_recommended(list[i].extension));
        }
    }
    CHECK_EQUAL(required, 2);
    const char *needed[FEATURES];
    extensions = vk_features_extensions((1u << count) - 1, needed);
    for (const char *const *e = vk_recommended_extensions; *e; e++)
        extensions--;
    CHECK_EQUAL(extensions, 0); /* the two lists have the same extensions */
}

static void test_chains(void)
{
    for (uint32_t set = 0; set < 1u << FEATURES; set++) {
        struct vk_feature_chain chain;
        vk_chain_fill(&chain, set);
        uint32_t read = vk_chain_read(&chain.first);
        if (!CHECK_EQUAL(vk_features_confirmed(set, read), set) || !CHECK_EQUAL(read & ~set, 0))
            return;
    }
}

static bool lists_nothing(const void *list, const char *name)
{
    (void)list, (void)name;
    return false;
}

static void test_sets(void)
{
    uint32_t all = (1u << FEATURES) - 1, matrix = SET(FEATURE_MATRIX, FEATURE_MEMORY_MODEL,
                                                      FEATURE_MEMORY_MODEL_DEVICE);
    CHECK_EQUAL(vk_features_in_use(all) & matrix, VK_USES_MATRIX ? matrix : 0u);
    /* Matrices without their memory model are of no use, and neither is the model alone. */
    CHECK_EQUAL(vk_features_in_use(all & ~feature_bit(FEATURE_MEMORY_MODEL)) & matrix, 0);
    CHECK_EQUAL(vk_features_in_use(all & ~feature_bit(FEATURE_MATRIX)) & matrix, 0);
    CHECK(!vk_features_missing(all));
    CHECK(!strcmp(vk_features_missing(all & ~feature_bit(FEATURE_TIMELINE)), "timelineSemaphore"));
    CHECK(!strcmp(vk_features_missing(0), "bufferDeviceAddress"));
    uint32_t none = vk_features_with_extensions(all, lists_nothing, NULL, false);
    CHECK_EQUAL(none, SET(FEATURE_BUFFER_ADDRESS, FEATURE_TIMELINE, FEATURE_STORAGE_16BIT,
                          FEATURE_FLOAT16, FEATURE_INT64, FEATURE_MEMORY_MODEL,
                          FEATURE_MEMORY_MODEL_DEVICE));
    /* What Vulkan 1.3 has taken up, a host may have without its extension. */
    CHECK_EQUAL(vk_features_with_extensions(all, lists_nothing, NULL, true) & ~none,
                SET(FEATURE_SUBGROUP_SIZE, FEATURE_FULL_SUBGROUPS, FEATURE_INTEGER_DOT));
}

/* Hosts name the features in structs of a Vulkan version, or in single ones. */
static void test_hosts(const struct vk_physical *device)
{
    VkPhysicalDeviceVulkan13Features v13 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_3_FEATURES,
        .subgroupSizeControl = VK_TRUE, .computeFullSubgroups = VK_TRUE,
        .shaderIntegerDotProduct = VK_TRUE};
    VkPhysicalDeviceVulkan12Features v12 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES, .pNext = &v13,
        .bufferDeviceAddress = VK_TRUE, .timelineSemaphore = VK_TRUE, .shaderFloat16 = VK_TRUE,
        .vulkanMemoryModel = VK_TRUE, .vulkanMemoryModelDeviceScope = VK_TRUE};
    VkPhysicalDeviceVulkan11Features v11 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES, .pNext = &v12,
        .storageBuffer16BitAccess = VK_TRUE};
    const VkPhysicalDeviceFeatures2 versions = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2, .pNext = &v11,
        .features.shaderInt64 = VK_TRUE};
    const char *extensions[FEATURES], *missing = NULL;
    struct vk_feature_chain single;
    struct vk_physical as_versions = *device, as_single = *device, less = *device;
    struct ratp_vulkan_device host = {.struct_size = sizeof host, .extensions = extensions};
    host.extension_count = vk_features_extensions(device->features, extensions);
    host.features = &versions;
    CHECK(vk_physical_restrict(&as_versions, &host, &missing));
    vk_chain_fill(&single, device->features);
    host.features = &single.first;
    CHECK(vk_physical_restrict(&as_single, &host, &missing));
    CHECK_EQUAL(as_single.features, device->features);
    CHECK_EQUAL(as_single.info.features, device->info.features);
    CHECK_EQUAL(as_versions.features, device->features & ~feature_bit(FEATURE_MATRIX));
    /* What the host did not enable is not used, though the device has it. */
    vk_chain_fill(&single, SET(FEATURE_BUFFER_ADDRESS, FEATURE_TIMELINE));
    host.extension_count = 0;
    CHECK(vk_physical_restrict(&less, &host, &missing));
    CHECK_EQUAL(less.features, SET(FEATURE_BUFFER_ADDRESS, FEATURE_TIMELINE));
    CHECK_EQUAL(less.info.features, 0);
    CHECK(!less.caps.full_subgroups && !less.caps.matrix.rows);
    CHECK_EQUAL(less.caps.subgroup_min, less.caps.subgroup_max);
    vk_chain_fill(&single, feature_bit(FEATURE_BUFFER_ADDRESS));
    less = *device;
    CHECK(!vk_physical_restrict(&less, &host, &missing));
    CHECK(missing && !strcmp(missing, "timelineSemaphore"));
}

int main(void)
{
    struct log log = {0};
    struct error err;
    struct vk_instance *instance = NULL;
    RUN(test_table);
    RUN(test_chains);
    RUN(test_sets);
    if (!CHECK(vk_instance_create(&log, false, &instance, &err) == RATP_OK && instance))
        return check_result();
    for (uint32_t i = 0; i < vk_device_count(instance); i++)
        if (instance->physical[i].info.usable)
            test_hosts(&instance->physical[i]);
    vk_instance_destroy(&instance);
    return check_result();
}
