/* What the programs of random worlds share: which devices they run on, and how often.
 *
 *     test-NAME [worlds [first seed ["reference", "vulkan", "as-gpu" or part of a device's name]]]
 *
 * as-gpu: Vulkan on the CPU, with the forms of the kernels that GPUs get.
 * RATPLUS_WORLDS, where it is a number above 0, is the most: for drivers that compile slowly. */
#ifndef RATPLUS_TESTS_WORLDS_H
#define RATPLUS_TESTS_WORLDS_H

#include "../as_gpu.h"
#include "../host.h"

#include "../../plugin/device.h"

static inline bool worlds_wanted(const struct ratp_device_info *info, const char *name)
{
    if (strcmp(name, "vulkan") == 0)
        return info->kind != RATP_DEVICE_REFERENCE;
    if (strcmp(name, "as-gpu") == 0)
        return info->kind == RATP_DEVICE_SOFTWARE;
    return strstr(info->name, name) != NULL;
}

/* Calls `run` for each world on each device that the arguments name. False: none is there. */
static inline bool worlds_run(int count, char **arguments,
                              void (*run)(struct host *host, ratp_device *device, uint64_t seed))
{
    uint64_t worlds = count > 1 ? strtoull(arguments[1], NULL, 10) : 40;
    uint64_t first = count > 2 ? strtoull(arguments[2], NULL, 10) : 1;
    const char *name = count > 3 ? arguments[3] : "";
    const char *text = getenv("RATPLUS_WORLDS");
    uint64_t most = text ? strtoull(text, NULL, 10) : 0;
    if (most && most < worlds)
        worlds = most;
    struct host host;
    if (!host_open(&host))
        return true;
    unsigned tried = 0;
    for (uint32_t i = 0; i < host.devices; i++) {
        struct ratp_device_info info;
        ratp_device *device = host_device(&host, i, &info);
        if (!device)
            continue;
        if (worlds_wanted(&info, name)) {
            tried++;
            if (strcmp(name, "as-gpu") == 0)
                pretend_gpu(kernel_device(device->backend));
            int before = check_failures;
            for (uint64_t s = 0; s < worlds && check_failures < before + 10; s++)
                run(&host, device, first + s);
            printf("%s: %llu worlds\n", info.name, (unsigned long long)worlds);
        }
        host_ok(&host, device, host.api->device_close(&device), "device_close");
    }
    host_close(&host);
    if (!tried)
        printf("no usable device is \"%s\"\n", name);
    return tried;
}

#endif
