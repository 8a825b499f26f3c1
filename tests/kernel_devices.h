/* For tests of kernels: every usable Vulkan device under the validation layer,
 * and the reference backend to hold it against. */
#ifndef TESTS_KERNEL_DEVICES_H
#define TESTS_KERNEL_DEVICES_H

#include "as_gpu.h"
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

/* False: it could not be opened, or with `as_gpu` has nothing to pretend. */
static inline bool kernel_device_open(struct vk_instance *instance, uint32_t index, bool as_gpu,
                                      const struct log *log, struct backend **out,
                                      struct error *err)
{
    struct vk_device *device = NULL;
    if (!CHECK(vk_device_open(instance, index, 0, 0, &device, err) == RATP_OK))
        return false;
    const struct vk_caps *caps = vk_device_caps(device);
    /* SwiftShader, with subgroups of 4, compiles slowly; llvmpipe tells as much. */
    const bool wanted = !as_gpu || (caps->software && caps->subgroup_size >= 8);
    if (as_gpu)
        pretend_gpu(device);
    if (wanted && CHECK(kernels_open(device, log, out, err) == RATP_OK))
        return true;
    vk_device_close(&device);
    return false;
}

/* Calls `test` for each device, and for those on the CPU once more with the forms that
 * GPUs get; returns how many devices there were, 0 after a failure to look for them. */
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
    for (uint32_t i = 0; i < 2 * vk_device_count(instance); i++) {
        const bool as_gpu = i % 2;
        struct ratp_device_info info = {.struct_size = sizeof info};
        struct backend *vulkan = NULL;
        vk_device_describe(instance, i / 2, &info);
        if (!info.usable || !kernel_device_open(instance, i / 2, as_gpu, &log, &vulkan, &err))
            continue;
        printf("%s%s\n", info.name, as_gpu ? ", as if it were a GPU" : "");
        test(vulkan, reference);
        vulkan->ops->destroy(vulkan);
        tested++;
    }
    reference->ops->destroy(reference);
    vk_instance_destroy(&instance);
    return tested;
}

#endif
