/* Pages, and the blocks of device memory that they are cut from.
 *
 * Whichever thread is short of memory takes empty blocks back (cache->spare). So
 * cache->memory_lock is held wherever blocks, lists of free pages or what of the budget
 * is in use are looked at, and never while the device is asked for memory. */
#include "cache.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_BLOCK = 1 << 20, LARGEST_BLOCK = 256 << 20 };

/* How many sequences a full cache's message names. */
enum { HOLDERS = 3 };

static ratp_status list_reserve(struct page_list *list, uint64_t count, struct error *err)
{
    if (count <= list->room)
        return RATP_OK;
    uint64_t room = list->room ? list->room : 8;
    while (room < count)
        room *= 2;
    struct page **page = room <= UINT32_MAX ? realloc(list->page, (size_t)room * sizeof *page) : NULL;
    if (!page)
        return fail(err, RATP_OUT_OF_MEMORY, "no host memory for a page table of %llu pages",
                    (unsigned long long)room);
    list->page = page;
    list->room = (uint32_t)room;
    return RATP_OK;
}

ratp_status cache_alloc(ratp_cache *cache, uint64_t size, enum mem_kind kind, const char *name,
                        struct mem *out, struct error *err)
{
    struct backend *b = cache->backend;
    atomic_store(&cache->spare.asks, true);
    ratp_status status = b->ops->mem_alloc(b, size, kind, name, out, err);
    atomic_store(&cache->spare.asks, false);
    return status;
}

ratp_status cache_alloc_more(ratp_cache *cache, uint64_t more, uint64_t size, enum mem_kind kind,
                             const char *name, struct mem *out, struct error *err)
{
    struct backend *b = cache->backend;
    ratp_status status = b->ops->mem_try(b, more, kind, name, out, err);
    return status == RATP_OUT_OF_MEMORY ? cache_alloc(cache, size, kind, name, out, err) : status;
}

static void link_block(ratp_cache *cache, struct pool *pool, struct block *block)
{
    /* Pushed from the end, so that they are taken in the order of their addresses. */
    for (uint32_t i = block->pages; i-- > 0;) {
        block->page[i] = (struct page){
            .next_free = pool->free,
            .block = block,
            .address = block->mem.address + i * pool->page_bytes,
        };
        pool->free = &block->page[i];
    }
    block->next = pool->blocks;
    pool->blocks = block;
    pool->pages += block->pages;
    cache->budget_used += block->pages * pool->page_bytes;
}

/* A block of so many pages. With `needed` false they are more than that, and nobody gives
 * anything back for it. The lock is not held meanwhile. */
static ratp_status add_block(ratp_cache *cache, struct pool *pool, uint64_t pages, bool needed,
                             struct error *err)
{
    struct backend *b = cache->backend;
    uint64_t bytes = pages * pool->page_bytes;
    lock_give(&cache->memory_lock);
    ratp_status status = RATP_OK;
    struct block *block = malloc(sizeof *block + (size_t)pages * sizeof block->page[0]);
    if (!block)
        status = fail(err, RATP_OUT_OF_MEMORY, "no host memory for a block of %llu pages",
                      (unsigned long long)pages);
    else if (needed)
        status = cache_alloc(cache, bytes, MEM_DEVICE, "KV pages", &block->mem, err);
    else
        status = b->ops->mem_try(b, bytes, MEM_DEVICE, "KV pages", &block->mem, err);
    lock_take(&cache->memory_lock);
    if (status) {
        free(block);
        return status;
    }
    block->pages = (uint32_t)pages;
    block->used = 0;
    block->number = cache->blocks_made++;
    link_block(cache, pool, block);
    return RATP_OK;
}

/* The sequences that hold most, for a message. */
static void list_holders(const ratp_cache *cache, char *text, size_t size)
{
    const ratp_seq *most[HOLDERS] = {NULL};
    uint64_t bytes[HOLDERS] = {0};
    for (const ratp_seq *seq = cache->first_seq; seq; seq = seq->next) {
        struct ratp_seq_stats stats = {0};
        seq_describe(seq, &stats);
        const ratp_seq *moved = seq;
        uint64_t moved_bytes = stats.bytes;
        for (int i = 0; i < HOLDERS; i++) {
            if (most[i] && bytes[i] >= moved_bytes)
                continue;
            const ratp_seq *old = most[i];
            uint64_t old_bytes = bytes[i];
            most[i] = moved;
            bytes[i] = moved_bytes;
            if (!old)
                break;
            moved = old;
            moved_bytes = old_bytes;
        }
    }
    size_t length = 0;
    text[0] = '\0';
    for (int i = 0; i < HOLDERS && most[i] && length < size; i++)
        length += (size_t)snprintf(text + length, size - length,
                                   "%ssequence %llu holds %llu bytes", i ? ", " : ", most by: ",
                                   (unsigned long long)most[i]->number,
                                   (unsigned long long)bytes[i]);
}

static ratp_status cache_full(const ratp_cache *cache, const struct pool *pool, uint64_t missing,
                              uint64_t used, struct error *err)
{
    char holders[160];
    list_holders(cache, holders, sizeof holders);
    return fail(err, RATP_CACHE_FULL,
                "the cache is full: %llu more pages of %llu bytes are needed, the budget is %llu "
                "bytes and %llu are in use%s; free sequences or raise the budget",
                (unsigned long long)missing, (unsigned long long)pool->page_bytes,
                (unsigned long long)cache->budget, (unsigned long long)used, holders);
}

/* Unlinks the free pages of blocks that are about to go. */
static void drop_free_pages(struct pool *pool, uint64_t since)
{
    struct page **link = &pool->free;
    while (*link) {
        if ((*link)->block->used == 0 && (*link)->block->number >= since)
            *link = (*link)->next_free;
        else
            link = &(*link)->next_free;
    }
}

static bool has_empty_blocks(const struct pool *pool, uint64_t since)
{
    for (const struct block *block = pool->blocks; block; block = block->next)
        if (block->used == 0 && block->number >= since)
            return true;
    return false;
}

/* Frees the pool's empty blocks that were made since `since`. What still uses them was
 * submitted: a step holds its pages until then. False: there were none. */
static bool free_empty_blocks(ratp_cache *cache, struct pool *pool, uint64_t since)
{
    if (!has_empty_blocks(pool, since))
        return false;
    drop_free_pages(pool, since);
    for (struct block **link = &pool->blocks; *link;) {
        struct block *block = *link;
        if (block->used || block->number < since) {
            link = &block->next;
            continue;
        }
        *link = block->next;
        pool->pages -= block->pages;
        cache->budget_used -= block->pages * pool->page_bytes;
        cache->backend->ops->mem_free_spare(cache->backend, &block->mem);
        free(block);
    }
    return true;
}

/* Those of all pools, with the lock held. */
static bool trim(ratp_cache *cache, uint64_t since)
{
    bool any = false;
    for (struct pool *pool = cache->pools; pool; pool = pool->next)
        any |= free_empty_blocks(cache, pool, since);
    return any;
}

/* A block for some of the `missing` pages. It is generous where that costs nobody
 * anything. */
static ratp_status grow(ratp_cache *cache, struct pool *pool, uint64_t missing, struct error *err)
{
    uint64_t bytes = pool->pages * pool->page_bytes;
    bytes = bytes < FIRST_BLOCK ? FIRST_BLOCK : bytes > LARGEST_BLOCK ? LARGEST_BLOCK : bytes;
    uint64_t room = (cache->budget - cache->budget_used) / pool->page_bytes;
    uint64_t largest = cache->block_bytes / pool->page_bytes;
    /* Memory states, and pages of other sizes, want some of the rest too. */
    uint64_t share = room / 2, generous = bytes / pool->page_bytes;
    generous = generous > share ? share : generous;
    generous = generous > largest ? largest : generous;
    uint64_t pages = missing > largest ? largest : missing;
    ratp_status status = RATP_OUT_OF_MEMORY;
    if (generous > pages)
        status = add_block(cache, pool, generous, false, err);
    if (status == RATP_OUT_OF_MEMORY)
        status = add_block(cache, pool, pages, true, err);
    /* Several small blocks may fit where one does not. */
    for (; status == RATP_OUT_OF_MEMORY && pages > 1; pages /= 2)
        status = add_block(cache, pool, pages / 2, true, err);
    return status;
}

ratp_status pool_of(ratp_cache *cache, uint64_t page_bytes, struct pool **out, struct error *err)
{
    struct pool *pool = cache->pools;
    while (pool && pool->page_bytes != page_bytes)
        pool = pool->next;
    if (!pool) {
        pool = calloc(1, sizeof *pool);
        if (!pool)
            return fail(err, RATP_OUT_OF_MEMORY, "no host memory for a pool of pages");
        pool->cache = cache;
        pool->page_bytes = page_bytes;
        lock_take(&cache->memory_lock);
        pool->next = cache->pools;
        cache->pools = pool;
        lock_give(&cache->memory_lock);
    }
    *out = pool;
    return RATP_OK;
}

/* Moves free pages to the list until it has `count`. */
static void take_free(struct pool *pool, struct page_list *to, uint64_t count)
{
    while (to->count < count && pool->free) {
        struct page *page = pool->free;
        pool->free = page->next_free;
        page->refs = 1;
        page->block->used++;
        pool->used++;
        to->page[to->count++] = page;
    }
}

static void release(struct pool *pool, struct page *page)
{
    if (--page->refs) {
        pool->shared -= page->refs == 1;
        return;
    }
    page->next_free = pool->free;
    pool->free = page;
    page->block->used--;
    pool->used--;
}

static void cut(struct pool *pool, struct page_list *list, uint32_t from)
{
    while (list->count > from)
        release(pool, list->page[--list->count]);
}

/* The device's refusal, which is of the last block that was tried, with what was asked. */
static void no_pages(const struct pool *pool, uint32_t count, uint64_t missing, struct error *err)
{
    const struct error why = *err;
    fail(err, RATP_OUT_OF_MEMORY,
         "%u more pages of %llu bytes are needed, and there is no room for %llu of them: %.380s",
         count, (unsigned long long)pool->page_bytes, (unsigned long long)missing, why.text);
}

ratp_status pool_take(ratp_cache *cache, struct pool *pool, uint32_t count, struct page_list *to,
                      struct error *err)
{
    uint32_t before = to->count;
    uint64_t wanted = (uint64_t)before + count;
    ratp_status status = list_reserve(to, wanted, err);
    if (status)
        return status;
    lock_take(&cache->memory_lock);
    /* What is taken is in use, so that nobody frees it while the rest is fetched. */
    take_free(pool, to, wanted);
    uint64_t missing = wanted - to->count;
    if (missing > (cache->budget - cache->budget_used) / pool->page_bytes)
        trim(cache, 0);
    uint64_t used = cache->budget_used, room = (cache->budget - used) / pool->page_bytes;
    bool full = missing > room;
    while (!full && !status && to->count < wanted) {
        status = grow(cache, pool, wanted - to->count, err);
        take_free(pool, to, wanted);
    }
    if (status == RATP_OUT_OF_MEMORY)
        no_pages(pool, count, wanted - to->count, err);
    if (full || status)
        cut(pool, to, before);
    lock_give(&cache->memory_lock);
    return full ? cache_full(cache, pool, missing - room, used, err) : status;
}

ratp_status page_list_share(struct pool *pool, const struct page_list *from, struct page_list *to,
                            struct error *err)
{
    ratp_status status = list_reserve(to, from->count, err);
    for (uint32_t i = 0; i < from->count && !status; i++) {
        to->page[to->count++] = from->page[i];
        pool->shared += from->page[i]->refs++ == 1;
    }
    return status;
}

void page_release(struct pool *pool, struct page *page)
{
    lock_take(&pool->cache->memory_lock);
    release(pool, page);
    lock_give(&pool->cache->memory_lock);
}

void page_list_cut(struct pool *pool, struct page_list *list, uint32_t from)
{
    lock_take(&pool->cache->memory_lock);
    cut(pool, list, from);
    lock_give(&pool->cache->memory_lock);
    if (from == 0) {
        free(list->page);
        *list = (struct page_list){0};
    }
}

void pool_trim(ratp_cache *cache, uint64_t since)
{
    lock_take(&cache->memory_lock);
    trim(cache, since);
    lock_give(&cache->memory_lock);
}

bool cache_give_back(struct spare *spare)
{
    ratp_cache *cache = (ratp_cache *)((char *)spare - offsetof(ratp_cache, spare));
    lock_take(&cache->memory_lock);
    bool any = trim(cache, 0);
    if (!cache->scratch_held && cache->scratch.size) {
        cache->backend->ops->mem_free_spare(cache->backend, &cache->scratch);
        any = true;
    }
    for (uint32_t i = 0; i < CACHE_FRAMES; i++) {
        struct frame *frame = &cache->frames[i];
        if (frame->held || !frame->params.size)
            continue;
        cache->backend->ops->mem_free_spare(cache->backend, &frame->params);
        any = true;
    }
    lock_give(&cache->memory_lock);
    return any;
}

/* ---- Memory beside the pages ---- */

/* Counts memory that is about to be allocated. False: the budget, of which *used are in
 * use, does not hold it. */
static bool count_bytes(ratp_cache *cache, uint64_t bytes, uint64_t *used)
{
    lock_take(&cache->memory_lock);
    if (bytes > cache->budget - cache->budget_used)
        trim(cache, 0);
    *used = cache->budget_used;
    bool fits = bytes <= cache->budget - *used;
    if (fits) {
        cache->budget_used += bytes;
        cache->state_bytes += bytes;
    }
    lock_give(&cache->memory_lock);
    return fits;
}

static void discount_bytes(ratp_cache *cache, uint64_t bytes)
{
    lock_take(&cache->memory_lock);
    cache->budget_used -= bytes;
    cache->state_bytes -= bytes;
    lock_give(&cache->memory_lock);
}

ratp_status seq_mem_take(ratp_cache *cache, uint64_t bytes, const char *name, struct mem *out,
                         struct error *err)
{
    *out = (struct mem){0};
    if (!bytes)
        return RATP_OK;
    uint64_t used = 0;
    if (!count_bytes(cache, bytes, &used)) {
        char holders[160];
        list_holders(cache, holders, sizeof holders);
        return fail(err, RATP_CACHE_FULL,
                    "the cache is full: a %s takes %llu bytes, the budget is %llu bytes and %llu "
                    "are in use%s; free sequences or raise the budget",
                    name, (unsigned long long)bytes, (unsigned long long)cache->budget,
                    (unsigned long long)used, holders);
    }
    ratp_status status = cache_alloc(cache, bytes, MEM_DEVICE, name, out, err);
    if (status)
        discount_bytes(cache, bytes);
    return status;
}

void seq_mem_give(ratp_cache *cache, struct mem *mem)
{
    if (!mem->size)
        return;
    discount_bytes(cache, mem->size);
    /* The sequence is in no open step, or what the step recorded has been submitted, or
     * never will be. */
    cache->backend->ops->mem_free_spare(cache->backend, mem);
}

ratp_status scratch_hold(ratp_cache *cache, uint64_t size, struct error *err)
{
    lock_take(&cache->memory_lock);
    bool enough = cache->scratch_held = size <= cache->scratch.size;
    lock_give(&cache->memory_lock);
    if (enough)
        return RATP_OK;
    struct mem grown;
    ratp_status status = cache_alloc(cache, size, MEM_DEVICE, "step work memory", &grown, err);
    if (status)
        return status;
    lock_take(&cache->memory_lock);
    struct mem old = cache->scratch;
    cache->scratch = grown;
    cache->scratch_held = true;
    lock_give(&cache->memory_lock);
    cache->backend->ops->mem_free_spare(cache->backend, &old);
    return RATP_OK;
}

void scratch_release(ratp_cache *cache)
{
    lock_take(&cache->memory_lock);
    cache->scratch_held = false;
    lock_give(&cache->memory_lock);
}
