/* Extension "ratplus.vulkan/1": for hosts that have a Vulkan device of their
 * own. The host keeps its device; the library allocates, compiles and records
 * on it, and leaves everything it did not make as it was.
 *
 *     const struct ratp_vulkan_api *vk =
 *         ratp->get_extension(instance, RATP_VULKAN_EXTENSION);
 */
#ifndef RATPLUS_VULKAN_H
#define RATPLUS_VULKAN_H

#include <ratplus.h>
#include <vulkan/vulkan_core.h>

#ifdef __cplusplus
extern "C" {
#endif

#define RATP_VULKAN_EXTENSION "ratplus.vulkan/1"

/* A host's device. All handles stay the host's, and must outlive device_close.
 *
 * Required of it: Vulkan 1.2, a queue family with compute, and the features that
 * ratp_vulkan_api.features marks as required, enabled. The others of that list
 * are used where the host has enabled them. */
struct ratp_vulkan_device {
    size_t struct_size;
    PFN_vkGetInstanceProcAddr get_instance_proc_addr; /* NULL: the system's loader */
    VkInstance instance;
    VkPhysicalDevice physical_device;
    VkDevice device;
    uint32_t api_version; /* as given to vkCreateInstance; 0: VK_API_VERSION_1_2 */
    uint32_t queue_family;
    uint32_t queue_index;
    /* Called around every vkQueueSubmit and vkQueueWaitIdle on that queue, when
     * the host or another user shares it; both or neither. The latter only after
     * the driver said that the device is lost. */
    void (*lock_queue)(void *user);
    void (*unlock_queue)(void *user);
    void *user;
    /* What was enabled in vkCreateDevice: the extensions' names, and the
     * feature structs (the pNext chain, starting at VkPhysicalDeviceFeatures2).
     * Read during the call only. */
    const char *const *extensions;
    uint32_t extension_count;
    const VkPhysicalDeviceFeatures2 *features;
    uint64_t memory_budget; /* as in ratp_device_params */
    uint64_t wait_limit_ms; /* since ABI 1.1, as there */
};

struct ratp_vulkan_buffer {
    size_t struct_size;
    /* Made with VK_BUFFER_USAGE_STORAGE_BUFFER_BIT | SHADER_DEVICE_ADDRESS_BIT,
     * bound to memory allocated with VK_MEMORY_ALLOCATE_DEVICE_ADDRESS_BIT.
     * buffer_read also needs TRANSFER_SRC, buffer_write TRANSFER_DST usage. */
    VkBuffer buffer;
    uint64_t offset; /* where the ratp_buffer starts in it, a multiple of 4 */
    uint64_t size;
};

/* A point on a timeline semaphore. */
struct ratp_vulkan_point {
    VkSemaphore semaphore;
    uint64_t value;
};

/* A device feature that the library needs or can use. Never changes. */
struct ratp_vulkan_feature {
    const char *name;      /* as Vulkan writes it: "bufferDeviceAddress" */
    const char *extension; /* the device extension that goes with it; NULL: none is needed */
    const char *gives;     /* what the library makes of it, in a few words */
    /* The struct of Vulkan that has the feature (VkPhysicalDeviceFeatures2 for those of
     * Vulkan 1.0), its size in bytes, and where in it the VkBool32 stands. Type 0: the
     * extension has no struct of features, and is all that there is to enable. */
    VkStructureType type;
    uint32_t size;
    uint32_t offset;
    uint32_t required; /* 1: without it the device cannot be used */
};

/* Grows at its end, like ratp_api. */
struct ratp_vulkan_api {
    size_t struct_size;

    /* Device extensions the library can use, ended by NULL: a host that enables
     * those its device has gets every faster form. Static. [any thread] */
    const char *const *recommended_extensions;

    /* Opens the host's device. The result is a ratp_device like any other and
     * is closed by device_close, which leaves the host's handles intact, and
     * answers RATP_DEVICE_LOST where it had to leave objects of its own there
     * too: the VkDevice must not be destroyed while it still works on them.
     * [any thread] */
    ratp_status (*device_import)(ratp_instance *instance,
                                 const struct ratp_vulkan_device *params, ratp_device **out);
    /* A ratp_buffer over a part of the host's VkBuffer, which must outlive it.
     * [any thread] */
    ratp_status (*buffer_import)(ratp_device *device, const struct ratp_vulkan_buffer *params,
                                 ratp_buffer **out);
    /* The VkBuffer behind a ratp_buffer of a Vulkan device, and where it starts
     * in it. Valid until buffer_destroy. [any thread] */
    ratp_status (*buffer_handle)(ratp_buffer *buffer, struct ratp_vulkan_buffer *out);

    /* From now on the step's attends are recorded into the host's command
     * buffer, which must be in the recording state, outside a render pass, and
     * of a queue family with compute. All operands must be buffers. Each attend
     * begins with a barrier that makes earlier shader and transfer writes
     * visible to it, and ends with one that makes its own visible to later
     * shaders and transfers (not to the host: a host that maps `out` adds its
     * own barrier). Bound pipelines and push constants are disturbed.
     * Call it before the first attend, or again to change to another command
     * buffer. [one thread per cache] */
    ratp_status (*step_record)(ratp_step *step, VkCommandBuffer commands);
    /* After the host has submitted everything that was recorded, and before
     * step_commit or step_abort: `done` is the timeline point that the host's
     * submission signals. The library frees the step's memory, and lets later
     * steps run, only after it. A host that throws its command buffer away
     * calls step_abort without it. When this fails for another reason than its
     * arguments, it has waited for `done`, and only step_abort is possible.
     * [one thread per cache] */
    ratp_status (*step_recorded)(ratp_step *step, struct ratp_vulkan_point done);
    /* For asynchronous hosts: what the attends after this call record waits for
     * `wait` before it runs, and `signal` is signalled when it is done. Either
     * may be NULL. Everything is still one vkQueueSubmit, at step_commit. Not
     * for recorded steps. The fifth step in flight on a cache waits in
     * step_begin for the first: signal what that one waits for before. What is
     * never signalled makes the device count as lost, after wait_limit_ms. After
     * a failure for another reason than the arguments only step_abort is
     * possible, and so with step_record. [one thread per cache] */
    ratp_status (*step_sync)(ratp_step *step, const struct ratp_vulkan_point *wait,
                             const struct ratp_vulkan_point *signal);

    /* The pipeline cache, to be stored by the host. *size is the room in `data`
     * and gets the bytes needed; with data NULL only *size is set.
     * [any thread] */
    ratp_status (*pipeline_cache_save)(ratp_device *device, void *data, size_t *size);
    /* Merges saved bytes into the device's pipeline cache. Bytes from another
     * driver or a damaged file are refused with RATP_PARSE_ERROR and do no
     * harm. [any thread] */
    ratp_status (*pipeline_cache_load)(ratp_device *device, const void *data, size_t size);

    /* Since ABI 1.1. The device features that the library needs or can use; *count gets how
     * many, NULL does without. A host that enables those that its device has, with their
     * extensions, gets every faster form. Features that Vulkan 1.1, 1.2 or 1.3 collects in one
     * struct may be enabled there as well. Static. [any thread] */
    const struct ratp_vulkan_feature *(*features)(uint32_t *count);
};

#ifdef __cplusplus
}
#endif

#endif
