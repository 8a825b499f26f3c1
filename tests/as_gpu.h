/* Vulkan on the CPU, with the forms of the kernels that GPUs get. */
#ifndef TESTS_AS_GPU_H
#define TESTS_AS_GPU_H

#include "../plugin/kernels/kernels.h"

/* Before kernels are used. Matrices are tried as the device has them: llvmpipe takes a
 * barrier of a subgroup for one of the workgroup, which their kernel knows of CPUs alone. */
static inline void pretend_gpu(struct vk_device *device)
{
    struct vk_caps *caps = (struct vk_caps *)vk_device_caps(device);
    caps->software = false;
    caps->cooperative_matrix = false;
}

#endif
