/* The last queries of snapkv heads, as compression wants them: for each head a ring of
 * twice as many as observe. A step writes behind what the committed state may ask for, so
 * that an abort has nothing to restore, and what is left of the rest serves truncation. */
#include "cache.h"

uint64_t observe_slab_bytes(const ratp_cache *cache, const struct store *store)
{
    const struct layer_shape *shape = &cache->shape;
    uint64_t group = shape->query_heads / shape->kv_heads;
    return 2 * store->keep.observe * group * shape->head_size * sizeof(float);
}

static uint32_t ring_rows(const struct store *store)
{
    return 2 * store->keep.observe;
}

uint32_t observe_oldest(const struct store *store, const struct seq_store *held)
{
    return (held->query_at + store->keep.observe) % ring_rows(store);
}

/* How many of a step's queries are kept: the last. */
static uint32_t kept_rows(const struct store *store, const struct seq_store *held, uint32_t rows)
{
    uint32_t observe = store->keep.observe;
    uint32_t room = ring_rows(store) - (held->queries < observe ? held->queries : observe);
    return rows < room ? rows : room;
}

uint32_t observe_count(const struct store *store)
{
    return store_compresses(store);
}

void observe_list(const ratp_seq *seq, uint32_t s, uint32_t view, uint32_t rows,
                  struct gpu_observer *out)
{
    const struct store *store = &seq->layout->stores[s];
    if (!store_compresses(store))
        return;
    const struct seq_store *held = &seq->stores[s];
    uint64_t address = seq->queries.address + store->queries_at;
    uint32_t kept = kept_rows(store, held, rows);
    *out = (struct gpu_observer){
        .view = view, .token0 = rows - kept, .tokens = kept,
        .at = held->query_at, .ring = ring_rows(store),
        .queries = {(uint32_t)address, (uint32_t)(address >> 32)}};
}

void observe_commit(const struct store *store, struct seq_store *held, uint32_t rows)
{
    if (!store_compresses(store))
        return;
    uint32_t kept = kept_rows(store, held, rows), ring = ring_rows(store);
    uint32_t before = rows > kept ? 0 : held->queries;
    held->queries = before + kept < ring ? before + kept : ring;
    held->query_at = (held->query_at + kept) % ring;
}

void observe_abort(const struct store *store, struct seq_store *held, uint32_t rows)
{
    if (!store_compresses(store))
        return;
    uint32_t left = ring_rows(store) - kept_rows(store, held, rows);
    held->queries = held->queries < left ? held->queries : left;
}

void observe_truncate(const struct store *store, struct seq_store *held, uint32_t tokens)
{
    if (!store_compresses(store))
        return;
    uint32_t gone = tokens < held->queries ? tokens : held->queries, ring = ring_rows(store);
    held->queries -= gone;
    held->query_at = (held->query_at + ring - gone) % ring;
}
