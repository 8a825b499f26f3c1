/* Layouts: what the heads of a sequence attend, and how they are stored for it. */
#include "../index.h"
#include "cache.h"

#include <stdlib.h>
#include <string.h>

static void layout_free(struct layout *layout)
{
    if (!layout)
        return;
    free(layout->choice);
    free(layout->slab_kind);
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

/* Layouts are made of many heads with many choices: what is equal is found by hash. */
struct sorting {
    struct index kinds, stores;
    uint32_t *first;     /* [kinds] the first slab of each */
    uint32_t *store;     /* [kinds] */
    uint32_t kind_count, room; /* room: of layout->stores */
};

/* A choice's store before it is among the others. */
static ratp_status store_of(const ratp_cache *cache, const struct choice *choice,
                            struct store *out, struct error *err)
{
    uint32_t slots = cache->shape.page_slots;
    bool everything = keeps_everything(cache, choice);
    *out = (struct store){
        .everything = everything,
        .keep = choice->decode,
        .ring_slots = everything ? 0 : (choice->decode.window / slots + 1) * slots,
    };
    ratp_status status = summaries_of(cache, choice, out->summaries, err);
    for (int i = 0; i < SUMMARIES && !status; i++) {
        struct summary *summary = &out->summaries[i];
        summary->at = out->summary_bytes;
        if (summary->select)
            out->summary_bytes += slots / summary->entry_tokens * summary->entry_bytes;
    }
    return status;
}

/* Whether the store is for its variant alone. */
static bool is_alone(const struct store *store)
{
    return !store->everything || store_compresses(store);
}

static bool store_equal(const struct store *a, const struct store *b)
{
    return a->everything == b->everything && is_alone(a) == is_alone(b) &&
           (!is_alone(a) || variant_equal(&a->keep, &b->keep)) &&
           summary_equal(&a->summaries[0], &b->summaries[0]) &&
           summary_equal(&a->summaries[1], &b->summaries[1]);
}

static uint64_t store_hash(const struct store *store)
{
    uint64_t hash = is_alone(store) ? variant_hash(&store->keep) : 0;
    for (int i = 0; i < SUMMARIES; i++)
        hash = hash_add(hash_add(hash, store->summaries[i].select), store->summaries[i].block);
    return hash_add(hash, store->everything);
}

/* The store for a choice; a new one at the end if there is none. */
static ratp_status find_store(const ratp_cache *cache, struct layout *layout,
                              struct sorting *sorting, const struct choice *choice,
                              uint32_t *number, struct error *err)
{
    struct store wanted;
    ratp_status status = store_of(cache, choice, &wanted, err);
    if (status)
        return status;
    uint32_t *slot = index_first(&sorting->stores, store_hash(&wanted));
    while (*slot != INDEX_NONE && !store_equal(&layout->stores[*slot], &wanted))
        slot = index_next(&sorting->stores, slot);
    *number = *slot;
    if (*slot != INDEX_NONE)
        return RATP_OK;
    if (layout->store_count == sorting->room) {
        uint32_t more = sorting->room ? sorting->room * 2 : 4;
        struct store *stores = realloc(layout->stores, more * sizeof *stores);
        if (!stores)
            return fail(err, RATP_OUT_OF_MEMORY, "no host memory for %u stores", more);
        layout->stores = stores;
        sorting->room = more;
    }
    *number = *slot = layout->store_count++;
    layout->stores[*number] = wanted;
    return RATP_OK;
}

/* The number that the slab's choice has in the layout; its store is known then. */
static ratp_status find_kind(const ratp_cache *cache, struct layout *layout,
                             struct sorting *sorting, uint32_t slab, uint32_t *kind,
                             struct error *err)
{
    const struct choice *choice = &layout->choice[slab];
    if (slab > 0 && choice_equal(choice, &choice[-1])) {
        *kind = layout->slab_kind[slab - 1];
        return RATP_OK;
    }
    uint32_t *slot = index_first(&sorting->kinds, choice_hash(choice));
    while (*slot != INDEX_NONE && !choice_equal(&layout->choice[sorting->first[*slot]], choice))
        slot = index_next(&sorting->kinds, slot);
    *kind = *slot;
    if (*slot != INDEX_NONE)
        return RATP_OK;
    *kind = *slot = sorting->kind_count++;
    sorting->first[*kind] = slab;
    return find_store(cache, layout, sorting, choice, &sorting->store[*kind], err);
}

static uint64_t store_page_bytes(const ratp_cache *cache, const struct store *store)
{
    return (uint64_t)store->slabs * (cache->slab_bytes + store->summary_bytes);
}

static ratp_status find_stores(const ratp_cache *cache, struct layout *layout,
                               struct sorting *sorting, struct error *err)
{
    for (uint32_t i = 0; i < cache->slabs; i++) {
        uint32_t kind = 0;
        ratp_status status = find_kind(cache, layout, sorting, i, &kind, err);
        if (status)
            return status;
        uint32_t index = sorting->store[kind];
        struct store *store = &layout->stores[index];
        uint64_t offset = (uint64_t)store->slabs++ * cache->slab_bytes;
        if (store_page_bytes(cache, store) > cache->block_bytes)
            return fail(err, RATP_INVALID_ARGUMENT,
                        "page_slots is %u: a page of %u heads takes %llu bytes, the limit is %llu",
                        cache->shape.page_slots, store->slabs,
                        (unsigned long long)store_page_bytes(cache, store),
                        (unsigned long long)cache->block_bytes);
        layout->slab_kind[i] = kind;
        layout->slab_store[i] = index;
        layout->slab_offset[i] = (uint32_t)offset;
    }
    return RATP_OK;
}

static ratp_status sort_slabs(ratp_cache *cache, struct layout *layout, struct error *err)
{
    struct sorting sorting = {.first = malloc(cache->slabs * sizeof *sorting.first),
                              .store = malloc(cache->slabs * sizeof *sorting.store)};
    bool good = index_open(&sorting.kinds, cache->slabs);
    good = index_open(&sorting.stores, cache->slabs) && good && sorting.first && sorting.store;
    ratp_status status = good ? find_stores(cache, layout, &sorting, err)
                              : fail(err, RATP_OUT_OF_MEMORY,
                                     "no host memory to sort the variants of %u heads",
                                     cache->slabs);
    free(sorting.first);
    free(sorting.store);
    free(sorting.kinds.slot);
    free(sorting.stores.slot);
    if (status)
        return status;
    /* The entries lie behind the rows of all heads. */
    for (uint32_t i = 0; i < cache->slabs; i++) {
        const struct store *store = &layout->stores[layout->slab_store[i]];
        uint32_t index = layout->slab_offset[i] / cache->slab_bytes;
        layout->slab_summary[i] = store->slabs * cache->slab_bytes + index * store->summary_bytes;
    }
    for (uint32_t s = 0; s < layout->store_count; s++) {
        struct store *store = &layout->stores[s];
        status = pool_of(cache, store_page_bytes(cache, store), &store->pool, err);
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
        made->slab_kind = calloc(cache->slabs, sizeof *made->slab_kind);
        made->slab_store = calloc(cache->slabs, sizeof *made->slab_store);
        made->slab_offset = calloc(cache->slabs, sizeof *made->slab_offset);
        made->slab_summary = calloc(cache->slabs, sizeof *made->slab_summary);
    }
    if (!made || !made->choice || !made->slab_kind || !made->slab_store || !made->slab_offset ||
        !made->slab_summary) {
        layout_free(made);
        return fail(err, RATP_OUT_OF_MEMORY, "no host memory for the variants of %u heads",
                    cache->slabs);
    }
    *out = made;
    return RATP_OK;
}

/* ---- The layouts of a cache ---- */

static struct layout **bucket_of(const ratp_cache *cache, uint64_t hash)
{
    return &cache->buckets[(hash ^ hash >> 32) & (cache->bucket_count - 1)];
}

/* Makes room for one more. Where there is no memory for more buckets, the old ones hold
 * more each; there are none at first. */
static bool grow_buckets(ratp_cache *cache)
{
    if (cache->layout_count < cache->bucket_count)
        return true;
    uint32_t old_count = cache->bucket_count, count = old_count ? 2 * old_count : 8;
    struct layout **buckets = calloc(count, sizeof *buckets);
    if (!buckets)
        return old_count > 0;
    free(cache->buckets);
    cache->buckets = buckets;
    cache->bucket_count = count;
    for (struct layout *layout = cache->layouts; layout; layout = layout->next) {
        struct layout **bucket = bucket_of(cache, layout->hash);
        layout->next_alike = *bucket;
        *bucket = layout;
    }
    return true;
}

static void add_layout(ratp_cache *cache, struct layout *made)
{
    struct layout **bucket = bucket_of(cache, made->hash);
    made->next_alike = *bucket;
    *bucket = made;
    made->next = cache->layouts;
    made->link = &cache->layouts;
    if (made->next)
        made->next->link = &made->next;
    cache->layouts = made;
    cache->layout_count++;
}

static void hash_choices(const ratp_cache *cache, struct layout *layout)
{
    uint64_t hash = 0;
    for (uint32_t i = 0; i < cache->slabs; i++) {
        if (i == 0 || !choice_equal(&layout->choice[i], &layout->choice[i - 1]))
            hash = choice_hash(&layout->choice[i]);
        layout->hash = hash_add(layout->hash, hash);
    }
}

/* The layout with the variants of `made`, which is used or freed; with a reference. */
static ratp_status layout_share(ratp_cache *cache, struct layout *made, struct layout **out,
                                struct error *err)
{
    hash_choices(cache, made);
    struct layout *same = cache->buckets ? *bucket_of(cache, made->hash) : NULL;
    while (same && !(same->hash == made->hash && equal(cache, same, made)))
        same = same->next_alike;
    ratp_status status = same ? RATP_OK : sort_slabs(cache, made, err);
    if (!same && !status && !grow_buckets(cache))
        status = fail(err, RATP_OUT_OF_MEMORY, "no host memory for a cache's layouts");
    if (status || same) {
        layout_free(made);
        made = status ? NULL : same;
    } else {
        add_layout(cache, made);
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
    status = policy_fill(policy ? policy : &none, cache->layers, cache->first_kv_head,
                         cache->shape.kv_heads, made->choice, err);
    if (!status)
        return layout_share(cache, made, out, err);
    layout_free(made);
    return status;
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
    struct layout **alike = bucket_of(cache, layout->hash);
    while (*alike != layout)
        alike = &(*alike)->next_alike;
    *alike = layout->next_alike;
    *layout->link = layout->next;
    if (layout->next)
        layout->next->link = layout->link;
    cache->layout_count--;
    layout_free(layout);
}
