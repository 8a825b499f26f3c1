/* A driver that answers with success, and with something that cannot be: no handle, an
 * address of 0 or -1, a size that is too small, a number beyond all. Each is refused with
 * a sentence, nothing is lost by it, and afterwards the same call succeeds. */
#include "check.h"

#include "vulkan/internal.h"

#include "vulkan_add.spv.h"

#include <stdlib.h>

static const struct vk_shader add_shader = {
    .name = "test add",
    .code = vulkan_add_spv,
    .size = sizeof vulkan_add_spv,
    .push_bytes = 16,
};

static struct vk_instance *instance;
static struct VolkDeviceTable real;
static const char *liar; /* the call that lies, once; NULL: none */
static uintptr_t lie;    /* what it answers */
static unsigned lies;

static bool lies_now(const char *name)
{
    if (!liar || strcmp(liar, name))
        return false;
    liar = NULL;
    lies++;
    return true;
}

/* Calls that make something: the driver does nothing and says that it did. */
#define MAKERS(X)                                                                                 \
    X(CreateBuffer, (VkDevice a, const VkBufferCreateInfo *b, const VkAllocationCallbacks *c,     \
                     VkBuffer *out), (a, b, c, out))                                              \
    X(AllocateMemory, (VkDevice a, const VkMemoryAllocateInfo *b, const VkAllocationCallbacks *c, \
                       VkDeviceMemory *out), (a, b, c, out))                                      \
    X(CreateCommandPool, (VkDevice a, const VkCommandPoolCreateInfo *b,                           \
                          const VkAllocationCallbacks *c, VkCommandPool *out), (a, b, c, out))    \
    X(AllocateCommandBuffers, (VkDevice a, const VkCommandBufferAllocateInfo *b,                  \
                               VkCommandBuffer *out), (a, b, out))                                \
    X(CreateShaderModule, (VkDevice a, const VkShaderModuleCreateInfo *b,                         \
                           const VkAllocationCallbacks *c, VkShaderModule *out), (a, b, c, out))  \
    X(CreatePipelineLayout, (VkDevice a, const VkPipelineLayoutCreateInfo *b,                     \
                             const VkAllocationCallbacks *c, VkPipelineLayout *out),              \
      (a, b, c, out))                                                                             \
    X(CreateComputePipelines, (VkDevice a, VkPipelineCache b, uint32_t c,                         \
                               const VkComputePipelineCreateInfo *e,                              \
                               const VkAllocationCallbacks *f, VkPipeline *out),                  \
      (a, b, c, e, f, out))                                                                       \
    X(CreatePipelineCache, (VkDevice a, const VkPipelineCacheCreateInfo *b,                       \
                            const VkAllocationCallbacks *c, VkPipelineCache *out),                \
      (a, b, c, out))

#define WRAPPER(name, parameters, arguments)                                                      \
    static VKAPI_ATTR VkResult VKAPI_CALL fake_##name parameters                                  \
    {                                                                                             \
        if (!lies_now(#name))                                                                     \
            return real.vk##name arguments;                                                       \
        *out = VK_NULL_HANDLE;                                                                    \
        return VK_SUCCESS;                                                                        \
    }
MAKERS(WRAPPER)
#undef WRAPPER

static const char *const maker_names[] = {
#define NAME(name, parameters, arguments) #name,
    MAKERS(NAME)
#undef NAME
};

static VKAPI_ATTR VkResult VKAPI_CALL fake_map(VkDevice d, VkDeviceMemory m, VkDeviceSize offset,
                                               VkDeviceSize size, VkMemoryMapFlags flags,
                                               void **out)
{
    VkResult result = real.vkMapMemory(d, m, offset, size, flags, out);
    if (lies_now("MapMemory"))
        *out = (void *)lie;
    return result;
}

static VKAPI_ATTR VkDeviceAddress VKAPI_CALL fake_address(VkDevice d,
                                                          const VkBufferDeviceAddressInfo *info)
{
    return lies_now("GetBufferDeviceAddress") ? lie : real.vkGetBufferDeviceAddress(d, info);
}

static VKAPI_ATTR void VKAPI_CALL fake_requirements(VkDevice d, VkBuffer buffer,
                                                    VkMemoryRequirements *out)
{
    real.vkGetBufferMemoryRequirements(d, buffer, out);
    if (lies_now("size of GetBufferMemoryRequirements"))
        out->size = lie;
    if (lies_now("types of GetBufferMemoryRequirements"))
        out->memoryTypeBits = (uint32_t)lie;
}

static VKAPI_ATTR VkResult VKAPI_CALL fake_counter(VkDevice d, VkSemaphore s, uint64_t *out)
{
    VkResult result = real.vkGetSemaphoreCounterValue(d, s, out);
    if (lies_now("GetSemaphoreCounterValue"))
        *out = lie;
    return result;
}

/* The second of two calls, the one that writes. */
static VKAPI_ATTR VkResult VKAPI_CALL fake_cache_data(VkDevice d, VkPipelineCache c, size_t *size,
                                                      void *data)
{
    VkResult result = real.vkGetPipelineCacheData(d, c, size, data);
    if (lies_now(data ? "data of GetPipelineCacheData" : "size of GetPipelineCacheData"))
        *size = lie;
    return result;
}

static struct vk_device *open_liar(void)
{
    struct vk_device *d = NULL;
    struct error err;
    uint32_t index = 0;
    while (index + 1 < vk_device_count(instance) && !instance->physical[index].info.usable)
        index++;
    if (!CHECK_EQUAL(vk_device_open(instance, index, 0, 0, &d, &err), RATP_OK))
        return NULL;
    real = d->vk;
#define REPLACE(name, parameters, arguments) d->vk.vk##name = fake_##name;
    MAKERS(REPLACE)
#undef REPLACE
    d->vk.vkMapMemory = fake_map;
    d->vk.vkGetBufferDeviceAddress = fake_address;
    d->vk.vkGetBufferMemoryRequirements = fake_requirements;
    d->vk.vkGetSemaphoreCounterValue = fake_counter;
    d->vk.vkGetPipelineCacheData = fake_cache_data;
    return d;
}

/* Memory of each kind, a dispatch, and the pipeline cache to and fro. */
static ratp_status use(struct vk_device *d, uint32_t constant, struct error *err)
{
    struct mem m[MEM_KINDS] = {{0}};
    struct vk_stream *s = NULL;
    ticket t = 0;
    uint32_t words[64] = {0};
    static uint8_t saved[1 << 20];
    size_t size = sizeof saved;
    ratp_status status = RATP_OK;
    for (int kind = 0; kind < MEM_KINDS && !status; kind++) {
        status = vk_mem_alloc(d, sizeof words, (enum mem_kind)kind, "words", &m[kind], err);
        if (!status && m[kind].host)
            memset(m[kind].host, 0, sizeof words);
    }
    if (!status)
        status = vk_stream_begin(d, &s, err);
    if (!status) {
        struct {
            uint64_t address;
            uint32_t count, unused;
        } push = {m[MEM_READBACK].address, 64, 0};
        status = vk_dispatch(s, &add_shader, &constant, 1, &push, sizeof push, 1, 1, 1, err);
        if (status)
            vk_stream_drop(s);
        else
            status = vk_stream_submit(s, &t, err);
    }
    if (!status)
        status = vk_wait(d, t, err);
    if (!status && ((uint32_t *)m[MEM_READBACK].host)[63] != constant)
        status = fail(err, RATP_INTERNAL, "a wrong result");
    if (!status)
        status = vk_pipeline_cache_save(d, saved, &size, err);
    if (!status)
        status = vk_pipeline_cache_load(d, saved, size, err);
    for (int kind = 0; kind < MEM_KINDS; kind++)
        vk_mem_free(d, &m[kind]);
    return status;
}

/* `part`: of the message; NULL: the call succeeds in spite of the lie. */
static void tell(const char *call, uintptr_t answer, ratp_status status, const char *part)
{
    static uint32_t constant = 1; /* a new pipeline each time */
    struct vk_device *d = open_liar();
    struct vk_memory_stats stats;
    struct error err = {""};
    if (!d)
        return;
    liar = call;
    lie = answer;
    unsigned before = lies;
    if (!CHECK_EQUAL(use(d, ++constant, &err), status))
        fprintf(stderr, "    %s answers %p: %s\n", call, (void *)answer, err.text);
    if (part)
        CHECK_CONTAINS(err.text, part);
    if (!CHECK_EQUAL(lies, before + 1))
        fprintf(stderr, "    %s\n", call);
    if (!CHECK_EQUAL(use(d, ++constant, &err), RATP_OK))
        fprintf(stderr, "    after %s: %s\n", call, err.text);
    vk_wait(d, vk_latest(d), NULL);
    vk_memory_stats(d, &stats);
    CHECK_EQUAL(stats.pieces, 0);
    vk_device_close(&d);
}

/* An allocation that failed is tried once more, and the driver lies once. */
static void test_makers(void)
{
    for (size_t i = 0; i < sizeof maker_names / sizeof *maker_names; i++) {
        bool again = !strcmp(maker_names[i], "CreateBuffer") ||
                     !strcmp(maker_names[i], "AllocateMemory");
        tell(maker_names[i], 0, again ? RATP_OK : RATP_OUT_OF_MEMORY,
             again ? NULL : maker_names[i]);
    }
}

static bool give_back(void *user)
{
    return ++*(unsigned *)user == 1;
}

/* The same where somebody has memory to give back: they all succeed. */
static void test_makers_after_all(void)
{
    uint32_t constant = 1000;
    for (size_t i = 0; i < sizeof maker_names / sizeof *maker_names; i++) {
        struct vk_device *d = open_liar();
        struct error err = {""};
        unsigned asked = 0;
        if (!d)
            return;
        vk_device_on_shortage(d, give_back, &asked);
        liar = maker_names[i];
        if (!CHECK_EQUAL(use(d, ++constant, &err), RATP_OK))
            fprintf(stderr, "    %s: %s\n", maker_names[i], err.text);
        CHECK(!liar);
        vk_device_close(&d);
    }
}

static void test_addresses(void)
{
    static const uintptr_t answers[] = {0, UINTPTR_MAX, UINTPTR_MAX - 11};
    for (int i = 0; i < 3; i++) {
        tell("MapMemory", answers[i], RATP_OK, NULL);
        tell("GetBufferDeviceAddress", answers[i], RATP_OK, NULL);
    }
    tell("size of GetBufferMemoryRequirements", 16, RATP_INTERNAL, "words");
    tell("types of GetBufferMemoryRequirements", 0, RATP_INTERNAL, "no memory type");
}

/* The driver goes on lying: the call is refused, and what was asked is named. */
static VKAPI_ATTR VkResult VKAPI_CALL always_minus_one(VkDevice d, VkDeviceMemory m,
                                                       VkDeviceSize offset, VkDeviceSize size,
                                                       VkMemoryMapFlags flags, void **out)
{
    (void)d, (void)m, (void)offset, (void)size, (void)flags;
    *out = (void *)UINTPTR_MAX;
    return VK_SUCCESS;
}

static void test_mapping(void)
{
    struct vk_device *d = open_liar();
    struct error err = {""};
    struct vk_memory_stats stats;
    struct mem m;
    if (!d)
        return;
    d->vk.vkMapMemory = always_minus_one;
    CHECK_EQUAL(vk_mem_alloc(d, 12345, MEM_READBACK, "results", &m, &err), RATP_OUT_OF_MEMORY);
    CHECK_CONTAINS(err.text, "results");
    CHECK_CONTAINS(err.text, "12345 bytes");
    CHECK_CONTAINS(err.text, "vkMapMemory");
    vk_memory_stats(d, &stats);
    CHECK_EQUAL(stats.allocated, 0);
    vk_device_close(&d);
}

static void test_pipeline_cache(void)
{
    tell("size of GetPipelineCacheData", UINTPTR_MAX - 3, RATP_INTERNAL, "vkGetPipelineCacheData");
    tell("data of GetPipelineCacheData", UINTPTR_MAX / 2, RATP_OK, NULL);
}

/* A counter beyond all tickets is what some drivers of a lost device answer. */
static void test_counter(void)
{
    struct vk_device *d = open_liar();
    struct error err = {""};
    if (!d)
        return;
    CHECK_EQUAL(use(d, 3, &err), RATP_OK);
    struct vk_stream *s = NULL;
    struct mem m;
    ticket t = 0;
    CHECK_EQUAL(vk_mem_alloc(d, 64, MEM_DEVICE, "word", &m, &err), RATP_OK);
    CHECK_EQUAL(vk_stream_begin(d, &s, &err), RATP_OK);
    CHECK_EQUAL(vk_fill_zero(s, &m, 0, 64, &err), RATP_OK);
    CHECK_EQUAL(vk_stream_submit(s, &t, &err), RATP_OK);
    real.vkDeviceWaitIdle(d->handle);
    atomic_store(&d->completed, 0); /* whatever was asked while it was submitted */
    liar = "GetSemaphoreCounterValue";
    lie = UINTPTR_MAX;
    CHECK(!vk_passed(d, t + 5));
    CHECK_EQUAL(vk_wait(d, t, &err), RATP_DEVICE_LOST);
    vk_mem_free(d, &m);
    vk_device_close(&d);
}

/* A wait for a lost device may succeed, and its semaphore then has the greatest value. */
static void test_wait(void)
{
    struct vk_device *d = open_liar();
    struct error err = {""};
    struct vk_stream *s = NULL;
    struct mem m;
    ticket t = 0;
    if (!d)
        return;
    CHECK_EQUAL(vk_mem_alloc(d, 64, MEM_DEVICE, "word", &m, &err), RATP_OK);
    CHECK_EQUAL(vk_stream_begin(d, &s, &err), RATP_OK);
    CHECK_EQUAL(vk_fill_zero(s, &m, 0, 64, &err), RATP_OK);
    CHECK_EQUAL(vk_stream_submit(s, &t, &err), RATP_OK);
    real.vkDeviceWaitIdle(d->handle);
    atomic_store(&d->completed, 0);
    liar = "GetSemaphoreCounterValue";
    lie = UINTPTR_MAX;
    CHECK_EQUAL(vk_wait(d, t, &err), RATP_DEVICE_LOST);
    vk_mem_free(d, &m);
    vk_device_close(&d);
}

static PFN_vkGetDeviceProcAddr real_proc_addr;
static VKAPI_ATTR PFN_vkVoidFunction VKAPI_CALL without_destroy(VkDevice d, const char *name)
{
    return strcmp(name, "vkDestroyDevice") ? real_proc_addr(d, name) : NULL;
}

/* A device that lacks a function is refused, also where it is the one that would destroy it. */
static void test_lacking_device(void)
{
    struct vk_device *d = NULL;
    struct error err = {""};
    uint32_t index = 0;
    while (index + 1 < vk_device_count(instance) && !instance->physical[index].info.usable)
        index++;
    real_proc_addr = instance->calls.GetDeviceProcAddr;
    instance->calls.GetDeviceProcAddr = without_destroy;
    CHECK(vk_device_open(instance, index, 0, 0, &d, &err) != RATP_OK);
    CHECK(!d);
    CHECK_CONTAINS(err.text, "vkDestroyDevice");
    instance->calls.GetDeviceProcAddr = real_proc_addr;
}

static void test_queue(void)
{
    struct ratp_vulkan_device host;
    struct vk_device *d = open_liar(), *guest = NULL;
    struct error err = {""};
    struct log log = {0};
    if (!d)
        return;
    vk_device_handles(d, &host);
    host.api_version = VK_API_VERSION_1_2;
    /* The loader of a host that has no function of that name. */
    const char *lacks = vk_table_lacks(&d->vk);
    CHECK(!lacks);
    d->vk.vkGetBufferDeviceAddress = NULL;
    lacks = vk_table_lacks(&d->vk);
    if (CHECK(lacks))
        CHECK_CONTAINS(lacks, "vkGetBufferDeviceAddress");
    d->vk = real;
    CHECK_EQUAL(vk_device_import(&log, &host, &guest, &err), RATP_OK);
    vk_device_close(&guest);
    vk_device_close(&d);
}

/* Numbers that loops and divisions go by. */
static void test_physical(void)
{
    uint32_t index = 0;
    while (index + 1 < vk_device_count(instance) && !instance->physical[index].info.usable)
        index++;
    const struct vk_physical good = instance->physical[index];
    struct vk_physical p = good;
    CHECK(!vk_physical_doubt(&p));
#define DOUBT(field, value, part)                        \
    do {                                                 \
        p = good;                                        \
        p.field = value;                                 \
        const char *why = vk_physical_doubt(&p);         \
        if (CHECK(why))                                  \
            CHECK_CONTAINS(why, part);                   \
    } while (0)
    DOUBT(memory.memoryTypeCount, 0, "memory types");
    DOUBT(memory.memoryTypeCount, VK_MAX_MEMORY_TYPES + 1, "memory types");
    DOUBT(memory.memoryHeapCount, VK_MAX_MEMORY_HEAPS + 1, "memory heaps");
    DOUBT(memory.memoryTypes[0].heapIndex, good.memory.memoryHeapCount, "heap");
    DOUBT(caps.subgroup_size, 0, "subgroup");
    DOUBT(caps.subgroup_size, 48, "subgroup");
    DOUBT(caps.shared_bytes, 0, "shared memory");
    DOUBT(caps.max_invocations, 0, "invocations");
    DOUBT(caps.max_groups[2], 1, "workgroups");
    DOUBT(max_allocation, 100, "allocations");
    p = good;
    p.features |= feature_bit(FEATURE_HOST_IMPORT);
    p.import_alignment = 0;
    CHECK(vk_physical_doubt(&p));
#undef DOUBT
}

int main(void)
{
    struct log log = {0};
    struct error err;
    /* Without the validation layer, which has handles of its own. */
    if (!CHECK(vk_instance_create(&log, false, &instance, &err) == RATP_OK) || !CHECK(instance))
        return check_result();
    RUN(test_makers);
    RUN(test_makers_after_all);
    RUN(test_addresses);
    RUN(test_mapping);
    RUN(test_pipeline_cache);
    RUN(test_counter);
    RUN(test_wait);
    RUN(test_lacking_device);
    RUN(test_queue);
    RUN(test_physical);
    vk_instance_destroy(&instance);
    return check_result();
}
