/* Which memory a block is made of, and its buffer. */
#include "block.h"

#include <stdlib.h>

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
    case MEM_SHARED:
        return mapped ? 1 + (local ? 2 : 0) + (cached ? 1 : 0) : 0;
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
    return vk_physical_room(&d->calls, &d->physical, heap, 0);
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
    VK_MAKE(d->vk.vkCreateBuffer(d->handle, &info, NULL, buffer), *buffer, "vkCreateBuffer");
    return RATP_OK;
error:
    return status;
}

uint64_t vk_block_address(struct vk_device *d, VkBuffer buffer)
{
    return d->vk.vkGetBufferDeviceAddress(d->handle, &(VkBufferDeviceAddressInfo){
        .sType = VK_STRUCTURE_TYPE_BUFFER_DEVICE_ADDRESS_INFO, .buffer = buffer});
}

void vk_block_free(struct vk_device *d, struct vk_block *b)
{
    if (b->owner != BLOCK_HOST) {
        if (b->buffer && !d->left)
            d->vk.vkDestroyBuffer(d->handle, b->buffer, NULL);
        if (b->memory && !d->left)
            d->vk.vkFreeMemory(d->handle, b->memory, NULL);
        if (b->counted) {
            d->allocated -= b->size;
            d->block_count--;
        }
    }
    ranges_fini(&b->ranges);
    free(b);
}

/* Maps the block's memory, and asks for its address on the device. */
static ratp_status block_map(struct vk_device *d, struct vk_block *b, bool mapped,
                             struct error *err)
{
    ratp_status status;
    void *host = NULL;
    if (mapped) {
        VK_TRY(d->vk.vkMapMemory(d->handle, b->memory, 0, VK_WHOLE_SIZE, 0, &host), "vkMapMemory");
        /* Mesa 26's lavapipe answers so, with -1, when memory is short. */
        if (!vk_is_address((uintptr_t)host, b->size))
            return fail(err, RATP_OUT_OF_MEMORY,
                        "vkMapMemory answered with success, and the address %p", host);
    }
    uint64_t address = vk_block_address(d, b->buffer);
    if (!vk_is_address(address, b->size))
        return fail(err, RATP_OUT_OF_MEMORY, "vkGetBufferDeviceAddress answered 0x%llx",
                    (unsigned long long)address);
    b->host = host;
    b->address = address;
    return RATP_OK;
error:
    return status;
}

/* Memory for b->buffer, bound and mapped; one type after the other. */
static ratp_status block_bind(struct vk_device *d, struct vk_block *b, const void *import,
                              uint32_t allowed, struct error *err)
{
    ratp_status status;
    VkMemoryRequirements need;
    d->vk.vkGetBufferMemoryRequirements(d->handle, b->buffer, &need);
    if (need.size < b->size)
        return fail(err, RATP_INTERNAL,
                    "vkGetBufferMemoryRequirements answered that %llu bytes are enough",
                    (unsigned long long)need.size);
    uint32_t types[VK_MAX_MEMORY_TYPES];
    uint32_t count = rank_types(d, b->kind, need.memoryTypeBits & allowed, types);
    if (!count)
        return fail(err, import ? RATP_UNSUPPORTED : RATP_INTERNAL,
                    "the driver names no memory type for it that this library can use");
    VkMemoryAllocateFlagsInfo flags = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_FLAGS_INFO,
        .pNext = import,
        .flags = VK_MEMORY_ALLOCATE_DEVICE_ADDRESS_BIT,
    };
    VkResult result = VK_NOT_READY; /* no type was tried */
    uint64_t room = 0;
    uint32_t type = 0;
    for (uint32_t i = 0; i < count && result != VK_SUCCESS; i++) {
        uint64_t left = import ? UINT64_MAX : heap_room(d, types[i]);
        room = left > room ? left : room;
        if (left < need.size)
            continue;
        type = types[i];
        result = d->vk.vkAllocateMemory(d->handle, &(VkMemoryAllocateInfo){
            .sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
            .pNext = &flags,
            .allocationSize = import ? b->size : need.size,
            .memoryTypeIndex = type,
        }, NULL, &b->memory);
    }
    if (result == VK_NOT_READY)
        return fail(err, RATP_OUT_OF_MEMORY, "%llu bytes are left in its heap",
                    (unsigned long long)room);
    VK_MAKE(result, b->memory, "vkAllocateMemory");
    if (!import) {
        b->counted = true;
        d->allocated += b->size;
        d->block_count++;
    }
    VK_TRY(d->vk.vkBindBufferMemory(d->handle, b->buffer, b->memory, 0), "vkBindBufferMemory");
    VkMemoryPropertyFlags f = d->physical.memory.memoryTypes[type].propertyFlags;
    b->cached = f & VK_MEMORY_PROPERTY_HOST_CACHED_BIT;
    return block_map(d, b,
                     !import && (f & VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT) &&
                         (f & VK_MEMORY_PROPERTY_HOST_COHERENT_BIT),
                     err);
error:
    return status;
}

ratp_status vk_block_new(struct vk_device *d, uint64_t size, enum mem_kind kind,
                         enum block_owner owner, const char *name, struct vk_block **out,
                         struct error *err)
{
    struct vk_block *b = calloc(1, sizeof *b);
    if (!b || !ranges_init(&b->ranges, size)) {
        free(b);
        return fail(err, RATP_OUT_OF_MEMORY, "out of host memory");
    }
    b->size = size;
    b->kind = kind;
    b->owner = owner;
    ratp_status status = make_buffer(d, size, NULL, &b->buffer, err);
    if (status == RATP_OK)
        status = block_bind(d, b, NULL, UINT32_MAX, err);
    if (status != RATP_OK) {
        vk_block_free(d, b);
        return status;
    }
    static const char *const names[] = {"device pool", "upload pool", "readback pool", "shared pool"};
    name = owner == BLOCK_POOL ? names[kind] : name;
    vk_name(d, VK_OBJECT_TYPE_BUFFER, (uint64_t)b->buffer, name);
    vk_name(d, VK_OBJECT_TYPE_DEVICE_MEMORY, (uint64_t)b->memory, name);
    b->next = d->blocks;
    d->blocks = b;
    *out = b;
    return RATP_OK;
}

ratp_status vk_block_import(struct vk_device *d, struct vk_block *b, void *host,
                            struct error *err)
{
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
    ratp_status status;
    VK_TRY(d->vk.vkGetMemoryHostPointerPropertiesEXT(d->handle, type, host, &properties),
           "vkGetMemoryHostPointerPropertiesEXT");
    status = make_buffer(d, b->size, &external, &b->buffer, err);
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
    return RATP_OK;
error:
    return status;
}
