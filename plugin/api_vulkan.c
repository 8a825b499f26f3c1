/* The extension "ratplus.vulkan/1". */
#include "api.h"

#include "cache/cache.h"
#include "kernels/kernels.h"
#include "structs.h"
#include "vulkan/features.h"
#include "vulkan/import.h"

#include <inttypes.h>

static ratp_status check_vulkan(const ratp_device *device, struct error *err)
{
    if (!device->reference)
        return RATP_OK;
    return fail(err, RATP_UNSUPPORTED, "the reference device is not a Vulkan device");
}

static ratp_status check_device(const ratp_device *device, struct error *err)
{
    ratp_status status = object_check(device, OBJECT_DEVICE, "device", err);
    return status ? status : check_vulkan(device, err);
}

static ratp_status check_step(const ratp_step *step, struct error *err)
{
    ratp_status status = object_check(step, OBJECT_STEP, "step", err);
    return status ? status : check_vulkan(step_cache(step)->device, err);
}

static ratp_status check_point(const struct ratp_vulkan_point *point, const char *what,
                               struct error *err)
{
    if (point->semaphore)
        return RATP_OK;
    return fail(err, RATP_INVALID_ARGUMENT, "%s.semaphore is VK_NULL_HANDLE", what);
}

static ratp_status open_import(ratp_instance *instance, const struct ratp_vulkan_device *params,
                               ratp_device **out, struct error *err)
{
    struct vk_device *vk = NULL;
    struct backend *backend = NULL;
    ratp_status status = vk_device_import(&instance->log, params, &vk, err);
    if (status)
        return status;
    status = kernels_open(vk, &instance->log, &backend, err);
    if (status) {
        vk_device_close(&vk);
        return status;
    }
    status = device_adopt(instance, backend, false, out, err);
    if (status)
        backend->ops->destroy(backend);
    return status;
}

static ratp_status device_import(ratp_instance *instance, const struct ratp_vulkan_device *params,
                                 ratp_device **out)
{
    struct error err = {""};
    struct ratp_vulkan_device p;
    ratp_status status = api_not_null(out, "out", &err);
    if (!status) {
        *out = NULL;
        status = object_check(instance, OBJECT_INSTANCE, "instance", &err);
    }
    if (!status)
        status = struct_read(&p, sizeof p, params,
                             STRUCT_UPTO(struct ratp_vulkan_device, features), "params", &err);
    if (!status)
        status = open_import(instance, &p, out, &err);
    return api_return(instance, status, &err);
}

static ratp_status open_buffer(ratp_device *device, const struct ratp_vulkan_buffer *params,
                               ratp_buffer **out, struct error *err)
{
    if (!params->buffer)
        return fail(err, RATP_INVALID_ARGUMENT, "params->buffer is VK_NULL_HANDLE");
    if (params->offset % 4)
        return fail(err, RATP_INVALID_ARGUMENT,
                    "params->offset is %" PRIu64 ", it must be a multiple of 4", params->offset);
    if (!params->size || params->size > UINT64_MAX - params->offset)
        return fail(err, RATP_INVALID_ARGUMENT,
                    "params->size is %" PRIu64 " at offset %" PRIu64 ", it must be at least 1 and "
                    "end inside the VkBuffer",
                    params->size, params->offset);
    struct backend *b = device->backend;
    struct mem mem = {0};
    ratp_status status = vk_mem_wrap(kernel_device(b), params->buffer, params->offset,
                                     params->size, &mem, err);
    if (status)
        return status;
    status = buffer_adopt(device, &mem, true, out, err);
    if (status)
        b->ops->mem_free(b, &mem);
    return status;
}

static ratp_status buffer_import(ratp_device *device, const struct ratp_vulkan_buffer *params,
                                 ratp_buffer **out)
{
    struct error err = {""};
    struct ratp_vulkan_buffer p;
    ratp_status status = api_not_null(out, "out", &err);
    if (!status) {
        *out = NULL;
        status = check_device(device, &err);
    }
    if (!status)
        status = struct_read(&p, sizeof p, params, STRUCT_UPTO(struct ratp_vulkan_buffer, size),
                             "params", &err);
    if (!status)
        status = open_buffer(device, &p, out, &err);
    return api_return(device, status, &err);
}

static ratp_status buffer_handle(ratp_buffer *buffer, struct ratp_vulkan_buffer *out)
{
    struct error err = {""};
    ratp_status status = object_check(buffer, OBJECT_BUFFER, "buffer", &err);
    if (!status)
        status = check_vulkan(buffer->device, &err);
    if (!status)
        status = struct_check_out(out, STRUCT_UPTO(struct ratp_vulkan_buffer, size), "out", &err);
    if (!status) {
        const struct ratp_vulkan_buffer full = {
            .struct_size = sizeof full,
            .buffer = vk_mem_buffer(&buffer->mem),
            .offset = buffer->mem.handle_offset,
            .size = buffer->mem.size,
        };
        struct_write(out, &full, sizeof full);
    }
    return api_return(buffer, status, &err);
}

/* The stream stays the same from one command buffer to the next, so that what
 * the step uses is kept until the step ends. */
static ratp_status record(ratp_step *step, VkCommandBuffer commands, struct error *err)
{
    struct stream *stream = NULL;
    ratp_status status = step_may_record(step, err);
    if (status)
        return status;
    status = step_stream(step, &stream, err);
    if (!status)
        status = vk_stream_attach(kernel_stream(stream), commands, err);
    if (!status)
        step_attached(step);
    return step_acted(step, status);
}

static ratp_status step_record(ratp_step *step, VkCommandBuffer commands)
{
    struct error err = {""};
    ratp_status status = check_step(step, &err);
    if (!status)
        status = api_not_null(commands, "commands", &err);
    if (!status)
        status = cache_enter(step_cache(step), &err);
    if (!status)
        status = cache_leave(step_cache(step), record(step, commands, &err));
    return api_return(step, status, &err);
}

static ratp_status recorded(ratp_step *step, struct ratp_vulkan_point done, struct error *err)
{
    ticket t = 0;
    ratp_status status = step_may_end_record(step, err);
    if (status)
        return status;
    status = vk_external_done(kernel_device(step_cache(step)->backend), done, &t, err);
    if (!status)
        step_attached_done(step, t);
    return step_acted(step, status);
}

static ratp_status step_recorded(ratp_step *step, struct ratp_vulkan_point done)
{
    struct error err = {""};
    ratp_status status = check_step(step, &err);
    if (!status)
        status = check_point(&done, "done", &err);
    if (!status)
        status = cache_enter(step_cache(step), &err);
    if (!status)
        status = cache_leave(step_cache(step), recorded(step, done, &err));
    return api_return(step, status, &err);
}

static ratp_status sync_step(ratp_step *step, const struct ratp_vulkan_point *wait,
                             const struct ratp_vulkan_point *signal, struct error *err)
{
    struct stream *stream = NULL;
    ratp_status status = step_may_sync(step, err);
    if (status)
        return status;
    status = step_stream(step, &stream, err);
    if (!status)
        status = vk_stream_sync(kernel_stream(stream), wait, signal, err);
    return step_acted(step, status);
}

static ratp_status step_sync(ratp_step *step, const struct ratp_vulkan_point *wait,
                             const struct ratp_vulkan_point *signal)
{
    struct error err = {""};
    ratp_status status = check_step(step, &err);
    if (!status && wait)
        status = check_point(wait, "wait", &err);
    if (!status && signal)
        status = check_point(signal, "signal", &err);
    if (!status)
        status = cache_enter(step_cache(step), &err);
    if (!status)
        status = cache_leave(step_cache(step), sync_step(step, wait, signal, &err));
    return api_return(step, status, &err);
}

static ratp_status pipeline_cache_save(ratp_device *device, void *data, size_t *size)
{
    struct error err = {""};
    ratp_status status = check_device(device, &err);
    if (!status)
        status = api_not_null(size, "size", &err);
    if (!status)
        status = vk_pipeline_cache_save(kernel_device(device->backend), data, size, &err);
    return api_return(device, status, &err);
}

static ratp_status pipeline_cache_load(ratp_device *device, const void *data, size_t size)
{
    struct error err = {""};
    ratp_status status = check_device(device, &err);
    if (!status)
        status = api_not_null(data, "data", &err);
    if (!status)
        status = vk_pipeline_cache_load(kernel_device(device->backend), data, size, &err);
    return api_return(device, status, &err);
}

const struct ratp_vulkan_api api_vulkan_table = {
    .struct_size = sizeof api_vulkan_table,
    .recommended_extensions = vk_recommended_extensions,
    .device_import = device_import,
    .buffer_import = buffer_import,
    .buffer_handle = buffer_handle,
    .step_record = step_record,
    .step_recorded = step_recorded,
    .step_sync = step_sync,
    .pipeline_cache_save = pipeline_cache_save,
    .pipeline_cache_load = pipeline_cache_load,
    .features = vk_features,
};
