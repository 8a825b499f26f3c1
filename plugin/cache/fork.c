/* Forks and truncation: sequences that share a past, and that lose their end. */
#include "cache.h"

/* ---- Fork ---- */

static ratp_status copy_state(const ratp_seq *from, ratp_seq *to, struct error *err)
{
    struct backend *b = from->cache->backend;
    uint64_t bytes = seq_state_bytes(from->cache);
    if (!bytes || from->length == 0)
        return RATP_OK;
    struct stream *stream;
    ticket done;
    ratp_status status = b->ops->stream_begin(b, &stream, err);
    if (status)
        return status;
    status = b->ops->copy(b, stream, &to->state, seq_state_offset(to, to->state_copy), &from->state,
                          seq_state_offset(from, from->state_copy), bytes, err);
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
    ratp_status status = seq_open(cache, &fork, err);
    if (status)
        return status;
    for (uint32_t s = 0; s < cache->store_count && !status; s++) {
        struct pool *pool = &cache->stores[s].pool;
        status = page_list_share(pool, &seq->stores[s].kept, &fork->stores[s].kept, err);
        if (!status)
            status = page_list_share(pool, &seq->stores[s].ring, &fork->stores[s].ring, err);
        fork->stores[s].ring_from = seq->stores[s].ring_from;
    }
    if (!status)
        status = copy_state(seq, fork, err);
    if (status) {
        struct error ignored;
        seq_close(fork, &ignored);
        return status;
    }
    layout_release(cache, fork->layout);
    fork->layout = seq->layout;
    fork->layout->refs++;
    fork->length = seq->length;
    *out = fork;
    return RATP_OK;
}

/* ---- Truncate ---- */

/* Where a store of a sequence holds a token. */
struct place {
    const struct page *page;
    uint32_t slot; /* within the page */
};

static bool is_fixed(const struct variant *v, uint32_t position)
{
    return position < v->sinks || (v->dilation && (position + 1) % v->dilation == 0);
}

static bool find(const ratp_seq *seq, uint32_t s, uint32_t position, struct place *place)
{
    const struct store *store = &seq->cache->stores[s];
    const struct seq_store *held = &seq->stores[s];
    uint32_t slots = seq->cache->shape.page_slots, slot = position;
    const struct page_list *list = &held->kept;
    if (!store->everything && is_fixed(&store->keep, position)) {
        slot = kept_index(position, store->keep.sinks, store->keep.dilation);
    } else if (!store->everything) {
        if (position < held->ring_from)
            return false;
        slot = position % store->ring_slots;
        list = &held->ring;
    }
    *place = (struct place){list->page[slot / slots], slot % slots};
    return true;
}

/* Whether the store can go on after `length` tokens: the next token's window is
 * there, and the newest token where the memory state comes from it. */
static bool serves(const ratp_seq *seq, uint32_t s, uint32_t length, uint32_t *missing)
{
    const struct store *store = &seq->cache->stores[s];
    struct place place;
    if (store->everything)
        return true;
    uint32_t window = store->keep.window, from = seq->stores[s].ring_from;
    *missing = length > window ? length - window : 0;
    for (; *missing < length && *missing < from; ++*missing)
        if (!is_fixed(&store->keep, *missing))
            return false;
    *missing = length - 1;
    return !seq->cache->shape.memory || find(seq, s, length - 1, &place);
}

static ratp_status check_retained(const ratp_seq *seq, uint32_t length, struct error *err)
{
    const ratp_cache *cache = seq->cache;
    for (uint32_t l = 0; l < cache->layers; l++) {
        uint32_t s = cache->layer_store[l], missing = 0;
        if (!serves(seq, s, length, &missing))
            return fail(err, RATP_NOT_RETAINED,
                        "length is %u, but layer %u no longer holds token %u of the sequence's %u; "
                        "retention \"full\" keeps all",
                        length, l, missing, seq->length);
    }
    return RATP_OK;
}

/* Computes the state after `length` tokens into the copy that is not in force. */
static ratp_status restore_state(ratp_seq *seq, uint32_t length, struct error *err)
{
    const ratp_cache *cache = seq->cache;
    struct backend *b = cache->backend;
    const struct layer_shape *shape = &cache->shape;
    struct stream *stream;
    ticket done;
    ratp_status status = b->ops->stream_begin(b, &stream, err);
    if (status)
        return status;
    uint64_t state = seq->state.address + seq_state_offset(seq, seq->state_copy ^ 1);
    for (uint32_t l = 0; l < cache->layers && !status; l++) {
        struct place place;
        if (!find(seq, cache->layer_store[l], length - 1, &place)) {
            status = fail(err, RATP_INTERNAL, "layer %u lost token %u", l, length - 1);
            break;
        }
        uint64_t k = place.page->address + cache->layer_offset[l];
        uint64_t v = k + (uint64_t)shape->kv_heads * shape->k_head;
        struct restore_args args = {
            .shape = shape,
            .k = k + (uint64_t)place.slot * shape->k_slot,
            .v = v + (uint64_t)place.slot * shape->v_slot,
            .position = length - 1,
            .state = state + (uint64_t)l * cache->state_layer_bytes,
        };
        status = b->ops->restore(b, stream, &args, err);
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
    uint32_t left = (uint32_t)length, slots = cache->shape.page_slots;
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
    seq->length = left;
    for (uint32_t s = 0; s < cache->store_count; s++) {
        struct store *store = &cache->stores[s];
        struct seq_store *held = &seq->stores[s];
        uint64_t kept = store_kept(store, left);
        page_list_cut(&store->pool, &held->kept, (uint32_t)((kept + slots - 1) / slots));
        uint32_t ring = left < store->ring_slots ? left : store->ring_slots;
        page_list_cut(&store->pool, &held->ring, (ring + slots - 1) / slots);
        held->ring_from = held->ring_from < left ? held->ring_from : left;
    }
    return RATP_OK;
}
