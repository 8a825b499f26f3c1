/* Forks and truncation: sequences that share a past, and that lose their end. */
#include "cache.h"

/* ---- Fork ---- */

/* What is the fork's own: the memory state, and what snapkv's heads know. */
static ratp_status copy_own(const ratp_seq *from, ratp_seq *to, struct error *err)
{
    struct backend *b = from->cache->backend;
    uint64_t bytes = seq_state_bytes(from->cache), queries = from->queries.size;
    if ((!bytes && !queries) || from->length == 0)
        return RATP_OK;
    struct stream *stream;
    ticket done;
    ratp_status status = b->ops->stream_begin(b, &stream, err);
    if (status)
        return status;
    if (bytes)
        status = b->ops->copy(b, stream, &to->state, seq_state_offset(to, to->state_copy),
                              &from->state, seq_state_offset(from, from->state_copy), bytes, err);
    if (!status && queries)
        status = b->ops->copy(b, stream, &to->queries, 0, &from->queries, 0, queries, err);
    for (uint32_t s = 0; s < from->layout->store_count && !status; s++)
        if (from->stores[s].dropped)
            status = b->ops->copy(b, stream, &to->stores[s].positions, 0,
                                  &from->stores[s].positions, 0, from->stores[s].positions.size,
                                  err);
    if (status) {
        b->ops->stream_drop(b, stream);
        return status;
    }
    return b->ops->stream_submit(b, stream, &done, err);
}

ratp_status seq_copy(ratp_seq *seq, ratp_seq **out, struct error *err)
{
    ratp_cache *cache = seq->cache;
    *out = NULL;
    if (seq->step)
        return fail(err, RATP_WRONG_STATE,
                    "the sequence is part of an open step; commit or abort it before seq_fork");
    ratp_seq *fork;
    ratp_status status = seq_open(cache, seq->layout, &fork, err);
    if (status)
        return status;
    for (uint32_t s = 0; s < seq->layout->store_count && !status; s++) {
        struct pool *pool = seq->layout->stores[s].pool;
        status = page_list_share(pool, &seq->stores[s].kept, &fork->stores[s].kept, err);
        if (!status)
            status = page_list_share(pool, &seq->stores[s].ring, &fork->stores[s].ring, err);
        if (!status)
            status = seq_mem_take(cache, seq->stores[s].positions.size, "list of positions",
                                  &fork->stores[s].positions, err);
        fork->stores[s].ring_from = seq->stores[s].ring_from;
        fork->stores[s].dropped = seq->stores[s].dropped;
        fork->stores[s].query_at = seq->stores[s].query_at;
        fork->stores[s].queries = seq->stores[s].queries;
    }
    if (!status)
        status = copy_own(seq, fork, err);
    if (status) {
        struct error ignored;
        seq_close(fork, &ignored);
        return status;
    }
    fork->length = seq->length;
    fork->when = seq->when;
    *out = fork;
    return RATP_OK;
}

/* ---- Truncate ---- */

/* Whether the store can go on after `length` tokens: the next token's window is
 * there, and the newest token where the memory state comes from it. */
static bool serves(const ratp_seq *seq, uint32_t s, uint32_t length, uint32_t *missing)
{
    const struct store *store = &seq->layout->stores[s];
    struct place place;
    if (store->everything)
        return true;
    uint32_t window = store->keep.window, from = seq->stores[s].ring_from;
    *missing = length > window ? length - window : 0;
    for (; *missing < length && *missing < from; ++*missing)
        if (!store_is_fixed(store, *missing))
            return false;
    *missing = length - 1;
    return !seq->cache->shape.memory || seq_find(seq, s, length - 1, &place);
}

static ratp_status check_retained(const ratp_seq *seq, uint32_t length, struct error *err)
{
    const ratp_cache *cache = seq->cache;
    const struct layout *layout = seq->layout;
    /* Stores are numbered by their first slab. */
    for (uint32_t s = 0, slab = 0; s < layout->store_count; s++) {
        uint32_t missing = 0, dropped = seq->stores[s].dropped;
        uint32_t compressed = dropped ? dropped + layout->stores[s].keep.capacity : 0;
        while (layout->slab_store[slab] != s)
            slab++;
        if (length < compressed)
            return fail(err, RATP_NOT_RETAINED,
                        "length is %u, but layer %u was compressed after token %u: that cannot be "
                        "undone; truncate to %u or more",
                        length, slab / cache->shape.kv_heads, compressed - 1, compressed);
        if (serves(seq, s, length, &missing))
            continue;
        return fail(err, RATP_NOT_RETAINED,
                    "length is %u, but layer %u no longer holds token %u of the sequence's %u; "
                    "retention \"full\" keeps all",
                    length, slab / cache->shape.kv_heads, missing, seq->length);
    }
    return RATP_OK;
}

/* The state of a run of slabs after `length` tokens; they share a store. */
static ratp_status restore_run(ratp_seq *seq, struct stream *stream, uint32_t slab, uint32_t heads,
                               uint32_t length, struct error *err)
{
    const ratp_cache *cache = seq->cache;
    const struct layout *layout = seq->layout;
    uint32_t s = layout->slab_store[slab], slots = cache->shape.page_slots;
    struct layer_shape shape = shape_of_run(cache, heads);
    struct place place;
    if (!seq_find(seq, s, length - 1, &place))
        return fail(err, RATP_INTERNAL, "layer %u lost token %u", slab / cache->shape.kv_heads,
                    length - 1);
    const struct page_list *list = place.ring ? &seq->stores[s].ring : &seq->stores[s].kept;
    uint64_t k = list->page[place.slot / slots]->address + layout->slab_offset[slab];
    uint64_t state = seq->state.address + seq_state_offset(seq, seq->state_copy ^ 1);
    struct restore_args args = {
        .shape = &shape,
        .k = k + (uint64_t)(place.slot % slots) * shape.k_slot,
        .v = k + (uint64_t)slots * shape.k_slot + (uint64_t)(place.slot % slots) * shape.v_slot,
        .position = length - 1,
        .state = state + (uint64_t)slab * cache->slab_state_bytes,
    };
    return cache->backend->ops->restore(cache->backend, stream, &args, err);
}

/* Computes the state after `length` tokens into the copy that is not in force. */
static ratp_status restore_state(ratp_seq *seq, uint32_t length, struct error *err)
{
    const ratp_cache *cache = seq->cache;
    struct backend *b = cache->backend;
    struct stream *stream;
    ticket done;
    ratp_status status = b->ops->stream_begin(b, &stream, err);
    if (status)
        return status;
    for (uint32_t slab = 0, heads; slab < cache->slabs && !status; slab += heads) {
        heads = run_of(cache, slab, seq->layout->slab_store);
        status = restore_run(seq, stream, slab, heads, length, err);
    }
    if (status) {
        b->ops->stream_drop(b, stream);
        return status;
    }
    return b->ops->stream_submit(b, stream, &done, err);
}

ratp_status seq_cut(ratp_seq *seq, uint64_t length, struct error *err)
{
    ratp_cache *cache = seq->cache;
    if (seq->step)
        return fail(err, RATP_WRONG_STATE,
                    "the sequence is part of an open step; commit or abort it before seq_truncate");
    if (length > seq->length)
        return fail(err, RATP_INVALID_ARGUMENT, "length is %llu, the sequence has %u tokens",
                    (unsigned long long)length, seq->length);
    uint32_t left = (uint32_t)length;
    if (left == seq->length)
        return RATP_OK;
    ratp_status status = RATP_OK;
    if (left)
        status = check_retained(seq, left, err);
    if (!status && left && cache->shape.memory)
        status = restore_state(seq, left, err);
    if (status)
        return status;
    seq->state_copy ^= 1;
    for (uint32_t s = 0; s < seq->layout->store_count; s++) {
        const struct store *store = &seq->layout->stores[s];
        struct seq_store *held = &seq->stores[s];
        uint32_t ring = left < store->ring_slots ? left : store->ring_slots;
        if (!left) {
            held->dropped = 0;
            seq_mem_give(cache, &held->positions);
        }
        page_list_cut(store->pool, &held->kept,
                      pages_for(cache, store_kept(store, left) - held->dropped));
        page_list_cut(store->pool, &held->ring, pages_for(cache, ring));
        held->ring_from = held->ring_from < left ? held->ring_from : left;
        observe_truncate(store, held, seq->length - left);
    }
    seq->length = left;
    if (!left)
        seq->when = COMPRESS_AT_DECODE;
    return RATP_OK;
}
