/* Snapshots of what heads of snapkv know beside their rows: positions, and queries. */
#include "snapshot.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_GROUP = 16384 };

uint32_t snapshot_group(const ratp_cache *cache)
{
    return cache->shape.query_heads / cache->shape.kv_heads;
}

bool snapshot_has_snapkv(const struct layout *layout, uint32_t length)
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

/* Bytes of one head's queries. */
static uint64_t queries_bytes(const ratp_cache *cache, const struct snapshot_store *s,
                              uint32_t group)
{
    return (uint64_t)s->queries * group * cache->shape.head_size * sizeof(float);
}

static uint64_t store_bytes(const ratp_cache *cache, const struct snapshot_store *s,
                            uint32_t group)
{
    return positions_bytes(s) + s->store->slabs * queries_bytes(cache, s, group);
}

uint64_t snapshot_snapkv_bytes(const ratp_cache *cache, const struct layout *layout,
                               const struct snapshot_store *stores, uint32_t group)
{
    uint64_t bytes = 0;
    for (uint32_t s = 0; s < layout->store_count; s++)
        if (store_compresses(&layout->stores[s]))
            bytes += store_bytes(cache, &stores[s], group);
    return bytes;
}

/* ---- Save ---- */

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
    uint32_t group = snapshot_group(seq->cache);
    for (uint32_t s = 0; s < seq->layout->store_count && !status; s++) {
        if (!store_compresses(&seq->layout->stores[s]))
            continue;
        if (stores[s].from)
            status = save_positions(seq, s, at, err);
        if (!status)
            status = save_queries(seq, s, at + positions_bytes(&stores[s]), err);
        at += store_bytes(seq->cache, &stores[s], group);
    }
    return status;
}

/* ---- Check ---- */

ratp_status snapshot_check_snapkv(const struct snapshot *s, struct error *err)
{
    bool any = snapshot_has_snapkv(s->layout, s->length);
    uint64_t at = s->head_end - SNAPSHOT_CHECKSUM - SNAPSHOT_SNAPKV;
    if (!any && (s->when || s->group))
        return fail(err, RATP_PARSE_ERROR,
                    "byte %llu: when is %u and group %u, without tokens of snapkv they must be 0",
                    (unsigned long long)at, (unsigned)s->when, s->group);
    if (any && (s->when > COMPRESS_WHEN_ASKED || s->group == 0 || s->group > MAX_GROUP))
        return fail(err, RATP_PARSE_ERROR,
                    "byte %llu: when is %u and group %u, they must be 0 to %d and 1 to %d",
                    (unsigned long long)at, (unsigned)s->when, s->group, COMPRESS_WHEN_ASKED,
                    MAX_GROUP);
    for (uint32_t i = 0; i < s->store_count; i++) {
        const struct snapshot_store *own = &s->stores[i];
        uint32_t most = store_compresses(own->store) ? observe_most(own->store) : 0;
        most = most < s->length ? most : s->length;
        if (own->queries > most)
            return fail(err, RATP_PARSE_ERROR,
                        "byte %llu: store %u has %u queries of %u tokens, it may have %u",
                        (unsigned long long)(at - (uint64_t)SNAPSHOT_STORE * (s->store_count - i) +
                                             SNAPSHOT_STORE - 4),
                        i, own->queries, s->length, most);
    }
    return RATP_OK;
}

/* The positions of one slab, which stand from byte `at` on. */
static ratp_status check_positions(const struct snapshot_store *s, const uint32_t *positions,
                                   uint64_t at, struct error *err)
{
    uint32_t capacity = s->store->keep.capacity, observe = s->store->keep.observe, least = 0;
    for (uint32_t i = 0; i < capacity; i++) {
        uint32_t position = positions[i], slot = s->from + i;
        bool observes = i >= capacity - observe; /* those are the last of all */
        if (position > slot || position < (observes ? slot : least))
            return fail(err, RATP_PARSE_ERROR,
                        "byte %llu: kept token %u is %u, it must be %u to %u",
                        (unsigned long long)(at + i * sizeof position), i, position,
                        observes ? slot : least, slot);
        least = position + 1;
    }
    return RATP_OK;
}

static ratp_status read_store(const struct snapshot *s, struct snapshot_store *own, uint64_t at,
                              struct error *err)
{
    uint32_t capacity = own->store->keep.capacity;
    uint64_t bytes = positions_bytes(own);
    own->positions = malloc((size_t)bytes);
    if (!own->positions)
        return fail(err, RATP_OUT_OF_MEMORY, "no host memory for %llu bytes of positions",
                    (unsigned long long)bytes);
    unsigned char *data = (unsigned char *)own->positions;
    ratp_status status = snapshot_read(&s->from, at, bytes, data, err);
    for (uint64_t i = 0; i < bytes / sizeof(uint32_t) && !status; i++)
        own->positions[i] = get_u32(data + i * sizeof(uint32_t));
    for (uint64_t slab = 0; slab < own->store->slabs && !status; slab++)
        status = check_positions(own, own->positions + slab * capacity,
                                 at + slab * capacity * sizeof(uint32_t), err);
    return status;
}

ratp_status snapshot_read_positions(struct snapshot *s, struct error *err)
{
    ratp_status status = RATP_OK;
    uint64_t at = s->snapkv;
    for (uint32_t i = 0; i < s->store_count && !status; i++) {
        struct snapshot_store *own = &s->stores[i];
        if (!store_compresses(own->store))
            continue;
        if (own->from)
            status = read_store(s, own, at, err);
        at += store_bytes(s->cache, own, s->group);
    }
    return status;
}

/* ---- Load ---- */

/* The queries of a store, which stand from byte `at` on. */
static ratp_status load_queries(ratp_seq *seq, uint32_t index, const struct snapshot *s,
                                uint64_t at, struct error *err)
{
    const ratp_cache *cache = seq->cache;
    const struct store *store = &seq->layout->stores[index];
    uint64_t slab_bytes = observe_slab_bytes(cache, store);
    uint32_t queries = s->stores[index].queries, ring = observe_ring(store);
    uint64_t bytes = queries_bytes(cache, &s->stores[index], s->group);
    unsigned char *rows = malloc((size_t)bytes);
    if (!rows)
        return fail(err, RATP_OUT_OF_MEMORY, "no host memory for %u queries", queries);
    ratp_status status = RATP_OK;
    for (uint32_t slab = 0; slab < store->slabs && !status; slab++, at += bytes) {
        status = snapshot_read(&s->from, at, bytes, rows, err);
        for (uint64_t i = 0; i < bytes && !status; i += sizeof(float)) {
            uint32_t bits = get_u32(rows + i);
            memcpy(rows + i, &bits, sizeof bits);
        }
        if (!status)
            status = cache->backend->ops->mem_write(cache->backend, &seq->queries,
                                                    store->queries_at + slab * slab_bytes, rows,
                                                    bytes, err);
    }
    free(rows);
    seq->stores[index].queries = queries;
    seq->stores[index].query_at = queries % ring;
    return status;
}

static ratp_status load_positions(ratp_seq *seq, uint32_t index, const struct snapshot_store *own,
                                  struct error *err)
{
    struct backend *b = seq->cache->backend;
    struct mem *positions = &seq->stores[index].positions;
    uint64_t bytes = positions_bytes(own);
    ratp_status status = seq_mem_take(seq->cache, bytes, "list of positions", positions, err);
    return status ? status : b->ops->mem_write(b, positions, 0, own->positions, bytes, err);
}

ratp_status snapshot_load_snapkv(ratp_seq *seq, const struct snapshot *s, struct error *err)
{
    ratp_status status = RATP_OK;
    uint64_t at = s->snapkv;
    seq->when = s->when;
    for (uint32_t i = 0; i < s->store_count && !status; i++) {
        const struct snapshot_store *own = &s->stores[i];
        if (!store_compresses(own->store))
            continue;
        if (own->from)
            status = load_positions(seq, i, own, err);
        /* Those of another number of heads say nothing here. */
        if (!status && own->queries && s->group == snapshot_group(seq->cache))
            status = load_queries(seq, i, s, at + positions_bytes(own), err);
        at += store_bytes(s->cache, own, s->group);
    }
    return status;
}
