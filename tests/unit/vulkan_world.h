/* A device with a cache, a sequence and tensors, its log, and a gate that its queue can be
 * made to wait for: for tests of how things end. */
#ifndef TEST_VULKAN_WORLD_H
#define TEST_VULKAN_WORLD_H

#include "check.h"

#include "device.h"
#include "kernels/kernels.h"
#include "vulkan_faults.h"

#include <ratplus_vulkan.h>

#include <pthread.h>
#include <time.h>

enum { LAYERS = 2, HEADS = 2, HEAD = 32, TOKENS = 24, ROW = HEADS * HEAD };
enum { TENSOR_Q, TENSOR_K, TENSOR_V, TENSOR_OUT, TENSORS };
enum { BYTES = TOKENS * ROW * (int)sizeof(float) };

static const struct ratp_api *ratp;
static const struct ratp_vulkan_api *vulkan;
static const char *device_name; /* of world_open */
static ratp_instance *instance;
static unsigned messages;
static char lost_line[512]; /* the last line of the log that tells of a loss */

/* What one device has. */
struct world {
    ratp_device *device;
    ratp_cache *cache;
    ratp_seq *seq;
    ratp_buffer *buffers[TENSORS];
};

static inline void on_log(void *user, ratp_log_level level, const char *message)
{
    (void)user;
    if (level != RATP_LOG_ERROR || strstr(message, "This is most likely a validation bug"))
        return;
    if (!strstr(message, "validation")) {
        snprintf(lost_line, sizeof lost_line, "%s", message);
        return;
    }
    messages++;
    fprintf(stderr, "%s\n", message);
}

static inline const char *message_of(const void *object)
{
    static char text[512];
    ratp->last_error(object, text, sizeof text);
    return text;
}

static inline bool good(const void *object, ratp_status status)
{
    if (status != RATP_OK)
        fprintf(stderr, "%s: %s\n", ratp->status_name(status), message_of(object));
    return status == RATP_OK;
}

static inline struct vk_device *inside(const ratp_device *device)
{
    return kernel_device(device->backend);
}

static inline bool world_fill(struct world *w)
{
    struct ratp_geometry geometry = {.struct_size = sizeof geometry, .layers = LAYERS,
                                     .query_heads = HEADS, .kv_heads = HEADS, .head_size = HEAD};
    struct ratp_cache_params params = {.struct_size = sizeof params, .geometry = &geometry,
                                       .page_slots = 16};
    bool fine = CHECK(good(w->device, ratp->cache_create(w->device, &params, &w->cache))) &&
                CHECK(good(w->cache, ratp->seq_create(w->cache, &w->seq)));
    for (int t = 0; fine && t < TENSORS; t++) {
        struct ratp_buffer_params size = {.struct_size = sizeof size, .size = BYTES};
        float data[TOKENS * ROW];
        for (int i = 0; i < TOKENS * ROW; i++)
            data[i] = (float)((i * 7 + t * 5) % 31) / 16 - 1;
        fine = CHECK(good(w->device, ratp->buffer_create(w->device, &size, &w->buffers[t]))) &&
               CHECK(good(w->buffers[t], ratp->buffer_write(w->buffers[t], 0, data, BYTES)));
    }
    return fine;
}

static inline bool world_open(struct world *w, uint64_t wait_limit_ms)
{
    struct ratp_device_params params = {.struct_size = sizeof params, .name = device_name,
                                        .wait_limit_ms = wait_limit_ms};
    *w = (struct world){0};
    return CHECK(good(instance, ratp->device_open(instance, &params, &w->device))) &&
           CHECK(!w->device->reference) && world_fill(w);
}

/* Everything but the device. */
static inline void world_empty(struct world *w)
{
    for (int t = 0; t < TENSORS; t++)
        CHECK_EQUAL(ratp->buffer_destroy(&w->buffers[t]), RATP_OK);
    CHECK_EQUAL(ratp->seq_destroy(&w->seq), RATP_OK);
    CHECK_EQUAL(ratp->cache_destroy(&w->cache), RATP_OK);
}

static inline void world_close(struct world *w)
{
    world_empty(w);
    CHECK(good(instance, ratp->device_close(&w->device)));
}

static inline ratp_step *begin(struct world *w)
{
    uint32_t tokens = TOKENS;
    ratp_step *step = NULL;
    struct ratp_step_params params = {.struct_size = sizeof params, .count = 1, .seqs = &w->seq,
                                      .n_tokens = &tokens};
    CHECK(good(w->cache, ratp->step_begin(w->cache, &params, &step)));
    return step;
}

static inline ratp_status attend(struct world *w, ratp_step *step, uint32_t layer)
{
    struct ratp_tensor tensors[TENSORS];
    for (int t = 0; t < TENSORS; t++)
        tensors[t] = (struct ratp_tensor){.struct_size = sizeof tensors[t],
                                          .buffer = w->buffers[t]};
    struct ratp_attend_io io = {.struct_size = sizeof io, .q = &tensors[TENSOR_Q],
                                .k = &tensors[TENSOR_K], .v = &tensors[TENSOR_V],
                                .out = &tensors[TENSOR_OUT]};
    return ratp->step_attend(step, layer, &io);
}

/* A whole pass whose result is taken back; `out` gets it. */
static inline void whole_pass(struct world *w, float *out)
{
    ratp_step *step = begin(w);
    if (!step)
        return;
    for (uint32_t layer = 0; layer < LAYERS; layer++)
        CHECK(good(step, attend(w, step, layer)));
    CHECK(good(step, ratp->step_commit(&step)));
    CHECK(good(w->buffers[TENSOR_OUT],
               ratp->buffer_read(w->buffers[TENSOR_OUT], 0, out, BYTES)));
    CHECK(good(w->seq, ratp->seq_truncate(w->seq, 0)));
}

/* ---- A gate on the device's queue ---- */

static inline bool make_gate(const struct vk_device *d)
{
    VkSemaphoreTypeCreateInfo type = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_TYPE_CREATE_INFO,
                                      .semaphoreType = VK_SEMAPHORE_TYPE_TIMELINE};
    VkSemaphoreCreateInfo info = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO, .pNext = &type};
    atomic_store(&working, false);
    atomic_store(&destroyed_early, 0);
    return CHECK(d->vk.vkCreateSemaphore(d->handle, &info, NULL, &gate) == VK_SUCCESS);
}

/* What is needed of a device when it is closed. */
struct opener {
    VkDevice device;
    PFN_vkSignalSemaphore signal;
    PFN_vkDeviceWaitIdle wait;
};

static inline struct opener opener_of(const struct vk_device *d)
{
    return (struct opener){d->handle, d->vk.vkSignalSemaphore, d->vk.vkDeviceWaitIdle};
}

static inline void open_gate(const struct opener *o)
{
    atomic_store(&working, false);
    o->signal(o->device, &(VkSemaphoreSignalInfo){
        .sType = VK_STRUCTURE_TYPE_SEMAPHORE_SIGNAL_INFO, .semaphore = gate, .value = 1});
}

static inline void *open_gate_later(void *user)
{
    nanosleep(&(struct timespec){.tv_nsec = 150 * 1000 * 1000}, NULL);
    open_gate(user);
    return NULL;
}

/* The validation layer may wait for ten seconds, and say itself that this is its bug, for a
 * semaphore that the host signals while a queue waits for it: such tests can go without it,
 * and on_log passes over these words. */
static inline bool start(bool validation)
{
    char why[512] = "";
    struct ratp_instance_params params = {.struct_size = sizeof params, .log = on_log,
                                          .validation = validation};
    ratp = ratp_get_api(RATP_ABI_MAJOR, why, sizeof why);
    if (!CHECK(ratp) ||
        !CHECK(ratp->instance_create(&params, &instance, why, sizeof why) == RATP_OK)) {
        fprintf(stderr, "%s\n", why);
        return false;
    }
    vulkan = ratp->get_extension(instance, RATP_VULKAN_EXTENSION);
    return CHECK(vulkan);
}

#endif
