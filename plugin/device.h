/* The handles above the backends: instance, device, buffer. */
#ifndef RATPLUS_DEVICE_H
#define RATPLUS_DEVICE_H

#include "backend.h"
#include "object.h"

struct vk_instance; /* plugin/vulkan */

struct ratp_instance {
    struct object object;
    struct log log;
    struct vk_instance *vulkan; /* NULL: no loader, no driver, or not wanted */
};

struct ratp_device {
    struct object object;
    ratp_instance *instance;
    struct backend *backend;
    bool reference; /* the plain C backend; else backend is plugin/kernels' */
};

struct ratp_buffer {
    struct object object;
    ratp_device *device;
    struct mem mem;
    bool imported; /* not freed by us */
};

#endif
