/* The part of the Vulkan layer that speaks of a host's own Vulkan handles. */
#ifndef RATPLUS_VULKAN_IMPORT_H
#define RATPLUS_VULKAN_IMPORT_H

#include "vulkan.h"

#include <ratplus_vulkan.h>

/* A device on the host's VkDevice; `params` is a full struct. vk_device_close
 * leaves the host's handles as they are. */
ratp_status vk_device_import(const struct log *log, const struct ratp_vulkan_device *params,
                             struct vk_device **out, struct error *err);

/* Memory over a part of the host's buffer; vk_mem_free forgets it. */
ratp_status vk_mem_wrap(struct vk_device *d, VkBuffer buffer, uint64_t offset, uint64_t size,
                        struct mem *out, struct error *err);
/* The VkBuffer that holds `m`, which begins at m->handle_offset. */
VkBuffer vk_mem_buffer(const struct mem *m);

/* From now on the stream records into the host's command buffer. What it
 * recorded of its own before is submitted, and all of the device's own work is
 * waited for, because the host may submit to another queue. */
ratp_status vk_stream_attach(struct vk_stream *s, VkCommandBuffer commands, struct error *err);
/* A ticket that passes when the host's point is reached; later submissions run
 * after it. On failure the point is waited for. */
ratp_status vk_external_done(struct vk_device *d, struct ratp_vulkan_point done, ticket *out,
                             struct error *err);
/* What follows waits for `wait`, and `signal` is signalled after it; either
 * may be NULL. Not for attached streams. */
ratp_status vk_stream_sync(struct vk_stream *s, const struct ratp_vulkan_point *wait,
                           const struct ratp_vulkan_point *signal, struct error *err);

/* The handles of a device, as a host would describe them to vk_device_import. */
void vk_device_handles(const struct vk_device *d, struct ratp_vulkan_device *out);

#endif
