/* What the files of the Vulkan layer share. */
#ifndef RATPLUS_VULKAN_INTERNAL_H
#define RATPLUS_VULKAN_INTERNAL_H

/* Not <vulkan/vulkan.h>: the folder of the same name would be found first. */
#define VK_NO_PROTOTYPES
#define VOLK_VULKAN_H_PATH <vulkan/vulkan_core.h>
#include <volk.h>

#include "features.h"
#include "import.h"
#include "matrix.h"
#include "ranges.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>

/* ---- Loader ---------------------------------------------------------------- */

/* Functions of one instance. volk's globals hold one instance only, and a host
 * brings its own, so they are never used for these. */
#define VK_INSTANCE_CALLS(X)                                                                      \
    X(DestroyInstance)                                                                            \
    X(EnumeratePhysicalDevices)                                                                   \
    X(EnumerateDeviceExtensionProperties)                                                         \
    X(GetPhysicalDeviceProperties)                                                                \
    X(GetPhysicalDeviceProperties2)                                                               \
    X(GetPhysicalDeviceFeatures2)                                                                 \
    X(GetPhysicalDeviceMemoryProperties2)                                                         \
    X(GetPhysicalDeviceQueueFamilyProperties)                                                     \
    X(CreateDevice)                                                                               \
    X(GetDeviceProcAddr)

struct vk_calls {
#define MEMBER(name) PFN_vk##name name;
    VK_INSTANCE_CALLS(MEMBER)
#undef MEMBER
    /* NULL without VK_EXT_debug_utils. */
    PFN_vkCreateDebugUtilsMessengerEXT CreateDebugUtilsMessengerEXT;
    PFN_vkDestroyDebugUtilsMessengerEXT DestroyDebugUtilsMessengerEXT;
    PFN_vkSetDebugUtilsObjectNameEXT SetDebugUtilsObjectNameEXT;
    /* NULL without VK_KHR_cooperative_matrix. */
    PFN_vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR
        GetPhysicalDeviceCooperativeMatrixPropertiesKHR;
};

/* The system loader's entry point; NULL when there is none. */
PFN_vkGetInstanceProcAddr vk_loader(void);
/* False when a function is missing; `*missing` names it. */
bool vk_calls_load(struct vk_calls *calls, PFN_vkGetInstanceProcAddr get, VkInstance instance,
                   const char **missing);
void vk_device_table_load(struct VolkDeviceTable *table, const struct vk_calls *calls,
                          VkDevice device);

/* ---- Physical devices -------------------------------------------------------- */

enum { VK_PIECE_ALIGNMENT = 256 }; /* of what is cut from blocks, and its size */

struct vk_physical {
    VkPhysicalDevice handle;
    struct ratp_device_info info;
    struct vk_caps caps;
    uint32_t queue_family;
    uint32_t features; /* set of enum vk_feature: offered, or what a host enabled of it */
    uint64_t import_alignment;
    uint32_t local_heap; /* the largest device-local one, which info.memory_bytes tells of */
    uint64_t max_allocation; /* info.max_allocation is the largest piece that fits in it */
    uint8_t cache_uuid[VK_UUID_SIZE];
    VkPhysicalDeviceMemoryProperties memory;
    uint32_t compute_families[8]; /* every family with compute */
    uint32_t compute_family_count;
};

/* Everything the device offers. Never fails: what is missing makes it unusable. */
void vk_physical_query(const struct vk_calls *calls, VkPhysicalDevice handle,
                       struct vk_physical *out);
/* Bytes that a heap can still give: what the driver tells; else its size less `taken`. */
uint64_t vk_physical_room(const struct vk_calls *calls, const struct vk_physical *p, uint32_t heap,
                          uint64_t taken);
/* Makes info.features follow the other members. */
void vk_physical_summarise(struct vk_physical *p);
/* Drops what a host did not enable; false, with the name, when that was required. */
bool vk_physical_restrict(struct vk_physical *p, const struct ratp_vulkan_device *host,
                          const char **missing);

static inline bool vk_physical_has(const struct vk_physical *p, enum vk_feature feature)
{
    return (p->features & feature_bit(feature)) != 0;
}

/* For vkCreateDevice. */
struct vk_enabled {
    struct vk_feature_chain chain;
    const char *extensions[FEATURES];
    uint32_t extension_count;
};
void vk_enabled_fill(struct vk_enabled *e, const struct vk_physical *p);

struct vk_instance {
    struct log log;
    VkInstance handle;
    PFN_vkGetInstanceProcAddr get;
    struct vk_calls calls;
    VkDebugUtilsMessengerEXT messenger;
    struct vk_physical *physical;
    uint32_t physical_count;
    pid_t process;    /* that made it */
    atomic_bool left; /* a device of it was left as it was: see struct vk_device */
};

/* ---- Device -------------------------------------------------------------------- */

struct vk_block;
struct vk_piece;
struct vk_pipeline;
struct vk_layout;

enum { VK_STAGING_BYTES = 4 << 20 };

struct vk_device {
    struct log log;
    struct vk_physical physical;
    PFN_vkGetInstanceProcAddr get;
    VkInstance instance;
    struct vk_calls calls;
    struct VolkDeviceTable vk;
    VkDevice handle;
    bool imported;
    pid_t process; /* that opened it: no other may use it */
    struct vk_instance *owner; /* of own devices */
    struct vk_enabled enabled; /* of own devices */
    VkQueue queue;
    uint32_t queue_index;
    void (*lock_queue)(void *user);
    void (*unlock_queue)(void *user);
    void *queue_user;

    atomic_bool lost;
    /* Why it is lost, for what must have ended before something is destroyed. */
    atomic_bool denied; /* the driver said so */
    atomic_bool stuck;  /* nothing ended for as long as wait_limit */
    atomic_bool untold; /* the host's work uses our memory, and nothing tells when it ends */
    /* While it is closed: what was made of the driver stays, because it may be in use, or
     * is another process's. */
    bool left;
    uint64_t wait_limit; /* nanoseconds */
    VkSemaphore timeline;
    _Atomic ticket submitted; /* newest ticket */
    _Atomic ticket completed; /* newest one known to have passed */
    pthread_mutex_t queue_lock; /* of vkQueueSubmit and of the two below */
    ticket own;      /* newest ticket of work that we submitted ourselves */
    ticket external; /* the next submission waits for this one; 0: none */

    pthread_mutex_t lock; /* of streams and memory, below */
    struct vk_stream *open;    /* begun, oldest first */
    struct vk_stream *retired; /* submitted */
    struct vk_stream *idle;
    uint64_t serial; /* counts streams as they begin */
    struct vk_block *blocks;
    struct vk_piece *freed, **freed_tail; /* waiting for their last use */
    uint64_t budget, allocated, used;
    uint32_t block_count, piece_count;
    bool (*reclaim)(void *user); /* NULL: nobody keeps memory; called with no lock held */
    void *reclaim_user;

    pthread_mutex_t pipeline_lock;
    VkPipelineCache pipeline_cache;
    struct vk_pipeline **pipelines; /* hash table */
    uint32_t pipeline_count, pipeline_room;
    struct vk_layout *layouts;

    pthread_mutex_t transfer_lock; /* of the staging memory */
    struct mem staging_up, staging_down;
    ticket staging_used[2]; /* when the halves of staging_up have been read */
};

/* Turns a failed Vulkan call into a status; a lost device stays lost. */
ratp_status vk_failed(struct vk_device *d, VkResult result, const char *call, struct error *err);
const char *vk_result_name(VkResult result);
/* Whether this is the process that opened it. */
bool vk_here(const struct vk_device *d);
void vk_name(struct vk_device *d, VkObjectType type, uint64_t handle, const char *name);

/* `status = ...; goto error` when a Vulkan call fails. Needs the locals `d`,
 * `err` and `status`, and the label. */
#define VK_TRY(call, name)                                                                        \
    do {                                                                                          \
        VkResult vk_try_ = (call);                                                                \
        if (vk_try_ != VK_SUCCESS) {                                                              \
            status = vk_failed(d, vk_try_, name, err);                                            \
            goto error;                                                                           \
        }                                                                                         \
    } while (0)

/* The same for a call that makes `handle`. */
#define VK_MAKE(call, handle, name)                                                               \
    do {                                                                                          \
        VK_TRY(call, name);                                                                       \
        if (!(handle)) {                                                                          \
            status = vk_made_nothing(name, err);                                                  \
            goto error;                                                                           \
        }                                                                                         \
    } while (0)

/* ---- What a driver answers is checked where a crash would follow: doubt.c ---------------- */

/* A driver that answers with success, and with nothing, is taken to be out of memory. */
ratp_status vk_made_nothing(const char *call, struct error *err);
/* Whether `size` bytes may begin there: neither 0, nor -1 or another error in disguise. */
bool vk_is_address(uint64_t address, uint64_t size);
/* Why numbers of the device cannot be true, or NULL. They are those that loops and
 * divisions go by. */
const char *vk_physical_doubt(const struct vk_physical *p);
/* The name of a function that the device lacks, or NULL. */
const char *vk_table_lacks(const struct VolkDeviceTable *table);

/* ---- Memory ---------------------------------------------------------------------- */

/* Frees what nothing uses any more. With d->lock held. */
void vk_collect_locked(struct vk_device *d);
/* For calls that allocate in the driver, and were told that there is no memory: has some
 * given back that nobody uses, so that they try again. False: there is none. With no lock
 * held but pipeline_lock or transfer_lock. */
bool vk_reclaim(struct vk_device *d);
void vk_memory_fini(struct vk_device *d);
/* Whether reading through the mapped address is fast. */
bool vk_mem_cached(const struct mem *m);

/* ---- Streams ---------------------------------------------------------------------- */

enum { VK_PUSH_MAX = 128 };

struct vk_part {
    VkCommandBuffer commands;
    struct ratp_vulkan_point wait, signal; /* semaphore NULL: none */
};

struct vk_stream {
    struct vk_device *device;
    struct vk_stream *next;
    uint64_t serial;
    ticket ticket;       /* once submitted, else 0 */
    VkCommandPool pool;
    struct vk_part *parts; /* command buffers are kept when the stream is recycled */
    uint32_t part_count, part_room, part_made;
    VkCommandBuffer commands; /* being recorded */
    bool attached;
    bool failed;   /* half-way: it can only be dropped */
    bool dirty;    /* something was recorded since the last barrier */
    bool recorded; /* something was recorded since the part began */
    VkPipeline bound;
};

void vk_streams_fini(struct vk_device *d);
/* Moves finished streams back to the idle list. With d->lock held. */
void vk_streams_recycle_locked(struct vk_device *d);
/* For vk_dispatch and copies, before they record: RATP_DEVICE_LOST early, and a refusal of
 * streams that failed half-way. */
ratp_status vk_stream_ready(struct vk_stream *s, struct error *err);

/* ---- Waiting ------------------------------------------------------------------------- */

/* Waits for the host's work up to `point`, whose end no ticket will tell. */
void vk_settle_point(struct vk_device *d, struct ratp_vulkan_point point);

/* ---- Pipelines ---------------------------------------------------------------------- */

ratp_status vk_pipelines_init(struct vk_device *d, struct error *err);
void vk_pipelines_fini(struct vk_device *d);
ratp_status vk_pipeline_get(struct vk_device *d, const struct vk_shader *shader,
                            const uint32_t *constants, uint32_t count, VkPipeline *pipeline,
                            VkPipelineLayout *layout, struct error *err);

void vk_transfer_fini(struct vk_device *d);

#endif
