/* A device of the library as a device of ggml. */
#include "adapter.h"

#include "layers.h"
#include "order.h"

#include <stdatomic.h>
#include <stdio.h>

static const char *device_name(ggml_backend_dev_t device)
{
    const struct adapter_device *d = device->context;
    return d->name;
}

static const char *device_description(ggml_backend_dev_t device)
{
    const struct adapter_device *d = device->context;
    return d->info.name;
}

bool device_look(struct adapter_device *d, struct ratp_device_info *info)
{
    *info = (struct ratp_device_info){.struct_size = sizeof *info};
    pthread_mutex_lock(&d->lock);
    ratp_device *opened = d->opened;
    pthread_mutex_unlock(&d->lock);
    return !(opened ? d->ratp->device_info(opened, info)
                    : d->ratp->device_describe(d->instance, d->index, info));
}

/* By what is free the host fits contexts to the device. */
static void device_memory(ggml_backend_dev_t device, size_t *free, size_t *total)
{
    struct adapter_device *d = device->context;
    struct ratp_device_info now;
    *total = d->info.memory_bytes;
    *free = device_look(d, &now) ? now.memory_free : 0;
}

/* A GPU even where it is none: only then does llama.cpp give it layers. */
static enum ggml_backend_dev_type device_type(ggml_backend_dev_t device)
{
    (void)device;
    return GGML_BACKEND_DEVICE_TYPE_GPU;
}

/* No device_id: of GPUs with the same one llama.cpp drops all but the first,
 * and ggml's own Vulkan backend may be there for the weights. */
static void device_props(ggml_backend_dev_t device, struct ggml_backend_dev_props *props)
{
    *props = (struct ggml_backend_dev_props){
        .name = device_name(device),
        .description = device_description(device),
        .type = device_type(device),
    };
    device_memory(device, &props->memory_free, &props->memory_total);
}

ratp_device *device_open(struct adapter_device *d)
{
    char index[16], why[256];
    const struct ratp_device_params params = {.struct_size = sizeof params, .name = index};
    snprintf(index, sizeof index, "%u", d->index);
    pthread_mutex_lock(&d->lock);
    if (!d->opened && d->ratp->device_open(d->instance, &params, &d->opened)) {
        d->ratp->last_error(d->instance, why, sizeof why);
        complain("%s (%s) cannot be opened: %s", d->name, d->info.name, why);
    }
    ratp_device *opened = d->opened;
    pthread_mutex_unlock(&d->lock);
    return opened;
}

static ggml_backend_t device_init_backend(ggml_backend_dev_t device, const char *params)
{
    (void)params;
    return backend_create(device->context);
}

static ggml_backend_buffer_type_t device_buffer_type(ggml_backend_dev_t device)
{
    struct adapter_device *d = device->context;
    return &d->buffers;
}

/* Of the buffer that a tensor lies in; NULL: it lies nowhere yet. */
static ggml_backend_buffer_type_t type_of(const struct ggml_tensor *tensor)
{
    const struct ggml_tensor *root = tensor_root(tensor);
    return root->buffer ? ggml_backend_buffer_get_type(root->buffer) : NULL;
}

/* Of a cache whose heads are split over devices (-sm tensor). Nothing that a device may declare
 * makes the host refuse that; it ends with a failed assertion about the node, so that what to do
 * is said before. */
static void warn_of_split(const struct adapter_device *d, const struct ggml_tensor *op)
{
    static atomic_bool warned;
    ggml_backend_buffer_type_t type = type_of(op);
    ggml_backend_dev_t holder = type ? ggml_backend_buft_get_device(type) : NULL;
    if (holder && ggml_backend_dev_type(holder) == GGML_BACKEND_DEVICE_TYPE_META &&
        !atomic_exchange(&warned, true))
        complain("%s cannot hold a part of each layer, as -sm tensor wants it, because the weights "
                 "are not here; llama.cpp will now end with a failed assertion: start it with "
                 "-sm layer", d->name);
}

static bool device_supports_op(ggml_backend_dev_t device, const struct ggml_tensor *op)
{
    const struct adapter_device *d = device->context;
    if (op->op == GGML_OP_SET_ROWS)
        warn_of_split(d, op);
    const bool supported = op_is_supported(op);
    if (!supported)
        order_host_runs(op);
    else if (op->op == GGML_OP_FLASH_ATTN_EXT && type_of(op->src[1]) == &d->buffers)
        order_planned(op);
    layers_asked(op, supported);
    return supported;
}

static bool device_supports_buffers(ggml_backend_dev_t device, ggml_backend_buffer_type_t type)
{
    const struct adapter_device *d = device->context;
    return type == &d->buffers;
}

void device_init(struct adapter_device *d, ggml_backend_reg_t registration)
{
    pthread_mutex_init(&d->lock, NULL);
    buffer_type_init(d);
    d->ggml = (struct ggml_backend_device){
        .get_name = device_name,
        .get_description = device_description,
        .get_memory = device_memory,
        .get_type = device_type,
        .get_props = device_props,
        .init_backend = device_init_backend,
        .get_buffer_type = device_buffer_type,
        .supports_op = device_supports_op,
        .supports_buft = device_supports_buffers,
        .registration = registration,
        .context = d,
    };
}
