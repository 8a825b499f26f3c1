/* The handles above the backends: instance, device, buffer. */
#ifndef RATPLUS_DEVICE_H
#define RATPLUS_DEVICE_H

#include "backend.h"
#include "object.h"
#include "shortage.h"

struct vk_instance; /* plugin/vulkan */
struct staging;     /* staging.h */

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
    struct spares spares; /* whose memory is given back when it runs short */
    struct lock staging_lock;
    struct staging *staging; /* those that no call uses now */
    struct spare staging_spare;
};

struct ratp_buffer {
    struct object object;
    ratp_device *device;
    struct mem mem;
    bool imported; /* the memory is the host's; freeing `mem` only forgets it */
};

/* Checked by the caller: handles and struct sizes; everything else here. */
ratp_status instance_open(const struct ratp_instance_params *params, ratp_instance **out,
                          struct error *err);
ratp_status instance_close(ratp_instance *instance, struct error *err);

/* Vulkan devices in the drivers' order, then the reference device. */
uint32_t device_list_size(const ratp_instance *instance);
/* Fills a full struct. */
ratp_status device_list_info(const ratp_instance *instance, uint32_t index,
                             struct ratp_device_info *info, struct error *err);
/* The device that ratp_device_params.name means. */
ratp_status device_choose(const ratp_instance *instance, const char *name, uint32_t *index,
                          struct error *err);
ratp_status device_start(ratp_instance *instance, uint32_t index,
                         const struct ratp_device_params *params, ratp_device **out,
                         struct error *err);
/* A handle over a backend, which belongs to it from then on; on failure the
 * backend stays the caller's. */
ratp_status device_adopt(ratp_instance *instance, struct backend *backend, bool reference,
                         ratp_device **out, struct error *err);
/* RATP_WRONG_STATE, and nothing has changed, or RATP_DEVICE_LOST: it is freed, but what the
 * driver may still use is left. */
ratp_status device_stop(ratp_device *device, struct error *err);

ratp_status buffer_open(ratp_device *device, const struct ratp_buffer_params *params,
                        ratp_buffer **out, struct error *err);
/* A handle over memory of the device; on failure `mem` stays the caller's. */
ratp_status buffer_adopt(ratp_device *device, const struct mem *mem, bool imported,
                         ratp_buffer **out, struct error *err);
/* RATP_DEVICE_LOST: it is freed, but the device may still use the host's memory. */
ratp_status buffer_close(ratp_buffer *buffer, struct error *err);

#endif
