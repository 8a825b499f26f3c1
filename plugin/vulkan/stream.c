/* Streams: command buffers that are recycled, and their submission. */
#include "internal.h"

#include <stdlib.h>
#include <string.h>

static const VkPipelineStageFlags work_stages =
    VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_TRANSFER_BIT;
static const VkAccessFlags work_writes = VK_ACCESS_SHADER_WRITE_BIT | VK_ACCESS_TRANSFER_WRITE_BIT;
static const VkAccessFlags work_accesses =
    VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_SHADER_WRITE_BIT | VK_ACCESS_TRANSFER_READ_BIT |
    VK_ACCESS_TRANSFER_WRITE_BIT;

/* In a host's command buffer other stages than ours may write and read too. */
static VkPipelineStageFlags stages_of(const struct vk_stream *s)
{
    return s->attached ? VK_PIPELINE_STAGE_ALL_COMMANDS_BIT : work_stages;
}

static void barrier(struct vk_stream *s, VkPipelineStageFlags to, VkAccessFlags accesses)
{
    VkMemoryBarrier memory = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER,
        .srcAccessMask = work_writes,
        .dstAccessMask = accesses,
    };
    s->device->vk.vkCmdPipelineBarrier(s->commands, stages_of(s), to, 0, 1, &memory, 0, NULL, 0,
                                       NULL);
}

void vk_barrier(struct vk_stream *s)
{
    if (!s->dirty)
        return;
    barrier(s, stages_of(s), work_accesses);
    s->dirty = false;
}

void vk_stream_section(struct vk_stream *s)
{
    barrier(s, stages_of(s), work_accesses);
    s->dirty = false;
    s->bound = VK_NULL_HANDLE;
}

bool vk_stream_attached(const struct vk_stream *s)
{
    return s->attached;
}

/* Whether anything can be done with it but to drop it. */
static ratp_status usable(const struct vk_stream *s, struct error *err)
{
    ratp_status status = vk_alive(s->device, err);
    if (status == RATP_OK && s->failed)
        status = fail(err, RATP_WRONG_STATE, "an earlier call on the stream failed; drop it");
    return status;
}

ratp_status vk_stream_ready(struct vk_stream *s, struct error *err)
{
    ratp_status status = usable(s, err);
    if (status == RATP_OK)
        s->dirty = s->recorded = true;
    return status;
}

/* Begins the next part: a command buffer of its own within one submission. */
static ratp_status part_begin(struct vk_stream *s, struct error *err)
{
    struct vk_device *d = s->device;
    ratp_status status;
    if (s->part_count == s->part_room) {
        uint32_t room = s->part_room ? s->part_room * 2 : 2;
        struct vk_part *parts = realloc(s->parts, room * sizeof *parts);
        if (!parts)
            return fail(err, RATP_OUT_OF_MEMORY, "stream: out of host memory");
        s->parts = parts;
        s->part_room = room;
    }
    struct vk_part *part = &s->parts[s->part_count];
    if (s->part_count == s->part_made) {
        VkCommandBufferAllocateInfo info = {
            .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
            .commandPool = s->pool,
            .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
            .commandBufferCount = 1,
        };
        VK_MAKE(d->vk.vkAllocateCommandBuffers(d->handle, &info, &part->commands), part->commands,
                "vkAllocateCommandBuffers");
        s->part_made++;
    }
    part->wait = part->signal = (struct ratp_vulkan_point){0};
    VkCommandBufferBeginInfo begin = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO,
        .flags = VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT,
    };
    VK_TRY(d->vk.vkBeginCommandBuffer(part->commands, &begin), "vkBeginCommandBuffer");
    s->commands = part->commands;
    s->part_count++;
    s->recorded = false;
    vk_stream_section(s);
    return RATP_OK;
error:
    return status;
}

static ratp_status part_end(struct vk_stream *s, struct error *err)
{
    struct vk_device *d = s->device;
    ratp_status status;
    barrier(s, VK_PIPELINE_STAGE_HOST_BIT, VK_ACCESS_HOST_READ_BIT);
    VK_TRY(d->vk.vkEndCommandBuffer(s->commands), "vkEndCommandBuffer");
    return RATP_OK;
error:
    return status;
}

static void stream_destroy(struct vk_stream *s)
{
    if (s->pool && !s->device->left)
        s->device->vk.vkDestroyCommandPool(s->device->handle, s->pool, NULL);
    free(s->parts);
    free(s);
}

static ratp_status stream_new(struct vk_device *d, struct vk_stream **out, struct error *err)
{
    ratp_status status;
    struct vk_stream *s = calloc(1, sizeof *s);
    if (!s)
        return fail(err, RATP_OUT_OF_MEMORY, "stream: out of host memory");
    s->device = d;
    VkCommandPoolCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
        .flags = VK_COMMAND_POOL_CREATE_TRANSIENT_BIT,
        .queueFamilyIndex = d->physical.queue_family,
    };
    VK_MAKE(d->vk.vkCreateCommandPool(d->handle, &info, NULL, &s->pool), s->pool,
            "vkCreateCommandPool");
    vk_name(d, VK_OBJECT_TYPE_COMMAND_POOL, (uint64_t)s->pool, "stream");
    *out = s;
    return RATP_OK;
error:
    stream_destroy(s);
    return status;
}

void vk_streams_recycle_locked(struct vk_device *d)
{
    for (struct vk_stream **at = &d->retired; *at;) {
        struct vk_stream *s = *at;
        if (!vk_passed(d, s->ticket)) {
            at = &s->next;
            continue;
        }
        *at = s->next;
        s->next = d->idle;
        d->idle = s;
    }
}

/* Takes a stream off the open list. Its command buffers are used again when what was
 * submitted of them, if anything, is done. */
static void stream_close(struct vk_stream *s)
{
    struct vk_device *d = s->device;
    if (!vk_here(d)) /* vk_device_close finds it on the open list */
        return;
    pthread_mutex_lock(&d->lock);
    struct vk_stream **at = &d->open;
    while (*at && *at != s)
        at = &(*at)->next;
    if (*at)
        *at = s->next;
    struct vk_stream **list = s->ticket ? &d->retired : &d->idle;
    s->next = *list;
    *list = s;
    vk_streams_recycle_locked(d);
    vk_collect_locked(d);
    pthread_mutex_unlock(&d->lock);
}

static ratp_status stream_begin(struct vk_device *d, struct vk_stream **out, struct error *err)
{
    *out = NULL;
    ratp_status status = vk_alive(d, err);
    if (status != RATP_OK)
        return status;
    pthread_mutex_lock(&d->lock);
    vk_streams_recycle_locked(d);
    struct vk_stream *s = d->idle;
    if (s)
        d->idle = s->next;
    pthread_mutex_unlock(&d->lock);
    if (!s)
        status = stream_new(d, &s, err);
    if (status != RATP_OK)
        return status;
    s->next = NULL;
    s->part_count = 0;
    s->ticket = 0;
    s->attached = s->failed = false;

    pthread_mutex_lock(&d->lock);
    s->serial = d->serial++;
    struct vk_stream **at = &d->open;
    while (*at)
        at = &(*at)->next;
    *at = s;
    pthread_mutex_unlock(&d->lock);

    VK_TRY(d->vk.vkResetCommandPool(d->handle, s->pool, 0), "vkResetCommandPool");
    status = part_begin(s, err);
    if (status != RATP_OK)
        goto error;
    *out = s;
    return RATP_OK;
error:
    stream_close(s);
    return status;
}

ratp_status vk_stream_begin(struct vk_device *d, struct vk_stream **out, struct error *err)
{
    ratp_status status = stream_begin(d, out, err);
    while (status == RATP_OUT_OF_MEMORY && vk_reclaim(d))
        status = stream_begin(d, out, err);
    return status;
}

void vk_stream_drop(struct vk_stream *s)
{
    if (s)
        stream_close(s);
}

/* One vkQueueSubmit; the last batch gets our ticket as its signal. */
static ratp_status queue_submit(struct vk_device *d, const struct vk_part *parts, uint32_t count,
                                bool external, ticket *out, struct error *err)
{
    enum { FEW = 8 };
    struct batch {
        VkTimelineSemaphoreSubmitInfo timeline;
        VkSemaphore wait[2], signal[2];
        uint64_t wait_values[2], signal_values[2];
    } few[FEW], *batches = few;
    VkSubmitInfo few_infos[FEW], *infos = few_infos;
    static const VkPipelineStageFlags stages[2] = {VK_PIPELINE_STAGE_ALL_COMMANDS_BIT,
                                                   VK_PIPELINE_STAGE_ALL_COMMANDS_BIT};
    ratp_status status = vk_alive(d, err);
    if (status != RATP_OK)
        return status;
    if (count > FEW) {
        batches = malloc(count * sizeof *batches);
        infos = malloc(count * sizeof *infos);
        if (!batches || !infos) {
            status = fail(err, RATP_OUT_OF_MEMORY, "submission: out of host memory");
            goto done;
        }
    }
    pthread_mutex_lock(&d->queue_lock);
    ticket value = atomic_load(&d->submitted) + 1;
    for (uint32_t i = 0; i < count; i++) {
        struct batch *b = &batches[i];
        uint32_t waits = 0, signals = 0;
        if (parts[i].wait.semaphore) {
            b->wait[waits] = parts[i].wait.semaphore;
            b->wait_values[waits++] = parts[i].wait.value;
        }
        if (i == 0 && d->external) {
            b->wait[waits] = d->timeline;
            b->wait_values[waits++] = d->external;
        }
        if (parts[i].signal.semaphore) {
            b->signal[signals] = parts[i].signal.semaphore;
            b->signal_values[signals++] = parts[i].signal.value;
        }
        if (i == count - 1) {
            b->signal[signals] = d->timeline;
            b->signal_values[signals++] = value;
        }
        b->timeline = (VkTimelineSemaphoreSubmitInfo){
            .sType = VK_STRUCTURE_TYPE_TIMELINE_SEMAPHORE_SUBMIT_INFO,
            .waitSemaphoreValueCount = waits,
            .pWaitSemaphoreValues = b->wait_values,
            .signalSemaphoreValueCount = signals,
            .pSignalSemaphoreValues = b->signal_values,
        };
        infos[i] = (VkSubmitInfo){
            .sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
            .pNext = &b->timeline,
            .waitSemaphoreCount = waits,
            .pWaitSemaphores = b->wait,
            .pWaitDstStageMask = stages,
            .commandBufferCount = parts[i].commands ? 1 : 0,
            .pCommandBuffers = &parts[i].commands,
            .signalSemaphoreCount = signals,
            .pSignalSemaphores = b->signal,
        };
    }
    status = vk_alive(d, err);
    if (status == RATP_OK) {
        if (d->lock_queue)
            d->lock_queue(d->queue_user);
        VkResult result = d->vk.vkQueueSubmit(d->queue, count, infos, VK_NULL_HANDLE);
        if (d->unlock_queue)
            d->unlock_queue(d->queue_user);
        if (result == VK_SUCCESS) {
            atomic_store(&d->submitted, value);
            d->external = external ? value : 0;
            if (!external)
                d->own = value;
            *out = value;
        } else {
            status = vk_failed(d, result, "vkQueueSubmit", err);
        }
    }
    pthread_mutex_unlock(&d->queue_lock);
done:
    if (batches != few) {
        free(batches);
        free(infos);
    }
    return status;
}

/* Whether submitting the stream would do nothing. */
static bool stream_empty(const struct vk_stream *s)
{
    return s->part_count == 1 && !s->recorded && !s->parts[0].wait.semaphore &&
           !s->parts[0].signal.semaphore;
}

static ratp_status submit_parts(struct vk_stream *s, struct error *err)
{
    ratp_status status = part_end(s, err);
    if (status == RATP_OK)
        status = queue_submit(s->device, s->parts, s->part_count, false, &s->ticket, err);
    return status;
}

ratp_status vk_stream_submit(struct vk_stream *s, ticket *out, struct error *err)
{
    ticket t = vk_latest(s->device);
    ratp_status status = usable(s, err);
    if (status == RATP_OK && s->attached) {
        status = fail(err, RATP_WRONG_STATE,
                      "the stream records into the host's command buffer: the host submits it");
    } else if (status == RATP_OK && !stream_empty(s)) {
        status = submit_parts(s, err);
        if (status == RATP_OK)
            t = s->ticket;
    }
    stream_close(s);
    *out = status == RATP_OK ? t : 0;
    return status;
}

ratp_status vk_stream_sync(struct vk_stream *s, const struct ratp_vulkan_point *wait,
                           const struct ratp_vulkan_point *signal, struct error *err)
{
    ratp_status status = usable(s, err);
    if (status != RATP_OK)
        return status;
    if (s->attached)
        return fail(err, RATP_WRONG_STATE,
                    "the stream records into the host's command buffer: the host synchronises it");
    if (!stream_empty(s)) {
        status = part_end(s, err);
        if (status == RATP_OK)
            status = part_begin(s, err);
        s->failed = status != RATP_OK;
        if (s->failed)
            return status;
    }
    struct vk_part *part = &s->parts[s->part_count - 1];
    if (wait)
        part->wait = *wait;
    if (signal)
        part->signal = *signal;
    return RATP_OK;
}

ratp_status vk_stream_attach(struct vk_stream *s, VkCommandBuffer commands, struct error *err)
{
    struct vk_device *d = s->device;
    ratp_status status = usable(s, err);
    if (status != RATP_OK)
        return status;
    if (!s->attached) {
        if (s->part_count > 1 || s->parts[0].signal.semaphore)
            return fail(err, RATP_WRONG_STATE,
                        "the stream has points to wait for or signal, and cannot be attached");
        if (!stream_empty(s))
            status = submit_parts(s, err);
        if (status == RATP_OK) {
            pthread_mutex_lock(&d->queue_lock);
            ticket own = d->own;
            pthread_mutex_unlock(&d->queue_lock);
            status = vk_wait(d, own, err);
        }
        s->failed = status != RATP_OK;
        if (s->failed)
            return status;
    }
    s->attached = true;
    s->commands = commands;
    vk_stream_section(s);
    return RATP_OK;
}

ratp_status vk_external_done(struct vk_device *d, struct ratp_vulkan_point done, ticket *out,
                             struct error *err)
{
    struct vk_part part = {.wait = done};
    *out = 0;
    ratp_status status = queue_submit(d, &part, 1, true, out, err);
    if (status != RATP_OK)
        vk_settle_point(d, done);
    return status;
}

void vk_streams_fini(struct vk_device *d)
{
    struct vk_stream *lists[] = {d->open, d->retired, d->idle};
    for (int i = 0; i < 3; i++) {
        for (struct vk_stream *s = lists[i], *next; s; s = next) {
            next = s->next;
            stream_destroy(s);
        }
    }
    d->open = d->retired = d->idle = NULL;
}
