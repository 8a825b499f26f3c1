/* A Vulkan device of the samples' own: one compute queue, buffers by address,
 * pipelines with push constants only, one submission at a time. */
#ifndef SAMPLES_GPU_H
#define SAMPLES_GPU_H

#include "problem.h"

#include <ratplus.h>
#include <stddef.h>
#include <stdint.h>
#define VK_NO_PROTOTYPES
#include <volk.h>

#define GPU_MAX_EXTENSIONS 32

enum gpu_memory {
    GPU_DEVICE,  /* not mapped */
    GPU_UPLOAD,  /* mapped: written here, read by shaders */
    GPU_READBACK /* mapped: written by shaders, read here */
};

struct gpu_buffer {
    VkBuffer buffer;
    VkDeviceMemory memory;
    VkDeviceAddress address;
    uint64_t size;
    void *map;
};

struct ratp_vulkan_api;

struct gpu {
    struct VolkDeviceTable vk;
    VkInstance instance;
    VkDebugUtilsMessengerEXT messenger;
    uint32_t *messages; /* counts the validation layer's */
    VkPhysicalDevice physical;
    VkPhysicalDeviceProperties properties;
    VkPhysicalDeviceMemoryProperties memory;
    VkDevice device;
    uint32_t queue_family;
    VkQueue queue;
    VkPipelineLayout layout;
    VkCommandPool pool;
    VkCommandBuffer commands;
    VkSemaphore timeline;
    uint64_t point; /* of the latest submission */
    /* What the device was made with, to tell the plugin. */
    const char *extensions[GPU_MAX_EXTENSIONS];
    uint32_t extension_count;
    VkPhysicalDeviceFeatures2 features; /* the first of a chain */
};

/* `name` as in ratp_device_params, NULL for the best. The device is made with what the
 * plugin can use of it. *none: there is no usable device at all. */
bool gpu_open(struct gpu *gpu, const char *name, bool validate, uint32_t *messages,
              const struct ratp_vulkan_api *plugin, bool *none, struct problem *problem);
/* Opens the plugin on this device, which must outlive *out. */
bool gpu_lend(const struct gpu *gpu, const struct ratp_api *ratp, ratp_instance *instance,
              ratp_device **out, struct problem *problem);
/* Fills gpu->features and gpu->extensions for vkCreateDevice. */
bool gpu_choose_features(struct gpu *gpu, const struct ratp_vulkan_api *plugin,
                         struct problem *problem);
void gpu_free_features(struct gpu *gpu);
/* Waits for the device first. */
void gpu_close(struct gpu *gpu);

bool gpu_buffer_create(struct gpu *gpu, uint64_t size, enum gpu_memory memory,
                       struct gpu_buffer *out, struct problem *problem);
void gpu_buffer_destroy(struct gpu *gpu, struct gpu_buffer *buffer);
/* Copies `size` bytes from the start of `staging` into GPU_DEVICE memory, and waits. */
bool gpu_upload(struct gpu *gpu, struct gpu_buffer *to, uint64_t offset, uint64_t size,
                const struct gpu_buffer *staging, struct problem *problem);

struct gpu_shader {
    const char *name;
    const uint32_t *code;
    size_t size;
};

/* Specialised by constant_id 0, 1, ... */
bool gpu_pipeline_create(struct gpu *gpu, const struct gpu_shader *shader,
                         const uint32_t *constants, uint32_t constant_count, VkPipeline *out,
                         struct problem *problem);

/* gpu->commands is recorded between these two. gpu_submit returns as soon as
 * the work is submitted; its end is gpu->point on gpu->timeline. */
bool gpu_begin(struct gpu *gpu, struct problem *problem);
bool gpu_submit(struct gpu *gpu, struct problem *problem);
bool gpu_wait(struct gpu *gpu, struct problem *problem);
void gpu_dispatch(struct gpu *gpu, VkPipeline pipeline, const void *push, uint32_t push_size,
                  uint32_t x, uint32_t y);
/* All that shaders wrote so far is seen by shaders, and by the host, after. */
void gpu_barrier(struct gpu *gpu);

/* False with a problem when `result` is not VK_SUCCESS. */
bool gpu_check(VkResult result, const char *call, struct problem *problem);

#endif
