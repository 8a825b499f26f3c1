/* A Vulkan device that compiles and never runs: drivers that work without their
 * hardware have no memory and no semaphores, so those are answered here. */
#ifndef RATPLUS_TESTS_NULL_DEVICE_H
#define RATPLUS_TESTS_NULL_DEVICE_H

#include <ratplus_vulkan.h>

#include <stdbool.h>

/* The first device of the Vulkan loader, with all its features and those of the
 * extensions `wanted` (ended by NULL) that it has. On failure returns false, and
 * *why says what failed. The handles live until the process ends. */
bool null_device_make(const char *const *wanted, struct ratp_vulkan_device *out,
                      const char **why);
/* Compute pipelines that the driver has compiled. */
unsigned null_device_pipelines(void);

#endif
