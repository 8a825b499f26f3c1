/* Buffers. */
#include "api.h"

#include "structs.h"

#include <inttypes.h>

ratp_status api_buffer_create(ratp_device *device, const struct ratp_buffer_params *params,
                              ratp_buffer **out)
{
    struct error err = {""};
    struct ratp_buffer_params p;
    ratp_status status = api_not_null(out, "out", &err);
    if (!status) {
        *out = NULL;
        status = object_check(device, OBJECT_DEVICE, "device", &err);
    }
    if (!status)
        status = struct_read(&p, sizeof p, params, STRUCT_UPTO(struct ratp_buffer_params, size),
                             "params", &err);
    if (!status)
        status = buffer_open(device, &p, out, &err);
    return api_return(device, status, &err);
}

ratp_status api_buffer_destroy(ratp_buffer **buffer)
{
    struct error err = {""};
    if (!buffer)
        return RATP_INVALID_ARGUMENT;
    if (!*buffer)
        return RATP_OK;
    ratp_status status = object_check(*buffer, OBJECT_BUFFER, "*buffer", &err);
    if (status)
        return api_return(*buffer, status, &err);
    ratp_device *device = (*buffer)->device;
    status = buffer_close(*buffer, &err);
    *buffer = NULL;
    return api_return(device, status, &err);
}

static ratp_status check_range(const ratp_buffer *buffer, uint64_t offset, const void *data,
                               uint64_t size, struct error *err)
{
    if (!data && size > 0)
        return fail(err, RATP_INVALID_ARGUMENT, "data is NULL");
    if (offset > buffer->mem.size || size > buffer->mem.size - offset)
        return fail(err, RATP_INVALID_ARGUMENT,
                    "offset %" PRIu64 " and size %" PRIu64 " reach beyond the buffer's %" PRIu64
                    " bytes",
                    offset, size, buffer->mem.size);
    return RATP_OK;
}

ratp_status api_buffer_write(ratp_buffer *buffer, uint64_t offset, const void *data,
                             uint64_t size)
{
    struct error err = {""};
    ratp_status status = object_check(buffer, OBJECT_BUFFER, "buffer", &err);
    if (!status)
        status = check_range(buffer, offset, data, size, &err);
    if (!status && size > 0) {
        struct backend *b = buffer->device->backend;
        status = b->ops->mem_write(b, &buffer->mem, offset, data, size, &err);
    }
    return api_return(buffer, status, &err);
}

ratp_status api_buffer_read(ratp_buffer *buffer, uint64_t offset, void *data, uint64_t size)
{
    struct error err = {""};
    ratp_status status = object_check(buffer, OBJECT_BUFFER, "buffer", &err);
    if (!status)
        status = check_range(buffer, offset, data, size, &err);
    if (!status && size > 0) {
        struct backend *b = buffer->device->backend;
        status = b->ops->mem_read(b, &buffer->mem, offset, data, size, &err);
    }
    return api_return(buffer, status, &err);
}

ratp_status api_buffer_map(ratp_buffer *buffer, void **address)
{
    struct error err = {""};
    ratp_status status = object_check(buffer, OBJECT_BUFFER, "buffer", &err);
    if (!status)
        status = api_not_null(address, "address", &err);
    if (!status)
        status = buffer->device->backend->ops->alive(buffer->device->backend, &err);
    if (!status) {
        *address = buffer->mem.host;
        if (!*address)
            status = fail(&err, RATP_UNSUPPORTED,
                          "the buffer is not mapped: make it with RATP_MEMORY_HOST or RATP_MEMORY_SHARED");
    }
    return api_return(buffer, status, &err);
}
