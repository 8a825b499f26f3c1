/* Compute pipelines, made on first use and kept, and the cache of compiled
 * ones that a host can store between runs. */
#include "internal.h"

#include <stdlib.h>
#include <string.h>

enum { CONSTANTS_MAX = 32 };

struct vk_pipeline {
    struct vk_pipeline *next; /* in its bucket */
    const struct vk_shader *shader;
    uint32_t hash, count;
    uint32_t constants[CONSTANTS_MAX];
    VkPipeline handle;
    VkPipelineLayout layout;
};

struct vk_layout {
    struct vk_layout *next;
    uint32_t push_bytes;
    VkPipelineLayout handle;
};

/* FNV-1a. */
static uint32_t hash_bytes(uint32_t hash, const void *data, size_t size)
{
    const uint8_t *bytes = data;
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ bytes[i]) * 16777619u;
    return hash;
}

static const uint32_t hash_start = 0x811c9dc5;

ratp_status vk_pipelines_init(struct vk_device *d, struct error *err)
{
    ratp_status status;
    d->pipeline_room = 64;
    d->pipelines = calloc(d->pipeline_room, sizeof *d->pipelines);
    if (!d->pipelines)
        return fail(err, RATP_OUT_OF_MEMORY, "pipelines: out of host memory");
    VkPipelineCacheCreateInfo info = {.sType = VK_STRUCTURE_TYPE_PIPELINE_CACHE_CREATE_INFO};
    VK_MAKE(d->vk.vkCreatePipelineCache(d->handle, &info, NULL, &d->pipeline_cache),
            d->pipeline_cache, "vkCreatePipelineCache");
    return RATP_OK;
error:
    return status;
}

void vk_pipelines_fini(struct vk_device *d)
{
    for (uint32_t i = 0; d->pipelines && i < d->pipeline_room; i++) {
        for (struct vk_pipeline *p = d->pipelines[i], *next; p; p = next) {
            next = p->next;
            if (!d->left)
                d->vk.vkDestroyPipeline(d->handle, p->handle, NULL);
            free(p);
        }
    }
    free(d->pipelines);
    d->pipelines = NULL;
    for (struct vk_layout *l = d->layouts, *next; l; l = next) {
        next = l->next;
        if (!d->left)
            d->vk.vkDestroyPipelineLayout(d->handle, l->handle, NULL);
        free(l);
    }
    d->layouts = NULL;
    if (d->pipeline_cache && !d->left)
        d->vk.vkDestroyPipelineCache(d->handle, d->pipeline_cache, NULL);
    d->pipeline_cache = VK_NULL_HANDLE;
}

static ratp_status find_layout(struct vk_device *d, uint32_t push_bytes, VkPipelineLayout *out,
                               struct error *err)
{
    for (struct vk_layout *l = d->layouts; l; l = l->next) {
        if (l->push_bytes == push_bytes) {
            *out = l->handle;
            return RATP_OK;
        }
    }
    ratp_status status;
    struct vk_layout *l = calloc(1, sizeof *l);
    if (!l)
        return fail(err, RATP_OUT_OF_MEMORY, "pipeline layout: out of host memory");
    VkPushConstantRange range = {.stageFlags = VK_SHADER_STAGE_COMPUTE_BIT, .size = push_bytes};
    VkPipelineLayoutCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO,
        .pushConstantRangeCount = push_bytes ? 1 : 0,
        .pPushConstantRanges = &range,
    };
    VK_MAKE(d->vk.vkCreatePipelineLayout(d->handle, &info, NULL, &l->handle), l->handle,
            "vkCreatePipelineLayout");
    l->push_bytes = push_bytes;
    l->next = d->layouts;
    d->layouts = l;
    *out = l->handle;
    return RATP_OK;
error:
    free(l);
    return status;
}

static ratp_status compile(struct vk_device *d, struct vk_pipeline *p, struct error *err)
{
    ratp_status status;
    const struct vk_shader *shader = p->shader;
    VkShaderModule module = VK_NULL_HANDLE;
    VkSpecializationMapEntry entries[CONSTANTS_MAX];
    for (uint32_t i = 0; i < p->count; i++)
        entries[i] = (VkSpecializationMapEntry){
            .constantID = i, .offset = i * (uint32_t)sizeof(uint32_t), .size = sizeof(uint32_t)};
    VkSpecializationInfo specialization = {
        .mapEntryCount = p->count,
        .pMapEntries = entries,
        .dataSize = p->count * sizeof(uint32_t),
        .pData = p->constants,
    };
    VkShaderModuleCreateInfo module_info = {
        .sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO,
        .codeSize = shader->size,
        .pCode = shader->code,
    };
    status = find_layout(d, shader->push_bytes, &p->layout, err);
    if (status != RATP_OK)
        return status;
    VK_MAKE(d->vk.vkCreateShaderModule(d->handle, &module_info, NULL, &module), module,
            "vkCreateShaderModule");
    const struct vk_caps *caps = &d->physical.caps;
    const VkPipelineShaderStageRequiredSubgroupSizeCreateInfoEXT subgroup = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_REQUIRED_SUBGROUP_SIZE_CREATE_INFO_EXT,
        .requiredSubgroupSize = caps->subgroup_size,
    };
    bool full = shader->full_subgroups && caps->full_subgroups;
    VkComputePipelineCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO,
        .stage = {.sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO,
                  .pNext = full ? &subgroup : NULL,
                  .flags = full ? VK_PIPELINE_SHADER_STAGE_CREATE_REQUIRE_FULL_SUBGROUPS_BIT_EXT
                                : 0u,
                  .stage = VK_SHADER_STAGE_COMPUTE_BIT,
                  .module = module,
                  .pName = "main",
                  .pSpecializationInfo = &specialization},
        .layout = p->layout,
    };
    VK_MAKE(d->vk.vkCreateComputePipelines(d->handle, d->pipeline_cache, 1, &info, NULL,
                                           &p->handle),
            p->handle, "vkCreateComputePipelines");
    vk_name(d, VK_OBJECT_TYPE_PIPELINE, (uint64_t)p->handle, shader->name);
error:
    d->vk.vkDestroyShaderModule(d->handle, module, NULL);
    return status;
}

/* Twice as many buckets; keeps the old ones when there is no memory. */
static void grow_table(struct vk_device *d)
{
    uint32_t room = d->pipeline_room * 2;
    struct vk_pipeline **table = calloc(room, sizeof *table);
    if (!table)
        return;
    for (uint32_t i = 0; i < d->pipeline_room; i++) {
        for (struct vk_pipeline *p = d->pipelines[i], *next; p; p = next) {
            next = p->next;
            p->next = table[p->hash % room];
            table[p->hash % room] = p;
        }
    }
    free(d->pipelines);
    d->pipelines = table;
    d->pipeline_room = room;
}

static ratp_status get_locked(struct vk_device *d, const struct vk_shader *shader,
                              const uint32_t *constants, uint32_t count, struct vk_pipeline **out,
                              struct error *err)
{
    uint32_t hash = hash_bytes(hash_start, &shader, sizeof shader);
    hash = hash_bytes(hash, constants, count * sizeof *constants);
    for (struct vk_pipeline *p = d->pipelines[hash % d->pipeline_room]; p; p = p->next) {
        if (p->hash == hash && p->shader == shader && p->count == count &&
            (!count || !memcmp(p->constants, constants, count * sizeof *constants))) {
            *out = p;
            return RATP_OK;
        }
    }
    struct vk_pipeline *p = calloc(1, sizeof *p);
    if (!p)
        return fail(err, RATP_OUT_OF_MEMORY, "pipeline \"%s\": out of host memory", shader->name);
    p->shader = shader;
    p->hash = hash;
    p->count = count;
    if (count)
        memcpy(p->constants, constants, count * sizeof *constants);
    ratp_status status = compile(d, p, err);
    while (status == RATP_OUT_OF_MEMORY && vk_reclaim(d))
        status = compile(d, p, err);
    if (status != RATP_OK) {
        free(p);
        return status;
    }
    if (d->pipeline_count++ > d->pipeline_room)
        grow_table(d);
    p->next = d->pipelines[hash % d->pipeline_room];
    d->pipelines[hash % d->pipeline_room] = p;
    *out = p;
    return RATP_OK;
}

ratp_status vk_pipeline_get(struct vk_device *d, const struct vk_shader *shader,
                            const uint32_t *constants, uint32_t count, VkPipeline *pipeline,
                            VkPipelineLayout *layout, struct error *err)
{
    if (count > CONSTANTS_MAX)
        return fail(err, RATP_INTERNAL, "shader \"%s\" has %u constants, the limit is %d",
                    shader->name, count, CONSTANTS_MAX);
    struct vk_pipeline *p = NULL;
    pthread_mutex_lock(&d->pipeline_lock);
    ratp_status status = get_locked(d, shader, constants, count, &p, err);
    pthread_mutex_unlock(&d->pipeline_lock);
    if (status != RATP_OK)
        return status;
    *pipeline = p->handle;
    *layout = p->layout;
    return RATP_OK;
}

/* What stands before the driver's bytes in a saved cache. */
struct saved_header {
    uint32_t magic, checksum;
    uint64_t size; /* of the driver's bytes */
};

enum { SAVED_MAGIC = 0x31435052 }; /* "RPC1" */

ratp_status vk_pipeline_cache_save(struct vk_device *d, void *data, size_t *size,
                                   struct error *err)
{
    struct saved_header header = {.magic = SAVED_MAGIC};
    ratp_status status = vk_alive(d, err);
    if (status != RATP_OK)
        return status;
    pthread_mutex_lock(&d->pipeline_lock);
    size_t bytes = 0, room = *size;
    VK_TRY(d->vk.vkGetPipelineCacheData(d->handle, d->pipeline_cache, &bytes, NULL),
           "vkGetPipelineCacheData");
    if (bytes > SIZE_MAX - sizeof header) {
        status = fail(err, RATP_INTERNAL, "vkGetPipelineCacheData answered with %zu bytes", bytes);
        goto error;
    }
    const size_t said = bytes;
    *size = sizeof header + bytes;
    if (data && room < *size) {
        status = fail(err, RATP_INVALID_ARGUMENT, "size is %zu, the pipeline cache needs %zu", room,
                      *size);
    } else if (data) {
        uint8_t *to = (uint8_t *)data + sizeof header;
        VK_TRY(d->vk.vkGetPipelineCacheData(d->handle, d->pipeline_cache, &bytes, to),
               "vkGetPipelineCacheData");
        /* They may be fewer than it said at first, and Mesa 26.2's lavapipe stops within
         * its own header: nothing is saved then. Nor where it says that there are more. */
        if (bytes < sizeof(VkPipelineCacheHeaderVersionOne) || bytes > said)
            bytes = 0;
        header.size = bytes;
        *size = sizeof header + bytes;
        header.checksum = hash_bytes(hash_start, to, bytes);
        memcpy(data, &header, sizeof header);
    }
error:
    pthread_mutex_unlock(&d->pipeline_lock);
    return status;
}

static ratp_status check_saved(const struct vk_device *d, const void *data, size_t size,
                               struct error *err)
{
    struct saved_header header;
    VkPipelineCacheHeaderVersionOne driver;
    if (size < sizeof header)
        return fail(err, RATP_PARSE_ERROR, "pipeline cache: %zu bytes are too few", size);
    memcpy(&header, data, sizeof header);
    const uint8_t *bytes = (const uint8_t *)data + sizeof header;
    if (header.magic != SAVED_MAGIC)
        return fail(err, RATP_PARSE_ERROR, "pipeline cache: not one that this library saved");
    if (header.size != size - sizeof header)
        return fail(err, RATP_PARSE_ERROR, "pipeline cache: %zu bytes, its header says %llu", size,
                    (unsigned long long)header.size + sizeof header);
    if (header.checksum != hash_bytes(hash_start, bytes, size - sizeof header))
        return fail(err, RATP_PARSE_ERROR, "pipeline cache: the checksum does not match");
    if (!header.size)
        return RATP_OK;
    if (header.size < sizeof driver)
        return fail(err, RATP_PARSE_ERROR, "pipeline cache: %zu bytes are too few", size);
    memcpy(&driver, bytes, sizeof driver);
    if (driver.headerVersion != VK_PIPELINE_CACHE_HEADER_VERSION_ONE ||
        driver.headerSize < sizeof driver || driver.headerSize > header.size)
        return fail(err, RATP_PARSE_ERROR, "pipeline cache: unknown header version %u",
                    (unsigned)driver.headerVersion);
    if (driver.vendorID != d->physical.info.vendor_id ||
        driver.deviceID != d->physical.info.device_id ||
        memcmp(driver.pipelineCacheUUID, d->physical.cache_uuid, VK_UUID_SIZE))
        return fail(err, RATP_PARSE_ERROR,
                    "pipeline cache: made by another device or driver (vendor 0x%x, device 0x%x)",
                    driver.vendorID, driver.deviceID);
    return RATP_OK;
}

static ratp_status merge_saved(struct vk_device *d, const void *data, size_t size,
                               struct error *err)
{
    ratp_status status = RATP_OK;
    VkPipelineCache loaded = VK_NULL_HANDLE;
    VkPipelineCacheCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_CACHE_CREATE_INFO,
        .initialDataSize = size - sizeof(struct saved_header),
        .pInitialData = (const uint8_t *)data + sizeof(struct saved_header),
    };
    VK_MAKE(d->vk.vkCreatePipelineCache(d->handle, &info, NULL, &loaded), loaded,
            "vkCreatePipelineCache");
    VK_TRY(d->vk.vkMergePipelineCaches(d->handle, d->pipeline_cache, 1, &loaded),
           "vkMergePipelineCaches");
error:
    d->vk.vkDestroyPipelineCache(d->handle, loaded, NULL);
    return status;
}

ratp_status vk_pipeline_cache_load(struct vk_device *d, const void *data, size_t size,
                                   struct error *err)
{
    ratp_status status = vk_alive(d, err);
    if (status == RATP_OK)
        status = check_saved(d, data, size, err);
    if (status != RATP_OK || size == sizeof(struct saved_header))
        return status;
    pthread_mutex_lock(&d->pipeline_lock);
    do
        status = merge_saved(d, data, size, err);
    while (status == RATP_OUT_OF_MEMORY && vk_reclaim(d));
    pthread_mutex_unlock(&d->pipeline_lock);
    return status;
}
