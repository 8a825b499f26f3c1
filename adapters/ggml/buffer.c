/* ggml's buffers over mapped memory of the library. */
#include "adapter.h"
#include "order.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of a buffer's start and, by ggml, of each tensor in it. */
enum { ALIGNMENT = 128 };

struct mapped {
    struct adapter_device *device;
    ratp_buffer *buffer;
    unsigned char *mapping; /* where the library's buffer starts */
    unsigned char *base;    /* where ggml's does: at the next aligned address */
    bool placed;            /* it is known what the buffer is for */
};

enum { WHY = 320 };

/* Room for ggml's `size` bytes, mapped. False: `why` has the reason. */
static bool take_memory(struct mapped *m, size_t size, ratp_memory_kind kind, char *why)
{
    const struct adapter_device *d = m->device;
    const struct ratp_buffer_params params = {
        .struct_size = sizeof params,
        /* Room to align the start, and for the whole words that the library reads. */
        .size = size + 2 * ALIGNMENT,
        .kind = kind,
    };
    void *mapping = NULL;
    if (d->ratp->buffer_create(d->opened, &params, &m->buffer)) {
        d->ratp->last_error(d->opened, why, WHY);
        return false;
    }
    if (d->ratp->buffer_map(m->buffer, &mapping)) {
        d->ratp->last_error(m->buffer, why, WHY);
        d->ratp->buffer_destroy(&m->buffer);
        return false;
    }
    m->mapping = mapping;
    m->base = m->mapping + (ALIGNMENT - (uintptr_t)mapping % ALIGNMENT) % ALIGNMENT;
    return true;
}

/* The results of nodes, which the host reads again and again: into the host's own memory.
 * Where there is no more of that they stay. */
static void move_to_host(struct mapped *m, size_t size)
{
    struct mapped host = *m;
    char why[WHY] = "";
    if (!take_memory(&host, size, RATP_MEMORY_HOST, why)) {
        complain("%s: no buffer of %zu bytes in the host's memory, so results of nodes stay in the "
                 "device's, which is slower: %s", m->device->name, size, why);
        return;
    }
    m->device->ratp->buffer_destroy(&m->buffer);
    *m = host;
}

static void free_buffer(ggml_backend_buffer_t buffer)
{
    struct mapped *m = buffer->context;
    order_freed(m->base, buffer->size);
    m->device->ratp->buffer_destroy(&m->buffer);
    free(m);
}

/* ggml tells what a buffer is for between its making and the first question where it is. */
static void *get_base(ggml_backend_buffer_t buffer)
{
    struct mapped *m = buffer->context;
    if (!m->placed) {
        m->placed = true;
        if (buffer->usage == GGML_BACKEND_BUFFER_USAGE_COMPUTE)
            move_to_host(m, buffer->size);
    }
    return m->base;
}

static void memset_tensor(ggml_backend_buffer_t buffer, struct ggml_tensor *tensor, uint8_t value,
                          size_t offset, size_t size)
{
    (void)buffer;
    memset((unsigned char *)tensor->data + offset, value, size);
    order_host_wrote(tensor, offset, size, NULL);
}

static void set_tensor(ggml_backend_buffer_t buffer, struct ggml_tensor *tensor, const void *data,
                       size_t offset, size_t size)
{
    (void)buffer;
    memcpy((unsigned char *)tensor->data + offset, data, size);
    order_host_wrote(tensor, offset, size, data);
}

static void get_tensor(ggml_backend_buffer_t buffer, const struct ggml_tensor *tensor, void *data,
                       size_t offset, size_t size)
{
    (void)buffer;
    memcpy(data, (const unsigned char *)tensor->data + offset, size);
    order_host_read(tensor, offset, size);
}

/* False: ggml copies by way of the other buffer's own calls. */
static bool cpy_tensor(ggml_backend_buffer_t buffer, const struct ggml_tensor *from,
                       struct ggml_tensor *to)
{
    (void)buffer;
    if (!ggml_backend_buffer_is_host(from->buffer))
        return false;
    memcpy(to->data, from->data, ggml_nbytes(from));
    order_host_wrote(to, 0, ggml_nbytes(from), from->data);
    return true;
}

static void clear(ggml_backend_buffer_t buffer, uint8_t value)
{
    memset(get_base(buffer), value, buffer->size);
    order_cleared(get_base(buffer), buffer->size);
}

static const char *type_name(ggml_backend_buffer_type_t type)
{
    const struct adapter_device *d = type->context;
    return d->name;
}

static size_t type_alignment(ggml_backend_buffer_type_t type)
{
    (void)type;
    return ALIGNMENT;
}

static size_t type_max_size(ggml_backend_buffer_type_t type)
{
    const struct adapter_device *d = type->context;
    return d->info.max_allocation ? d->info.max_allocation - 2 * ALIGNMENT : SIZE_MAX / 2;
}

/* The CPU backend may work in these buffers: what we refuse it does in place. */
static bool type_is_host(ggml_backend_buffer_type_t type)
{
    (void)type;
    return true;
}

/* The host's own line names a size alone, if there is one. */
static ggml_backend_buffer_t refuse(struct adapter_device *d, size_t size, const char *why)
{
    struct ratp_device_info now;
    const bool known = device_look(d, &now);
    complain_in_log("%s: no buffer of %zu bytes (%.1f MiB): %s. Of the device's memory %.1f MiB are "
                    "free; a smaller context (-c), batch (-ub) or fewer slots (-np) need less",
                    d->name, size, (double)size / 0x1p20, why,
                    known ? (double)now.memory_free / 0x1p20 : 0.0);
    return NULL;
}

static ggml_backend_buffer_t alloc_buffer(ggml_backend_buffer_type_t type, size_t size)
{
    static const struct buffer_calls calls = {
        .free_buffer = free_buffer, .get_base = get_base, .memset_tensor = memset_tensor,
        .set_tensor = set_tensor, .get_tensor = get_tensor, .cpy_tensor = cpy_tensor,
        .clear = clear,
    };
    struct adapter_device *d = type->context;
    char why[WHY] = "the device cannot be opened";
    if (size > type_max_size(type)) {
        snprintf(why, sizeof why, "one buffer has at most %zu bytes", type_max_size(type));
        return refuse(d, size, why);
    }
    if (!device_open(d))
        return refuse(d, size, why);
    struct mapped *m = calloc(1, sizeof *m);
    if (!m)
        return refuse(d, size, "the host has no memory to keep account of it");
    m->device = d;
    if (!take_memory(m, size, RATP_MEMORY_SHARED, why)) {
        free(m);
        return refuse(d, size, why);
    }
    return ggml_backend_buffer_init(type, calls, m, size);
}

const struct ggml_tensor *tensor_root(const struct ggml_tensor *tensor)
{
    while (tensor->view_src)
        tensor = tensor->view_src;
    return tensor;
}

void buffer_place(const struct ggml_tensor *tensor, ratp_buffer **buffer, uint64_t *offset)
{
    const struct mapped *m = tensor->buffer->context;
    *buffer = m->buffer;
    *offset = (uint64_t)((unsigned char *)tensor->data - m->mapping);
}

void buffer_type_init(struct adapter_device *d)
{
    d->buffers = (struct ggml_backend_buffer_type){
        .get_name = type_name,
        .alloc_buffer = alloc_buffer,
        .get_alignment = type_alignment,
        .get_max_size = type_max_size,
        .is_host = type_is_host,
        .device = &d->ggml,
        .context = d,
    };
}
