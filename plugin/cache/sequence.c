#include "cache.h"

#include <stdlib.h>

uint64_t seq_state_bytes(const ratp_cache *cache)
{
    return (uint64_t)cache->slabs * cache->slab_state_bytes;
}

uint64_t seq_state_offset(const ratp_seq *seq, uint32_t copy)
{
    return copy * seq_state_bytes(seq->cache);
}

uint64_t store_kept(const struct store *store, uint32_t tokens)
{
    const struct variant *v = &store->keep;
    if (store->everything)
        return tokens;
    uint32_t sinks = v->sinks < tokens ? v->sinks : tokens;
    if (v->dilation == 0)
        return sinks;
    uint32_t dilated = tokens / v->dilation, skipped = v->sinks / v->dilation;
    return (uint64_t)sinks + (dilated > skipped ? dilated - skipped : 0);
}

bool store_is_fixed(const struct store *store, uint32_t position)
{
    const struct variant *v = &store->keep;
    return store->everything || position < v->sinks ||
           (v->dilation && (position + 1) % v->dilation == 0);
}

uint32_t run_of(const ratp_cache *cache, uint32_t slab, const uint32_t *of)
{
    uint32_t heads = cache->shape.kv_heads, end = (slab / heads + 1) * heads, next = slab + 1;
    while (next < end && of[next] == of[slab])
        next++;
    return next - slab;
}

struct layer_shape shape_of_run(const ratp_cache *cache, uint32_t heads)
{
    struct layer_shape shape = cache->shape;
    shape.query_heads = shape.query_heads / shape.kv_heads * heads;
    shape.kv_heads = heads;
    return shape;
}

uint32_t pages_for(const ratp_cache *cache, uint64_t slots)
{
    return (uint32_t)((slots + cache->shape.page_slots - 1) / cache->shape.page_slots);
}

uint32_t store_kept_slot(const struct store *store, uint32_t position)
{
    const struct variant *v = &store->keep;
    /* A sink is kept where streaming keeps nothing else. */
    return store->everything || position < v->sinks
               ? position : kept_index(position, v->sinks, v->dilation);
}

bool seq_find(const ratp_seq *seq, uint32_t s, uint32_t position, struct place *place)
{
    const struct store *store = &seq->layout->stores[s];
    uint32_t dropped = seq->stores[s].dropped;
    if (dropped) {
        /* Of the first slots, only those of the tokens that observed are known here. */
        *place = (struct place){.slot = position - dropped};
        return position >= dropped + store->keep.capacity - store->keep.observe;
    }
    place->ring = !store_is_fixed(store, position);
    place->slot = place->ring ? position % store->ring_slots : store_kept_slot(store, position);
    return !place->ring || position >= seq->stores[s].ring_from;
}

ratp_status seq_open(ratp_cache *cache, struct layout *layout, ratp_seq **out, struct error *err)
{
    *out = NULL;
    ratp_seq *seq = calloc(1, sizeof *seq);
    struct seq_store *stores = calloc(layout->store_count, sizeof *stores);
    ratp_status status = RATP_OK;
    if (!seq || !stores) {
        status = fail(err, RATP_OUT_OF_MEMORY, "no host memory for a sequence");
        goto error;
    }
    status = seq_mem_take(cache, 2 * seq_state_bytes(cache), "memory state", &seq->state, err);
    if (!status)
        status = seq_mem_take(cache, layout->queries_bytes, "ring of queries", &seq->queries, err);
    if (status)
        goto error;
    cache->sequences++;
    seq->number = ++cache->numbered;
    seq->next = cache->first_seq;
    seq->link = &cache->first_seq;
    if (seq->next)
        seq->next->link = &seq->next;
    cache->first_seq = seq;
    object_init(&seq->object, OBJECT_SEQ);
    seq->cache = cache;
    seq->stores = stores;
    seq->layout = layout;
    seq->layout->refs++;
    atomic_fetch_add(&cache->object.children, 1);
    *out = seq;
    return RATP_OK;

error:
    if (seq)
        seq_mem_give(cache, &seq->state);
    free(seq);
    free(stores);
    return status;
}

ratp_status stores_take_pages(ratp_cache *cache, const struct layout *layout, uint32_t length,
                              struct seq_store *stores, struct error *err)
{
    ratp_status status = RATP_OK;
    for (uint32_t s = 0; s < layout->store_count && !status; s++) {
        const struct store *store = &layout->stores[s];
        uint32_t kept = pages_for(cache, store_kept(store, length) - stores[s].dropped);
        uint32_t ring = length < store->ring_slots ? length : store->ring_slots;
        if (kept)
            status = pool_take(cache, store->pool, kept, &stores[s].kept, err);
        if (!status && ring)
            status = pool_take(cache, store->pool, pages_for(cache, ring), &stores[s].ring, err);
    }
    return status;
}

void stores_drop(ratp_cache *cache, const struct layout *layout, struct seq_store *stores)
{
    for (uint32_t s = 0; s < layout->store_count; s++) {
        page_list_cut(layout->stores[s].pool, &stores[s].kept, 0);
        page_list_cut(layout->stores[s].pool, &stores[s].ring, 0);
        seq_mem_give(cache, &stores[s].positions);
    }
}

ratp_status seq_close(ratp_seq *seq, struct error *err)
{
    if (seq->step)
        return fail(err, RATP_WRONG_STATE,
                    "the sequence is part of an open step; commit or abort it first");
    ratp_cache *cache = seq->cache;
    stores_drop(cache, seq->layout, seq->stores);
    seq_mem_give(cache, &seq->state);
    seq_mem_give(cache, &seq->queries);
    cache->sequences--;
    *seq->link = seq->next;
    if (seq->next)
        seq->next->link = seq->link;
    atomic_fetch_sub(&cache->object.children, 1);
    layout_release(cache, seq->layout);
    free(seq->stores);
    object_fini(&seq->object);
    free(seq);
    return RATP_OK;
}

static uint64_t shared_pages(const struct page_list *list)
{
    uint64_t count = 0;
    for (uint32_t i = 0; i < list->count; i++)
        count += list->page[i]->refs > 1;
    return count;
}

void seq_describe(const ratp_seq *seq, struct ratp_seq_stats *out)
{
    out->length = seq->length;
    out->number = seq->number;
    out->bytes = seq->state.size + seq->queries.size;
    for (uint32_t s = 0; s < seq->layout->store_count; s++) {
        const struct seq_store *store = &seq->stores[s];
        uint64_t pages = (uint64_t)store->kept.count + store->ring.count;
        out->pages_shared += shared_pages(&store->kept) + shared_pages(&store->ring);
        out->pages += pages;
        out->bytes += pages * seq->layout->stores[s].pool->page_bytes + store->positions.size;
    }
}

bool variant_keeps(const struct variant *v, uint32_t length, uint32_t position)
{
    return position < v->sinks || length - position <= v->window ||
           (v->dilation && (position + 1) % v->dilation == 0);
}

/* The positions that a compressed store has for one of its slabs. */
static ratp_status compressed_positions(const ratp_seq *seq, uint32_t slab, uint32_t *positions,
                                        uint64_t room, uint64_t *count, struct error *err)
{
    uint32_t s = seq->layout->slab_store[slab], dropped = seq->stores[s].dropped;
    uint32_t capacity = seq->layout->stores[s].keep.capacity;
    *count = seq->length - dropped;
    if (!room)
        return RATP_OK;
    uint32_t *first = malloc(capacity * sizeof *first);
    if (!first)
        return fail(err, RATP_OUT_OF_MEMORY, "no host memory for %u positions", capacity);
    ratp_status status = compress_positions(seq, s, slab, first, err);
    for (uint32_t i = 0; !status && i < *count && i < room; i++)
        positions[i] = i < capacity ? first[i] : i + dropped;
    free(first);
    return status;
}

ratp_status seq_kept_positions(const ratp_seq *seq, uint32_t layer, uint32_t kv_head,
                               uint32_t *positions, uint64_t capacity, uint64_t *count,
                               struct error *err)
{
    const ratp_cache *cache = seq->cache;
    if (layer >= cache->layers)
        return fail(err, RATP_INVALID_ARGUMENT, "layer is %u, the geometry has %u", layer,
                    cache->layers);
    if (kv_head >= cache->shape.kv_heads)
        return fail(err, RATP_INVALID_ARGUMENT, "kv_head is %u, the geometry has %u", kv_head,
                    cache->shape.kv_heads);
    uint32_t slab = layer * cache->shape.kv_heads + kv_head;
    const struct store *store = seq_store_of(seq, slab);
    if (seq->stores[seq->layout->slab_store[slab]].dropped)
        return compressed_positions(seq, slab, positions, capacity, count, err);
    *count = 0;
    for (uint32_t p = 0; p < seq->length; p++)
        if (store->everything || variant_keeps(&store->keep, seq->length, p)) {
            if (*count < capacity)
                positions[*count] = p;
            ++*count;
        }
    return RATP_OK;
}
