/* The device under test, its copy bandwidth, and operands in its memory. */
#include "bench.h"
#include "plugin.h"
#include "terminal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATTERN_WORDS (1u << 18)
#define COPY_RUNS 40u

static bool open_reference(struct bench *b, struct problem *problem)
{
    const struct ratp_device_params params = {.struct_size = sizeof params, .name = "reference"};
    return plugin_open(true, &b->ratp, &b->instance, problem) &&
           plugin_check(b->ratp, b->ratp->device_open(b->instance, &params, &b->device),
                        b->instance, "the reference device", problem);
}

static bool open_gpu(struct bench *b, bool *none, struct problem *problem)
{
    *none = false;
    if (!plugin_open(false, &b->ratp, &b->instance, problem))
        return false;
    const struct ratp_vulkan_api *extension =
        b->ratp->get_extension(b->instance, RATP_VULKAN_EXTENSION);
    if (!extension)
        return problem_set(problem, "this libratplus has no %s", RATP_VULKAN_EXTENSION);
    if (!gpu_open(&b->gpu, b->options.device, false, NULL, extension, none, problem))
        return false;
    b->on_gpu = true;
    return gpu_lend(&b->gpu, b->ratp, b->instance, &b->device, problem);
}

bool device_open(struct bench *b, struct problem *problem)
{
    const char *name = b->options.device;
    bool none = false;
    bool good = name && strcmp(name, "reference") == 0 ? open_reference(b, problem)
                                                       : open_gpu(b, &none, problem);
    if (!good && none && !(name && *name)) {
        fprintf(stderr, "ratplus-bench: %s; using plain C\n", problem->text);
        device_close(b);
        good = open_reference(b, problem);
    }
    b->info.struct_size = sizeof b->info;
    return good && plugin_check(b->ratp, b->ratp->device_info(b->device, &b->info), b->device,
                                "the device", problem);
}

void device_close(struct bench *b)
{
    if (b->device)
        b->ratp->device_close(&b->device);
    if (b->instance)
        b->ratp->instance_destroy(&b->instance);
    if (b->on_gpu)
        gpu_close(&b->gpu);
    b->on_gpu = false;
}

static bool copy_on_gpu(struct bench *b, struct gpu_buffer buffers[2], uint32_t times,
                        double *seconds, struct problem *problem)
{
    struct gpu *gpu = &b->gpu;
    const VkBufferCopy whole = {.size = b->options.copy_bytes};
    const VkMemoryBarrier after = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER,
        .srcAccessMask = VK_ACCESS_TRANSFER_WRITE_BIT,
        .dstAccessMask = VK_ACCESS_TRANSFER_READ_BIT | VK_ACCESS_TRANSFER_WRITE_BIT,
    };
    if (!gpu_begin(gpu, problem))
        return false;
    for (uint32_t i = 0; i < times; i++) {
        gpu->vk.vkCmdCopyBuffer(gpu->commands, buffers[i & 1].buffer, buffers[~i & 1].buffer, 1,
                                &whole);
        gpu->vk.vkCmdPipelineBarrier(gpu->commands, VK_PIPELINE_STAGE_TRANSFER_BIT,
                                     VK_PIPELINE_STAGE_TRANSFER_BIT, 0, 1, &after, 0, NULL, 0,
                                     NULL);
    }
    const double start = seconds_now();
    if (!gpu_submit(gpu, problem) || !gpu_wait(gpu, problem))
        return false;
    *seconds = (seconds_now() - start) / times;
    return true;
}

static bool measure_gpu(struct bench *b, struct stopwatch *watch, struct problem *problem)
{
    struct gpu_buffer buffers[2] = {{0}};
    bool good = false;
    double seconds = 0;
    for (int i = 0; i < 2; i++)
        if (!gpu_buffer_create(&b->gpu, b->options.copy_bytes, GPU_DEVICE, &buffers[i], problem))
            goto error;
    if (!copy_on_gpu(b, buffers, 2, &seconds, problem))
        goto error;
    /* So many in one submission that the submission itself does not count. */
    const double fit = 0.02 / seconds;
    const uint32_t times = fit < 1 ? 1 : fit > 64 ? 64 : (uint32_t)fit;
    while (stopwatch_wants_more(watch)) {
        if (!copy_on_gpu(b, buffers, times, &seconds, problem))
            goto error;
        stopwatch_add(watch, seconds);
    }
    good = true;

error:
    for (int i = 0; i < 2; i++)
        gpu_buffer_destroy(&b->gpu, &buffers[i]);
    return good;
}

static bool measure_host(struct bench *b, struct stopwatch *watch, struct problem *problem)
{
    const size_t size = b->options.copy_bytes;
    char *from = malloc(size), *to = malloc(size);
    const bool good = from && to;
    if (good) {
        memset(from, 1, size);
        memset(to, 2, size);
    } else {
        problem_set(problem, "out of memory");
    }
    while (good && stopwatch_wants_more(watch)) {
        const double start = seconds_now();
        memcpy(to, from, size);
        const double end = seconds_now();
        /* Whoever reads what was copied keeps the copy from being left out. */
        from[0] = (char)(to[size - 1] + 1);
        stopwatch_add(watch, end - start);
    }
    free(from);
    free(to);
    return good;
}

bool device_measure_copy(struct bench *b, struct problem *problem)
{
    struct stopwatch *watch;
    const uint32_t repeat = b->options.repeat < COPY_RUNS ? b->options.repeat : COPY_RUNS;
    if (!stopwatch_open(repeat, &watch, problem))
        return false;
    const bool good =
        b->on_gpu ? measure_gpu(b, watch, problem) : measure_host(b, watch, problem);
    if (good) {
        b->copy_time = stopwatch_read(watch);
        b->copy_rate = 2.0 * (double)b->options.copy_bytes / b->copy_time.median;
    }
    stopwatch_close(watch);
    return good;
}

/* A number of magnitude 1/16 to 1, from 32 random bits. */
static uint32_t number(uint32_t bits, ratp_dtype dtype)
{
    const uint32_t sign = bits >> 31, exponent = bits >> 29 & 3;
    switch (dtype) {
    case RATP_F16:
        return sign << 15 | (14 - exponent) << 10 | (bits & 0x3ff);
    case RATP_BF16:
        return sign << 15 | (126 - exponent) << 7 | (bits & 0x7f);
    default:
        return sign << 31 | (126 - exponent) << 23 | (bits & 0x7fffff);
    }
}

static void fill_pattern(uint32_t *words, ratp_dtype dtype)
{
    uint64_t state = 1;
    for (size_t i = 0; i < PATTERN_WORDS; i++) {
        uint32_t bits[2];
        for (int half = 0; half < 2; half++) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            bits[half] = (uint32_t)(state >> 32);
        }
        words[i] = number(bits[0], dtype);
        if (dtype_size(dtype) == 2)
            words[i] |= number(bits[1], dtype) << 16;
    }
}

bool numbers_create(struct bench *b, uint64_t size, ratp_dtype dtype, ratp_buffer **out,
                    struct problem *problem)
{
    const struct ratp_buffer_params params = {
        .struct_size = sizeof params, .size = size, .kind = RATP_MEMORY_DEVICE};
    const uint64_t pattern_size = PATTERN_WORDS * sizeof(uint32_t);
    uint32_t *pattern = malloc(pattern_size);
    if (!pattern)
        return problem_set(problem, "out of memory");
    fill_pattern(pattern, dtype);
    bool good = plugin_check(b->ratp, b->ratp->buffer_create(b->device, &params, out), b->device,
                             "a buffer", problem);
    for (uint64_t done = 0; good && done < size; done += pattern_size) {
        const uint64_t part = size - done < pattern_size ? size - done : pattern_size;
        good = plugin_check(b->ratp, b->ratp->buffer_write(*out, done, pattern, part), *out,
                            "fill a buffer", problem);
    }
    free(pattern);
    return good;
}
