/* For tests of kernels: every usable Vulkan device under the validation layer,
 * and the reference backend to hold it against. */
#ifndef TESTS_KERNEL_DEVICES_H
#define TESTS_KERNEL_DEVICES_H

#include "check.h"

#include "../plugin/kernels/kernels.h"
#include "../plugin/reference/reference.h"

/* Messages of the validation layer are failures. */
static inline void kernel_devices_log(void *user, ratp_log_level level, const char *message)
{
    (void)user;
    if (level == RATP_LOG_ERROR) {
        check_failures++;
        fprintf(stderr, "%s\n", message);
    }
}

/* Calls `test` for each device; returns how many there were, 0 after a failure
 * to look for them. */
static inline uint32_t kernel_devices_each(void (*test)(struct backend *vulkan,
                                                        struct backend *reference))
{
    struct log log = {kernel_devices_log, NULL, RATP_LOG_WARNING};
    struct vk_instance *instance = NULL;
    struct backend *reference = NULL;
    struct error err = {{0}};
    uint32_t tested = 0;
    if (vk_instance_create(&log, true, &instance, &err) || !instance) {
        fprintf(stderr, "no Vulkan with the validation layer: %s\n", err.text);
        return 0;
    }
    if (!CHECK(reference_open(&log, 0, &reference, &err) == RATP_OK)) {
        vk_instance_destroy(&instance);
        return 0;
    }
    for (uint32_t i = 0; i < vk_device_count(instance); i++) {
        struct ratp_device_info info = {.struct_size = sizeof info};
        struct vk_device *device = NULL;
        struct backend *vulkan = NULL;
        vk_device_describe(instance, i, &info);
        if (!info.usable)
            continue;
        if (!CHECK(vk_device_open(instance, i, 0, &device, &err) == RATP_OK) ||
            !CHECK(kernels_open(device, &log, &vulkan, &err) == RATP_OK)) {
            fprintf(stderr, "%s: %s\n", info.name, err.text);
            vk_device_close(&device);
            continue;
        }
        printf("%s\n", info.name);
        test(vulkan, reference);
        vulkan->ops->destroy(vulkan);
        tested++;
    }
    reference->ops->destroy(reference);
    vk_instance_destroy(&instance);
    return tested;
}

#endif
