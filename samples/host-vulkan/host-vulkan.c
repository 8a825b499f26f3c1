/* A minimal engine with a VkDevice of its own. The plugin opens that device, works on the
 * engine's VkBuffers, and records its attention into the engine's command buffer, between the
 * engine's own commands: a pass is one submission. Where a real engine runs norms and matrix
 * products, this one copies: x becomes q, and attention's output becomes x. The hazards are the
 * same, and so the barriers. All is done once more in host memory on the plugin's reference
 * device, and the results are compared. */
#include <ratplus_vulkan.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vulkan/vulkan.h>

enum { LAYERS = 2, QUERY_HEADS = 4, KV_HEADS = 2, HEAD = 64, PROMPT = 100, ROWS = 112 };
enum { X, Q, K, V, F, OUT, BUFFERS }; /* x: the residual stream, f: forget-gate logits */
enum { Q_ROW = QUERY_HEADS * HEAD, K_ROW = KV_HEADS * HEAD, FLOATS = LAYERS * ROWS * Q_ROW };

static const char json[] = "{\"rules\": [{\"layers\": 1, \"variant\": \"d16w32s4\"}]}";
static const struct ratp_api *ratp;
static const struct ratp_vulkan_api *ratp_vulkan;
static ratp_instance *plugin;
static float host[BUFFERS][FLOATS]; /* the inputs; the reference works in place */

/* Prints why and ends. A real engine hands failures upwards, and drops an open step with
 * step_abort: every sequence is then as it was before step_begin. */
#define VK(call) check((call), NULL, #call)
#define RATP(object, call) check((call), (object), #call)
#define TYPE(name) .sType = VK_STRUCTURE_TYPE_##name

static void check(int result, const void *object, const char *what)
{
    char text[512] = "";
    if (result == 0) /* VK_SUCCESS, RATP_OK */
        return;
    if (object)
        ratp->last_error(object, text, sizeof text);
    fprintf(stderr, result < 0 ? "host-vulkan: %s%s: VkResult %d\n" : "host-vulkan: %s %s\n", what,
            text, result);
    exit(1);
}

/* ---- What an engine on Vulkan has anyway --------------------------------- */

static VkInstance instance; static VkPhysicalDevice physical; static VkDevice device;
static VkQueue queue; static VkCommandPool pool; static VkCommandBuffer commands;
static VkSemaphore timeline; static uint64_t submitted; /* passes; it reaches a done one's number */
static uint32_t family, extension_count; static const char *extensions[16];

/* What vkCreateDevice turns on; the plugin is shown the same lists. An engine has its own; this
 * one takes all of Vulkan 1.1 and 1.2, where the plugin's needs and most of its wishes are. */
static VkPhysicalDeviceSubgroupSizeControlFeatures sizes = {
    TYPE(PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_FEATURES)};
static VkPhysicalDeviceVulkan12Features features12 = {TYPE(PHYSICAL_DEVICE_VULKAN_1_2_FEATURES)};
static VkPhysicalDeviceVulkan11Features features11 = {
    TYPE(PHYSICAL_DEVICE_VULKAN_1_1_FEATURES), .pNext = &features12};
static VkPhysicalDeviceFeatures2 features = {TYPE(PHYSICAL_DEVICE_FEATURES_2), &features11};

static void open_device(uint32_t index)
{
    const VkApplicationInfo app = {TYPE(APPLICATION_INFO), .apiVersion = VK_API_VERSION_1_2};
    const VkInstanceCreateInfo info = {TYPE(INSTANCE_CREATE_INFO), .pApplicationInfo = &app};
    VkPhysicalDevice list[16];
    VkQueueFamilyProperties families[16]; VkExtensionProperties offered[512];
    uint32_t count = 16, family_count = 16, offered_count = 512;
    if (vkCreateInstance(&info, NULL, &instance) != VK_SUCCESS ||
        vkEnumeratePhysicalDevices(instance, &count, list) < 0)
        count = 0;
    check(index >= count, NULL, "there is no such Vulkan device; if there is none at all, install "
          "the GPU's driver, or Mesa's for the CPU (Debian: apt-get install mesa-vulkan-drivers)");
    physical = list[index];
    vkGetPhysicalDeviceQueueFamilyProperties(physical, &family_count, families);
    while (family < family_count && !(families[family].queueFlags & VK_QUEUE_COMPUTE_BIT))
        family++;
    VK(vkEnumerateDeviceExtensionProperties(physical, NULL, &offered_count, offered));
    for (const char *const *name = ratp_vulkan->recommended_extensions; *name; name++)
        for (uint32_t i = 0; i < offered_count; i++)
            if (strcmp(*name, offered[i].extensionName) == 0) {
                extensions[extension_count++] = *name;
                if (strcmp(*name, VK_EXT_SUBGROUP_SIZE_CONTROL_EXTENSION_NAME) == 0)
                    features12.pNext = &sizes;
            }
    vkGetPhysicalDeviceFeatures2(physical, &features);
    features.features = (VkPhysicalDeviceFeatures){.shaderInt64 = features.features.shaderInt64};
    check(!features12.bufferDeviceAddress || !features12.timelineSemaphore ||
          family == family_count, NULL, "the device lacks bufferDeviceAddress, timelineSemaphore "
          "or compute; give another one's number");
    const VkDeviceQueueCreateInfo queues = {TYPE(DEVICE_QUEUE_CREATE_INFO), NULL, 0, family, 1,
                                            &(float){1}};
    const VkDeviceCreateInfo device_info = {
        TYPE(DEVICE_CREATE_INFO), .pNext = &features, .queueCreateInfoCount = 1,
        .pQueueCreateInfos = &queues, .enabledExtensionCount = extension_count,
        .ppEnabledExtensionNames = extensions};
    VK(vkCreateDevice(physical, &device_info, NULL, &device));
    vkGetDeviceQueue(device, family, 0, &queue);
    const VkCommandPoolCreateInfo of = {TYPE(COMMAND_POOL_CREATE_INFO), NULL, 0, family};
    VK(vkCreateCommandPool(device, &of, NULL, &pool));
    const VkCommandBufferAllocateInfo one = {TYPE(COMMAND_BUFFER_ALLOCATE_INFO), NULL, pool, 0, 1};
    VK(vkAllocateCommandBuffers(device, &one, &commands));
    const VkSemaphoreTypeCreateInfo kind = {TYPE(SEMAPHORE_TYPE_CREATE_INFO), NULL,
                                            VK_SEMAPHORE_TYPE_TIMELINE, 0};
    const VkSemaphoreCreateInfo semaphore = {TYPE(SEMAPHORE_CREATE_INFO), &kind, 0};
    VK(vkCreateSemaphore(device, &semaphore, NULL, &timeline));
}

/* Each has room for all rows, and is mapped: this program fills and reads them. An engine keeps
 * in device memory what the host does not touch. */
static VkBuffer buffers[BUFFERS]; static VkDeviceMemory memories[BUFFERS];
static float *mapped[BUFFERS];
static ratp_buffer *lent[BUFFERS]; /* q, k, v, f and out, as the plugin knows them */

static void make_buffer(int i)
{
    VkMemoryRequirements size; VkPhysicalDeviceMemoryProperties has;
    uint32_t type = 0;
    const VkMemoryPropertyFlags need =
        VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
    /* The plugin reads operands by address: two of the usages and the memory's flag. */
    const VkBufferCreateInfo info = {
        TYPE(BUFFER_CREATE_INFO), .size = FLOATS * sizeof(float),
        .usage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT | VK_BUFFER_USAGE_SHADER_DEVICE_ADDRESS_BIT |
                 VK_BUFFER_USAGE_TRANSFER_SRC_BIT | VK_BUFFER_USAGE_TRANSFER_DST_BIT};
    const VkMemoryAllocateFlagsInfo flags = {TYPE(MEMORY_ALLOCATE_FLAGS_INFO), NULL,
                                             VK_MEMORY_ALLOCATE_DEVICE_ADDRESS_BIT, 0};
    VK(vkCreateBuffer(device, &info, NULL, &buffers[i]));
    vkGetBufferMemoryRequirements(device, buffers[i], &size);
    vkGetPhysicalDeviceMemoryProperties(physical, &has);
    while (!(size.memoryTypeBits >> type & 1) || need & ~has.memoryTypes[type].propertyFlags)
        type++; /* Vulkan promises that there is one */
    const VkMemoryAllocateInfo allocate = {TYPE(MEMORY_ALLOCATE_INFO), &flags, size.size, type};
    VK(vkAllocateMemory(device, &allocate, NULL, &memories[i]));
    VK(vkBindBufferMemory(device, buffers[i], memories[i], 0));
    VK(vkMapMemory(device, memories[i], 0, VK_WHOLE_SIZE, 0, (void **)&mapped[i]));
    memcpy(mapped[i], host[i], FLOATS * sizeof(float));
}

static void submit(void)
{
    submitted++;
    const VkTimelineSemaphoreSubmitInfo values = {TYPE(TIMELINE_SEMAPHORE_SUBMIT_INFO), NULL, 0,
                                                  NULL, 1, &submitted};
    const VkSubmitInfo info = {
        TYPE(SUBMIT_INFO), .pNext = &values, .commandBufferCount = 1, .pCommandBuffers = &commands,
        .signalSemaphoreCount = 1, .pSignalSemaphores = &timeline};
    VK(vkEndCommandBuffer(commands));
    VK(vkQueueSubmit(queue, 1, &info, VK_NULL_HANDLE));
}

/* Stands for a kernel that reads rows of one buffer and writes another, with the barrier for
 * what comes after it: the next kernel, and the host that reads x at last. */
static void kernel(int from, int to, uint32_t row, uint32_t count, int recorded)
{
    const uint64_t at = row * Q_ROW * sizeof(float), size = count * Q_ROW * sizeof(float);
    const VkMemoryBarrier after = {
        TYPE(MEMORY_BARRIER), .srcAccessMask = VK_ACCESS_TRANSFER_WRITE_BIT,
        .dstAccessMask = VK_ACCESS_TRANSFER_READ_BIT | VK_ACCESS_TRANSFER_WRITE_BIT |
                         VK_ACCESS_HOST_READ_BIT};
    if (!recorded) {
        memcpy(host[to] + row * Q_ROW, host[from] + row * Q_ROW, size);
        return;
    }
    vkCmdCopyBuffer(commands, buffers[from], buffers[to], 1, &(VkBufferCopy){at, at, size});
    vkCmdPipelineBarrier(commands, VK_PIPELINE_STAGE_TRANSFER_BIT,
                         VK_PIPELINE_STAGE_TRANSFER_BIT | VK_PIPELINE_STAGE_HOST_BIT, 0, 1, &after,
                         0, NULL, 0, NULL);
}

/* ---- What the plugin adds ------------------------------------------------ */

/* Forks and rewinding are small submissions of the plugin's own to this queue. Vulkan wants one
 * thread at a time there: an engine with several gives lock_queue and unlock_queue. */
static ratp_device *lend(void)
{
    const struct ratp_vulkan_device params = {
        .struct_size = sizeof params, .get_instance_proc_addr = vkGetInstanceProcAddr,
        .instance = instance, .physical_device = physical, .device = device, .queue_family = family,
        .extensions = extensions, .extension_count = extension_count, .features = &features};
    ratp_device *to;
    RATP(plugin, ratp_vulkan->device_import(plugin, &params, &to));
    for (int i = Q; i < BUFFERS; i++) {
        const struct ratp_vulkan_buffer part = {sizeof part, buffers[i], 0, FLOATS * sizeof(float)};
        RATP(to, ratp_vulkan->buffer_import(to, &part, &lent[i]));
    }
    return to;
}

/* A forward pass: `count` new tokens of one sequence, whose x is at `row`. */
static void forward(ratp_cache *cache, ratp_seq *seq, uint32_t row, uint32_t count, int recorded)
{
    const struct ratp_step_params params = {sizeof params, .count = 1, .seqs = &seq, .n_tokens = &count};
    const VkSemaphoreWaitInfo last = {TYPE(SEMAPHORE_WAIT_INFO), NULL, 0, 1, &timeline, &submitted};
    const VkCommandBufferBeginInfo begin = {TYPE(COMMAND_BUFFER_BEGIN_INFO)};
    ratp_step *step;
    RATP(cache, ratp->step_begin(cache, &params, &step));
    if (recorded) {
        VK(vkWaitSemaphores(device, &last, UINT64_MAX)); /* it has the command buffer */
        VK(vkResetCommandPool(device, pool, 0));
        VK(vkBeginCommandBuffer(commands, &begin));
        RATP(step, ratp_vulkan->step_record(step, commands));
    }
    for (uint32_t layer = 0; layer < LAYERS; layer++) {
        struct ratp_tensor t[BUFFERS];
        for (int i = Q; i < BUFFERS; i++) {
            const uint64_t at = i == Q || i == OUT ? row * Q_ROW : (layer * ROWS + row) * K_ROW;
            t[i] = (struct ratp_tensor){.struct_size = sizeof t[i], .offset = at * sizeof(float)};
            t[i].buffer = recorded ? lent[i] : NULL; /* host memory cannot be recorded */
            t[i].host = recorded ? NULL : host[i];
        }
        const struct ratp_attend_io io = {sizeof io, &t[Q], &t[K], &t[V], &t[F], .out = &t[OUT]};
        kernel(X, Q, row, count, recorded);
        /* It brings its own barriers, towards the kernels before it and after it. */
        RATP(step, ratp->step_attend(step, layer, &io));
        kernel(OUT, X, row, count, recorded);
    }
    if (recorded) {
        submit();
        /* The step's memory is free, and later steps may run, when this point is reached. */
        const struct ratp_vulkan_point done = {timeline, submitted};
        RATP(step, ratp_vulkan->step_recorded(step, done));
    }
    RATP(step, ratp->step_commit(&step)); /* the tokens are part of the sequence from here on */
}

/* A prompt, decoding, a fork, and a rewind; every pass has rows of its own. */
static void play(ratp_device *on, int recorded)
{
    const struct ratp_rope rope = {sizeof rope, .style = RATP_ROPE_HALF};
    const struct ratp_geometry geometry = {sizeof geometry, LAYERS, QUERY_HEADS, KV_HEADS, HEAD,
                                           .memory = 1, .rope = &rope};
    ratp_policy *policy; ratp_cache *cache; ratp_seq *seq, *fork;
    uint32_t row = PROMPT;
    RATP(plugin, ratp->policy_from_json(plugin, json, strlen(json), &policy));
    /* Retention full keeps what d16w32s4 passes over, for the rewind. */
    const struct ratp_cache_params params = {sizeof params, &geometry, policy,
                                             .retention = RATP_RETAIN_FULL};
    RATP(on, ratp->cache_create(on, &params, &cache));
    RATP(cache, ratp->seq_create(cache, &seq));
    forward(cache, seq, 0, PROMPT, recorded);
    while (row < PROMPT + 4)
        forward(cache, seq, row++, 1, recorded);
    RATP(seq, ratp->seq_fork(seq, &fork));
    forward(cache, fork, row++, 1, recorded);
    forward(cache, seq, row++, 1, recorded); /* another token than the fork's */
    RATP(seq, ratp->seq_truncate(seq, PROMPT - 10));
    forward(cache, seq, row, 4, recorded);
    forward(cache, fork, row + 4, 1, recorded); /* still has what seq has forgotten */
    RATP(fork, ratp->seq_destroy(&fork));
    RATP(seq, ratp->seq_destroy(&seq));
    RATP(cache, ratp->cache_destroy(&cache));
    RATP(policy, ratp->policy_destroy(&policy));
}

int main(int argc, char **argv)
{
    const struct ratp_instance_params params = {.struct_size = sizeof params, .no_vulkan = 1};
    char why[256] = "this libratplus has no " RATP_VULKAN_EXTENSION, *end = "";
    const unsigned long index = argc > 1 ? strtoul(argv[1], &end, 10) : 0;
    if (argc > 2 || (argc > 1 && (end == argv[1] || *end)))
        return puts("usage: host-vulkan [DEVICE]     DEVICE: its number among Vulkan's, else 0"),
               argc > 2 || strcmp(argv[1], "--help") != 0;
    /* The engine brings the device, so the plugin need not look for Vulkan. */
    ratp = ratp_get_api(RATP_ABI_MAJOR, why, sizeof why);
    if (!ratp || ratp->instance_create(&params, &plugin, why, sizeof why) != RATP_OK ||
        !(ratp_vulkan = ratp->get_extension(plugin, RATP_VULKAN_EXTENSION)))
        check(1, NULL, why);
    open_device(index < UINT32_MAX ? (uint32_t)index : UINT32_MAX);
    for (int i = 0; i < BUFFERS; i++) {
        for (int j = 0; j < FLOATS; j++)
            host[i][j] = (float)rand() / (float)RAND_MAX * 4 - 2;
        make_buffer(i);
    }
    ratp_device *ours = lend(), *reference;
    const struct ratp_device_params plain = {sizeof plain, .name = "reference"};
    RATP(plugin, ratp->device_open(plugin, &plain, &reference));
    play(ours, 1);
    play(reference, 0);
    VK(vkQueueWaitIdle(queue));
    double worst = 0;
    for (int i = 0; i < ROWS * Q_ROW; i++) {
        const double difference = fabs((double)mapped[X][i] - (double)host[X][i]);
        if (!(difference <= worst))
            worst = isnan(difference) ? INFINITY : difference;
    }
    /* The plugin's handles go first: they need the engine's. */
    for (int i = 0; i < BUFFERS; i++) {
        RATP(lent[i], ratp->buffer_destroy(&lent[i]));
        vkDestroyBuffer(device, buffers[i], NULL);
        vkFreeMemory(device, memories[i], NULL);
    }
    RATP(ours, ratp->device_close(&ours)); /* leaves the VkDevice as it was */
    RATP(reference, ratp->device_close(&reference));
    RATP(plugin, ratp->instance_destroy(&plugin));
    vkDestroySemaphore(device, timeline, NULL);
    vkDestroyCommandPool(device, pool, NULL);
    vkDestroyDevice(device, NULL);
    vkDestroyInstance(instance, NULL);
    printf("largest difference from the reference: %.2g\n", worst);
    return worst < 2e-3 ? puts("ok"), 0 : 1;
}
