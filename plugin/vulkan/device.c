/* Opening, importing and closing a device, and what a failed call means. */
#include "internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *vk_result_name(VkResult result)
{
    switch (result) {
#define NAME(r)                                                                                   \
    case r:                                                                                       \
        return #r;
        NAME(VK_SUCCESS)
        NAME(VK_NOT_READY)
        NAME(VK_TIMEOUT)
        NAME(VK_INCOMPLETE)
        NAME(VK_ERROR_OUT_OF_HOST_MEMORY)
        NAME(VK_ERROR_OUT_OF_DEVICE_MEMORY)
        NAME(VK_ERROR_INITIALIZATION_FAILED)
        NAME(VK_ERROR_DEVICE_LOST)
        NAME(VK_ERROR_MEMORY_MAP_FAILED)
        NAME(VK_ERROR_LAYER_NOT_PRESENT)
        NAME(VK_ERROR_EXTENSION_NOT_PRESENT)
        NAME(VK_ERROR_FEATURE_NOT_PRESENT)
        NAME(VK_ERROR_INCOMPATIBLE_DRIVER)
        NAME(VK_ERROR_TOO_MANY_OBJECTS)
        NAME(VK_ERROR_INVALID_EXTERNAL_HANDLE)
        NAME(VK_ERROR_INVALID_OPAQUE_CAPTURE_ADDRESS)
#undef NAME
    default:
        return "an unknown VkResult";
    }
}

ratp_status vk_failed(struct vk_device *d, VkResult result, const char *call, struct error *err)
{
    switch (result) {
    case VK_ERROR_DEVICE_LOST:
        atomic_store(&d->denied, true);
        if (!atomic_exchange(&d->lost, true))
            log_write(&d->log, RATP_LOG_ERROR, "device \"%s\" is lost: %s said so",
                      d->physical.info.name, call);
        return fail(err, RATP_DEVICE_LOST, "device \"%s\" is lost: %s said so",
                    d->physical.info.name, call);
    case VK_ERROR_OUT_OF_HOST_MEMORY:
    case VK_ERROR_OUT_OF_DEVICE_MEMORY:
    case VK_ERROR_MEMORY_MAP_FAILED:
    case VK_ERROR_TOO_MANY_OBJECTS: /* of allocations, which have a limit of their own */
        return fail(err, RATP_OUT_OF_MEMORY, "%s failed with %s", call, vk_result_name(result));
    case VK_ERROR_INVALID_EXTERNAL_HANDLE:
        return fail(err, RATP_INVALID_ARGUMENT,
                    "%s failed with %s: the driver does not take this host memory", call,
                    vk_result_name(result));
    default:
        return fail(err, RATP_INTERNAL, "%s failed with %s (%d)", call, vk_result_name(result),
                    (int)result);
    }
}

bool vk_here(const struct vk_device *d)
{
    return d->process == getpid();
}

ratp_status vk_alive(struct vk_device *d, struct error *err)
{
    if (!vk_here(d))
        return fail(err, RATP_DEVICE_LOST,
                    "device \"%s\" is lost in this process, %ld: process %ld opened it, and "
                    "fork() leaves the driver's threads behind; open devices after fork()",
                    d->physical.info.name, (long)getpid(), (long)d->process);
    if (!atomic_load(&d->lost))
        return RATP_OK;
    return fail(err, RATP_DEVICE_LOST, "device \"%s\" was lost earlier", d->physical.info.name);
}

void vk_name(struct vk_device *d, VkObjectType type, uint64_t handle, const char *name)
{
    if (!d->calls.SetDebugUtilsObjectNameEXT || !name)
        return;
    char text[96];
    snprintf(text, sizeof text, "ratplus %s", name);
    d->calls.SetDebugUtilsObjectNameEXT(d->handle, &(VkDebugUtilsObjectNameInfoEXT){
        .sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_OBJECT_NAME_INFO_EXT,
        .objectType = type,
        .objectHandle = handle,
        .pObjectName = text,
    });
}

/* A device without a VkDevice yet. */
static struct vk_device *device_new(const struct log *log, const struct vk_physical *physical,
                                    const struct vk_calls *calls, uint64_t budget,
                                    uint64_t wait_limit_ms)
{
    const uint64_t ms = 1000000, wait_limit = wait_limit_ms ? wait_limit_ms : 10 * 60 * 1000;
    struct vk_device *d = calloc(1, sizeof *d);
    if (!d)
        return NULL;
    d->log = *log;
    if (physical)
        d->physical = *physical;
    if (calls)
        d->calls = *calls;
    d->process = getpid();
    d->budget = budget ? budget : UINT64_MAX;
    d->wait_limit = wait_limit < UINT64_MAX / ms ? wait_limit * ms : UINT64_MAX;
    d->freed_tail = &d->freed;
    pthread_mutex_init(&d->queue_lock, NULL);
    pthread_mutex_init(&d->lock, NULL);
    pthread_mutex_init(&d->pipeline_lock, NULL);
    pthread_mutex_init(&d->transfer_lock, NULL);
    return d;
}

/* What needs the VkDevice and its queue. */
static ratp_status device_start(struct vk_device *d, struct error *err)
{
    ratp_status status;
    vk_device_table_load(&d->vk, &d->calls, d->handle);
    const char *lacks = vk_table_lacks(&d->vk);
    if (lacks)
        return fail(err, RATP_UNSUPPORTED, "device \"%s\" lacks %s", d->physical.info.name, lacks);
    d->vk.vkGetDeviceQueue(d->handle, d->physical.queue_family, d->queue_index, &d->queue);
    if (!d->queue)
        return fail(err, RATP_INVALID_ARGUMENT, "device \"%s\" has no queue %u of family %u",
                    d->physical.info.name, d->queue_index, d->physical.queue_family);
    VkSemaphoreTypeCreateInfo type = {
        .sType = VK_STRUCTURE_TYPE_SEMAPHORE_TYPE_CREATE_INFO,
        .semaphoreType = VK_SEMAPHORE_TYPE_TIMELINE,
    };
    VkSemaphoreCreateInfo info = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO, .pNext = &type};
    VK_MAKE(d->vk.vkCreateSemaphore(d->handle, &info, NULL, &d->timeline), d->timeline,
            "vkCreateSemaphore");
    vk_name(d, VK_OBJECT_TYPE_SEMAPHORE, (uint64_t)d->timeline, "timeline");
    return vk_pipelines_init(d, err);
error:
    return status;
}

ratp_status vk_device_open(struct vk_instance *instance, uint32_t index, uint64_t budget,
                           uint64_t wait_limit_ms, struct vk_device **out, struct error *err)
{
    *out = NULL;
    if (instance->process != getpid())
        return fail(err, RATP_WRONG_STATE,
                    "the instance was created by process %ld, and this is process %ld: fork() "
                    "leaves the driver's threads behind; create instances after fork()",
                    (long)instance->process, (long)getpid());
    if (index >= instance->physical_count)
        return fail(err, RATP_NOT_FOUND, "device index is %u, there are %u Vulkan devices", index,
                    instance->physical_count);
    const struct vk_physical *physical = &instance->physical[index];
    if (!physical->info.usable)
        return fail(err, RATP_UNSUPPORTED, "device \"%s\" %s", physical->info.name,
                    physical->info.why_not);
    struct vk_device *d = device_new(&instance->log, physical, &instance->calls, budget,
                                      wait_limit_ms);
    if (!d)
        return fail(err, RATP_OUT_OF_MEMORY, "device: out of host memory");
    d->owner = instance;
    d->instance = instance->handle;
    d->get = instance->get;
    vk_enabled_fill(&d->enabled, &d->physical);
    ratp_status status;
    const float priority = 1.0f;
    VkDeviceQueueCreateInfo queue = {
        .sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
        .queueFamilyIndex = physical->queue_family,
        .queueCount = 1,
        .pQueuePriorities = &priority,
    };
    VkDeviceCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
        .pNext = &d->enabled.chain.first,
        .queueCreateInfoCount = 1,
        .pQueueCreateInfos = &queue,
        .enabledExtensionCount = d->enabled.extension_count,
        .ppEnabledExtensionNames = d->enabled.extensions,
    };
    VK_MAKE(d->calls.CreateDevice(physical->handle, &info, NULL, &d->handle), d->handle,
            "vkCreateDevice");
    status = device_start(d, err);
    if (status != RATP_OK)
        goto error;
    *out = d;
    return RATP_OK;
error:
    vk_device_close(&d);
    return status;
}

static ratp_status check_host_device(const struct ratp_vulkan_device *p, struct error *err)
{
    const char *missing = !p->instance          ? "instance"
                          : !p->physical_device ? "physical_device"
                          : !p->device          ? "device"
                          : !p->features        ? "features"
                                                : NULL;
    if (missing)
        return fail(err, RATP_INVALID_ARGUMENT, "%s is NULL", missing);
    if (p->extension_count && !p->extensions)
        return fail(err, RATP_INVALID_ARGUMENT, "extensions is NULL, extension_count is %u",
                    p->extension_count);
    if (!p->lock_queue != !p->unlock_queue)
        return fail(err, RATP_INVALID_ARGUMENT,
                    "lock_queue and unlock_queue must be given together");
    if (p->api_version && p->api_version < VK_API_VERSION_1_2)
        return fail(err, RATP_UNSUPPORTED, "api_version is %u.%u, Vulkan 1.2 is needed",
                    VK_API_VERSION_MAJOR(p->api_version), VK_API_VERSION_MINOR(p->api_version));
    return RATP_OK;
}

ratp_status vk_device_import(const struct log *log, const struct ratp_vulkan_device *params,
                             struct vk_device **out, struct error *err)
{
    *out = NULL;
    ratp_status status = check_host_device(params, err);
    if (status != RATP_OK)
        return status;
    struct vk_device *d = device_new(log, NULL, NULL, params->memory_budget,
                                      params->wait_limit_ms);
    if (!d)
        return fail(err, RATP_OUT_OF_MEMORY, "device: out of host memory");
    d->imported = true;
    d->get = params->get_instance_proc_addr ? params->get_instance_proc_addr : vk_loader();
    if (!d->get) {
        status = fail(err, RATP_NOT_FOUND,
                      "get_instance_proc_addr is NULL, and no Vulkan loader is installed");
        goto error;
    }
    const char *missing = NULL;
    d->instance = params->instance;
    if (!vk_calls_load(&d->calls, d->get, params->instance, &missing)) {
        status = fail(err, RATP_UNSUPPORTED, "the host's instance lacks %s", missing);
        goto error;
    }
    vk_physical_query(&d->calls, params->physical_device, &d->physical);
    if (!d->physical.info.usable) {
        status = fail(err, RATP_UNSUPPORTED, "device \"%s\" %s", d->physical.info.name,
                      d->physical.info.why_not);
        goto error;
    }
    if (!vk_physical_restrict(&d->physical, params, &missing)) {
        status = fail(err, RATP_UNSUPPORTED, "features: the host did not enable %s", missing);
        goto error;
    }
    bool compute = false;
    for (uint32_t i = 0; i < d->physical.compute_family_count; i++)
        compute |= d->physical.compute_families[i] == params->queue_family;
    if (!compute) {
        status = fail(err, RATP_INVALID_ARGUMENT, "queue_family is %u, which has no compute",
                      params->queue_family);
        goto error;
    }
    d->physical.queue_family = params->queue_family;
    d->queue_index = params->queue_index;
    d->lock_queue = params->lock_queue;
    d->unlock_queue = params->unlock_queue;
    d->queue_user = params->user;
    d->handle = params->device;
    status = device_start(d, err);
    if (status != RATP_OK)
        goto error;
    *out = d;
    return RATP_OK;
error:
    vk_device_close(&d);
    return status;
}

/* What is still in use cannot be destroyed, and waiting longer would be waiting for ever. */
static void leave(struct vk_device *d)
{
    d->left = true;
    if (d->owner)
        atomic_store(&d->owner->left, true);
    log_write(&d->log, RATP_LOG_ERROR,
              "device \"%s\" was closed while it worked: what it may still use, its memory and "
              "pipelines, is left to the driver until the process ends%s",
              d->physical.info.name,
              d->imported ? "; the host's VkDevice must not be destroyed while it works" : "");
}

bool vk_device_close(struct vk_device **device)
{
    struct vk_device *d = *device;
    if (!d)
        return true;
    *device = NULL;
    bool here = vk_here(d);
    if (!here)
        d->left = true;
    else if (d->handle && !vk_settle(d))
        leave(d);
    bool settled = !here || !d->left;
    if (d->handle) {
        vk_transfer_fini(d);
        vk_streams_fini(d);
        vk_memory_fini(d);
        vk_pipelines_fini(d);
        if (d->timeline && !d->left)
            d->vk.vkDestroySemaphore(d->handle, d->timeline, NULL);
        if (!d->imported && !d->left && d->vk.vkDestroyDevice)
            d->vk.vkDestroyDevice(d->handle, NULL);
    }
    if (here) {
        pthread_mutex_destroy(&d->queue_lock);
        pthread_mutex_destroy(&d->lock);
        pthread_mutex_destroy(&d->pipeline_lock);
        pthread_mutex_destroy(&d->transfer_lock);
    }
    free(d);
    return settled;
}

const struct vk_caps *vk_device_caps(const struct vk_device *d)
{
    return &d->physical.caps;
}

void vk_device_info(struct vk_device *d, struct ratp_device_info *info)
{
    struct vk_memory_stats taken;
    *info = d->physical.info;
    if (vk_alive(d, NULL) != RATP_OK)
        return; /* nothing can be allocated any more */
    vk_memory_stats(d, &taken);
    uint64_t left = d->budget > taken.allocated ? d->budget - taken.allocated : 0;
    uint64_t room = vk_physical_room(&d->calls, &d->physical, d->physical.local_heap,
                                     taken.allocated);
    info->memory_free = left < room ? left : room;
}

void vk_device_handles(const struct vk_device *d, struct ratp_vulkan_device *out)
{
    *out = (struct ratp_vulkan_device){
        .struct_size = sizeof *out,
        .get_instance_proc_addr = d->get,
        .instance = d->instance,
        .physical_device = d->physical.handle,
        .device = d->handle,
        .api_version = VK_API_VERSION_1_2,
        .queue_family = d->physical.queue_family,
        .queue_index = d->queue_index,
        .extensions = d->enabled.extensions,
        .extension_count = d->enabled.extension_count,
        .features = &d->enabled.chain.first,
    };
}
