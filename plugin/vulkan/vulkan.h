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
    /* Its workgroups are whole subgroups of caps.subgroup_size, and it counts
     * on that. Vulkan promises it only where caps.full_subgroups. */
    bool full_subgroups;
};

/* shaders/NAME.comp, or what shaders/meson.build calls NAME, with a push block of type PUSH. */
#define VK_SHADER(NAME, PUSH)                                                                    \
    {                                                                                            \
        .name = #NAME, .code = NAME##_spv, .size = sizeof NAME##_spv, .push_bytes = sizeof(PUSH) \
    }
/* One that counts on full subgroups. */
#define VK_SHADER_FULL(NAME, PUSH)                                                               \
    {                                                                                            \
        .name = #NAME, .code = NAME##_spv, .size = sizeof NAME##_spv,                            \
        .push_bytes = sizeof(PUSH), .full_subgroups = true                                       \
    }

/* Records a dispatch of x*y*z workgroups of the shader specialised by
 * `constants` (constant_id 0, 1, ...; a whole list, 32 bits each). The pipeline
 * is made on first use. Zero groups record nothing. */
ratp_status vk_dispatch(struct vk_stream *s, const struct vk_shader *shader,
                        const uint32_t *constants, uint32_t constant_count, const void *push,
                        uint32_t push_size, uint32_t x, uint32_t y, uint32_t z,
                        struct error *err);
/* Makes all earlier writes of the stream visible to everything after. */
void vk_barrier(struct vk_stream *s);

/* Whether the stream records into a host's command buffer. */
bool vk_stream_attached(const struct vk_stream *s);
/* A barrier that also covers what somebody else recorded into the same command
 * buffer since the last one, and forgets what is bound there. */
void vk_stream_section(struct vk_stream *s);

/* A product of matrices that a subgroup computes: rows x depth by depth x columns, of
 * float16, summed in float32. */
struct vk_matrix {
    uint32_t rows, columns, depth;
};

/* What kernels choose their form by. */
struct vk_caps {
    uint32_t subgroup_size;                /* the default one of compute */
    uint32_t subgroup_min, subgroup_max;   /* equal without size control */
    uint32_t subgroup_operations;          /* VkSubgroupFeatureFlags, for compute */
    bool subgroup_size_control;
    bool full_subgroups; /* a shader may count on full subgroups of subgroup_size */
    bool storage_16bit, float16, int64, integer_dot;
    bool cooperative_matrix;
    struct vk_matrix matrix; /* zeros: none that kernels can use */
    uint32_t shared_bytes;                 /* maxComputeSharedMemorySize */
    uint32_t max_invocations;              /* in a workgroup, along x */
    uint32_t max_groups[3];
    uint32_t compute_units;                /* a guess for software devices: CPU threads */
    uint32_t vendor_id;
    bool software;
};
const struct vk_caps *vk_device_caps(const struct vk_device *d);

/* ---- Instance and devices ------------------------------------------------ */

/* *out is NULL, with RATP_OK and a log line that says why, where there is no
 * loader or no driver; with `validation` that is RATP_NOT_FOUND. */
ratp_status vk_instance_create(const struct log *log, bool validation, struct vk_instance **out,
                               struct error *err);
void vk_instance_destroy(struct vk_instance **instance);

/* Devices in the drivers' order, unusable ones too. */
uint32_t vk_device_count(const struct vk_instance *instance);
void vk_device_describe(const struct vk_instance *instance, uint32_t index,
                        struct ratp_device_info *info);
/* `budget` is the most bytes of memory that the device may allocate; 0: no limit.
 * `wait_limit_ms`: see ratp_device_params; 0: the default. */
ratp_status vk_device_open(struct vk_instance *instance, uint32_t index, uint64_t budget,
                           uint64_t wait_limit_ms, struct vk_device **out, struct error *err);
/* Waits for all work as vk_settle does, then frees everything. False where that waits in
 * vain: then all that the device may still use is left to the driver for good, its VkDevice
 * and VkInstance too. In a process that did not open the device the driver's objects are
 * left as well, and nothing is waited for: true. */
bool vk_device_close(struct vk_device **device);
/* RATP_DEVICE_LOST when it is, and in a process that did not open it. Before any lock of the
 * device is taken: in a child process it may be held by a thread that is not there. */
ratp_status vk_alive(struct vk_device *d, struct error *err);
void vk_device_info(struct vk_device *d, struct ratp_device_info *info);

/* ---- Memory: as the operations of the same names in backend.h ------------- */

ratp_status vk_mem_alloc(struct vk_device *d, uint64_t size, enum mem_kind kind, const char *name,
                         struct mem *out, struct error *err);
ratp_status vk_mem_try(struct vk_device *d, uint64_t size, enum mem_kind kind, const char *name,
                       struct mem *out, struct error *err);
void vk_mem_free(struct vk_device *d, struct mem *m);
void vk_mem_free_spare(struct vk_device *d, struct mem *m);
void vk_device_on_shortage(struct vk_device *d, bool (*reclaim)(void *user), void *user);
ratp_status vk_mem_import(struct vk_device *d, void *host, uint64_t size, struct mem *out,
                          struct error *err);
ratp_status vk_mem_write(struct vk_device *d, const struct mem *m, uint64_t offset,
                         const void *data, uint64_t size, struct error *err);
ratp_status vk_mem_read(struct vk_device *d, const struct mem *m, uint64_t offset, void *data,
                        uint64_t size, struct error *err);

struct vk_memory_stats {
    uint64_t allocated; /* bytes of all blocks: what counts against the budget */
    uint64_t used;      /* bytes of live pieces, rounded up to the alignment */
    uint32_t blocks;
    uint32_t pieces;
};
void vk_memory_stats(struct vk_device *d, struct vk_memory_stats *out);

/* ---- Streams --------------------------------------------------------------
 * A stream sees the results of everything that was submitted before it. */

ratp_status vk_stream_begin(struct vk_device *d, struct vk_stream **out, struct error *err);
ratp_status vk_stream_submit(struct vk_stream *s, ticket *out, struct error *err);
void vk_stream_drop(struct vk_stream *s);
/* RATP_DEVICE_LOST when nothing ends for as long as the device's limit. */
ratp_status vk_wait(struct vk_device *d, ticket t, struct error *err);
/* Waits until nothing that was submitted is in use any more, even when the device is said to
 * be lost. False: the limit passed, and it may be in use for ever. */
bool vk_settle(struct vk_device *d);
bool vk_passed(struct vk_device *d, ticket t);
ticket vk_latest(struct vk_device *d);

/* Both begin with vk_barrier. */
ratp_status vk_copy(struct vk_stream *s, const struct mem *to, uint64_t to_offset,
                    const struct mem *from, uint64_t from_offset, uint64_t size,
                    struct error *err);
/* Offset and size are multiples of 4. */
ratp_status vk_fill_zero(struct vk_stream *s, const struct mem *m, uint64_t offset, uint64_t size,
                         struct error *err);

/* ---- Pipeline cache -------------------------------------------------------- */

/* *size is the room in `data` and gets the bytes needed; `data` NULL: only asks. */
ratp_status vk_pipeline_cache_save(struct vk_device *d, void *data, size_t *size,
                                   struct error *err);
ratp_status vk_pipeline_cache_load(struct vk_device *d, const void *data, size_t size,
                                   struct error *err);

#endif
