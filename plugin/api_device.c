/* Instances and devices. */
#include "api.h"

#include "structs.h"

#include <ratplus_vulkan.h>
#include <stdio.h>
#include <string.h>

ratp_status api_instance_create(const struct ratp_instance_params *params, ratp_instance **out,
                                char *reason, size_t reason_size)
{
    struct error err = {""};
    struct ratp_instance_params p;
    ratp_status status = api_not_null(out, "out", &err);
    if (!status) {
        *out = NULL;
        status = struct_read_optional(&p, sizeof p, params, sizeof p.struct_size, "params", &err);
    }
    if (!status)
        status = instance_open(&p, out, &err);
    if (status && reason && reason_size > 0)
        snprintf(reason, reason_size, "%s", err.text);
    return status;
}

ratp_status api_instance_destroy(ratp_instance **instance)
{
    struct error err = {""};
    if (!instance)
        return RATP_INVALID_ARGUMENT;
    if (!*instance)
        return RATP_OK;
    ratp_status status = object_check(*instance, OBJECT_INSTANCE, "*instance", &err);
    if (!status)
        status = instance_close(*instance, &err);
    if (status)
        return api_return(*instance, status, &err);
    *instance = NULL;
    return RATP_OK;
}

const void *api_get_extension(const ratp_instance *instance, const char *id)
{
    struct error err = {""};
    if (!object_is(instance, OBJECT_INSTANCE))
        return NULL;
    if (id && strcmp(id, RATP_VULKAN_EXTENSION) == 0)
        return &api_vulkan_table;
    fail(&err, RATP_NOT_FOUND, "id is \"%.100s\", the extension known is \"%s\"",
         id ? id : "(NULL)", RATP_VULKAN_EXTENSION);
    api_return(instance, RATP_NOT_FOUND, &err);
    return NULL;
}

ratp_status api_device_count(ratp_instance *instance, uint32_t *count)
{
    struct error err = {""};
    ratp_status status = object_check(instance, OBJECT_INSTANCE, "instance", &err);
    if (!status)
        status = api_not_null(count, "count", &err);
    if (!status)
        *count = device_list_size(instance);
    return api_return(instance, status, &err);
}

ratp_status api_device_describe(ratp_instance *instance, uint32_t index,
                                struct ratp_device_info *info)
{
    struct error err = {""};
    struct ratp_device_info full;
    ratp_status status = object_check(instance, OBJECT_INSTANCE, "instance", &err);
    if (!status)
        status = struct_check_out(info, sizeof info->struct_size, "info", &err);
    if (!status)
        status = device_list_info(instance, index, &full, &err);
    if (!status)
        struct_write(info, &full, sizeof full);
    return api_return(instance, status, &err);
}

ratp_status api_device_open(ratp_instance *instance, const struct ratp_device_params *params,
                            ratp_device **out)
{
    struct error err = {""};
    struct ratp_device_params p;
    uint32_t index = 0;
    ratp_status status = api_not_null(out, "out", &err);
    if (!status) {
        *out = NULL;
        status = object_check(instance, OBJECT_INSTANCE, "instance", &err);
    }
    if (!status)
        status = struct_read_optional(&p, sizeof p, params, sizeof p.struct_size, "params", &err);
    if (!status)
        status = device_choose(instance, p.name, &index, &err);
    if (!status)
        status = device_start(instance, index, &p, out, &err);
    return api_return(instance, status, &err);
}

ratp_status api_device_close(ratp_device **device)
{
    struct error err = {""};
    if (!device)
        return RATP_INVALID_ARGUMENT;
    if (!*device)
        return RATP_OK;
    ratp_status status = object_check(*device, OBJECT_DEVICE, "*device", &err);
    if (status)
        return api_return(*device, status, &err);
    ratp_instance *instance = (*device)->instance;
    status = device_stop(*device, &err);
    if (status == RATP_WRONG_STATE)
        return api_return(*device, status, &err);
    *device = NULL;
    return api_return(instance, status, &err);
}

ratp_status api_device_info(ratp_device *device, struct ratp_device_info *info)
{
    struct error err = {""};
    struct ratp_device_info full = {0};
    ratp_status status = object_check(device, OBJECT_DEVICE, "device", &err);
    if (!status)
        status = struct_check_out(info, sizeof info->struct_size, "info", &err);
    if (!status) {
        device->backend->ops->info(device->backend, &full);
        struct_write(info, &full, sizeof full);
    }
    return api_return(device, status, &err);
}

ratp_status api_device_kernel_form(ratp_device *device, uint32_t index,
                                   struct ratp_kernel_form *form)
{
    struct error err = {""};
    struct ratp_kernel_form full = {0};
    ratp_status status = object_check(device, OBJECT_DEVICE, "device", &err);
    if (!status)
        status = struct_check_out(form, sizeof form->struct_size, "form", &err);
    if (!status && !device->backend->ops->kernel_form(device->backend, index, &full))
        status = fail(&err, RATP_NOT_FOUND, "index is %u, the device has fewer kernels", index);
    if (!status)
        struct_write(form, &full, sizeof full);
    return api_return(device, status, &err);
}

ratp_status api_device_wait(ratp_device *device)
{
    struct error err = {""};
    ratp_status status = object_check(device, OBJECT_DEVICE, "device", &err);
    if (!status) {
        struct backend *b = device->backend;
        status = b->ops->wait(b, b->ops->latest(b), &err);
    }
    return api_return(device, status, &err);
}
