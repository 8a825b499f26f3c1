#include "cache.h"

#include "../dtype.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { DEFAULT_PAGE_SLOTS = 64, DEFAULT_TOKENS = 1 << 20, MAX_TOKENS = 1 << 24 };

static ratp_status in_range(const char *name, uint32_t value, uint32_t low, uint32_t high,
                            uint32_t multiple, struct error *err)
{
    if (value >= low && value <= high && value % multiple == 0)
        return RATP_OK;
    if (multiple > 1)
        return fail(err, RATP_INVALID_ARGUMENT,
                    "%s is %u, it must be a multiple of %u from %u to %u", name, value, multiple,
                    low, high);
    return fail(err, RATP_INVALID_ARGUMENT, "%s is %u, it must be from %u to %u", name, value, low,
                high);
}

static ratp_status check_geometry(const struct ratp_geometry *g, const struct ratp_rope *rope,
                                  struct error *err)
{
    uint32_t value_size = g->value_size ? g->value_size : g->head_size;
    uint32_t total = g->total_kv_heads ? g->total_kv_heads : g->kv_heads;
    ratp_status status = in_range("geometry.layers", g->layers, 1, 4096, 1, err);
    if (!status)
        status = in_range("geometry.kv_heads", g->kv_heads, 1, 1024, 1, err);
    if (!status)
        status = in_range("geometry.query_heads", g->query_heads, g->kv_heads, 16384, g->kv_heads,
                          err);
    if (!status)
        status = in_range("geometry.head_size", g->head_size, 8, 256, 8, err);
    if (!status)
        status = in_range("geometry.value_size", value_size, 8, 256, 8, err);
    if (!status && g->max_tokens)
        status = in_range("geometry.max_tokens", g->max_tokens, 1, MAX_TOKENS, 1, err);
    if (!status && (g->first_kv_head >= total || total - g->first_kv_head < g->kv_heads))
        status = fail(err, RATP_INVALID_ARGUMENT,
                      "geometry.first_kv_head is %u, with kv_heads = %u it must be at most %u "
                      "(total_kv_heads = %u)",
                      g->first_kv_head, g->kv_heads, total > g->kv_heads ? total - g->kv_heads : 0,
                      total);
    if (!status && g->memory && value_size != g->head_size)
        status = fail(err, RATP_INVALID_ARGUMENT,
                      "geometry.value_size is %u, with memory it must equal head_size = %u",
                      value_size, g->head_size);
    if (!status && !(isfinite(g->scale) && isfinite(g->softcap) && g->softcap >= 0))
        status = fail(err, RATP_INVALID_ARGUMENT,
                      "geometry.scale is %g and softcap %g, they must be finite, softcap not "
                      "negative",
                      (double)g->scale, (double)g->softcap);
    if (!status && rope)
        status = rope_check(rope, g->head_size, err);
    return status;
}

static ratp_status cache_dtype(const char *name, ratp_dtype dtype, const char *size_name,
                               uint32_t size, ratp_dtype *out, struct error *err)
{
    *out = dtype == RATP_DTYPE_DEFAULT ? RATP_F16 : dtype;
    if (*out == RATP_Q4_0)
        return fail(err, RATP_INVALID_ARGUMENT,
                    "%s is q4_0, which is for attend_external; a cache's may be float32, float16, "
                    "bfloat16 or q8_0",
                    name);
    if (*out < RATP_F32 || *out > RATP_Q8_0)
        return fail(err, RATP_INVALID_ARGUMENT,
                    "%s is %d, known are %d (float32), %d (float16), %d (bfloat16) and %d (q8_0)",
                    name, (int)dtype, RATP_F32, RATP_F16, RATP_BF16, RATP_Q8_0);
    if (*out == RATP_Q8_0 && size % 32)
        return fail(err, RATP_UNSUPPORTED,
                    "%s is q8_0 and %s is %u: q8_0 needs a multiple of 32", name, size_name, size);
    return RATP_OK;
}

static void fill_shape(struct layer_shape *s, const struct ratp_geometry *g, uint32_t page_slots)
{
    s->query_heads = g->query_heads;
    s->kv_heads = g->kv_heads;
    s->head_size = g->head_size;
    s->value_size = g->value_size ? g->value_size : g->head_size;
    s->scale = g->scale != 0 ? g->scale : 1 / sqrtf((float)g->head_size);
    s->softcap = g->softcap;
    s->memory = g->memory != 0;
    s->page_slots = page_slots;
    s->k_slot = (uint32_t)dtype_row_bytes(s->k_dtype, s->head_size);
    s->v_slot = (uint32_t)dtype_row_bytes(s->v_dtype, s->value_size);
    s->k_head = s->v_head = (s->k_slot + s->v_slot) * page_slots;
}

/* Shaders add offsets inside of a page and of a state as 32 bits. */
static ratp_status check_sizes(ratp_cache *cache, struct error *err)
{
    const struct layer_shape *s = &cache->shape;
    uint64_t layer = (uint64_t)s->kv_heads * s->k_head;
    if (layer > cache->block_bytes)
        return fail(err, RATP_INVALID_ARGUMENT,
                    "page_slots is %u: a page of one layer with %u key/value heads takes %llu "
                    "bytes, the limit is %llu",
                    s->page_slots, s->kv_heads, (unsigned long long)layer,
                    (unsigned long long)cache->block_bytes);
    uint64_t states = (uint64_t)cache->slabs * cache->slab_state_bytes;
    if (states > UINT32_MAX)
        return fail(err, RATP_INVALID_ARGUMENT,
                    "geometry.layers is %u: with %u bytes a layer the memory state of a sequence "
                    "takes %llu bytes, the limit is %u",
                    cache->layers, s->kv_heads * cache->slab_state_bytes,
                    (unsigned long long)states, UINT32_MAX);
    cache->slab_bytes = s->k_head;
    return RATP_OK;
}

static void destroy(ratp_cache *cache)
{
    const struct backend_ops *ops = cache->backend->ops;
    spares_remove(&cache->device->spares, &cache->spare);
    pool_trim(cache, 0);
    for (uint32_t i = 0; i < CACHE_FRAMES; i++)
        ops->mem_free_spare(cache->backend, &cache->frames[i].params);
    ops->mem_free_spare(cache->backend, &cache->scratch);
    ops->mem_free_spare(cache->backend, &cache->rope);
    free(cache->factors);
    if (cache->layout)
        layout_release(cache, cache->layout);
    free(cache->buckets);
    while (cache->pools) {
        struct pool *next = cache->pools->next;
        free(cache->pools);
        cache->pools = next;
    }
    lock_fini(&cache->memory_lock);
    object_fini(&cache->object);
    free(cache);
}

ratp_status cache_open(ratp_device *device, const struct ratp_geometry *g,
                       const struct ratp_rope *rope, const struct ratp_policy *policy,
                       const struct ratp_cache_params *params, ratp_cache **out,
                       struct error *err)
{
    *out = NULL;
    ratp_status status = check_geometry(g, rope, err);
    uint32_t page_slots = params->page_slots ? params->page_slots : DEFAULT_PAGE_SLOTS;
    if (!status)
        status = in_range("page_slots", page_slots, 8, 4096, 8, err);
    if (!status && (params->retention < RATP_RETAIN_FULL || params->retention > RATP_RETAIN_NEEDED))
        status = fail(err, RATP_INVALID_ARGUMENT, "retention is %d, known are %d and %d",
                      (int)params->retention, RATP_RETAIN_FULL, RATP_RETAIN_NEEDED);
    if (status)
        return status;

    ratp_cache *cache = calloc(1, sizeof *cache);
    if (!cache)
        return fail(err, RATP_OUT_OF_MEMORY, "no host memory for a cache");
    object_init(&cache->object, OBJECT_CACHE);
    struct ratp_device_info info = {0};
    device->backend->ops->info(device->backend, &info);
    cache->device = device;
    cache->backend = device->backend;
    lock_init(&cache->memory_lock);
    cache->spare.give_back = cache_give_back;
    spares_add(&device->spares, &cache->spare);
    cache->layers = g->layers;
    cache->max_tokens = g->max_tokens ? g->max_tokens : DEFAULT_TOKENS;
    cache->first_kv_head = g->first_kv_head;
    cache->total_kv_heads = g->total_kv_heads ? g->total_kv_heads : g->kv_heads;
    cache->retention = params->retention;
    cache->budget = params->budget ? params->budget : UINT64_MAX;
    /* Shaders add a layer's offset to an address as 32 bits. */
    cache->block_bytes = info.max_allocation < UINT32_MAX ? info.max_allocation : UINT32_MAX;
    cache->slabs = g->layers * g->kv_heads;
    status = cache_dtype("k_dtype", params->k_dtype, "geometry.head_size", g->head_size,
                         &cache->shape.k_dtype, err);
    if (!status)
        status = cache_dtype("v_dtype", params->v_dtype, "geometry.value_size",
                             g->value_size ? g->value_size : g->head_size, &cache->shape.v_dtype,
                             err);
    if (status)
        goto error;
    fill_shape(&cache->shape, g, page_slots);
    cache->shape.max_tokens = cache->max_tokens;
    if (g->memory)
        cache->slab_state_bytes = 2 * g->head_size * (uint32_t)sizeof(float);
    status = check_sizes(cache, err);
    if (!status)
        status = layout_take(cache, policy, &cache->layout, err);
    if (!status)
        status = rope_open(cache, rope, err);
    if (status)
        goto error;
    atomic_fetch_add(&device->object.children, 1);
    *out = cache;
    return RATP_OK;

error:
    destroy(cache);
    return status;
}

ratp_status cache_close(ratp_cache *cache, struct error *err)
{
    unsigned children = atomic_load(&cache->object.children);
    if (children)
        return fail(err, RATP_WRONG_STATE,
                    "the cache still has %u sequences or steps; destroy them first", children);
    atomic_fetch_sub(&cache->device->object.children, 1);
    destroy(cache);
    return RATP_OK;
}

ratp_status cache_enter(ratp_cache *cache, struct error *err)
{
    if (atomic_exchange_explicit(&cache->busy, true, memory_order_acquire))
        return fail(err, RATP_WRONG_STATE,
                    "another thread is inside a call on this cache, or on a sequence or step of "
                    "it; let one thread at a time use a cache");
    cache->blocks_before = cache->blocks_made;
    return RATP_OK;
}

ratp_status cache_leave(ratp_cache *cache, ratp_status status)
{
    if (status)
        pool_trim(cache, cache->blocks_before);
    atomic_store_explicit(&cache->busy, false, memory_order_release);
    return status;
}

void cache_describe(ratp_cache *cache, struct ratp_cache_stats *out)
{
    out->budget_bytes = cache->budget == UINT64_MAX ? 0 : cache->budget;
    out->sequences = cache->sequences;
    lock_take(&cache->memory_lock);
    for (uint32_t i = 0; i < CACHE_FRAMES; i++)
        out->scratch_bytes += cache->frames[i].params.size;
    out->state_bytes = cache->state_bytes;
    out->scratch_bytes += cache->scratch.size;
    for (const struct pool *pool = cache->pools; pool; pool = pool->next) {
        out->pool_bytes += pool->pages * pool->page_bytes;
        out->used_bytes += pool->used * pool->page_bytes;
        out->pages_total += pool->pages;
        out->pages_used += pool->used;
        out->pages_free += pool->pages - pool->used;
        out->pages_shared += pool->shared;
    }
    lock_give(&cache->memory_lock);
    for (const struct layout *layout = cache->layouts; layout; layout = layout->next)
        for (uint32_t s = 0; s < layout->store_count; s++)
            if (layout->stores[s].pool->page_bytes > out->page_bytes)
                out->page_bytes = layout->stores[s].pool->page_bytes;
}
