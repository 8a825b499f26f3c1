/* The library's own VkInstance, and the validation layer's messages. */
#include "internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char validation_layer[] = "VK_LAYER_KHRONOS_validation";

static VKAPI_ATTR VkBool32 VKAPI_CALL on_message(VkDebugUtilsMessageSeverityFlagBitsEXT severity,
                                                 VkDebugUtilsMessageTypeFlagsEXT types,
                                                 const VkDebugUtilsMessengerCallbackDataEXT *data,
                                                 void *user)
{
    (void)severity;
    (void)types;
    log_write(user, RATP_LOG_ERROR, "validation: %s", data->pMessage);
    return VK_FALSE;
}

static bool has_layer(const char *name)
{
    PFN_vkEnumerateInstanceLayerProperties enumerate = vkEnumerateInstanceLayerProperties;
    uint32_t count = 0;
    if (!enumerate || enumerate(&count, NULL) != VK_SUCCESS)
        return false;
    const uint32_t room = count;
    VkLayerProperties *layers = calloc((size_t)room + 1, sizeof *layers);
    bool found = false;
    if (layers && enumerate(&count, layers) >= VK_SUCCESS)
        for (uint32_t i = 0; i < count && i < room; i++)
            found |= !strncmp(layers[i].layerName, name, sizeof layers[i].layerName);
    free(layers);
    return found;
}

static bool has_extension(const char *layer, const char *name)
{
    PFN_vkEnumerateInstanceExtensionProperties enumerate = vkEnumerateInstanceExtensionProperties;
    uint32_t count = 0;
    if (!enumerate || enumerate(layer, &count, NULL) != VK_SUCCESS)
        return false;
    const uint32_t room = count;
    VkExtensionProperties *list = calloc((size_t)room + 1, sizeof *list);
    bool found = false;
    if (list && enumerate(layer, &count, list) >= VK_SUCCESS)
        for (uint32_t i = 0; i < count && i < room; i++)
            found |= !strncmp(list[i].extensionName, name, sizeof list[i].extensionName);
    free(list);
    return found;
}

static ratp_status list_devices(struct vk_instance *instance, struct error *err)
{
    uint32_t count = 0;
    VkResult result = instance->calls.EnumeratePhysicalDevices(instance->handle, &count, NULL);
    if (result != VK_SUCCESS || !count)
        return RATP_OK;
    const uint32_t room = count;
    VkPhysicalDevice *handles = calloc(room, sizeof *handles);
    instance->physical = calloc(room, sizeof *instance->physical);
    if (!handles || !instance->physical) {
        free(handles);
        return fail(err, RATP_OUT_OF_MEMORY, "instance: out of host memory for %u devices", count);
    }
    if (instance->calls.EnumeratePhysicalDevices(instance->handle, &count, handles) >= VK_SUCCESS) {
        for (uint32_t i = 0; i < count && i < room && handles[i]; i++)
            vk_physical_query(&instance->calls, handles[i],
                              &instance->physical[instance->physical_count++]);
    }
    free(handles);
    return RATP_OK;
}

/* `status` when Vulkan was demanded, else a log line and RATP_OK. */
static ratp_status without(const struct log *log, bool validation, ratp_status status,
                           const char *why, struct error *err)
{
    if (validation)
        return fail(err, status, "validation was asked for, but %s", why);
    log_write(log, RATP_LOG_WARNING, "no Vulkan: %s; only the reference device is listed", why);
    return RATP_OK;
}

ratp_status vk_instance_create(const struct log *log, bool validation, struct vk_instance **out,
                               struct error *err)
{
    *out = NULL;
    PFN_vkGetInstanceProcAddr get = vk_loader();
    if (!get)
        return without(log, validation, RATP_NOT_FOUND, "the Vulkan loader libvulkan.so.1 is not installed",
                       err);
    if (validation && !has_layer(validation_layer))
        return fail(err, RATP_NOT_FOUND, "validation was asked for, but the layer %s is not installed",
                    validation_layer);

    struct vk_instance *instance = calloc(1, sizeof *instance);
    if (!instance)
        return fail(err, RATP_OUT_OF_MEMORY, "instance: out of host memory");
    instance->log = *log;
    instance->process = getpid();
    instance->get = get;
    ratp_status status = RATP_OK;

    const char *extensions[3];
    uint32_t extension_count = 0;
    if (has_extension(NULL, VK_EXT_DEBUG_UTILS_EXTENSION_NAME) ||
        (validation && has_extension(validation_layer, VK_EXT_DEBUG_UTILS_EXTENSION_NAME)))
        extensions[extension_count++] = VK_EXT_DEBUG_UTILS_EXTENSION_NAME;
    if (validation && has_extension(validation_layer, VK_EXT_VALIDATION_FEATURES_EXTENSION_NAME))
        extensions[extension_count++] = VK_EXT_VALIDATION_FEATURES_EXTENSION_NAME;

    VkDebugUtilsMessengerCreateInfoEXT messenger = {
        .sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_MESSENGER_CREATE_INFO_EXT,
        .messageSeverity = VK_DEBUG_UTILS_MESSAGE_SEVERITY_WARNING_BIT_EXT |
                           VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT,
        .messageType = VK_DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT,
        .pfnUserCallback = on_message,
        .pUserData = &instance->log,
    };
    const VkValidationFeatureEnableEXT checks[] = {
        VK_VALIDATION_FEATURE_ENABLE_SYNCHRONIZATION_VALIDATION_EXT};
    VkValidationFeaturesEXT validation_features = {
        .sType = VK_STRUCTURE_TYPE_VALIDATION_FEATURES_EXT,
        .pNext = &messenger,
        .enabledValidationFeatureCount = 1,
        .pEnabledValidationFeatures = checks,
    };
    VkApplicationInfo application = {
        .sType = VK_STRUCTURE_TYPE_APPLICATION_INFO,
        .pApplicationName = "libratplus",
        .pEngineName = "libratplus",
        .apiVersion = VK_API_VERSION_1_2,
    };
    const char *layers[] = {validation_layer};
    VkInstanceCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO,
        .pNext = validation ? &validation_features : NULL,
        .pApplicationInfo = &application,
        .enabledLayerCount = validation ? 1 : 0,
        .ppEnabledLayerNames = layers,
        .enabledExtensionCount = extension_count,
        .ppEnabledExtensionNames = extensions,
    };
    VkResult result = vkCreateInstance(&info, NULL, &instance->handle);
    if (result != VK_SUCCESS) {
        char why[128];
        snprintf(why, sizeof why, "vkCreateInstance failed with %s", vk_result_name(result));
        status = without(log, validation, RATP_NOT_FOUND, why, err);
        goto error;
    }
    const char *missing = NULL;
    if (!vk_calls_load(&instance->calls, get, instance->handle, &missing)) {
        char why[128];
        snprintf(why, sizeof why, "the loader lacks %s", missing);
        status = without(log, validation, RATP_NOT_FOUND, why, err);
        goto error;
    }
    if (validation) {
        if (!instance->calls.CreateDebugUtilsMessengerEXT) {
            status = fail(err, RATP_NOT_FOUND,
                          "validation was asked for, but VK_EXT_debug_utils is missing");
            goto error;
        }
        result = instance->calls.CreateDebugUtilsMessengerEXT(instance->handle, &messenger, NULL,
                                                              &instance->messenger);
        if (result != VK_SUCCESS) {
            status = fail(err, RATP_INTERNAL, "vkCreateDebugUtilsMessengerEXT failed with %s",
                          vk_result_name(result));
            goto error;
        }
    }
    status = list_devices(instance, err);
    if (status != RATP_OK)
        goto error;
    if (!instance->physical_count) {
        status = without(log, validation, RATP_NOT_FOUND, "the loader found no device", err);
        goto error;
    }
    *out = instance;
    return RATP_OK;
error:
    vk_instance_destroy(&instance);
    return status;
}

void vk_instance_destroy(struct vk_instance **instance)
{
    struct vk_instance *i = *instance;
    if (!i)
        return;
    *instance = NULL;
    /* A child process has the drivers' memory without their threads. */
    bool here = i->process == getpid();
    if (i->messenger && here)
        i->calls.DestroyDebugUtilsMessengerEXT(i->handle, i->messenger, NULL);
    if (i->handle && here && !atomic_load(&i->left)) {
        PFN_vkDestroyInstance destroy =
            (PFN_vkDestroyInstance)i->get(i->handle, "vkDestroyInstance");
        if (destroy)
            destroy(i->handle, NULL);
    }
    free(i->physical);
    free(i);
}

uint32_t vk_device_count(const struct vk_instance *instance)
{
    return instance ? instance->physical_count : 0;
}

void vk_device_describe(const struct vk_instance *instance, uint32_t index,
                        struct ratp_device_info *info)
{
    const struct vk_physical *p = &instance->physical[index];
    *info = p->info;
    /* A child process does not ask the driver that its parent has loaded. */
    if (instance->process == getpid() && p->memory.memoryHeapCount)
        info->memory_free = vk_physical_room(&instance->calls, p, p->local_heap, 0);
}
