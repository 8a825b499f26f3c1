/* Waiting: for tickets, which are values of the device's timeline semaphore, and for
 * whatever must have ended before something is destroyed. A device that
 * finishes nothing for as long as its limit counts as lost, so that no wait is endless unless
 * the host sets no limit. */
#include "internal.h"

#include <time.h>

ticket vk_latest(struct vk_device *d)
{
    return atomic_load(&d->submitted);
}

/* Remembers that `t` has passed. */
static void note_passed(struct vk_device *d, ticket t)
{
    ticket known = atomic_load(&d->completed);
    while (known < t && !atomic_compare_exchange_weak(&d->completed, &known, t)) {
    }
}

/* Drivers give a semaphore of a lost device its greatest value, so that nobody waits for it. */
static VkResult counter_value(struct vk_device *d, VkSemaphore semaphore, uint64_t *value)
{
    VkResult result = d->vk.vkGetSemaphoreCounterValue(d->handle, semaphore, value);
    return result == VK_SUCCESS && *value == UINT64_MAX ? VK_ERROR_DEVICE_LOST : result;
}

bool vk_passed(struct vk_device *d, ticket t)
{
    if (t <= atomic_load(&d->completed))
        return true;
    if (atomic_load(&d->lost) || !vk_here(d))
        return false;
    uint64_t value = 0;
    VkResult result = counter_value(d, d->timeline, &value);
    /* One submission may have passed before its ticket is known. A lost device may answer
     * with any number, and what would be taken for passed is still in use. */
    if (result == VK_SUCCESS && value > vk_latest(d) + 1) {
        vk_failed(d, VK_ERROR_DEVICE_LOST, "vkGetSemaphoreCounterValue, with a value beyond all",
                  NULL);
        return false;
    }
    if (result != VK_SUCCESS) {
        vk_failed(d, result, "vkGetSemaphoreCounterValue", NULL);
        return false;
    }
    note_passed(d, value);
    return t <= value;
}

static uint64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void pause_briefly(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 10 * 1000 * 1000}, NULL);
}

static bool no_memory(VkResult result)
{
    return result == VK_ERROR_OUT_OF_HOST_MEMORY || result == VK_ERROR_OUT_OF_DEVICE_MEMORY;
}

/* After a wait that succeeded, which a lost device may answer too. */
static VkResult confirm(struct vk_device *d, VkSemaphore semaphore)
{
    uint64_t value = 0;
    VkResult result = counter_value(d, semaphore, &value);
    return result == VK_ERROR_DEVICE_LOST ? result : VK_SUCCESS;
}

/* Waits until the semaphore has reached `value`; VK_TIMEOUT when it stood still for as long
 * as the limit. A wait `for_all` comes before a destruction: it goes on when the device is
 * said to be lost and when there is no memory for it, because work may be in flight all the
 * same. Any other ends with VK_NOT_READY once the device is lost. */
static VkResult await(struct vk_device *d, VkSemaphore semaphore, uint64_t value, bool for_all)
{
    /* In slices, so that a loss that another thread has seen ends the wait. */
    const uint64_t slice = 250 * 1000 * 1000;
    VkSemaphoreWaitInfo info = {
        .sType = VK_STRUCTURE_TYPE_SEMAPHORE_WAIT_INFO,
        .semaphoreCount = 1,
        .pSemaphores = &semaphore,
        .pValues = &value,
    };
    uint64_t reached = 0, still = 0;
    for (;;) {
        uint64_t left = d->wait_limit - still, part = left < slice ? left : slice, began = now();
        VkResult result = d->vk.vkWaitSemaphores(d->handle, &info, part);
        if (result == VK_SUCCESS)
            return confirm(d, semaphore);
        if (for_all && no_memory(result))
            pause_briefly();
        else if (result != VK_TIMEOUT)
            return result;
        /* A process that a debugger held for an hour has not waited for an hour. */
        uint64_t took = now() - began, counter = reached;
        still += took < part ? took : part;
        result = counter_value(d, semaphore, &counter);
        if (result == VK_ERROR_DEVICE_LOST)
            return result;
        if (result == VK_SUCCESS && counter != reached) {
            reached = counter;
            still = 0;
        }
        if (still >= d->wait_limit)
            return VK_TIMEOUT;
        if (!for_all && atomic_load(&d->lost))
            return VK_NOT_READY;
    }
}

/* The limit has passed. */
static ratp_status stand_still(struct vk_device *d, struct error *err)
{
    const unsigned long long ms = d->wait_limit / 1000000;
    atomic_store(&d->stuck, true);
    if (!atomic_exchange(&d->lost, true))
        log_write(&d->log, RATP_LOG_ERROR,
                  "device \"%s\" counts as lost: it finished nothing for %llu ms, the wait limit "
                  "that it was opened with",
                  d->physical.info.name, ms);
    return fail(err, RATP_DEVICE_LOST,
                "device \"%s\" counts as lost: it finished nothing for %llu ms, the wait_limit_ms "
                "that it was opened with",
                d->physical.info.name, ms);
}

ratp_status vk_wait(struct vk_device *d, ticket t, struct error *err)
{
    if (t > vk_latest(d))
        return fail(err, RATP_INTERNAL, "ticket %llu was never given out",
                    (unsigned long long)t);
    ratp_status status = vk_alive(d, err);
    if (status != RATP_OK || t <= atomic_load(&d->completed))
        return status;
    VkResult result = await(d, d->timeline, t, false);
    switch (result) {
    case VK_SUCCESS:
        note_passed(d, t);
        return vk_alive(d, err);
    case VK_NOT_READY:
        return vk_alive(d, err);
    case VK_TIMEOUT:
        return stand_still(d, err);
    default:
        return vk_failed(d, result, "vkWaitSemaphores", err);
    }
}

/* The driver answered a wait with what no wait may be answered with. */
static void wait_failed(struct vk_device *d, VkResult result)
{
    atomic_store(&d->stuck, true);
    if (!atomic_exchange(&d->lost, true))
        log_write(&d->log, RATP_LOG_ERROR,
                  "device \"%s\" counts as lost: a wait for all its work failed with %s (%d)",
                  d->physical.info.name, vk_result_name(result), (int)result);
}

/* Whether the semaphore has reached `value`, or will never tell because the driver says that
 * the device is lost: by Vulkan's rules nothing is in use then. One look, when the limit has
 * passed once; otherwise a wait. */
static bool settle_semaphore(struct vk_device *d, VkSemaphore semaphore, uint64_t value)
{
    VkResult result;
    if (atomic_load(&d->stuck)) {
        uint64_t counter = 0;
        result = counter_value(d, semaphore, &counter);
        if (result == VK_SUCCESS && counter < value)
            return false;
    } else {
        result = await(d, semaphore, value, true);
    }
    if (result == VK_ERROR_DEVICE_LOST)
        vk_failed(d, result, "a wait for all work", NULL);
    else if (result == VK_TIMEOUT)
        stand_still(d, NULL);
    else if (result != VK_SUCCESS)
        wait_failed(d, result);
    return result == VK_SUCCESS || result == VK_ERROR_DEVICE_LOST;
}

/* A submission that was answered with a loss may run in part, and no semaphore tells of it.
 * Vulkan promises that these calls return on a lost device. A host's device has other
 * queues, which only the host may wait for. */
static bool wait_idle(struct vk_device *d)
{
    VkResult result = VK_SUCCESS;
    int tries = 100;
    pthread_mutex_lock(&d->queue_lock);
    do {
        if (no_memory(result))
            pause_briefly();
        if (d->lock_queue)
            d->lock_queue(d->queue_user);
        result = d->imported ? d->vk.vkQueueWaitIdle(d->queue)
                             : d->vk.vkDeviceWaitIdle(d->handle);
        if (d->unlock_queue)
            d->unlock_queue(d->queue_user);
    } while (no_memory(result) && --tries);
    pthread_mutex_unlock(&d->queue_lock);
    return result == VK_SUCCESS || result == VK_ERROR_DEVICE_LOST;
}

bool vk_settle(struct vk_device *d)
{
    if (!vk_here(d))
        return true;
    ticket all = vk_latest(d);
    if (atomic_load(&d->untold))
        return false;
    if (all > atomic_load(&d->completed) && !settle_semaphore(d, d->timeline, all))
        return false;
    if (atomic_load(&d->denied) && !wait_idle(d))
        return false;
    note_passed(d, all);
    return true;
}

void vk_settle_point(struct vk_device *d, struct ratp_vulkan_point point)
{
    if (vk_here(d) && !settle_semaphore(d, point.semaphore, point.value))
        atomic_store(&d->untold, true);
}
