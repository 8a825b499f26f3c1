/* ggml's interface for backends, of which no header is installed: our own
 * declaration of what API version 3 of ggml 0.27 calls and reads. Offsets are
 * asserted, so that a change here cannot go unnoticed; whether the host is a
 * ggml that this describes is decided in version.c. */
#ifndef RATPLUS_GGML_BACKEND_ABI_H
#define RATPLUS_GGML_BACKEND_ABI_H

#include <ggml-backend.h>
#include <ggml.h>
#include <stddef.h>

enum { BACKEND_API_VERSION = 3 };

/* A function that this adapter leaves to ggml's default by NULL. */
typedef void (*unused_call)(void);

struct ggml_backend_buffer_type {
    const char *(*get_name)(ggml_backend_buffer_type_t type);
    ggml_backend_buffer_t (*alloc_buffer)(ggml_backend_buffer_type_t type, size_t size);
    unused_call alloc_buffer_n;
    size_t (*get_alignment)(ggml_backend_buffer_type_t type);
    size_t (*get_max_size)(ggml_backend_buffer_type_t type);
    unused_call get_alloc_size;
    unused_call get_alloc_size_n;
    bool (*is_host)(ggml_backend_buffer_type_t type);
    ggml_backend_dev_t device;
    void *context;
};

/* What a buffer can do. Offsets and sizes are bytes in the tensor's data. */
struct buffer_calls {
    void (*free_buffer)(ggml_backend_buffer_t buffer);
    void *(*get_base)(ggml_backend_buffer_t buffer);
    unused_call init_tensor;
    void (*memset_tensor)(ggml_backend_buffer_t buffer, struct ggml_tensor *tensor, uint8_t value,
                          size_t offset, size_t size);
    void (*set_tensor)(ggml_backend_buffer_t buffer, struct ggml_tensor *tensor, const void *data,
                       size_t offset, size_t size);
    void (*get_tensor)(ggml_backend_buffer_t buffer, const struct ggml_tensor *tensor, void *data,
                       size_t offset, size_t size);
    unused_call set_tensor_2d;
    unused_call get_tensor_2d;
    bool (*cpy_tensor)(ggml_backend_buffer_t buffer, const struct ggml_tensor *from,
                       struct ggml_tensor *to);
    void (*clear)(ggml_backend_buffer_t buffer, uint8_t value);
    unused_call reset;
};

struct ggml_backend_buffer {
    struct buffer_calls calls;
    ggml_backend_buffer_type_t type;
    void *context;
    size_t size;
    enum ggml_backend_buffer_usage usage;
};

/* Exported by libggml-base: the buffer is ggml's to allocate and to free. */
ggml_backend_buffer_t ggml_backend_buffer_init(ggml_backend_buffer_type_t type,
                                               struct buffer_calls calls, void *context,
                                               size_t size);

struct ggml_backend {
    ggml_guid_t guid;
    const char *(*get_name)(ggml_backend_t backend);
    void (*free_backend)(ggml_backend_t backend);
    unused_call set_tensor_async, get_tensor_async;
    unused_call set_tensor_2d_async, get_tensor_2d_async;
    unused_call cpy_tensor_async;
    void (*synchronize)(ggml_backend_t backend);
    unused_call graph_plan_create, graph_plan_free, graph_plan_update, graph_plan_compute;
    enum ggml_status (*graph_compute)(ggml_backend_t backend, struct ggml_cgraph *graph);
    unused_call event_record, event_wait;
    unused_call graph_optimize;
    ggml_backend_dev_t device;
    void *context;
};

struct ggml_backend_device {
    const char *(*get_name)(ggml_backend_dev_t device);
    const char *(*get_description)(ggml_backend_dev_t device);
    void (*get_memory)(ggml_backend_dev_t device, size_t *free, size_t *total);
    enum ggml_backend_dev_type (*get_type)(ggml_backend_dev_t device);
    void (*get_props)(ggml_backend_dev_t device, struct ggml_backend_dev_props *props);
    ggml_backend_t (*init_backend)(ggml_backend_dev_t device, const char *params);
    ggml_backend_buffer_type_t (*get_buffer_type)(ggml_backend_dev_t device);
    unused_call get_host_buffer_type;
    unused_call buffer_from_host_ptr;
    bool (*supports_op)(ggml_backend_dev_t device, const struct ggml_tensor *op);
    bool (*supports_buft)(ggml_backend_dev_t device, ggml_backend_buffer_type_t type);
    unused_call offload_op;
    unused_call event_new, event_free, event_synchronize;
    ggml_backend_reg_t registration;
    void *context;
};

struct ggml_backend_reg {
    int api_version;
    const char *(*get_name)(ggml_backend_reg_t registration);
    size_t (*get_device_count)(ggml_backend_reg_t registration);
    ggml_backend_dev_t (*get_device)(ggml_backend_reg_t registration, size_t index);
    void *(*get_proc_address)(ggml_backend_reg_t registration, const char *name);
    void *context;
};

#define AT(type, field, offset) \
    _Static_assert(offsetof(struct type, field) == (offset), #type "." #field " has moved")
AT(ggml_backend_buffer_type, alloc_buffer, 0x08);
AT(ggml_backend_buffer_type, get_alignment, 0x18);
AT(ggml_backend_buffer_type, get_max_size, 0x20);
AT(ggml_backend_buffer_type, is_host, 0x38);
AT(ggml_backend_buffer_type, device, 0x40);
AT(ggml_backend_buffer_type, context, 0x48);
AT(ggml_backend_buffer, calls.memset_tensor, 0x18);
AT(ggml_backend_buffer, calls.set_tensor_2d, 0x30);
AT(ggml_backend_buffer, calls.cpy_tensor, 0x40);
AT(ggml_backend_buffer, calls.clear, 0x48);
AT(ggml_backend_buffer, type, 0x58);
AT(ggml_backend_buffer, context, 0x60);
AT(ggml_backend_buffer, size, 0x68);
AT(ggml_backend_buffer, usage, 0x70);
AT(ggml_backend, get_name, 0x08);
AT(ggml_backend, synchronize, 0x40);
AT(ggml_backend, graph_compute, 0x68);
AT(ggml_backend, graph_optimize, 0x80);
AT(ggml_backend, device, 0x88);
AT(ggml_backend, context, 0x90);
AT(ggml_backend_device, init_backend, 0x28);
AT(ggml_backend_device, supports_op, 0x48);
AT(ggml_backend_device, offload_op, 0x58);
AT(ggml_backend_device, registration, 0x78);
AT(ggml_backend_device, context, 0x80);
AT(ggml_backend_reg, get_name, 0x08);
AT(ggml_backend_reg, get_proc_address, 0x20);
AT(ggml_backend_reg, context, 0x28);
#undef AT

#endif
