/* Layouts: what the heads of a sequence attend, and how they are stored for it. */
#include "cache.h"

#include <stdlib.h>
#include <string.h>

static void layout_free(struct layout *layout)
{
    if (!layout)
        return;
    free(layout->choice);
    free(layout->slab_store);
    free(layout->slab_offset);
    free(layout->slab_summary);
    free(layout->stores);
    free(layout);
}

static bool equal(const ratp_cache *cache, const struct layout *a, const struct layout *b)
{
    for (uint32_t i = 0; i < cache->slabs; i++)
        if (!choice_equal(&a->choice[i], &b->choice[i]))
            return false;
    return true;
}

/* Whether what the head may attend, now or later, is no less than all. */
static bool keeps_everything(const ratp_cache *cache, const struct choice *choice)
{
    bool thin = choice->decode.kind == RATP_DILATED || choice->decode.kind == RATP_STREAMING;
    return cache->retention == RATP_RETAIN_FULL || !thin ||
           !variant_equal(&choice->prompt, &choice->decode);
}

/* The store for a choice; a new one at the end if there is none. */
static ratp_status find_store(const ratp_cache *cache, struct layout *layout,
                              const struct choice *choice, uint32_t *room, uint32_t *index,
                              struct error *err)
{
    const struct variant *v = &choice->decode;
    bool everything = keeps_everything(cache, choice);
    bool alike = !everything || v->kind == RATP_SNAPKV; /* the store is for this variant alone */
    struct summary summaries[SUMMARIES];
    ratp_status status = summaries_of(cache, choice, summaries, err);
    if (status)
        return status;
    for (*index = 0; *index < layout->store_count; ++*index) {
        const struct store *store = &layout->stores[*index];
        if (store->everything == everything &&
            (alike ? variant_equal(&store->keep, v) : !store_compresses(store)) &&
            summary_equal(&store->summaries[0], &summaries[0]) &&
            summary_equal(&store->summaries[1], &summaries[1]))
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
    struct store *store = &layout->stores[layout->store_count++];
    *store = (struct store){
        .everything = everything,
        .keep = *v,
        .ring_slots = everything ? 0 : (v->window / slots + 1) * slots,
    };
    for (int i = 0; i < SUMMARIES; i++) {
        store->summaries[i] = summaries[i];
        store->summaries[i].at = store->summary_bytes;
        if (summaries[i].select)
            store->summary_bytes += slots / summaries[i].entry_tokens * summaries[i].entry_bytes;
    }
    return RATP_OK;
}

static uint64_t store_page_bytes(const ratp_cache *cache, const struct store *store)
{
    return (uint64_t)store->slabs * (cache->slab_bytes + store->summary_bytes);
}

static ratp_status sort_slabs(ratp_cache *cache, struct layout *layout, struct error *err)
{
    uint32_t room = 0;
    for (uint32_t i = 0; i < cache->slabs; i++) {
        uint32_t index = 0;
        ratp_status status = find_store(cache, layout, &layout->choice[i], &room, &index, err);
        if (status)
            return status;
        struct store *store = &layout->stores[index];
        uint64_t offset = (uint64_t)store->slabs++ * cache->slab_bytes;
        if (store_page_bytes(cache, store) > cache->block_bytes)
            return fail(err, RATP_INVALID_ARGUMENT,
                        "page_slots is %u: a page of %u heads takes %llu bytes, the limit is %llu",
                        cache->shape.page_slots, store->slabs,
                        (unsigned long long)store_page_bytes(cache, store),
                        (unsigned long long)cache->block_bytes);
        layout->slab_store[i] = index;
        layout->slab_offset[i] = (uint32_t)offset;
    }
    /* The entries lie behind the rows of all heads. */
    for (uint32_t i = 0; i < cache->slabs; i++) {
        const struct store *store = &layout->stores[layout->slab_store[i]];
        uint32_t index = layout->slab_offset[i] / cache->slab_bytes;
        layout->slab_summary[i] = store->slabs * cache->slab_bytes + index * store->summary_bytes;
    }
    for (uint32_t s = 0; s < layout->store_count; s++) {
        struct store *store = &layout->stores[s];
        ratp_status status =
            pool_of(cache, store_page_bytes(cache, store), &store->pool, err);
        if (status)
            return status;
        store->queries_at = layout->queries_bytes;
        if (store_compresses(store))
            layout->queries_bytes += store->slabs * observe_slab_bytes(cache, store);
    }
    return RATP_OK;
}

/* One without variants yet. */
static ratp_status layout_new(const ratp_cache *cache, struct layout **out, struct error *err)
{
    struct layout *made = calloc(1, sizeof *made);
    if (made) {
        made->choice = calloc(cache->slabs, sizeof *made->choice);
        made->slab_store = calloc(cache->slabs, sizeof *made->slab_store);
        made->slab_offset = calloc(cache->slabs, sizeof *made->slab_offset);
        made->slab_summary = calloc(cache->slabs, sizeof *made->slab_summary);
    }
    if (!made || !made->choice || !made->slab_store || !made->slab_offset ||
        !made->slab_summary) {
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
        made->choice[i] = policy_at(policy ? policy : &none, i / heads,
                                     cache->first_kv_head + i % heads);
    return layout_share(cache, made, out, err);
}

ratp_status layout_take_choices(ratp_cache *cache, const struct choice *choices,
                                 struct layout **out, struct error *err)
{
    *out = NULL;
    struct layout *made = NULL;
    ratp_status status = layout_new(cache, &made, err);
    if (status)
        return status;
    memcpy(made->choice, choices, cache->slabs * sizeof *choices);
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
