#include "cache.h"

#include <stdlib.h>

static uint64_t state_size(const ratp_cache *cache)
{
    return 2 * (uint64_t)cache->layers * cache->state_layer_bytes;
}

ratp_status seq_open(ratp_cache *cache, ratp_seq **out, struct error *err)
{
    *out = NULL;
    ratp_seq *seq = calloc(1, sizeof *seq);
    struct seq_store *stores = calloc(cache->store_count, sizeof *stores);
    ratp_status status = RATP_OK;
    if (!seq || !stores) {
        status = fail(err, RATP_OUT_OF_MEMORY, "no host memory for a sequence");
        goto error;
    }
    uint64_t bytes = state_size(cache);
    if (bytes > cache->budget - cache->budget_used)
        pool_trim(cache);
    if (bytes > cache->budget - cache->budget_used) {
        status = fail(err, RATP_CACHE_FULL,
                      "the cache is full: a memory state takes %llu bytes, the budget is %llu bytes "
                      "and %llu are in use",
                      (unsigned long long)bytes, (unsigned long long)cache->budget,
                      (unsigned long long)cache->budget_used);
        goto error;
    }
    if (bytes)
        status = cache->backend->ops->mem_alloc(cache->backend, bytes, MEM_DEVICE, "memory state",
                                                &seq->state, err);
    if (status)
        goto error;
    cache->budget_used += bytes;
    cache->state_bytes += bytes;
    cache->sequences++;
    object_init(&seq->object, OBJECT_SEQ);
    seq->cache = cache;
    seq->stores = stores;
    atomic_fetch_add(&cache->object.children, 1);
    *out = seq;
    return RATP_OK;

error:
    free(seq);
    free(stores);
    return status;
}

ratp_status seq_close(ratp_seq *seq, struct error *err)
{
    if (seq->step)
        return fail(err, RATP_WRONG_STATE,
                    "the sequence is part of an open step; commit or abort it first");
    ratp_cache *cache = seq->cache;
    for (uint32_t s = 0; s < cache->store_count; s++) {
        page_list_cut(&cache->stores[s].pool, &seq->stores[s].kept, 0);
        page_list_cut(&cache->stores[s].pool, &seq->stores[s].ring, 0);
    }
    cache->budget_used -= state_size(cache);
    cache->state_bytes -= state_size(cache);
    cache->sequences--;
    if (seq->state.size)
        cache->backend->ops->mem_free(cache->backend, &seq->state);
    atomic_fetch_sub(&cache->object.children, 1);
    free(seq->stores);
    object_fini(&seq->object);
    free(seq);
    return RATP_OK;
}

void seq_describe(const ratp_seq *seq, struct ratp_seq_stats *out)
{
    out->length = seq->length;
    out->bytes = seq->state.size;
    for (uint32_t s = 0; s < seq->cache->store_count; s++) {
        uint64_t pages = (uint64_t)seq->stores[s].kept.count + seq->stores[s].ring.count;
        out->pages += pages;
        out->bytes += pages * seq->cache->stores[s].pool.page_bytes;
    }
}

static bool is_kept(const struct store *store, uint32_t length, uint32_t position)
{
    const struct variant *v = &store->keep;
    return store->everything || position < v->sinks || length - position <= v->window ||
           (v->dilation && (position + 1) % v->dilation == 0);
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
    const struct store *store = &cache->stores[cache->classes[cache->layer_class[layer]].store];
    *count = 0;
    for (uint32_t p = 0; p < seq->length; p++)
        if (is_kept(store, seq->length, p)) {
            if (*count < capacity)
                positions[*count] = p;
            ++*count;
        }
    return RATP_OK;
}
