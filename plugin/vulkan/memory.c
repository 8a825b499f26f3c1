/* The sub-allocator: few large blocks of device memory, each with one VkBuffer
 * over all of it; pieces are cut from them, and come back when the device has
 * passed their last use. */
#include "internal.h"

#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 256 };

enum block_owner {
    BLOCK_POOL,  /* pieces are cut from it */
    BLOCK_ALONE, /* one piece: larger than a block, or imported host memory */
    BLOCK_HOST   /* the host's VkBuffer: nothing of it is ours */
};

struct vk_block {
    struct vk_block *next;
    VkBuffer buffer;
    VkDeviceMemory memory;
    uint64_t size, address;
    void *host;
    bool cached;
    bool counted; /* against the budget */
    enum mem_kind kind;
    enum block_owner owner;
    struct ranges ranges;
};

struct vk_piece {
    struct vk_piece *next; /* in the list of freed ones */
    struct vk_block *block;
    uint64_t offset, size;
    uint64_t serial; /* streams that began before this one may still use it */
    bool timed;
    ticket ticket; /* free when it has passed; once `timed` */
};

static uint64_t align_up(uint64_t value, uint64_t alignment)
{
    return (value + alignment - 1) / alignment * alignment;
}

/* How well a memory type suits; 0: not at all. */
static int score(const struct vk_device *d, uint32_t type, enum mem_kind kind)
{
    VkMemoryPropertyFlags f = d->physical.memory.memoryTypes[type].propertyFlags;
    const VkMemoryPropertyFlags known =
        VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT | VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT |
        VK_MEMORY_PROPERTY_HOST_COHERENT_BIT | VK_MEMORY_PROPERTY_HOST_CACHED_BIT;
    if (f & ~known)
        return 0; /* protected, lazily allocated, or in need of a feature */
    bool local = f & VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT;
    bool cached = f & VK_MEMORY_PROPERTY_HOST_CACHED_BIT;
    bool mapped = (f & VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT) &&
                  (f & VK_MEMORY_PROPERTY_HOST_COHERENT_BIT);
    bool unified = d->physical.info.kind != RATP_DEVICE_DISCRETE;
    switch (kind) {
    case MEM_DEVICE:
        return 1 + (local ? 4 : 0) + (mapped == unified ? 2 : 0) + (mapped && cached ? 1 : 0);
    case MEM_UPLOAD:
        return mapped ? 1 + (local ? 2 : 0) + (!cached ? 1 : 0) : 0;
    case MEM_READBACK:
        return mapped ? 1 + (cached ? 2 : 0) + (!local ? 1 : 0) : 0;
    }
    return 0;
}

/* The memory types for a kind, best first. */
static uint32_t rank_types(const struct vk_device *d, enum mem_kind kind, uint32_t allowed,
                           uint32_t types[VK_MAX_MEMORY_TYPES])
{
    uint32_t count = 0;
    for (int want = 16; want > 0; want--)
        for (uint32_t i = 0; i < d->physical.memory.memoryTypeCount; i++)
            if ((allowed >> i & 1) && score(d, i, kind) == want)
                types[count++] = i;
    return count;
}

/* Bytes that the heap of a type can still give, as far as the driver tells. */
static uint64_t heap_room(const struct vk_device *d, uint32_t type)
{
    uint32_t heap = d->physical.memory.memoryTypes[type].heapIndex;
    if (!d->physical.memory_budget)
        return d->physical.memory.memoryHeaps[heap].size;
    VkPhysicalDeviceMemoryBudgetPropertiesEXT budget = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_BUDGET_PROPERTIES_EXT};
    VkPhysicalDeviceMemoryProperties2 p = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PROPERTIES_2, .pNext = &budget};
    d->calls.GetPhysicalDeviceMemoryProperties2(d->physical.handle, &p);
    uint64_t total = budget.heapBudget[heap], used = budget.heapUsage[heap];
    return total > used ? total - used : 0;
}

static ratp_status make_buffer(struct vk_device *d, uint64_t size, const void *next,
                               VkBuffer *buffer, struct error *err)
{
    ratp_status status;
    VkBufferCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
        .pNext = next,
        .size = size,
        .usage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT | VK_BUFFER_USAGE_TRANSFER_SRC_BIT |
                 VK_BUFFER_USAGE_TRANSFER_DST_BIT | VK_BUFFER_USAGE_SHADER_DEVICE_ADDRESS_BIT,
    };
    /* A host may record on another of its queue families than the one it gave us. */
    if (d->imported && d->physical.compute_family_count > 1) {
        info.sharingMode = VK_SHARING_MODE_CONCURRENT;
        info.queueFamilyIndexCount = d->physical.compute_family_count;
        info.pQueueFamilyIndices = d->physical.compute_families;
    }
    VK_TRY(d->vk.vkCreateBuffer(d->handle, &info, NULL, buffer), "vkCreateBuffer");
    return RATP_OK;
error:
    return status;
}

static uint64_t buffer_address(struct vk_device *d, VkBuffer buffer)
{
    return d->vk.vkGetBufferDeviceAddress(d->handle, &(VkBufferDeviceAddressInfo){
        .sType = VK_STRUCTURE_TYPE_BUFFER_DEVICE_ADDRESS_INFO, .buffer = buffer});
}

static void block_free(struct vk_device *d, struct vk_block *b)
{
    if (b->owner != BLOCK_HOST) {
        if (b->buffer)
            d->vk.vkDestroyBuffer(d->handle, b->buffer, NULL);
        if (b->memory)
            d->vk.vkFreeMemory(d->handle, b->memory, NULL);
        if (b->counted) {
            d->allocated -= b->size;
            d->block_count--;
        }
    }
    ranges_fini(&b->ranges);
    free(b);
}

/* Memory for b->buffer, bound and mapped; one type after the other. */
static ratp_status block_bind(struct vk_device *d, struct vk_block *b, const void *import,
                              uint32_t allowed, struct error *err)
{
    ratp_status status;
    VkMemoryRequirements need;
    d->vk.vkGetBufferMemoryRequirements(d->handle, b->buffer, &need);
    uint32_t types[VK_MAX_MEMORY_TYPES];
    uint32_t count = rank_types(d, b->kind, need.memoryTypeBits & allowed, types);
    VkMemoryAllocateFlagsInfo flags = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_FLAGS_INFO,
        .pNext = import,
        .flags = VK_MEMORY_ALLOCATE_DEVICE_ADDRESS_BIT,
    };
    VkResult result = VK_ERROR_OUT_OF_DEVICE_MEMORY;
    uint32_t type = 0;
    for (uint32_t i = 0; i < count && result != VK_SUCCESS; i++) {
        type = types[i];
        if (!import && heap_room(d, type) < need.size)
            continue;
        result = d->vk.vkAllocateMemory(d->handle, &(VkMemoryAllocateInfo){
            .sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
            .pNext = &flags,
            .allocationSize = import ? b->size : need.size,
            .memoryTypeIndex = type,
        }, NULL, &b->memory);
    }
    VK_TRY(result, "vkAllocateMemory");
    if (!import) {
        b->counted = true;
        d->allocated += b->size;
        d->block_count++;
    }
    VK_TRY(d->vk.vkBindBufferMemory(d->handle, b->buffer, b->memory, 0), "vkBindBufferMemory");
    VkMemoryPropertyFlags f = d->physical.memory.memoryTypes[type].propertyFlags;
    b->cached = f & VK_MEMORY_PROPERTY_HOST_CACHED_BIT;
    if (!import && (f & VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT) &&
        (f & VK_MEMORY_PROPERTY_HOST_COHERENT_BIT))
        VK_TRY(d->vk.vkMapMemory(d->handle, b->memory, 0, VK_WHOLE_SIZE, 0, &b->host),
               "vkMapMemory");
    b->address = buffer_address(d, b->buffer);
    return RATP_OK;
error:
    return status;
}

static ratp_status block_new(struct vk_device *d, uint64_t size, enum mem_kind kind,
                             enum block_owner owner, const char *name, struct vk_block **out,
                             struct error *err)
{
    struct vk_block *b = calloc(1, sizeof *b);
    if (!b || !ranges_init(&b->ranges, size)) {
        free(b);
        return fail(err, RATP_OUT_OF_MEMORY, "memory \"%s\": out of host memory", name);
    }
    b->size = size;
    b->kind = kind;
    b->owner = owner;
    ratp_status status = make_buffer(d, size, NULL, &b->buffer, err);
    if (status == RATP_OK)
        status = block_bind(d, b, NULL, UINT32_MAX, err);
    if (status != RATP_OK) {
        block_free(d, b);
        return status;
    }
    static const char *const names[] = {"device pool", "upload pool", "readback pool"};
    name = owner == BLOCK_POOL ? names[kind] : name;
    vk_name(d, VK_OBJECT_TYPE_BUFFER, (uint64_t)b->buffer, name);
    vk_name(d, VK_OBJECT_TYPE_DEVICE_MEMORY, (uint64_t)b->memory, name);
    b->next = d->blocks;
    d->blocks = b;
    *out = b;
    return RATP_OK;
}

static void free_block(struct vk_device *d, struct vk_block *b)
{
    struct vk_block **at = &d->blocks;
    while (*at != b)
        at = &(*at)->next;
    *at = b->next;
    block_free(d, b);
}

/* Frees blocks without pieces; `keep` leaves one of each kind. */
static void free_empty_blocks(struct vk_device *d, bool keep)
{
    bool kept[3] = {0};
    for (struct vk_block *b = d->blocks, *next; b; b = next) {
        next = b->next;
        if (b->owner != BLOCK_POOL || b->ranges.taken)
            continue;
        if (keep && !kept[b->kind])
            kept[b->kind] = true;
        else
            free_block(d, b);
    }
}

static void piece_release(struct vk_device *d, struct vk_piece *p)
{
    struct vk_block *b = p->block;
    if (b->owner != BLOCK_HOST) {
        ranges_give(&b->ranges, p->offset, p->size);
        d->used -= p->size;
        d->piece_count--;
    }
    if (b->owner != BLOCK_POOL)
        free_block(d, b);
    free(p);
}

void vk_collect_locked(struct vk_device *d)
{
    uint64_t oldest = d->open ? d->open->serial : UINT64_MAX;
    bool any = false;
    while (d->freed) {
        struct vk_piece *p = d->freed;
        if (!p->timed) {
            if (oldest < p->serial)
                break;
            p->ticket = vk_latest(d);
            p->timed = true;
        }
        if (!vk_passed(d, p->ticket))
            break;
        d->freed = p->next;
        if (!d->freed)
            d->freed_tail = &d->freed;
        piece_release(d, p);
        any = true;
    }
    if (any)
        free_empty_blocks(d, true);
}

/* The size of the next pool block: doubling, and no more than an eighth of
 * what the budget leaves, so that one kind does not starve the others. */
static uint64_t next_block_size(const struct vk_device *d, enum mem_kind kind, uint64_t size)
{
    uint64_t block = kind == MEM_DEVICE ? 64u << 20 : 8u << 20;
    for (const struct vk_block *b = d->blocks; b; b = b->next)
        if (b->owner == BLOCK_POOL && b->kind == kind && block < 256u << 20)
            block *= 2;
    uint64_t room = d->budget > d->allocated ? d->budget - d->allocated : 0;
    if (block > room / 8)
        block = room / 8 / ALIGNMENT * ALIGNMENT;
    if (block > d->physical.max_allocation)
        block = d->physical.max_allocation / ALIGNMENT * ALIGNMENT;
    return block < size ? size : block;
}

static ratp_status take(struct vk_device *d, uint64_t size, enum mem_kind kind, const char *name,
                        struct vk_piece *p, struct error *err)
{
    for (struct vk_block *b = d->blocks; b; b = b->next) {
        if (b->owner == BLOCK_POOL && b->kind == kind && ranges_take(&b->ranges, size, &p->offset)) {
            p->block = b;
            return RATP_OK;
        }
    }
    uint64_t block = next_block_size(d, kind, size);
    ratp_status status;
    for (;;) {
        if (block > d->budget || d->allocated > d->budget - block)
            status = fail(err, RATP_OUT_OF_MEMORY,
                          "memory \"%s\": %llu bytes, the device's budget is %llu and %llu are "
                          "allocated",
                          name, (unsigned long long)size, (unsigned long long)d->budget,
                          (unsigned long long)d->allocated);
        else
            status = block_new(d, block, kind, block == size ? BLOCK_ALONE : BLOCK_POOL, name,
                               &p->block, err);
        if (status != RATP_OUT_OF_MEMORY || block == size)
            break;
        block = block / 2 / ALIGNMENT * ALIGNMENT;
        if (block < size)
            block = size;
    }
    if (status == RATP_OK && !ranges_take(&p->block->ranges, size, &p->offset)) {
        free_block(d, p->block);
        status = fail(err, RATP_OUT_OF_MEMORY, "memory \"%s\": out of host memory", name);
    }
    return status;
}

static void describe_piece(const struct vk_piece *p, uint64_t size, struct mem *out)
{
    const struct vk_block *b = p->block;
    *out = (struct mem){
        .address = b->address + p->offset,
        .size = size,
        .host = b->host ? (char *)b->host + p->offset : NULL,
        .handle = (void *)p,
        .handle_offset = p->offset,
    };
}

ratp_status vk_mem_alloc(struct vk_device *d, uint64_t size, enum mem_kind kind, const char *name,
                         struct mem *out, struct error *err)
{
    *out = (struct mem){0};
    ratp_status status = vk_alive(d, err);
    if (status != RATP_OK)
        return status;
    if (!size || size > d->physical.max_allocation - ALIGNMENT)
        return fail(err, size ? RATP_OUT_OF_MEMORY : RATP_INVALID_ARGUMENT,
                    "memory \"%s\": %llu bytes, one allocation has 1 to %llu", name,
                    (unsigned long long)size,
                    (unsigned long long)(d->physical.max_allocation - ALIGNMENT));
    struct vk_piece *p = calloc(1, sizeof *p);
    if (!p)
        return fail(err, RATP_OUT_OF_MEMORY, "memory \"%s\": out of host memory", name);
    p->size = align_up(size, ALIGNMENT);

    pthread_mutex_lock(&d->lock);
    vk_collect_locked(d);
    status = take(d, p->size, kind, name, p, err);
    if (status == RATP_OUT_OF_MEMORY) {
        /* What is freed already but still in use may be enough. */
        pthread_mutex_unlock(&d->lock);
        vk_wait(d, vk_latest(d), NULL);
        pthread_mutex_lock(&d->lock);
        vk_collect_locked(d);
        free_empty_blocks(d, false);
        status = take(d, p->size, kind, name, p, err);
    }
    if (status == RATP_OK) {
        d->used += p->size;
        d->piece_count++;
        describe_piece(p, size, out);
    }
    pthread_mutex_unlock(&d->lock);
    if (status != RATP_OK)
        free(p);
    return status;
}

void vk_mem_free(struct vk_device *d, struct mem *m)
{
    struct vk_piece *p = m->handle;
    *m = (struct mem){0};
    if (!p)
        return;
    pthread_mutex_lock(&d->lock);
    p->serial = d->serial;
    p->next = NULL;
    *d->freed_tail = p;
    d->freed_tail = &p->next;
    vk_collect_locked(d);
    pthread_mutex_unlock(&d->lock);
}

/* A block of one piece that is not cut from a pool. */
static ratp_status piece_alone(uint64_t size, enum block_owner owner, struct vk_piece **out,
                               struct error *err)
{
    struct vk_piece *p = calloc(1, sizeof *p);
    struct vk_block *b = calloc(1, sizeof *b);
    if (!p || !b || !ranges_init(&b->ranges, size) ||
        !ranges_take(&b->ranges, size, &p->offset)) {
        if (b)
            ranges_fini(&b->ranges);
        free(p);
        free(b);
        return fail(err, RATP_OUT_OF_MEMORY, "buffer: out of host memory");
    }
    b->owner = owner;
    b->size = size;
    p->block = b;
    p->size = size;
    *out = p;
    return RATP_OK;
}

ratp_status vk_mem_import(struct vk_device *d, void *host, uint64_t size, struct mem *out,
                          struct error *err)
{
    *out = (struct mem){0};
    ratp_status status = vk_alive(d, err);
    if (status != RATP_OK)
        return status;
    uint64_t alignment = d->physical.import_alignment;
    if (!d->physical.host_import || !d->vk.vkGetMemoryHostPointerPropertiesEXT)
        return fail(err, RATP_UNSUPPORTED,
                    "host memory cannot be used in place: device \"%s\" lacks "
                    "VK_EXT_external_memory_host",
                    d->physical.info.name);
    if (!size || (uintptr_t)host % alignment || size % alignment)
        return fail(err, RATP_INVALID_ARGUMENT,
                    "host is %p and size %llu, both must be multiples of %llu", host,
                    (unsigned long long)size, (unsigned long long)alignment);
    struct vk_piece *p = NULL;
    status = piece_alone(size, BLOCK_ALONE, &p, err);
    if (status != RATP_OK)
        return status;
    struct vk_block *b = p->block;
    const VkExternalMemoryHandleTypeFlagBits type =
        VK_EXTERNAL_MEMORY_HANDLE_TYPE_HOST_ALLOCATION_BIT_EXT;
    VkExternalMemoryBufferCreateInfo external = {
        .sType = VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_BUFFER_CREATE_INFO, .handleTypes = type};
    VkImportMemoryHostPointerInfoEXT import = {
        .sType = VK_STRUCTURE_TYPE_IMPORT_MEMORY_HOST_POINTER_INFO_EXT,
        .handleType = type,
        .pHostPointer = host,
    };
    VkMemoryHostPointerPropertiesEXT properties = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_HOST_POINTER_PROPERTIES_EXT};
    pthread_mutex_lock(&d->lock);
    VK_TRY(d->vk.vkGetMemoryHostPointerPropertiesEXT(d->handle, type, host, &properties),
           "vkGetMemoryHostPointerPropertiesEXT");
    status = make_buffer(d, size, &external, &b->buffer, err);
    if (status != RATP_OK)
        goto error;
    b->kind = MEM_READBACK;
    status = block_bind(d, b, &import, properties.memoryTypeBits, err);
    if (status != RATP_OK)
        goto error;
    b->host = host;
    b->cached = true;
    vk_name(d, VK_OBJECT_TYPE_BUFFER, (uint64_t)b->buffer, "host memory");
    b->next = d->blocks;
    d->blocks = b;
    d->used += size;
    d->piece_count++;
    describe_piece(p, size, out);
    pthread_mutex_unlock(&d->lock);
    return RATP_OK;
error:
    block_free(d, b);
    pthread_mutex_unlock(&d->lock);
    free(p);
    return status;
}

ratp_status vk_mem_wrap(struct vk_device *d, VkBuffer buffer, uint64_t offset, uint64_t size,
                        struct mem *out, struct error *err)
{
    *out = (struct mem){0};
    struct vk_piece *p = NULL;
    ratp_status status = piece_alone(size, BLOCK_HOST, &p, err);
    if (status != RATP_OK)
        return status;
    p->offset = offset;
    p->block->buffer = buffer;
    p->block->address = buffer_address(d, buffer);
    pthread_mutex_lock(&d->lock);
    p->block->next = d->blocks;
    d->blocks = p->block;
    pthread_mutex_unlock(&d->lock);
    describe_piece(p, size, out);
    return RATP_OK;
}

VkBuffer vk_mem_buffer(const struct mem *m)
{
    return ((const struct vk_piece *)m->handle)->block->buffer;
}

bool vk_mem_cached(const struct mem *m)
{
    return ((const struct vk_piece *)m->handle)->block->cached;
}

void vk_memory_stats(struct vk_device *d, struct vk_memory_stats *out)
{
    pthread_mutex_lock(&d->lock);
    vk_collect_locked(d);
    *out = (struct vk_memory_stats){
        .allocated = d->allocated,
        .used = d->used,
        .blocks = d->block_count,
        .pieces = d->piece_count,
    };
    pthread_mutex_unlock(&d->lock);
}

void vk_memory_fini(struct vk_device *d)
{
    while (d->freed) {
        struct vk_piece *p = d->freed;
        d->freed = p->next;
        piece_release(d, p);
    }
    while (d->blocks) {
        struct vk_block *b = d->blocks;
        d->blocks = b->next;
        block_free(d, b);
    }
}
