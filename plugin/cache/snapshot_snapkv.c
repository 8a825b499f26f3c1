/* Snapshots of what heads of snapkv know beside their rows: positions, and queries. */
#include "snapshot.h"

#include <stdlib.h>

enum { HEAD = 8, MAX_GROUP = 16384 };

static uint32_t group_of(const ratp_cache *cache)
{
    return cache->shape.query_heads / cache->shape.kv_heads;
}

/* Whether a snapshot of the layout has any of it. */
static bool has_any(const struct layout *layout, uint32_t length)
{
    for (uint32_t s = 0; s < layout->store_count && length; s++)
        if (store_compresses(&layout->stores[s]))
            return true;
    return false;
}

static uint64_t positions_bytes(const struct snapshot_store *s)
{
    return s->from ? (uint64_t)s->store->slabs * s->store->keep.capacity * sizeof(uint32_t) : 0;
}

/* Bytes of a store with so many queries of so many heads. */
static uint64_t store_bytes(const ratp_cache *cache, const struct snapshot_store *s,
                            uint32_t queries, uint32_t group)
{
    return sizeof(uint32_t) + positions_bytes(s) +
           (uint64_t)s->store->slabs * queries * group * cache->shape.head_size * sizeof(float);
}

/* ---- Save ---- */

uint64_t snapshot_snapkv_bytes(const ratp_seq *seq, const struct snapshot_store *stores)
{
    const struct layout *layout = seq->layout;
    uint64_t bytes = has_any(layout, seq->length) ? HEAD : 0;
    for (uint32_t s = 0; bytes && s < layout->store_count; s++)
        if (store_compresses(&layout->stores[s]))
            bytes += store_bytes(seq->cache, &stores[s], seq->stores[s].queries,
                                 group_of(seq->cache));
    return bytes;
}

/* From the oldest query on. */
static ratp_status save_queries(const ratp_seq *seq, uint32_t s, unsigned char *at,
                                struct error *err)
{
    const ratp_cache *cache = seq->cache;
    const struct store *store = &seq->layout->stores[s];
    uint64_t slab_bytes = observe_slab_bytes(cache, store);
    uint32_t ring = observe_ring(store), count = seq->stores[s].queries;
    uint64_t values = slab_bytes / ring / sizeof(float);
    float *rows = malloc((size_t)slab_bytes);
    if (!rows)
        return fail(err, RATP_OUT_OF_MEMORY, "no host memory for %u queries", ring);
    ratp_status status = RATP_OK;
    for (uint32_t slab = 0; slab < store->slabs && count && !status; slab++) {
        status = cache->backend->ops->mem_read(cache->backend, &seq->queries,
                                               store->queries_at + slab * slab_bytes, rows,
                                               slab_bytes, err);
        for (uint32_t i = 0; i < count && !status; i++) {
            const float *row = rows + (seq->stores[s].query_at + ring - count + i) % ring * values;
            for (uint64_t c = 0; c < values; c++)
                at = put_u32(at, bits_of_float(row[c]));
        }
    }
    free(rows);
    return status;
}

static ratp_status save_positions(const ratp_seq *seq, uint32_t s, unsigned char *at,
                                  struct error *err)
{
    const struct store *store = &seq->layout->stores[s];
    size_t count = (size_t)store->slabs * store->keep.capacity;
    uint32_t *positions = malloc(count * sizeof *positions);
    if (!positions)
        return fail(err, RATP_OUT_OF_MEMORY, "no host memory for %zu positions", count);
    ratp_status status = compress_positions(seq, s, UINT32_MAX, positions, err);
    for (size_t i = 0; i < count && !status; i++)
        at = put_u32(at, positions[i]);
    free(positions);
    return status;
}

ratp_status snapshot_save_snapkv(const ratp_seq *seq, const struct snapshot_store *stores,
                                 unsigned char *at, struct error *err)
{
    ratp_status status = RATP_OK;
    at = put_u32(at, seq->when);
    at = put_u32(at, group_of(seq->cache));
    for (uint32_t s = 0; s < seq->layout->store_count && !status; s++) {
        if (!store_compresses(&seq->layout->stores[s]))
            continue;
        uint32_t queries = seq->stores[s].queries;
        unsigned char *rows = put_u32(at, queries);
        if (stores[s].from)
            status = save_positions(seq, s, rows, err);
        if (!status)
            status = save_queries(seq, s, rows + positions_bytes(&stores[s]), err);
        at += store_bytes(seq->cache, &stores[s], queries, group_of(seq->cache));
    }
    return status;
}

/* ---- Check ---- */

/* The positions of one slab, from byte `at` on. */
static ratp_status check_positions(const struct snapshot_store *s, const unsigned char *data,
                                   uint64_t at, struct error *err)
{
    uint32_t capacity = s->store->keep.capacity, observe = s->store->keep.observe, least = 0;
    for (uint32_t i = 0; i < capacity; i++, at += sizeof(uint32_t)) {
        uint32_t position = get_u32(data + at), slot = s->from + i;
        bool observes = i >= capacity - observe; /* those are the last of all */
        if (position > slot || position < (observes ? slot : least))
            return fail(err, RATP_PARSE_ERROR,
                        "byte %llu: kept token %u is %u, it must be %u to %u",
                        (unsigned long long)at, i, position, observes ? slot : least, slot);
        least = position + 1;
    }
    return RATP_OK;
}

static ratp_status check_store(const ratp_cache *cache, const struct snapshot_store *s,
                               uint32_t index, uint32_t group, const unsigned char *data,
                               uint64_t end, uint64_t *at, struct error *err)
{
    ratp_status status = snapshot_need(*at, end, sizeof(uint32_t), "queries", err);
    if (status)
        return status;
    uint32_t queries = get_u32(data + *at), most = observe_most(s->store);
    most = most < s->length ? most : s->length;
    if (queries > most)
        return fail(err, RATP_PARSE_ERROR,
                    "byte %llu: store %u has %u queries of %u tokens, it may have %u",
                    (unsigned long long)*at, index, queries, s->length, most);
    uint64_t bytes = store_bytes(cache, s, queries, group);
    status = snapshot_need(*at, end, bytes, "queries", err);
    for (uint32_t slab = 0; slab < s->store->slabs && s->from && !status; slab++)
        status = check_positions(s, data, *at + sizeof(uint32_t) * (1 + (uint64_t)slab *
                                                                        s->store->keep.capacity),
                                 err);
    *at += bytes;
    return status;
}

ratp_status snapshot_check_snapkv(const ratp_cache *cache, const struct layout *layout,
                                  const struct snapshot_store *stores, const unsigned char *data,
                                  uint64_t end, uint64_t *at, struct error *err)
{
    if (!has_any(layout, stores[0].length))
        return RATP_OK;
    unsigned long long begin = *at;
    if (*at > end)
        return fail(err, RATP_PARSE_ERROR,
                    "byte %llu: the rows of %u tokens are to end at byte %llu",
                    (unsigned long long)end, stores[0].length, begin);
    ratp_status status = snapshot_need(*at, end, HEAD, "snapkv", err);
    if (status)
        return status;
    uint32_t when = get_u32(data + *at), group = get_u32(data + *at + 4);
    if (when > COMPRESS_WHEN_ASKED || group == 0 || group > MAX_GROUP)
        return fail(err, RATP_PARSE_ERROR,
                    "byte %llu: when is %u and group %u, they must be 0 to %d and 1 to %d", begin,
                    when, group, COMPRESS_WHEN_ASKED, MAX_GROUP);
    *at += HEAD;
    for (uint32_t s = 0; s < layout->store_count && !status; s++)
        if (store_compresses(&layout->stores[s]))
            status = check_store(cache, &stores[s], s, group, data, end, at, err);
    return status;
}

/* ---- Load ---- */

static ratp_status load_queries(ratp_seq *seq, uint32_t s, uint32_t queries,
                                const unsigned char *at, struct error *err)
{
    const ratp_cache *cache = seq->cache;
    const struct store *store = &seq->layout->stores[s];
    uint64_t slab_bytes = observe_slab_bytes(cache, store);
    uint32_t ring = observe_ring(store);
    uint64_t bytes = slab_bytes / ring * queries;
    float *rows = malloc((size_t)bytes);
    if (!rows)
        return fail(err, RATP_OUT_OF_MEMORY, "no host memory for %u queries", queries);
    ratp_status status = RATP_OK;
    for (uint32_t slab = 0; slab < store->slabs && !status; slab++) {
        for (uint64_t i = 0; i < bytes / sizeof(float); i++, at += sizeof(float)) {
            union {
                uint32_t bits;
                float value;
            } x = {get_u32(at)};
            rows[i] = x.value;
        }
        status = cache->backend->ops->mem_write(cache->backend, &seq->queries,
                                                store->queries_at + slab * slab_bytes, rows, bytes,
                                                err);
    }
    free(rows);
    seq->stores[s].queries = queries;
    seq->stores[s].query_at = queries % ring;
    return status;
}

static ratp_status load_positions(ratp_seq *seq, uint32_t s, const unsigned char *at,
                                  struct error *err)
{
    ratp_cache *cache = seq->cache;
    const struct store *store = &seq->layout->stores[s];
    struct mem *positions = &seq->stores[s].positions;
    uint64_t count = (uint64_t)store->slabs * store->keep.capacity;
    uint32_t *values = malloc((size_t)count * sizeof *values);
    if (!values)
        return fail(err, RATP_OUT_OF_MEMORY, "no host memory for %llu positions",
                    (unsigned long long)count);
    for (uint64_t i = 0; i < count; i++)
        values[i] = get_u32(at + i * sizeof *values);
    ratp_status status =
        seq_mem_take(cache, count * sizeof *values, "list of positions", positions, err);
    if (!status)
        status = cache->backend->ops->mem_write(cache->backend, positions, 0, values,
                                                count * sizeof *values, err);
    free(values);
    return status;
}

ratp_status snapshot_load_snapkv(ratp_seq *seq, const struct snapshot_store *stores,
                                 const unsigned char *at, struct error *err)
{
    uint32_t group = get_u32(at + 4);
    ratp_status status = RATP_OK;
    seq->when = (enum compress_when)get_u32(at);
    at += HEAD;
    for (uint32_t s = 0; s < seq->layout->store_count && !status; s++) {
        if (!store_compresses(&seq->layout->stores[s]))
            continue;
        uint32_t queries = get_u32(at);
        const unsigned char *rows = at + sizeof(uint32_t);
        if (stores[s].from)
            status = load_positions(seq, s, rows, err);
        /* Those of another number of heads say nothing here. */
        if (!status && queries && group == group_of(seq->cache))
            status = load_queries(seq, s, queries, rows + positions_bytes(&stores[s]), err);
        at += store_bytes(seq->cache, &stores[s], queries, group);
    }
    return status;
}
