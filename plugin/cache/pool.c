#include "cache.h"

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

static ratp_status add_block(ratp_cache *cache, struct pool *pool, uint64_t pages,
                             struct error *err)
{
    struct block *block = malloc(sizeof *block + (size_t)pages * sizeof block->page[0]);
    if (!block)
        return fail(err, RATP_OUT_OF_MEMORY, "no host memory for a block of %llu pages",
                    (unsigned long long)pages);
    ratp_status status = cache->backend->ops->mem_alloc(cache->backend, pages * pool->page_bytes,
                                                        MEM_DEVICE, "KV pages", &block->mem, err);
    if (status) {
        free(block);
        return status;
    }
    block->pages = (uint32_t)pages;
    block->used = 0;
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
    pool->pages += pages;
    cache->budget_used += pages * pool->page_bytes;
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
                              struct error *err)
{
    char holders[160];
    list_holders(cache, holders, sizeof holders);
    return fail(err, RATP_CACHE_FULL,
                "the cache is full: %llu more pages of %llu bytes are needed, the budget is %llu "
                "bytes and %llu are in use%s; free sequences or raise the budget",
                (unsigned long long)missing, (unsigned long long)pool->page_bytes,
                (unsigned long long)cache->budget, (unsigned long long)cache->budget_used, holders);
}

static uint64_t free_pages(const struct pool *pool)
{
    return pool->pages - pool->used;
}

/* Makes at least `wanted` pages free. */
static ratp_status grow(ratp_cache *cache, struct pool *pool, uint64_t wanted, struct error *err)
{
    uint64_t bytes = pool->pages * pool->page_bytes;
    bytes = bytes < FIRST_BLOCK ? FIRST_BLOCK : bytes > LARGEST_BLOCK ? LARGEST_BLOCK : bytes;
    uint64_t block_pages = bytes / pool->page_bytes;
    /* Other pools' empty blocks make room for this one; its own go too. */
    if ((wanted - free_pages(pool)) * pool->page_bytes > cache->budget - cache->budget_used)
        pool_trim(cache);
    while (free_pages(pool) < wanted) {
        uint64_t missing = wanted - free_pages(pool);
        uint64_t room = (cache->budget - cache->budget_used) / pool->page_bytes;
        if (room < missing)
            return cache_full(cache, pool, missing - room, err);
        uint64_t largest = cache->block_bytes / pool->page_bytes;
        uint64_t pages = missing > block_pages ? missing : block_pages;
        /* Memory states, and pages of other sizes, want some of the rest too. */
        uint64_t share = room / 2 > missing ? room / 2 : missing;
        pages = pages > share ? share : pages;
        pages = pages > largest ? largest : pages;
        ratp_status status = add_block(cache, pool, pages, err);
        /* A generous block may not fit where a tight one does, or several small ones. */
        while (status == RATP_OUT_OF_MEMORY && pages > 1) {
            pages = pages > missing ? missing : pages / 2;
            status = add_block(cache, pool, pages, err);
        }
        if (status)
            return status;
    }
    return RATP_OK;
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
        pool->page_bytes = page_bytes;
        pool->next = cache->pools;
        cache->pools = pool;
    }
    *out = pool;
    return RATP_OK;
}

ratp_status pool_take(ratp_cache *cache, struct pool *pool, uint32_t count, struct page_list *to,
                      struct error *err)
{
    ratp_status status = list_reserve(to, (uint64_t)to->count + count, err);
    if (!status && free_pages(pool) < count)
        status = grow(cache, pool, count, err);
    if (status)
        return status;
    for (uint32_t i = 0; i < count; i++) {
        struct page *page = pool->free;
        pool->free = page->next_free;
        page->refs = 1;
        page->block->used++;
        to->page[to->count++] = page;
    }
    pool->used += count;
    return RATP_OK;
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
    if (--page->refs) {
        pool->shared -= page->refs == 1;
        return;
    }
    page->next_free = pool->free;
    pool->free = page;
    page->block->used--;
    pool->used--;
}

void page_list_cut(struct pool *pool, struct page_list *list, uint32_t from)
{
    while (list->count > from)
        page_release(pool, list->page[--list->count]);
    if (from == 0) {
        free(list->page);
        *list = (struct page_list){0};
    }
}

/* Unlinks the free pages of blocks that are about to go. */
static void drop_free_pages(struct pool *pool)
{
    struct page **link = &pool->free;
    while (*link) {
        if ((*link)->block->used == 0)
            *link = (*link)->next_free;
        else
            link = &(*link)->next_free;
    }
}

static void free_empty_blocks(ratp_cache *cache, struct pool *pool)
{
    drop_free_pages(pool);
    for (struct block **link = &pool->blocks; *link;) {
        struct block *block = *link;
        if (block->used) {
            link = &block->next;
            continue;
        }
        *link = block->next;
        pool->pages -= block->pages;
        cache->budget_used -= block->pages * pool->page_bytes;
        cache->backend->ops->mem_free(cache->backend, &block->mem);
        free(block);
    }
}

void pool_trim(ratp_cache *cache)
{
    for (struct pool *pool = cache->pools; pool; pool = pool->next)
        free_empty_blocks(cache, pool);
}
