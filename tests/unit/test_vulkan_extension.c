/* The extension "ratplus.vulkan/1", used as an engine with its own device
 * uses it. The library's own Vulkan layer plays the engine. */
#include "check.h"

#include "vulkan/internal.h"

#include <stdlib.h>

enum { LAYERS = 2, QUERY_HEADS = 4, KV_HEADS = 2, HEAD = 32, TOKENS = 96, STEPS = 4 };
enum { TENSOR_Q, TENSOR_K, TENSOR_V, TENSOR_F, TENSOR_O, TENSOR_OUT, TENSORS };

static const uint32_t step_tokens[STEPS] = {70, 1, 24, 1};
static const struct ratp_api *ratp;
static const struct ratp_vulkan_api *vulkan;
static ratp_instance *instance;
static ratp_device *device; /* the host's, imported */
static unsigned messages;

/* The host. */
static struct vk_instance *host_instance;
static struct vk_device *host;
static VkCommandPool pool;
static VkSemaphore timeline;
static uint64_t timeline_value;
static int locks;

static float input[LAYERS][TENSORS][TOKENS * QUERY_HEADS * HEAD];
static float expected[LAYERS][TOKENS * QUERY_HEADS * HEAD];
static struct mem memory[LAYERS][TENSORS];
static ratp_buffer *buffers[LAYERS][TENSORS];

static void on_log(void *user, ratp_log_level level, const char *message)
{
    (void)user;
    if (level == RATP_LOG_ERROR) {
        messages++;
        fprintf(stderr, "%s\n", message);
    }
}

static bool good(const void *object, ratp_status status)
{
    char text[512];
    ratp->last_error(object, text, sizeof text);
    if (status != RATP_OK)
        fprintf(stderr, "%s: %s\n", ratp->status_name(status), text);
    return status == RATP_OK;
}

static const char *message_of(const void *object)
{
    static char text[512];
    ratp->last_error(object, text, sizeof text);
    return text;
}

static uint32_t row_floats(int tensor)
{
    bool query = tensor == TENSOR_Q || tensor == TENSOR_O || tensor == TENSOR_OUT;
    return (query ? QUERY_HEADS : KV_HEADS) * HEAD;
}

static void lock_queue(void *user)
{
    (void)user;
    locks++;
}

static void unlock_queue(void *user)
{
    (void)user;
    locks += 1000;
}

static bool open_host(void)
{
    struct log log = {on_log, NULL, RATP_LOG_WARNING};
    struct error err;
    struct ratp_vulkan_device params;
    uint32_t index = 0;
    if (vk_instance_create(&log, true, &host_instance, &err) != RATP_OK)
        return false;
    while (index + 1 < vk_device_count(host_instance) &&
           !host_instance->physical[index].info.usable)
        index++;
    if (vk_device_open(host_instance, index, 0, 0, &host, &err) != RATP_OK) {
        fprintf(stderr, "%s\n", err.text);
        return false;
    }
    VkCommandPoolCreateInfo pool_info = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
        .queueFamilyIndex = host->physical.queue_family,
    };
    VkSemaphoreTypeCreateInfo type = {
        .sType = VK_STRUCTURE_TYPE_SEMAPHORE_TYPE_CREATE_INFO,
        .semaphoreType = VK_SEMAPHORE_TYPE_TIMELINE,
    };
    VkSemaphoreCreateInfo semaphore_info = {
        .sType = VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO, .pNext = &type};
    if (host->vk.vkCreateCommandPool(host->handle, &pool_info, NULL, &pool) != VK_SUCCESS ||
        host->vk.vkCreateSemaphore(host->handle, &semaphore_info, NULL, &timeline) != VK_SUCCESS)
        return false;
    vk_device_handles(host, &params);
    params.lock_queue = lock_queue;
    params.unlock_queue = unlock_queue;
    return good(instance, vulkan->device_import(instance, &params, &device));
}

static void close_host(void)
{
    host->vk.vkDestroyCommandPool(host->handle, pool, NULL);
    host->vk.vkDestroySemaphore(host->handle, timeline, NULL);
    vk_device_close(&host);
    vk_instance_destroy(&host_instance);
}

static void make_tensors(void)
{
    uint32_t seed = 7;
    struct error err;
    for (int l = 0; l < LAYERS; l++) {
        for (int t = 0; t < TENSORS; t++) {
            uint64_t size = TOKENS * row_floats(t) * sizeof(float);
            for (uint32_t i = 0; i < TOKENS * row_floats(t); i++) {
                seed = seed * 1664525u + 1013904223u;
                input[l][t][i] = (float)(int32_t)(seed >> 8 & 0xff) / 64 - 2;
            }
            CHECK(vk_mem_alloc(host, size, MEM_DEVICE, "tensor", &memory[l][t], &err) == RATP_OK);
            CHECK(vk_mem_write(host, &memory[l][t], 0, input[l][t], size, &err) == RATP_OK);
            struct ratp_vulkan_buffer params = {
                .struct_size = sizeof params,
                .buffer = vk_mem_buffer(&memory[l][t]),
                .offset = memory[l][t].handle_offset,
                .size = size,
            };
            CHECK(good(device, vulkan->buffer_import(device, &params, &buffers[l][t])));
        }
    }
}

static void free_tensors(void)
{
    for (int l = 0; l < LAYERS; l++) {
        for (int t = 0; t < TENSORS; t++) {
            ratp->buffer_destroy(&buffers[l][t]);
            vk_mem_free(host, &memory[l][t]);
        }
    }
}

static ratp_cache *make_cache(ratp_device *on)
{
    struct ratp_rope rope = {.struct_size = sizeof rope, .style = RATP_ROPE_HALF};
    struct ratp_geometry geometry = {
        .struct_size = sizeof geometry, .layers = LAYERS, .query_heads = QUERY_HEADS,
        .kv_heads = KV_HEADS, .head_size = HEAD, .memory = 1, .max_tokens = 1024, .rope = &rope};
    struct ratp_variant variant = {.struct_size = sizeof variant, .kind = RATP_DILATED,
                                   .dilation = 8, .window = 11, .sinks = 2};
    struct ratp_cache_params params = {.struct_size = sizeof params, .geometry = &geometry,
                                       .page_slots = 16, .retention = RATP_RETAIN_NEEDED};
    ratp_policy *policy = NULL;
    ratp_cache *cache = NULL;
    struct ratp_range all = {0, 0};
    CHECK(good(instance, ratp->policy_create(instance, &policy)));
    CHECK(good(policy, ratp->policy_set(policy, all, all, &variant)));
    params.policy = policy;
    CHECK(good(on, ratp->cache_create(on, &params, &cache)));
    ratp->policy_destroy(&policy);
    return cache;
}

/* One layer's operands from row `row` on: buffers, or host memory. */
static ratp_status attend(ratp_step *step, uint32_t layer, uint32_t row, bool in_buffers,
                          float *out)
{
    struct ratp_tensor tensors[TENSORS];
    for (int t = 0; t < TENSORS; t++) {
        uint64_t offset = (uint64_t)row * row_floats(t) * sizeof(float);
        tensors[t] = (struct ratp_tensor){
            .struct_size = sizeof tensors[t],
            .buffer = in_buffers ? buffers[layer][t] : NULL,
            .host = in_buffers ? NULL : t == TENSOR_OUT ? out : input[layer][t],
            .offset = offset,
        };
    }
    struct ratp_attend_io io = {
        .struct_size = sizeof io, .q = &tensors[TENSOR_Q], .k = &tensors[TENSOR_K],
        .v = &tensors[TENSOR_V], .f = &tensors[TENSOR_F], .o = &tensors[TENSOR_O],
        .out = &tensors[TENSOR_OUT]};
    return ratp->step_attend(step, layer, &io);
}

static ratp_step *begin(ratp_cache *cache, ratp_seq *seq, uint32_t tokens)
{
    struct ratp_step_params params = {.struct_size = sizeof params, .count = 1, .seqs = &seq,
                                      .n_tokens = &tokens};
    ratp_step *step = NULL;
    CHECK(good(cache, ratp->step_begin(cache, &params, &step)));
    return step;
}

static double worst_difference(uint32_t tokens)
{
    double worst = 0;
    static float got[TOKENS * QUERY_HEADS * HEAD];
    struct error err;
    for (int l = 0; l < LAYERS; l++) {
        uint32_t count = tokens * row_floats(TENSOR_OUT);
        CHECK(vk_mem_read(host, &memory[l][TENSOR_OUT], 0, got, count * sizeof(float), &err) ==
              RATP_OK);
        for (uint32_t i = 0; i < count; i++) {
            double difference = (double)got[i] - (double)expected[l][i];
            difference = difference < 0 ? -difference : difference;
            if (!(difference <= worst))
                worst = difference;
        }
    }
    return worst;
}

static void clear_outputs(void)
{
    static const float zeros[TOKENS * QUERY_HEADS * HEAD];
    struct error err;
    for (int l = 0; l < LAYERS; l++)
        CHECK(vk_mem_write(host, &memory[l][TENSOR_OUT], 0, zeros,
                           TOKENS * row_floats(TENSOR_OUT) * sizeof(float), &err) == RATP_OK);
}

/* Host memory in and out, on the reference device: what the others must equal. */
static void test_expected(void)
{
    struct ratp_device_params params = {.struct_size = sizeof params, .name = "reference"};
    ratp_device *reference = NULL;
    ratp_seq *seq = NULL;
    uint32_t row = 0;
    CHECK(good(instance, ratp->device_open(instance, &params, &reference)));
    ratp_cache *cache = make_cache(reference);
    CHECK(good(cache, ratp->seq_create(cache, &seq)));
    for (int i = 0; i < STEPS; row += step_tokens[i++]) {
        ratp_step *step = begin(cache, seq, step_tokens[i]);
        for (uint32_t l = 0; l < LAYERS; l++)
            CHECK(good(step, attend(step, l, row, false, expected[l])));
        CHECK(good(step, ratp->step_commit(&step)));
    }
    ratp_step *step = begin(cache, seq, 1);
    CHECK_EQUAL(vulkan->step_record(step, (VkCommandBuffer)(uintptr_t)16), RATP_UNSUPPORTED);
    size_t size = 0;
    CHECK_EQUAL(vulkan->pipeline_cache_save(reference, NULL, &size), RATP_UNSUPPORTED);
    CHECK(good(step, ratp->step_abort(&step)));
    CHECK(good(seq, ratp->seq_destroy(&seq)));
    CHECK(good(cache, ratp->cache_destroy(&cache)));
    CHECK(good(reference, ratp->device_close(&reference)));
}

static VkCommandBuffer begin_commands(void)
{
    VkCommandBuffer commands = VK_NULL_HANDLE;
    VkCommandBufferAllocateInfo info = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
        .commandPool = pool,
        .commandBufferCount = 1,
    };
    VkCommandBufferBeginInfo start = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO};
    CHECK(host->vk.vkAllocateCommandBuffers(host->handle, &info, &commands) == VK_SUCCESS);
    CHECK(host->vk.vkBeginCommandBuffer(commands, &start) == VK_SUCCESS);
    return commands;
}

/* Submits, and returns the point that is reached when it has run. */
static struct ratp_vulkan_point submit_commands(VkCommandBuffer commands)
{
    struct ratp_vulkan_point done = {timeline, ++timeline_value};
    VkTimelineSemaphoreSubmitInfo values = {
        .sType = VK_STRUCTURE_TYPE_TIMELINE_SEMAPHORE_SUBMIT_INFO,
        .signalSemaphoreValueCount = 1,
        .pSignalSemaphoreValues = &done.value,
    };
    VkSubmitInfo info = {
        .sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
        .pNext = &values,
        .commandBufferCount = 1,
        .pCommandBuffers = &commands,
        .signalSemaphoreCount = 1,
        .pSignalSemaphores = &timeline,
    };
    CHECK(host->vk.vkEndCommandBuffer(commands) == VK_SUCCESS);
    CHECK(host->vk.vkQueueSubmit(host->queue, 1, &info, VK_NULL_HANDLE) == VK_SUCCESS);
    return done;
}

static void wait_for(struct ratp_vulkan_point point)
{
    VkSemaphoreWaitInfo until = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_WAIT_INFO,
                                 .semaphoreCount = 1, .pSemaphores = &point.semaphore,
                                 .pValues = &point.value};
    CHECK(host->vk.vkWaitSemaphores(host->handle, &until, 60000000000) == VK_SUCCESS);
}

/* Every layer into command buffers of the host's, a new one for each layer. */
static void test_record(void)
{
    ratp_seq *seq = NULL;
    uint32_t row = 0;
    ratp_cache *cache = make_cache(device);
    clear_outputs();
    CHECK(good(cache, ratp->seq_create(cache, &seq)));
    for (int i = 0; i < STEPS; row += step_tokens[i++]) {
        ratp_step *step = begin(cache, seq, step_tokens[i]);
        struct ratp_vulkan_point done = {timeline, 1};
        CHECK_EQUAL(vulkan->step_recorded(step, done), RATP_WRONG_STATE);
        for (uint32_t l = 0; l < LAYERS; l++) {
            VkCommandBuffer commands = begin_commands();
            CHECK(good(step, vulkan->step_record(step, commands)));
            CHECK(good(step, attend(step, l, row, true, NULL)));
            CHECK_EQUAL(vulkan->step_sync(step, &done, NULL), RATP_WRONG_STATE);
            done = submit_commands(commands);
        }
        CHECK_EQUAL(ratp->step_commit(&step), RATP_WRONG_STATE);
        CHECK(good(step, vulkan->step_recorded(step, done)));
        CHECK(good(step, ratp->step_commit(&step)) && !step);
    }
    CHECK(good(device, ratp->device_wait(device)));
    CHECK(worst_difference(row) < 1e-3);

    /* Points of step_sync would be lost in a recorded step. */
    ratp_step *synced = begin(cache, seq, 1);
    struct ratp_vulkan_point later = {timeline, timeline_value + 1};
    VkCommandBuffer unused = begin_commands();
    CHECK(good(synced, vulkan->step_sync(synced, NULL, &later)));
    CHECK_EQUAL(vulkan->step_record(synced, unused), RATP_WRONG_STATE);
    CHECK(good(synced, ratp->step_abort(&synced)));
    wait_for(submit_commands(unused));

    /* Host memory cannot be recorded, and what was not submitted can be dropped. */
    ratp_step *step = begin(cache, seq, 1);
    VkCommandBuffer commands = begin_commands();
    CHECK(good(step, vulkan->step_record(step, commands)));
    CHECK_EQUAL(attend(step, 0, 0, false, expected[0] + 95 * QUERY_HEADS * HEAD),
                RATP_INVALID_ARGUMENT);
    CHECK(good(step, ratp->step_abort(&step)));
    CHECK(host->vk.vkEndCommandBuffer(commands) == VK_SUCCESS);
    CHECK(good(seq, ratp->seq_destroy(&seq)));
    CHECK(good(cache, ratp->cache_destroy(&cache)));
}

/* A step that waits for the host between its layers and signals it. */
static void test_sync(void)
{
    ratp_seq *seq = NULL;
    uint32_t row = 0;
    ratp_cache *cache = make_cache(device);
    clear_outputs();
    CHECK(good(cache, ratp->seq_create(cache, &seq)));
    for (int i = 0; i < STEPS; row += step_tokens[i++]) {
        ratp_step *step = begin(cache, seq, step_tokens[i]);
        struct ratp_vulkan_point wait = {timeline, timeline_value + 1};
        struct ratp_vulkan_point done = {timeline, timeline_value + 2};
        CHECK(good(step, attend(step, 0, row, true, NULL)));
        CHECK(good(step, vulkan->step_sync(step, &wait, &done)));
        CHECK(good(step, attend(step, 1, row, true, NULL)));
        int locked = locks;
        CHECK(good(step, ratp->step_commit(&step)));
        CHECK_EQUAL(locks, locked + 1001);
        uint64_t value = 0;
        host->vk.vkGetSemaphoreCounterValue(host->handle, timeline, &value);
        CHECK_EQUAL(value, timeline_value);
        VkSemaphoreSignalInfo go = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_SIGNAL_INFO,
                                    .semaphore = timeline, .value = timeline_value + 1};
        CHECK(host->vk.vkSignalSemaphore(host->handle, &go) == VK_SUCCESS);
        wait_for(done);
        timeline_value += 2;
    }
    CHECK(worst_difference(row) < 1e-3);
    CHECK(good(seq, ratp->seq_destroy(&seq)));
    CHECK(good(cache, ratp->cache_destroy(&cache)));
}

static void test_arguments(void)
{
    struct ratp_vulkan_device params;
    struct ratp_vulkan_buffer handle = {.struct_size = sizeof handle};
    ratp_device *other = NULL;
    ratp_buffer *buffer = NULL;
    size_t size = 0;
    vk_device_handles(host, &params);
    CHECK_EQUAL(vulkan->device_import(instance, NULL, &other), RATP_INVALID_ARGUMENT);
    CHECK_EQUAL(vulkan->device_import(instance, &params, NULL), RATP_INVALID_ARGUMENT);
    params.features = NULL;
    CHECK_EQUAL(vulkan->device_import(instance, &params, &other), RATP_INVALID_ARGUMENT);
    CHECK_CONTAINS(message_of(instance), "features");
    params.struct_size = 8;
    CHECK_EQUAL(vulkan->device_import(instance, &params, &other), RATP_INVALID_ARGUMENT);
    CHECK(!other);

    CHECK(good(buffers[0][0], vulkan->buffer_handle(buffers[0][0], &handle)));
    CHECK(handle.buffer == vk_mem_buffer(&memory[0][0]) &&
          handle.offset == memory[0][0].handle_offset && handle.size == memory[0][0].size);
    CHECK_EQUAL(vulkan->buffer_handle(NULL, &handle), RATP_INVALID_ARGUMENT);
    CHECK_EQUAL(vulkan->buffer_handle(buffers[0][0], NULL), RATP_INVALID_ARGUMENT);
    handle.offset = 2;
    CHECK_EQUAL(vulkan->buffer_import(device, &handle, &buffer), RATP_INVALID_ARGUMENT);
    CHECK_CONTAINS(message_of(device), "multiple of 4");
    handle.offset = 0;
    handle.size = 0;
    CHECK_EQUAL(vulkan->buffer_import(device, &handle, &buffer), RATP_INVALID_ARGUMENT);
    handle.size = (uint64_t)1 << 40; /* more than any buffer of this test has */
    CHECK_EQUAL(vulkan->buffer_import(device, &handle, &buffer), RATP_INVALID_ARGUMENT);
    CHECK_CONTAINS(message_of(device), "the VkBuffer has at most");
    handle.size = 4;
    handle.offset = (uint64_t)1 << 40;
    CHECK_EQUAL(vulkan->buffer_import(device, &handle, &buffer), RATP_INVALID_ARGUMENT);
    handle.offset = 0;
    handle.buffer = VK_NULL_HANDLE;
    CHECK_EQUAL(vulkan->buffer_import(device, &handle, &buffer), RATP_INVALID_ARGUMENT);
    CHECK_EQUAL(vulkan->buffer_import(NULL, &handle, &buffer), RATP_INVALID_ARGUMENT);

    CHECK_EQUAL(vulkan->step_record(NULL, VK_NULL_HANDLE), RATP_INVALID_ARGUMENT);
    CHECK_EQUAL(vulkan->step_sync(NULL, NULL, NULL), RATP_INVALID_ARGUMENT);
    CHECK_EQUAL(vulkan->step_recorded(NULL, (struct ratp_vulkan_point){0}), RATP_INVALID_ARGUMENT);

    CHECK(good(device, vulkan->pipeline_cache_save(device, NULL, &size)) && size > 0);
    CHECK_EQUAL(vulkan->pipeline_cache_save(device, NULL, NULL), RATP_INVALID_ARGUMENT);
    CHECK_EQUAL(vulkan->pipeline_cache_load(device, NULL, 5), RATP_INVALID_ARGUMENT);
    CHECK_EQUAL(vulkan->pipeline_cache_load(device, &params, sizeof params), RATP_PARSE_ERROR);
    CHECK(vulkan->recommended_extensions[0] != NULL);
}

int main(void)
{
    char why[512] = "";
    struct ratp_instance_params params = {.struct_size = sizeof params, .log = on_log};
    ratp = ratp_get_api(RATP_ABI_MAJOR, why, sizeof why);
    if (!CHECK(ratp) ||
        !CHECK(ratp->instance_create(&params, &instance, why, sizeof why) == RATP_OK))
        return check_result();
    vulkan = ratp->get_extension(instance, RATP_VULKAN_EXTENSION);
    if (!CHECK(vulkan) || !CHECK(open_host()))
        return check_result();
    make_tensors();
    RUN(test_expected);
    RUN(test_record);
    RUN(test_sync);
    RUN(test_arguments);
    free_tensors();
    CHECK_EQUAL(locks / 1000, locks % 1000);
    CHECK(good(device, ratp->device_close(&device)));
    close_host();
    CHECK(ratp->instance_destroy(&instance) == RATP_OK);
    CHECK_EQUAL(messages, 0);
    return check_result();
}
