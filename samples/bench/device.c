#include "bench.h"

#include "terminal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void on_log(void *user, ratp_log_level level, const char *message)
{
    (void)user;
    (void)level;
    fprintf(stderr, "ratplus-bench: %s\n", message);
}

bool bench_failed(const struct bench_device *d, const void *object, const char *what,
                  struct problem *problem)
{
    char text[512] = "";
    d->ratp->last_error(object, text, sizeof text);
    return problem_set(problem, "%s: %s", what, text[0] ? text : "failed");
}

static bool open_vulkan(struct bench_device *d, const char *name, bool *none,
                        struct problem *problem)
{
    d->vulkan = d->ratp->get_extension(d->instance, RATP_VULKAN_EXTENSION);
    *none = true;
    if (!d->vulkan)
        return problem_set(problem, "this libratplus has no Vulkan");
    if (!gpu_open(&d->gpu, name, false, &d->messages, d->vulkan->recommended_extensions, none,
                  problem))
        return false;
    d->own = true;
    const struct ratp_vulkan_device params = {
        .struct_size = sizeof params,
        .get_instance_proc_addr = vkGetInstanceProcAddr,
        .instance = d->gpu.instance,
        .physical_device = d->gpu.physical,
        .device = d->gpu.device,
        .api_version = d->gpu.properties.apiVersion < VK_API_VERSION_1_3 ? VK_API_VERSION_1_2
                                                                         : VK_API_VERSION_1_3,
        .queue_family = d->gpu.queue_family,
        .extensions = d->gpu.extensions,
        .extension_count = d->gpu.extension_count,
        .features = &d->gpu.features,
    };
    return d->vulkan->device_import(d->instance, &params, &d->device) == RATP_OK ||
           bench_failed(d, d->instance, d->gpu.properties.deviceName, problem);
}

bool bench_device_open(struct bench_device *d, const char *name, struct problem *problem)
{
    const struct ratp_instance_params params = {
        .struct_size = sizeof params, .log = on_log, .log_level = RATP_LOG_WARNING};
    char why[512];
    bool none = false;
    d->ratp = ratp_get_api(RATP_ABI_MAJOR, why, sizeof why);
    if (!d->ratp || d->ratp->instance_create(&params, &d->instance, why, sizeof why) != RATP_OK)
        return problem_set(problem, "%s", why);
    bool reference = name && strcmp(name, "reference") == 0;
    if (!reference && !open_vulkan(d, name, &none, problem)) {
        if (!none || name)
            return false;
        reference = true;
    }
    const struct ratp_device_params plain = {.struct_size = sizeof plain, .name = "reference"};
    if (reference && d->ratp->device_open(d->instance, &plain, &d->device) != RATP_OK)
        return bench_failed(d, d->instance, "reference", problem);
    d->info.struct_size = sizeof d->info;
    return d->ratp->device_info(d->device, &d->info) == RATP_OK ||
           bench_failed(d, d->device, "device_info", problem);
}

void bench_device_close(struct bench_device *d)
{
    if (d->device)
        d->ratp->device_close(&d->device);
    if (d->own)
        gpu_close(&d->gpu);
    if (d->instance)
        d->ratp->instance_destroy(&d->instance);
}

static bool copy_on_host(struct bench_timer *timer, uint64_t size, struct problem *problem)
{
    char *from = malloc(size), *to = malloc(size);
    bool good = from && to;
    if (good) {
        fill_random(from, size, RATP_F32, 1);
        fill_random(to, size, RATP_F32, 2);
        while (timer_wants(timer)) {
            double start = seconds_now();
            memcpy(to, from, size);
            timer_add(timer, seconds_now() - start);
        }
    }
    free(from);
    free(to);
    return good || problem_set(problem, "out of memory for a copy of %llu bytes",
                               (unsigned long long)size);
}

static bool copy_on_device(struct gpu *gpu, struct bench_timer *timer, uint64_t size,
                           struct problem *problem)
{
    struct gpu_buffer from = {0}, to = {0};
    bool good = gpu_buffer_create(gpu, size, GPU_DEVICE, &from, problem) &&
                gpu_buffer_create(gpu, size, GPU_DEVICE, &to, problem);
    /* Memory that nothing was written to may be one shared page of zeros. */
    if (good && (good = gpu_begin(gpu, problem))) {
        gpu->vk.vkCmdFillBuffer(gpu->commands, from.buffer, 0, size, 0x3e003e00);
        gpu->vk.vkCmdFillBuffer(gpu->commands, to.buffer, 0, size, 0x3e013e01);
        good = gpu_submit(gpu, problem) && gpu_wait(gpu, problem);
    }
    while (good && timer_wants(timer)) {
        const VkBufferCopy region = {.size = size};
        if (!(good = gpu_begin(gpu, problem)))
            break;
        gpu->vk.vkCmdCopyBuffer(gpu->commands, from.buffer, to.buffer, 1, &region);
        double start = seconds_now();
        good = gpu_submit(gpu, problem) && gpu_wait(gpu, problem);
        timer_add(timer, seconds_now() - start);
    }
    gpu_buffer_destroy(gpu, &from);
    gpu_buffer_destroy(gpu, &to);
    return good;
}

bool bench_copy(struct bench *b, uint64_t size, struct problem *problem)
{
    struct bench_timer timer = {.wanted = 9, .seconds = b->options.seconds};
    b->copy_bytes = 2.0 * (double)size;
    if (!(b->device.own ? copy_on_device(&b->device.gpu, &timer, size, problem)
                        : copy_on_host(&timer, size, problem)))
        return false;
    b->copy = timer_result(&timer);
    return true;
}
