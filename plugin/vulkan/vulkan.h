/* The Vulkan layer: instance, devices, memory, pipelines, submission. Nothing
 * here knows about attention. Everything takes addresses and push constants;
 * there are no descriptor sets. */
#ifndef RATPLUS_VULKAN_LAYER_H
#define RATPLUS_VULKAN_LAYER_H

#include "../backend.h"

struct vk_instance;
struct vk_device;
struct vk_stream;

/* An embedded SPIR-V module; the build writes them from shaders/NAME.comp. */
struct vk_shader {
    const char *name;
    const uint32_t *code;
    size_t size;         /* bytes */
    uint32_t push_bytes; /* size of its push-constant block, at most 128 */
};

/* Records a dispatch of x*y*z workgroups of the shader specialised by
 * `constants` (constant_id 0, 1, ...; a whole list, 32 bits each). The pipeline
 * is made on first use. Zero groups record nothing. */
ratp_status vk_dispatch(struct vk_stream *s, const struct vk_shader *shader,
                        const uint32_t *constants, uint32_t constant_count, const void *push,
                        uint32_t push_size, uint32_t x, uint32_t y, uint32_t z,
                        struct error *err);
/* Makes all earlier writes of the stream visible to everything after. */
void vk_barrier(struct vk_stream *s);

/* What kernels choose their form by. */
struct vk_caps {
    uint32_t subgroup_size;                /* the default one of compute */
    uint32_t subgroup_min, subgroup_max;   /* equal without size control */
    uint32_t subgroup_operations;          /* VkSubgroupFeatureFlags, for compute */
    bool subgroup_size_control;
    bool storage_16bit, float16, integer_dot;
    bool cooperative_matrix;
    uint32_t shared_bytes;                 /* maxComputeSharedMemorySize */
    uint32_t max_invocations;              /* in a workgroup */
    uint32_t max_groups[3];
    uint32_t compute_units;                /* a guess for software devices: CPU threads */
    uint32_t vendor_id;
    bool software;
};
const struct vk_caps *vk_device_caps(const struct vk_device *d);

#endif
