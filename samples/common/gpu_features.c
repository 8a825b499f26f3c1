/* The features and extensions that a device of the samples' own is made with: those of the
 * plugin's list that the driver offers. */
#include "gpu.h"

#include <ratplus_vulkan.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

static bool is_offered(const VkExtensionProperties *list, uint32_t count, const char *name)
{
    for (uint32_t i = 0; i < count; i++)
        if (strcmp(list[i].extensionName, name) == 0)
            return true;
    return false;
}

/* The chain's struct of the feature's type, made when it is the first of it. */
static void *struct_of(struct gpu *gpu, const struct ratp_vulkan_feature *feature)
{
    VkBaseOutStructure *s = (VkBaseOutStructure *)&gpu->features;
    while (s->sType != feature->type && s->pNext)
        s = s->pNext;
    if (s->sType != feature->type) {
        s->pNext = calloc(1, feature->size);
        s = s->pNext;
        if (s)
            s->sType = feature->type;
    }
    return s;
}

static VkBool32 *member_of(struct gpu *gpu, const struct ratp_vulkan_feature *feature)
{
    return (VkBool32 *)(void *)((char *)struct_of(gpu, feature) + feature->offset);
}

static void enable_extension(struct gpu *gpu, const char *name)
{
    uint32_t i = 0;
    while (i < gpu->extension_count && strcmp(gpu->extensions[i], name) != 0)
        i++;
    if (i == gpu->extension_count && i < GPU_MAX_EXTENSIONS)
        gpu->extensions[gpu->extension_count++] = name;
}

bool gpu_choose_features(struct gpu *gpu, const struct ratp_vulkan_api *plugin,
                         struct problem *problem)
{
    uint32_t count = 0, offered = 0;
    /* The table of an older library ends before this function. */
    if (plugin->struct_size < offsetof(struct ratp_vulkan_api, features) + sizeof plugin->features)
        return problem_set(problem, "this libratplus does not say which features it needs of a "
                           "device that it is lent; one of ABI 1.1 or later does");
    const struct ratp_vulkan_feature *list = plugin->features(&count);
    vkEnumerateDeviceExtensionProperties(gpu->physical, NULL, &offered, NULL);
    VkExtensionProperties *extensions = calloc(offered + 1, sizeof *extensions);
    bool *possible = calloc(count, sizeof *possible), *on = calloc(count, sizeof *on);
    bool good = extensions && possible && on;
    if (good && vkEnumerateDeviceExtensionProperties(gpu->physical, NULL, &offered, extensions) < 0)
        offered = 0;
    gpu->features.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2;
    for (uint32_t i = 0; good && i < count; i++) {
        possible[i] = !list[i].extension || is_offered(extensions, offered, list[i].extension);
        if (possible[i] && list[i].type)
            good = struct_of(gpu, &list[i]) != NULL;
    }
    if (good) {
        vkGetPhysicalDeviceFeatures2(gpu->physical, &gpu->features);
        for (uint32_t i = 0; i < count; i++)
            on[i] = possible[i] && (!list[i].type || *member_of(gpu, &list[i]));
        /* The driver has said all that it can; what is on from here is the plugin's list. */
        for (uint32_t i = 0; i < count; i++)
            if (possible[i] && list[i].type)
                memset((char *)struct_of(gpu, &list[i]) + sizeof(VkBaseOutStructure), 0,
                       list[i].size - sizeof(VkBaseOutStructure));
        for (uint32_t i = 0; i < count; i++) {
            if (on[i] && list[i].type)
                *member_of(gpu, &list[i]) = VK_TRUE;
            if (on[i] && list[i].extension)
                enable_extension(gpu, list[i].extension);
        }
    }
    free(extensions);
    free(possible);
    free(on);
    return good || problem_set(problem, "out of memory");
}

void gpu_free_features(struct gpu *gpu)
{
    for (VkBaseOutStructure *s = gpu->features.pNext, *next; s; s = next) {
        next = s->pNext;
        free(s);
    }
    gpu->features.pNext = NULL;
}
