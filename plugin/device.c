#include "device.h"

#include "kernels/kernels.h"
#include "reference/reference.h"
#include "staging.h"
#include "vulkan/vulkan.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- Instance ---- */

ratp_status instance_open(const struct ratp_instance_params *params, ratp_instance **out,
                          struct error *err)
{
    if (params->log_level < RATP_LOG_ERROR || params->log_level > RATP_LOG_DEBUG)
        return fail(err, RATP_INVALID_ARGUMENT, "params->log_level is %" PRId32 ", it must be 0 to %d",
                    params->log_level, RATP_LOG_DEBUG);
    ratp_instance *instance = calloc(1, sizeof *instance);
    if (!instance)
        return fail(err, RATP_OUT_OF_MEMORY, "no host memory for an instance");
    instance->log = (struct log){params->log, params->log_user, params->log_level};
    if (!params->no_vulkan) {
        ratp_status status = vk_instance_create(&instance->log, params->validation != 0,
                                                &instance->vulkan, err);
        if (status) {
            free(instance);
            return status;
        }
    }
    object_init(&instance->object, OBJECT_INSTANCE);
    *out = instance;
    return RATP_OK;
}

ratp_status instance_close(ratp_instance *instance, struct error *err)
{
    ratp_status status = object_childless(&instance->object, "devices or policies", err);
    if (status)
        return status;
    vk_instance_destroy(&instance->vulkan);
    object_fini(&instance->object);
    free(instance);
    return RATP_OK;
}

/* ---- The list of devices ---- */

static uint32_t vulkan_count(const ratp_instance *instance)
{
    return instance->vulkan ? vk_device_count(instance->vulkan) : 0;
}

uint32_t device_list_size(const ratp_instance *instance)
{
    return vulkan_count(instance) + 1;
}

ratp_status device_list_info(const ratp_instance *instance, uint32_t index,
                             struct ratp_device_info *info, struct error *err)
{
    memset(info, 0, sizeof *info);
    if (index >= device_list_size(instance))
        return fail(err, RATP_NOT_FOUND, "index is %" PRIu32 ", %" PRIu32 " devices are listed",
                    index, device_list_size(instance));
    if (index < vulkan_count(instance)) {
        vk_device_describe(instance->vulkan, index, info);
        return RATP_OK;
    }
    struct backend *backend = NULL;
    ratp_status status = reference_open(&instance->log, 0, &backend, err);
    if (status)
        return status;
    backend->ops->info(backend, info);
    backend->ops->destroy(backend);
    return RATP_OK;
}

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static bool starts_with(const char *text, const char *part)
{
    for (; *part; text++, part++)
        if (lower(*text) != lower(*part))
            return false;
    return true;
}

static bool contains(const char *text, const char *part)
{
    for (; *text; text++)
        if (starts_with(text, part))
            return true;
    return false;
}

static bool is_word(const char *text, const char *word)
{
    return starts_with(text, word) && strlen(text) == strlen(word);
}

static ratp_status choose_kind(const ratp_instance *instance, ratp_device_kind first,
                               ratp_device_kind last, uint32_t *index, struct error *err)
{
    struct ratp_device_info info;
    for (ratp_device_kind kind = first; kind <= last; kind++)
        for (*index = 0; *index < device_list_size(instance); ++*index) {
            ratp_status status = device_list_info(instance, *index, &info, err);
            if (status)
                return status;
            if (info.kind == kind && info.usable)
                return RATP_OK;
        }
    return fail(err, RATP_NOT_FOUND, "no usable device of the kind that params->name asks for");
}

static ratp_status choose_name(const ratp_instance *instance, const char *name, uint32_t *index,
                               struct error *err)
{
    struct ratp_device_info info, unusable = {0};
    uint32_t count = device_list_size(instance);
    for (*index = 0; *index < count; ++*index) {
        ratp_status status = device_list_info(instance, *index, &info, err);
        if (status)
            return status;
        if (!contains(info.name, name))
            continue;
        if (info.usable)
            return RATP_OK;
        unusable = info;
    }
    if (unusable.struct_size)
        return fail(err, RATP_UNSUPPORTED, "device \"%.100s\" cannot be used: %.250s",
                    unusable.name, unusable.why_not);
    return fail(err, RATP_NOT_FOUND,
                "params->name is \"%.100s\", none of the %" PRIu32 " listed devices has that in "
                "its name",
                name, count);
}

ratp_status device_choose(const ratp_instance *instance, const char *name, uint32_t *index,
                          struct error *err)
{
    if (!name || !*name)
        return choose_kind(instance, RATP_DEVICE_DISCRETE, RATP_DEVICE_REFERENCE, index, err);
    if (is_word(name, "reference"))
        return choose_kind(instance, RATP_DEVICE_REFERENCE, RATP_DEVICE_REFERENCE, index, err);
    if (is_word(name, "software"))
        return choose_kind(instance, RATP_DEVICE_SOFTWARE, RATP_DEVICE_SOFTWARE, index, err);
    if (name[strspn(name, "0123456789")] != '\0')
        return choose_name(instance, name, index, err);
    unsigned long number = strtoul(name, NULL, 10);
    if (number >= device_list_size(instance))
        return fail(err, RATP_NOT_FOUND,
                    "params->name is \"%.40s\", %" PRIu32 " devices are listed, counted from 0",
                    name, device_list_size(instance));
    *index = (uint32_t)number;
    return RATP_OK;
}

/* ---- Open devices ---- */

ratp_status device_adopt(ratp_instance *instance, struct backend *backend, bool reference,
                         ratp_device **out, struct error *err)
{
    ratp_device *device = calloc(1, sizeof *device);
    if (!device)
        return fail(err, RATP_OUT_OF_MEMORY, "no host memory for a device");
    object_init(&device->object, OBJECT_DEVICE);
    device->instance = instance;
    device->backend = backend;
    device->reference = reference;
    spares_init(&device->spares);
    staging_init(device);
    backend->ops->on_shortage(backend, spares_give_back, &device->spares);
    atomic_fetch_add(&instance->object.children, 1);
    *out = device;
    return RATP_OK;
}

static ratp_status open_vulkan(ratp_instance *instance, uint32_t index,
                               const struct ratp_device_params *params, struct backend **out,
                               struct error *err)
{
    struct vk_device *vk = NULL;
    ratp_status status = vk_device_open(instance->vulkan, index, params->memory_budget,
                                        params->wait_limit_ms, &vk, err);
    if (status)
        return status;
    status = kernels_open(vk, &instance->log, out, err);
    if (status)
        vk_device_close(&vk);
    return status;
}

ratp_status device_start(ratp_instance *instance, uint32_t index,
                         const struct ratp_device_params *params, ratp_device **out,
                         struct error *err)
{
    struct ratp_device_info info;
    struct backend *backend = NULL;
    ratp_status status = device_list_info(instance, index, &info, err);
    if (status)
        return status;
    if (!info.usable)
        return fail(err, RATP_UNSUPPORTED, "device \"%.100s\" cannot be used: %.250s", info.name,
                    info.why_not);
    bool reference = info.kind == RATP_DEVICE_REFERENCE;
    status = reference ? reference_open(&instance->log, params->memory_budget, &backend, err)
                       : open_vulkan(instance, index, params, &backend, err);
    if (!status)
        status = device_adopt(instance, backend, reference, out, err);
    if (status) {
        if (backend)
            backend->ops->destroy(backend);
        return status;
    }
    log_write(&instance->log, RATP_LOG_INFO, "opened device \"%s\" (%s)", info.name, info.driver);
    return RATP_OK;
}

ratp_status device_stop(ratp_device *device, struct error *err)
{
    ratp_status status = object_childless(&device->object, "caches or buffers", err);
    if (status)
        return status;
    staging_fini(device);
    if (!device->backend->ops->destroy(device->backend))
        status = fail(err, RATP_DEVICE_LOST,
                      "the device was closed, but its work did not end: what the driver may still "
                      "use is left to it until the process ends");
    spares_fini(&device->spares);
    atomic_fetch_sub(&device->instance->object.children, 1);
    object_fini(&device->object);
    free(device);
    return status;
}

/* ---- Buffers ---- */

ratp_status buffer_adopt(ratp_device *device, const struct mem *mem, bool imported,
                         ratp_buffer **out, struct error *err)
{
    ratp_buffer *buffer = calloc(1, sizeof *buffer);
    if (!buffer)
        return fail(err, RATP_OUT_OF_MEMORY, "no host memory for a buffer");
    object_init(&buffer->object, OBJECT_BUFFER);
    buffer->device = device;
    buffer->mem = *mem;
    buffer->imported = imported;
    atomic_fetch_add(&device->object.children, 1);
    *out = buffer;
    return RATP_OK;
}

ratp_status buffer_open(ratp_device *device, const struct ratp_buffer_params *params,
                        ratp_buffer **out, struct error *err)
{
    struct backend *b = device->backend;
    static const enum mem_kind kinds[] = {
        [RATP_MEMORY_DEVICE] = MEM_DEVICE,
        [RATP_MEMORY_HOST] = MEM_READBACK,
        [RATP_MEMORY_SHARED] = MEM_SHARED,
    };
    struct mem mem = {0};
    if (params->size == 0)
        return fail(err, RATP_INVALID_ARGUMENT, "params->size is 0, it must be at least 1");
    if (params->kind < RATP_MEMORY_DEVICE || params->kind > RATP_MEMORY_SHARED)
        return fail(err, RATP_INVALID_ARGUMENT,
                    "params->kind is %" PRId32 ", it must be 0 (device), 1 (host) or 2 (shared)",
                    params->kind);
    ratp_status status;
    if (params->host)
        status = b->ops->mem_import(b, params->host, params->size, &mem, err);
    else
        status = b->ops->mem_alloc(b, params->size, kinds[params->kind], "buffer", &mem, err);
    if (status)
        return status;
    status = buffer_adopt(device, &mem, params->host != NULL, out, err);
    if (status)
        b->ops->mem_free(b, &mem);
    return status;
}

ratp_status buffer_close(ratp_buffer *buffer, struct error *err)
{
    struct backend *b = buffer->device->backend;
    ratp_status status = RATP_OK;
    /* The host may free its own memory at once. */
    if (buffer->imported && !b->ops->settle(b))
        status = fail(err, RATP_DEVICE_LOST,
                      "the buffer was destroyed, but the device's work did not end: it may still "
                      "use the host's memory behind it, which must stay until the process ends");
    b->ops->mem_free(b, &buffer->mem);
    atomic_fetch_sub(&buffer->device->object.children, 1);
    object_fini(&buffer->object);
    free(buffer);
    return status;
}
