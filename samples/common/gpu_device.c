#include "gpu.h"
#include "plugin.h"

#include <ctype.h>
#include <ratplus_vulkan.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_DEVICES 16
#define PUSH_BYTES 64

static const char layer_name[] = "VK_LAYER_KHRONOS_validation";

static VKAPI_ATTR VkBool32 VKAPI_CALL
on_message(VkDebugUtilsMessageSeverityFlagBitsEXT severity, VkDebugUtilsMessageTypeFlagsEXT types,
           const VkDebugUtilsMessengerCallbackDataEXT *data, void *user)
{
    (void)severity;
    (void)types;
    ++*(uint32_t *)user;
    fprintf(stderr, "validation: %s\n", data->pMessage);
    return VK_FALSE;
}

static bool layer_is_there(void)
{
    VkLayerProperties layers[64];
    uint32_t count = 64;
    if (vkEnumerateInstanceLayerProperties(&count, layers) < 0)
        return false;
    for (uint32_t i = 0; i < count; i++)
        if (strcmp(layers[i].layerName, layer_name) == 0)
            return true;
    return false;
}

static uint32_t instance_version(void)
{
    return volkGetInstanceVersion() < VK_API_VERSION_1_3 ? VK_API_VERSION_1_2 : VK_API_VERSION_1_3;
}

static bool open_instance(struct gpu *gpu, bool validate, struct problem *problem)
{
    if (volkInitialize() != VK_SUCCESS || volkGetInstanceVersion() < VK_API_VERSION_1_2)
        return problem_set(problem, "there is no Vulkan 1.2 loader");
    if (validate && !layer_is_there())
        return problem_set(problem, "--validate: %s is not installed", layer_name);

    const VkApplicationInfo application = {
        .sType = VK_STRUCTURE_TYPE_APPLICATION_INFO,
        .pApplicationName = "libratplus samples",
        .apiVersion = instance_version(),
    };
    static const VkValidationFeatureEnableEXT checks[] = {
        VK_VALIDATION_FEATURE_ENABLE_SYNCHRONIZATION_VALIDATION_EXT};
    const VkValidationFeaturesEXT validation = {
        .sType = VK_STRUCTURE_TYPE_VALIDATION_FEATURES_EXT,
        .enabledValidationFeatureCount = 1,
        .pEnabledValidationFeatures = checks,
    };
    /* In the chain of vkCreateInstance it also hears of leaked objects. */
    const VkDebugUtilsMessengerCreateInfoEXT messenger = {
        .sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_MESSENGER_CREATE_INFO_EXT,
        .pNext = &validation,
        .messageSeverity = VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT |
                           VK_DEBUG_UTILS_MESSAGE_SEVERITY_WARNING_BIT_EXT,
        .messageType = VK_DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT |
                       VK_DEBUG_UTILS_MESSAGE_TYPE_PERFORMANCE_BIT_EXT,
        .pfnUserCallback = on_message,
        .pUserData = gpu->messages,
    };
    static const char *const layers[] = {layer_name};
    static const char *const extensions[] = {VK_EXT_DEBUG_UTILS_EXTENSION_NAME,
                                             VK_EXT_VALIDATION_FEATURES_EXTENSION_NAME};
    const VkInstanceCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO,
        .pNext = validate ? &messenger : NULL,
        .pApplicationInfo = &application,
        .enabledLayerCount = validate ? 1 : 0,
        .ppEnabledLayerNames = layers,
        .enabledExtensionCount = validate ? 2 : 0,
        .ppEnabledExtensionNames = extensions,
    };
    if (!gpu_check(vkCreateInstance(&info, NULL, &gpu->instance), "vkCreateInstance", problem))
        return false;
    volkLoadInstanceOnly(gpu->instance);
    VkDebugUtilsMessengerCreateInfoEXT later = messenger;
    later.pNext = NULL;
    return !validate ||
           gpu_check(vkCreateDebugUtilsMessengerEXT(gpu->instance, &later, NULL, &gpu->messenger),
                     "vkCreateDebugUtilsMessengerEXT", problem);
}

/* As the library does: a family without graphics before one with it. */
static bool find_queue(VkPhysicalDevice physical, uint32_t *family)
{
    VkQueueFamilyProperties families[32];
    uint32_t count = 32;
    vkGetPhysicalDeviceQueueFamilyProperties(physical, &count, families);
    *family = count;
    for (uint32_t i = 0; i < count; i++) {
        const VkQueueFlags flags = families[i].queueFlags;
        if ((flags & VK_QUEUE_COMPUTE_BIT) &&
            (*family == count || (families[*family].queueFlags & ~flags & VK_QUEUE_GRAPHICS_BIT)))
            *family = i;
    }
    return *family < count;
}

static bool is_usable(VkPhysicalDevice physical, const VkPhysicalDeviceProperties *properties)
{
    VkPhysicalDeviceVulkan12Features features12 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES};
    VkPhysicalDeviceFeatures2 features = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2, .pNext = &features12};
    uint32_t family;
    if (properties->apiVersion < VK_API_VERSION_1_2 || !find_queue(physical, &family))
        return false;
    vkGetPhysicalDeviceFeatures2(physical, &features);
    return features12.bufferDeviceAddress && features12.timelineSemaphore &&
           properties->limits.maxComputeWorkGroupInvocations >= 256;
}

/* Smaller is better. */
static int rank(VkPhysicalDeviceType type)
{
    switch (type) {
    case VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU:
        return 0;
    case VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU:
        return 1;
    case VK_PHYSICAL_DEVICE_TYPE_CPU:
        return 3;
    default:
        return 2;
    }
}

static bool contains(const char *text, const char *part)
{
    for (; *text; text++) {
        size_t i = 0;
        while (part[i] && tolower((unsigned char)text[i]) == tolower((unsigned char)part[i]))
            i++;
        if (!part[i])
            return true;
    }
    return false;
}

static bool is_asked_for(const VkPhysicalDeviceProperties *properties, uint32_t index,
                         const char *name)
{
    char *end;
    if (strcmp(name, "software") == 0)
        return properties->deviceType == VK_PHYSICAL_DEVICE_TYPE_CPU;
    const unsigned long number = strtoul(name, &end, 10);
    if (isdigit((unsigned char)name[0]) && !*end)
        return number == index;
    return contains(properties->deviceName, name);
}

static bool pick_physical(struct gpu *gpu, const char *name, bool *none, struct problem *problem)
{
    VkPhysicalDevice devices[MAX_DEVICES];
    uint32_t count = MAX_DEVICES;
    int best = -1;
    char names[400] = "";
    if (name && !*name)
        name = NULL;
    if (vkEnumeratePhysicalDevices(gpu->instance, &count, devices) < 0)
        count = 0;
    *none = true;
    for (uint32_t i = 0; i < count; i++) {
        VkPhysicalDeviceProperties properties;
        vkGetPhysicalDeviceProperties(devices[i], &properties);
        if (!is_usable(devices[i], &properties))
            continue;
        *none = false;
        const size_t used = strlen(names);
        snprintf(names + used, sizeof names - used, "%s%u: %s", used ? ", " : "", i,
                 properties.deviceName);
        if (name && !is_asked_for(&properties, i, name))
            continue;
        if (best >= 0 && rank(properties.deviceType) >= rank(gpu->properties.deviceType))
            continue;
        best = (int)i;
        gpu->physical = devices[i];
        gpu->properties = properties;
    }
    if (*none)
        return problem_set(problem, "there is no Vulkan 1.2 device with buffer device addresses "
                           "and timeline semaphores");
    if (best < 0)
        return problem_set(problem, "no usable Vulkan device is \"%.60s\"; there is %s", name,
                           names);
    vkGetPhysicalDeviceMemoryProperties(gpu->physical, &gpu->memory);
    return find_queue(gpu->physical, &gpu->queue_family) ||
           problem_set(problem, "%s has no compute queue", gpu->properties.deviceName);
}

static bool open_device(struct gpu *gpu, const struct ratp_vulkan_api *plugin,
                        struct problem *problem)
{
    if (!gpu_choose_features(gpu, plugin, problem))
        return false;
    const float priority = 1;
    const VkDeviceQueueCreateInfo queue = {
        .sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
        .queueFamilyIndex = gpu->queue_family,
        .queueCount = 1,
        .pQueuePriorities = &priority,
    };
    const VkDeviceCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
        .pNext = &gpu->features,
        .queueCreateInfoCount = 1,
        .pQueueCreateInfos = &queue,
        .enabledExtensionCount = gpu->extension_count,
        .ppEnabledExtensionNames = gpu->extensions,
    };
    if (!gpu_check(vkCreateDevice(gpu->physical, &info, NULL, &gpu->device), "vkCreateDevice",
                   problem))
        return false;
    volkLoadDeviceTable(&gpu->vk, gpu->device);
    gpu->vk.vkGetDeviceQueue(gpu->device, gpu->queue_family, 0, &gpu->queue);

    const VkPushConstantRange push = {VK_SHADER_STAGE_COMPUTE_BIT, 0, PUSH_BYTES};
    const VkPipelineLayoutCreateInfo layout = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO,
        .pushConstantRangeCount = 1,
        .pPushConstantRanges = &push,
    };
    const VkCommandPoolCreateInfo pool = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
        .queueFamilyIndex = gpu->queue_family,
    };
    const VkSemaphoreTypeCreateInfo type = {
        .sType = VK_STRUCTURE_TYPE_SEMAPHORE_TYPE_CREATE_INFO,
        .semaphoreType = VK_SEMAPHORE_TYPE_TIMELINE,
    };
    const VkSemaphoreCreateInfo semaphore = {
        .sType = VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO, .pNext = &type};
    if (!gpu_check(gpu->vk.vkCreatePipelineLayout(gpu->device, &layout, NULL, &gpu->layout),
                   "vkCreatePipelineLayout", problem) ||
        !gpu_check(gpu->vk.vkCreateCommandPool(gpu->device, &pool, NULL, &gpu->pool),
                   "vkCreateCommandPool", problem) ||
        !gpu_check(gpu->vk.vkCreateSemaphore(gpu->device, &semaphore, NULL, &gpu->timeline),
                   "vkCreateSemaphore", problem))
        return false;
    const VkCommandBufferAllocateInfo commands = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
        .commandPool = gpu->pool,
        .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
        .commandBufferCount = 1,
    };
    return gpu_check(gpu->vk.vkAllocateCommandBuffers(gpu->device, &commands, &gpu->commands),
                     "vkAllocateCommandBuffers", problem);
}

bool gpu_open(struct gpu *gpu, const char *name, bool validate, uint32_t *messages,
              const struct ratp_vulkan_api *plugin, bool *none, struct problem *problem)
{
    *gpu = (struct gpu){.messages = messages};
    *none = true;
    if (open_instance(gpu, validate, problem) && pick_physical(gpu, name, none, problem) &&
        open_device(gpu, plugin, problem))
        return true;
    gpu_close(gpu);
    return false;
}

bool gpu_lend(const struct gpu *gpu, const struct ratp_api *ratp, ratp_instance *instance,
              ratp_device **out, struct problem *problem)
{
    const struct ratp_vulkan_api *extension = ratp->get_extension(instance, RATP_VULKAN_EXTENSION);
    if (!extension)
        return problem_set(problem, "this libratplus has no %s", RATP_VULKAN_EXTENSION);
    const struct ratp_vulkan_device device = {
        .struct_size = sizeof device,
        .get_instance_proc_addr = vkGetInstanceProcAddr,
        .instance = gpu->instance,
        .physical_device = gpu->physical,
        .device = gpu->device,
        .api_version = instance_version(),
        .queue_family = gpu->queue_family,
        .extensions = gpu->extensions,
        .extension_count = gpu->extension_count,
        .features = &gpu->features,
    };
    return plugin_check(ratp, extension->device_import(instance, &device, out), instance,
                        "the plugin on this device", problem);
}

void gpu_close(struct gpu *gpu)
{
    if (gpu->device) {
        gpu->vk.vkDeviceWaitIdle(gpu->device);
        gpu->vk.vkDestroySemaphore(gpu->device, gpu->timeline, NULL);
        gpu->vk.vkDestroyCommandPool(gpu->device, gpu->pool, NULL);
        gpu->vk.vkDestroyPipelineLayout(gpu->device, gpu->layout, NULL);
        gpu->vk.vkDestroyDevice(gpu->device, NULL);
    }
    if (gpu->messenger)
        vkDestroyDebugUtilsMessengerEXT(gpu->instance, gpu->messenger, NULL);
    if (gpu->instance)
        vkDestroyInstance(gpu->instance, NULL);
    gpu_free_features(gpu);
    *gpu = (struct gpu){0};
}
