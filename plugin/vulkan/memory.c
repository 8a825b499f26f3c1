/* The sub-allocator: pieces are cut from few large blocks, and come back when
 * the device has passed their last use. */
#include "../shortage.h"
#include "block.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = VK_PIECE_ALIGNMENT };

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

static void free_block(struct vk_device *d, struct vk_block *b)
{
    struct vk_block **at = &d->blocks;
    while (*at != b)
        at = &(*at)->next;
    *at = b->next;
    vk_block_free(d, b);
}

/* Frees blocks without pieces; `keep` leaves one of each kind. */
static void free_empty_blocks(struct vk_device *d, bool keep)
{
    bool kept[MEM_KINDS] = {0};
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
    /* Those with a ticket stand first, and the tickets in order. What no open stream can use
     * gets one now: later it would have to wait for more. */
    struct vk_piece *untimed = d->freed;
    while (untimed && untimed->timed)
        untimed = untimed->next;
    for (; untimed && oldest >= untimed->serial; untimed = untimed->next) {
        untimed->ticket = vk_latest(d);
        untimed->timed = true;
    }
    while (d->freed && d->freed->timed && vk_passed(d, d->freed->ticket)) {
        struct vk_piece *p = d->freed;
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

/* What the driver said, with what was asked of it. A lost device is a sentence already. */
static ratp_status refused(const struct vk_device *d, ratp_status status, const char *name,
                           uint64_t size, struct error *err)
{
    char why[200] = "";
    if (err)
        snprintf(why, sizeof why, "%.199s", err->text);
    if (status == RATP_OUT_OF_MEMORY)
        return shortage_of_device(err, name, size, d->allocated, why);
    if (status == RATP_DEVICE_LOST)
        return status;
    return fail(err, status, "memory for %s: %llu bytes: %s", name, (unsigned long long)size, why);
}

/* `size` is what was asked for, p->size what that takes. */
static ratp_status take(struct vk_device *d, struct vk_piece *p, uint64_t size, enum mem_kind kind,
                        const char *name, struct error *err)
{
    for (struct vk_block *b = d->blocks; b; b = b->next) {
        if (b->owner == BLOCK_POOL && b->kind == kind &&
            ranges_take(&b->ranges, p->size, &p->offset)) {
            p->block = b;
            return RATP_OK;
        }
    }
    uint64_t block = next_block_size(d, kind, p->size);
    ratp_status status;
    bool over;
    for (;;) {
        over = block > d->budget || d->allocated > d->budget - block;
        status = over ? RATP_OUT_OF_MEMORY
                      : vk_block_new(d, block, kind, block == p->size ? BLOCK_ALONE : BLOCK_POOL,
                                     name, &p->block, err);
        if (status != RATP_OUT_OF_MEMORY || block == p->size)
            break;
        block = block / 2 / ALIGNMENT * ALIGNMENT;
        if (block < p->size)
            block = p->size;
    }
    if (status != RATP_OK)
        return over ? shortage_of_budget(err, name, size, d->budget, d->allocated)
                    : refused(d, status, name, size, err);
    if (!ranges_take(&p->block->ranges, p->size, &p->offset)) {
        free_block(d, p->block);
        status = fail(err, RATP_OUT_OF_MEMORY, "memory for %s: out of host memory", name);
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

static ratp_status take_now(struct vk_device *d, struct vk_piece *p, uint64_t size,
                            enum mem_kind kind, const char *name, struct error *err)
{
    pthread_mutex_lock(&d->lock);
    vk_collect_locked(d);
    ratp_status status = take(d, p, size, kind, name, err);
    if (status == RATP_OK) {
        d->used += p->size;
        d->piece_count++;
    }
    pthread_mutex_unlock(&d->lock);
    return status;
}

/* Waits until what is freed already is out of use, and gives it to the driver. */
static ratp_status settle(struct vk_device *d, struct error *err)
{
    ratp_status status = vk_wait(d, vk_latest(d), err);
    pthread_mutex_lock(&d->lock);
    vk_collect_locked(d);
    free_empty_blocks(d, false);
    pthread_mutex_unlock(&d->lock);
    return status == RATP_DEVICE_LOST ? status : RATP_OK;
}

bool vk_reclaim(struct vk_device *d)
{
    return d->reclaim && d->reclaim(d->reclaim_user) && settle(d, NULL) == RATP_OK;
}

static ratp_status take_settled(struct vk_device *d, struct vk_piece *p, uint64_t size,
                                enum mem_kind kind, const char *name, struct error *err)
{
    ratp_status status = settle(d, err);
    return status == RATP_OK ? take_now(d, p, size, kind, name, err) : status;
}

static ratp_status alloc(struct vk_device *d, uint64_t size, enum mem_kind kind, const char *name,
                         bool needed, struct mem *out, struct error *err)
{
    *out = (struct mem){0};
    ratp_status status = vk_alive(d, err);
    if (status != RATP_OK)
        return status;
    if (!size)
        return fail(err, RATP_INVALID_ARGUMENT, "memory for %s: the size is 0", name);
    uint64_t limit = d->physical.max_allocation / ALIGNMENT * ALIGNMENT;
    if (size > limit)
        return shortage_of_room(err, name, size, limit);
    struct vk_piece *p = calloc(1, sizeof *p);
    if (!p)
        return fail(err, RATP_OUT_OF_MEMORY, "memory for %s: out of host memory", name);
    p->size = align_up(size, ALIGNMENT);
    status = take_now(d, p, size, kind, name, err);
    if (status == RATP_OUT_OF_MEMORY && needed)
        status = take_settled(d, p, size, kind, name, err);
    /* Once more when there is nothing left: another thread may have been given it. */
    for (bool more = needed && d->reclaim; status == RATP_OUT_OF_MEMORY && more;) {
        more = d->reclaim(d->reclaim_user);
        status = take_settled(d, p, size, kind, name, err);
    }
    if (status == RATP_OK)
        describe_piece(p, size, out);
    else
        free(p);
    return status;
}

ratp_status vk_mem_alloc(struct vk_device *d, uint64_t size, enum mem_kind kind, const char *name,
                         struct mem *out, struct error *err)
{
    return alloc(d, size, kind, name, true, out, err);
}

ratp_status vk_mem_try(struct vk_device *d, uint64_t size, enum mem_kind kind, const char *name,
                       struct mem *out, struct error *err)
{
    ratp_status status = vk_alive(d, err);
    if (status != RATP_OK)
        return status;
    pthread_mutex_lock(&d->lock);
    uint64_t allocated = d->allocated;
    pthread_mutex_unlock(&d->lock);
    uint64_t left = d->budget > allocated ? d->budget - allocated : 0;
    if (size > left / 2)
        return shortage_of_budget(err, name, size, d->budget, allocated);
    return alloc(d, size, kind, name, false, out, err);
}

void vk_device_on_shortage(struct vk_device *d, bool (*reclaim)(void *user), void *user)
{
    d->reclaim = reclaim;
    d->reclaim_user = user;
}

/* `spare`: nothing that is being recorded uses it. */
static void give(struct vk_device *d, struct mem *m, bool spare)
{
    struct vk_piece *p = m->handle;
    *m = (struct mem){0};
    if (!p)
        return;
    if (!vk_here(d)) { /* its block stays as it is until the device is closed */
        free(p);
        return;
    }
    pthread_mutex_lock(&d->lock);
    if (spare) {
        /* Before those that wait for streams which are still open, and behind those that are
         * timed already: what passes first stands first. */
        struct vk_piece **at = &d->freed;
        while (*at && (*at)->timed)
            at = &(*at)->next;
        p->timed = true;
        p->ticket = vk_latest(d);
        p->next = *at;
        if (!*at)
            d->freed_tail = &p->next;
        *at = p;
    } else {
        p->serial = d->serial;
        p->next = NULL;
        *d->freed_tail = p;
        d->freed_tail = &p->next;
    }
    vk_collect_locked(d);
    pthread_mutex_unlock(&d->lock);
}

void vk_mem_free(struct vk_device *d, struct mem *m)
{
    give(d, m, false);
}

void vk_mem_free_spare(struct vk_device *d, struct mem *m)
{
    give(d, m, true);
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
        return fail(err, RATP_OUT_OF_MEMORY, "no host memory for a buffer of %llu bytes",
                    (unsigned long long)size);
    }
    b->owner = owner;
    b->size = size;
    p->block = b;
    p->size = size;
    *out = p;
    return RATP_OK;
}

static const char import_name[] = "a buffer over host memory";

static ratp_status import(struct vk_device *d, void *host, uint64_t size, struct mem *out,
                          struct error *err)
{
    struct vk_piece *p = NULL;
    ratp_status status = piece_alone(size, BLOCK_ALONE, &p, err);
    if (status != RATP_OK)
        return status;
    struct vk_block *b = p->block;
    pthread_mutex_lock(&d->lock);
    status = vk_block_import(d, b, host, err);
    if (status == RATP_OK) {
        d->used += size;
        d->piece_count++;
        describe_piece(p, size, out);
    } else {
        status = refused(d, status, import_name, size, err);
        vk_block_free(d, b);
        free(p);
    }
    pthread_mutex_unlock(&d->lock);
    return status;
}

ratp_status vk_mem_import(struct vk_device *d, void *host, uint64_t size, struct mem *out,
                          struct error *err)
{
    *out = (struct mem){0};
    ratp_status status = vk_alive(d, err);
    if (status != RATP_OK)
        return status;
    uint64_t alignment = d->physical.import_alignment;
    if (!vk_physical_has(&d->physical, FEATURE_HOST_IMPORT) || !d->vk.vkGetMemoryHostPointerPropertiesEXT)
        return fail(err, RATP_UNSUPPORTED,
                    "host memory cannot be used in place: device \"%s\" lacks "
                    "VK_EXT_external_memory_host",
                    d->physical.info.name);
    if (!size || (uintptr_t)host % alignment || size % alignment)
        return fail(err, RATP_INVALID_ARGUMENT,
                    "host is %p and size %llu, both must be multiples of %llu", host,
                    (unsigned long long)size, (unsigned long long)alignment);
    if (size > d->physical.max_allocation)
        return shortage_of_room(err, import_name, size, d->physical.max_allocation);
    status = import(d, host, size, out, err);
    for (bool more = d->reclaim != NULL; status == RATP_OUT_OF_MEMORY && more;) {
        more = d->reclaim(d->reclaim_user);
        status = settle(d, err);
        if (status == RATP_OK)
            status = import(d, host, size, out, err);
    }
    return status;
}

ratp_status vk_mem_wrap(struct vk_device *d, VkBuffer buffer, uint64_t offset, uint64_t size,
                        struct mem *out, struct error *err)
{
    *out = (struct mem){0};
    ratp_status status = vk_alive(d, err);
    if (status != RATP_OK)
        return status;
    /* What a driver needs for a buffer is no less than its size. */
    VkMemoryRequirements need;
    d->vk.vkGetBufferMemoryRequirements(d->handle, buffer, &need);
    if (offset > need.size || size > need.size - offset)
        return fail(err, RATP_INVALID_ARGUMENT,
                    "params->size is %llu at offset %llu, the VkBuffer has at most %llu bytes",
                    (unsigned long long)size, (unsigned long long)offset,
                    (unsigned long long)need.size);
    uint64_t address = vk_block_address(d, buffer);
    if (!vk_is_address(address, need.size))
        return fail(err, RATP_INVALID_ARGUMENT,
                    "params->buffer has no device address (the driver answers 0x%llx): make it "
                    "with VK_BUFFER_USAGE_SHADER_DEVICE_ADDRESS_BIT, and bind it to memory of "
                    "VK_MEMORY_ALLOCATE_DEVICE_ADDRESS_BIT",
                    (unsigned long long)address);
    struct vk_piece *p = NULL;
    status = piece_alone(size, BLOCK_HOST, &p, err);
    if (status != RATP_OK)
        return status;
    p->offset = offset;
    p->block->buffer = buffer;
    p->block->address = address;
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
        vk_block_free(d, b);
    }
}
