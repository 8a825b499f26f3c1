/* The parts of the ggml backend, and what they share. */
#ifndef RATPLUS_GGML_ADAPTER_H
#define RATPLUS_GGML_ADAPTER_H

#include "backend_abi.h"

#include <pthread.h>
#include <ratplus.h>
#include <stdbool.h>

enum { MAX_DEVICES = 16 };

/* One device of the library, as ggml sees it. They live as long as the process:
 * ggml has no call that ends a registration. */
struct adapter_device {
    struct ggml_backend_device ggml;
    struct ggml_backend_buffer_type buffers;
    const struct ratp_api *ratp;
    ratp_instance *instance;
    struct ratp_device_info info;
    uint32_t index;       /* in the library's list */
    char name[32];        /* "RATPLUS0" */
    pthread_mutex_t lock; /* of `opened` */
    ratp_device *opened;  /* NULL until a buffer or a backend needs it */
};

/* One line to stderr, "ratplus: ...". */
void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The same as an error in ggml's log, which a host may show in a place of its own. */
void complain_in_log(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Whether the host's ggml is one that backend_abi.h describes; says so when not. */
bool version_is_known(void);

/* Fills in `device`; the caller has set ratp, instance, info, index and name. */
void device_init(struct adapter_device *device, ggml_backend_reg_t registration);
/* The library's device, opened at the first call; NULL when it cannot be. */
ratp_device *device_open(struct adapter_device *device);

/* What the device says of itself now. False, and zeros, when it says nothing. */
bool device_look(struct adapter_device *device, struct ratp_device_info *info);

void buffer_type_init(struct adapter_device *device);
/* The whole tensor that one is a view of, or itself. */
const struct ggml_tensor *tensor_root(const struct ggml_tensor *tensor);
/* Where a tensor in one of our buffers lies. */
void buffer_place(const struct ggml_tensor *tensor, ratp_buffer **buffer, uint64_t *offset);

/* A new backend of the device, freed by its own call; NULL without memory or device. */
ggml_backend_t backend_create(struct adapter_device *device);
/* Whether the backend takes `op`. */
bool op_is_supported(const struct ggml_tensor *op);

/* Of the cache's types, those that SET_ROWS writes here, and attention reads. */
bool rows_type_is_known(enum ggml_type type);
bool rows_are_supported(const struct ggml_tensor *op);
/* Runs a SET_ROWS node on the host, in the mapped buffer. False, and a line
 * that says why, when an index leads outside. */
bool rows_run(const struct ggml_tensor *op);
/* Where row i of plane i2, i3 goes; NULL, and a line that says why, when that is outside. */
unsigned char *rows_place(const struct ggml_tensor *op, size_t i, size_t i2, size_t i3);

#endif
