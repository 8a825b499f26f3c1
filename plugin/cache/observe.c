/* The last queries of snapkv heads, as compression wants them: for each head a ring. Known
 * are at most twice as many as observe, so that truncation may take back that many tokens;
 * the ring has room for as many as observe beside them. A step writes there alone, so that
 * an abort has nothing to restore. */
#include "cache.h"

uint64_t observe_slab_bytes(const ratp_cache *cache, const struct store *store)
{
    const struct layer_shape *shape = &cache->shape;
    uint64_t group = shape->query_heads / shape->kv_heads;
    return observe_ring(store) * group * shape->head_size * sizeof(float);
}

uint32_t observe_ring(const struct store *store)
{
    return 3 * store->keep.observe;
}

uint32_t observe_most(const struct store *store)
{
    return 2 * store->keep.observe;
}

uint32_t observe_oldest(const struct store *store, const struct seq_store *held)
{
    uint32_t ring = observe_ring(store);
    return (held->query_at + ring - store->keep.observe) % ring;
}

/* How many of a step's queries are kept: the last. */
static uint32_t kept_rows(const struct store *store, const struct seq_store *held, uint32_t rows)
{
    uint32_t room = observe_ring(store) - held->queries, most = observe_most(store);
    room = room < most ? room : most;
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
        .at = held->query_at, .ring = observe_ring(store),
        .queries = {(uint32_t)address, (uint32_t)(address >> 32)}};
}

void observe_commit(const struct store *store, struct seq_store *held, uint32_t rows)
{
    if (!store_compresses(store))
        return;
    uint32_t kept = kept_rows(store, held, rows), most = observe_most(store);
    uint32_t before = rows > kept ? 0 : held->queries;
    held->queries = before + kept < most ? before + kept : most;
    held->query_at = (held->query_at + kept) % observe_ring(store);
}

void observe_truncate(const struct store *store, struct seq_store *held, uint32_t tokens)
{
    if (!store_compresses(store))
        return;
    uint32_t gone = tokens < held->queries ? tokens : held->queries, ring = observe_ring(store);
    held->queries -= gone;
    held->query_at = (held->query_at + ring - gone) % ring;
}
