/* Layouts: what the heads of a sequence attend, and how they are stored for it. */
#include "cache.h"

#include <stdlib.h>
#include <string.h>

static void layout_free(struct layout *layout)
{
    if (!layout)
        return;
    free(layout->variant);
    free(layout->slab_store);
    free(layout->slab_offset);
    free(layout->stores);
    free(layout);
}

static bool equal(const ratp_cache *cache, const struct layout *a, const struct layout *b)
{
    for (uint32_t i = 0; i < cache->slabs; i++)
        if (!variant_equal(&a->variant[i], &b->variant[i]))
            return false;
    return true;
}

/* The store for a variant; a new one at the end if there is none. */
static ratp_status find_store(const ratp_cache *cache, struct layout *layout,
                              const struct variant *v, uint32_t *room, uint32_t *index,
                              struct error *err)
{
    bool everything = cache->retention == RATP_RETAIN_FULL || v->kind == RATP_DENSE;
    for (*index = 0; *index < layout->store_count; ++*index) {
        const struct store *store = &layout->stores[*index];
        if (store->everything == everything && (everything || variant_equal(&store->keep, v)))
            return RATP_OK;
    }
    if (layout->store_count == *room) {
        uint32_t more = *room ? *room * 2 : 4;
        struct store *stores = realloc(layout->stores, more * sizeof *stores);
        if (!stores)
            return fail(err, RATP_OUT_OF_MEMORY, "no host memory for %u stores", more);
        layout->stores = stores;
        *room = more;
    }
    uint32_t slots = cache->shape.page_slots;
    layout->stores[layout->store_count++] = (struct store){
        .everything = everything,
        .keep = *v,
        .ring_slots = everything ? 0 : (v->window / slots + 1) * slots,
    };
    return RATP_OK;
}

static ratp_status sort_slabs(ratp_cache *cache, struct layout *layout, struct error *err)
{
    uint32_t room = 0;
    for (uint32_t i = 0; i < cache->slabs; i++) {
        uint32_t index = 0;
        ratp_status status = find_store(cache, layout, &layout->variant[i], &room, &index, err);
        if (status)
            return status;
        struct store *store = &layout->stores[index];
        uint64_t offset = (uint64_t)store->slabs++ * cache->slab_bytes;
        if (offset + cache->slab_bytes > cache->block_bytes)
            return fail(err, RATP_INVALID_ARGUMENT,
                        "page_slots is %u: a page of %u heads takes %llu bytes, the limit is %llu",
                        cache->shape.page_slots, store->slabs,
                        (unsigned long long)(offset + cache->slab_bytes),
                        (unsigned long long)cache->block_bytes);
        layout->slab_store[i] = index;
        layout->slab_offset[i] = (uint32_t)offset;
    }
    for (uint32_t s = 0; s < layout->store_count; s++) {
        struct store *store = &layout->stores[s];
        ratp_status status =
            pool_of(cache, (uint64_t)store->slabs * cache->slab_bytes, &store->pool, err);
        if (status)
            return status;
    }
    return RATP_OK;
}

/* One without variants yet. */
static ratp_status layout_new(const ratp_cache *cache, struct layout **out, struct error *err)
{
    struct layout *made = calloc(1, sizeof *made);
    if (made) {
        made->variant = calloc(cache->slabs, sizeof *made->variant);
        made->slab_store = calloc(cache->slabs, sizeof *made->slab_store);
        made->slab_offset = calloc(cache->slabs, sizeof *made->slab_offset);
    }
    if (!made || !made->variant || !made->slab_store || !made->slab_offset) {
        layout_free(made);
        return fail(err, RATP_OUT_OF_MEMORY, "no host memory for the variants of %u heads",
                    cache->slabs);
    }
    *out = made;
    return RATP_OK;
}

/* The layout with the variants of `made`, which is used or freed; with a reference. */
static ratp_status layout_share(ratp_cache *cache, struct layout *made, struct layout **out,
                                struct error *err)
{
    ratp_status status = RATP_OK;
    struct layout *same = cache->layouts;
    while (same && !equal(cache, same, made))
        same = same->next;
    if (!same)
        status = sort_slabs(cache, made, err);
    if (status || same) {
        layout_free(made);
        made = status ? NULL : same;
    } else {
        made->next = cache->layouts;
        cache->layouts = made;
    }
    if (made)
        made->refs++;
    *out = made;
    return status;
}

ratp_status layout_take(ratp_cache *cache, const struct ratp_policy *policy, struct layout **out,
                        struct error *err)
{
    static const struct ratp_policy none = {.count = 0};
    *out = NULL;
    struct layout *made = NULL;
    ratp_status status = RATP_OK;
    if (policy)
        status = policy_check(policy, cache->layers, cache->total_kv_heads, err);
    if (!status)
        status = layout_new(cache, &made, err);
    if (status)
        return status;
    uint32_t heads = cache->shape.kv_heads;
    for (uint32_t i = 0; i < cache->slabs; i++)
        made->variant[i] = policy_at(policy ? policy : &none, i / heads,
                                     cache->first_kv_head + i % heads);
    return layout_share(cache, made, out, err);
}

ratp_status layout_take_variants(ratp_cache *cache, const struct variant *variants,
                                 struct layout **out, struct error *err)
{
    *out = NULL;
    struct layout *made = NULL;
    ratp_status status = layout_new(cache, &made, err);
    if (status)
        return status;
    memcpy(made->variant, variants, cache->slabs * sizeof *variants);
    return layout_share(cache, made, out, err);
}

void layout_release(ratp_cache *cache, struct layout *layout)
{
    if (--layout->refs)
        return;
    struct layout **link = &cache->layouts;
    while (*link != layout)
        link = &(*link)->next;
    *link = layout->next;
    layout_free(layout);
}
