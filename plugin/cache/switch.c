/* A sequence changes its policy: what it holds is sorted into the new one's stores. */
#include "../index.h"
#include "../plan/build.h"
#include "cache.h"

#include <stdlib.h>
#include <string.h>

enum { NO_STORE = UINT32_MAX };

/* Where the lists of a store begin in the page list. */
struct span {
    uint32_t kept, ring;
};

/* What a switch is about to make. */
struct change {
    ratp_seq *seq;
    struct layout *to;
    struct seq_store *stores; /* [to->store_count] */
    struct mem queries;       /* to->queries_bytes */
    uint32_t *goes_on;        /* [to->store_count] the snapkv store that this one is more of, or
                                 NO_STORE: it keeps slots, positions and queries */
    uint32_t **positions;     /* [old store_count] of compressed stores: compress_positions */
    uint32_t *slab_class;     /* [slabs] slabs with the same stores, before and after */
    uint32_t *class_slab;     /* [class_count] the first of its slabs */
    uint32_t class_count;
    struct span *from_spans, *to_spans; /* [store_count] of each */
    struct plan_class *classes;
    struct plan plan;
};

static bool same_stores(const ratp_cache *cache, const struct layout *a, const struct layout *b)
{
    if (a->store_count != b->store_count)
        return false;
    for (uint32_t s = 0; s < a->store_count; s++)
        if (a->stores[s].everything != b->stores[s].everything ||
            !summary_equal(&a->stores[s].summaries[0], &b->stores[s].summaries[0]) ||
            !summary_equal(&a->stores[s].summaries[1], &b->stores[s].summaries[1]) ||
            ((!a->stores[s].everything || store_compresses(&a->stores[s]) ||
              store_compresses(&b->stores[s])) &&
             !variant_equal(&a->stores[s].keep, &b->stores[s].keep)))
            return false;
    return memcmp(a->slab_store, b->slab_store, cache->slabs * sizeof *a->slab_store) == 0;
}

/* Which snapkv stores go on: with the variant that they had, and heads of one old store. */
static void find_going_on(struct change *change)
{
    const ratp_cache *cache = change->seq->cache;
    const struct layout *from = change->seq->layout, *to = change->to;
    uint32_t met = 0; /* stores are numbered by their first slab */
    for (uint32_t slab = 0; slab < cache->slabs; slab++) {
        uint32_t s = to->slab_store[slab], old = from->slab_store[slab];
        if (s == met) {
            bool same = store_compresses(&to->stores[s]) &&
                        variant_equal(&to->stores[s].keep, &from->stores[old].keep);
            change->goes_on[s] = same ? old : NO_STORE;
            met++;
        } else if (change->goes_on[s] != old) {
            change->goes_on[s] = NO_STORE;
        }
    }
}

/* Whether two slabs that have the same stores also have the same tokens to move. */
static bool same_moves(const struct change *change, uint32_t slab)
{
    return !change->seq->stores[change->seq->layout->slab_store[slab]].dropped ||
           change->goes_on[change->to->slab_store[slab]] != NO_STORE;
}

/* The slot of the class of slabs with the same stores, before and after. */
static uint32_t *find_class(const struct change *change, const struct index *index, uint32_t slab)
{
    const uint32_t *from = change->seq->layout->slab_store, *to = change->to->slab_store;
    const uint32_t *first = change->class_slab;
    uint32_t *slot = index_first(index, hash_add(hash_add(0, from[slab]), to[slab]));
    while (*slot != INDEX_NONE &&
           (from[first[*slot]] != from[slab] || to[first[*slot]] != to[slab]))
        slot = index_next(index, slot);
    return slot;
}

static ratp_status sort_slabs(struct change *change, struct error *err)
{
    const ratp_cache *cache = change->seq->cache;
    const struct layout *from = change->seq->layout, *to = change->to;
    change->stores = calloc(to->store_count, sizeof *change->stores);
    change->slab_class = calloc(cache->slabs, sizeof *change->slab_class);
    change->class_slab = calloc(cache->slabs, sizeof *change->class_slab);
    change->classes = calloc(cache->slabs, sizeof *change->classes);
    change->goes_on = calloc(to->store_count, sizeof *change->goes_on);
    change->positions = calloc(from->store_count, sizeof *change->positions);
    change->from_spans = calloc(from->store_count, sizeof *change->from_spans);
    change->to_spans = calloc(to->store_count, sizeof *change->to_spans);
    if (!change->from_spans || !change->to_spans || !change->goes_on || !change->positions ||
        !change->stores || !change->slab_class || !change->class_slab || !change->classes)
        return fail(err, RATP_OUT_OF_MEMORY, "no host memory to sort %u heads anew", cache->slabs);
    find_going_on(change);
    struct index index;
    if (!index_open(&index, cache->slabs))
        return fail(err, RATP_OUT_OF_MEMORY, "no host memory to sort %u heads anew", cache->slabs);
    for (uint32_t slab = 0; slab < cache->slabs; slab++) {
        uint32_t alone = change->class_count;
        uint32_t *slot = same_moves(change, slab) ? find_class(change, &index, slab) : &alone;
        if (*slot == INDEX_NONE || slot == &alone) {
            *slot = change->class_count++;
            change->class_slab[*slot] = slab;
        }
        change->slab_class[slab] = *slot;
    }
    free(index.slot);
    return RATP_OK;
}

/* Whether the new store holds a position of a sequence of that length. */
static bool wants(const struct store *store, uint32_t length, uint32_t position)
{
    return store->everything || variant_keeps(&store->keep, length, position);
}

/* Reads which tokens compressed stores have, where another store asks for some. */
static ratp_status read_positions(struct change *change, struct error *err)
{
    const ratp_seq *seq = change->seq;
    ratp_status status = RATP_OK;
    for (uint32_t c = 0; c < change->class_count && !status; c++) {
        uint32_t slab = change->class_slab[c], from = seq->layout->slab_store[slab];
        const struct store *store = &seq->layout->stores[from];
        if (same_moves(change, slab) || change->positions[from])
            continue;
        size_t bytes = (size_t)store->slabs * store->keep.capacity * sizeof **change->positions;
        change->positions[from] = malloc(bytes);
        if (!change->positions[from])
            return fail(err, RATP_OUT_OF_MEMORY, "no host memory for %zu bytes of positions", bytes);
        status = compress_positions(seq, from, UINT32_MAX, change->positions[from], err);
    }
    return status;
}

/* Where a slab of the old stores has a token. */
static bool find(const struct change *change, uint32_t slab, uint32_t position,
                 struct place *place)
{
    const struct layout *layout = change->seq->layout;
    uint32_t s = layout->slab_store[slab], capacity = layout->stores[s].keep.capacity;
    if (!change->positions[s] || position >= change->seq->stores[s].dropped + capacity)
        return seq_find(change->seq, s, position, place);
    const uint32_t *kept =
        change->positions[s] +
        (size_t)slab_index(change->seq->cache, layout, slab) * capacity;
    uint32_t low = 0, high = capacity;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (kept[middle] < position)
            low = middle + 1;
        else
            high = middle;
    }
    *place = (struct place){.slot = low};
    return low < capacity && kept[low] == position;
}

static ratp_status check_retained(const struct change *change, struct error *err)
{
    const ratp_seq *seq = change->seq;
    struct place place;
    for (uint32_t c = 0; c < change->class_count; c++) {
        uint32_t slab = change->class_slab[c], from = seq->layout->slab_store[slab];
        const struct store *to = &change->to->stores[change->to->slab_store[slab]];
        bool goes_on = change->goes_on[change->to->slab_store[slab]] != NO_STORE;
        for (uint32_t p = 0; p < seq->length && !goes_on; p++) {
            if (!wants(to, seq->length, p) || find(change, slab, p, &place))
                continue;
            char from_name[64], to_name[64];
            const struct variant *decode = &change->to->choice[slab].decode;
            variant_name(&seq->layout->stores[from].keep, from_name, sizeof from_name);
            variant_name(decode, to_name, sizeof to_name);
            if (seq->stores[from].dropped && variant_equal(decode, &seq->layout->stores[from].keep))
                return fail(err, RATP_NOT_RETAINED,
                            "policy: layer %u was compressed as %s, which heads are to join that "
                            "were something else; give those another capacity",
                            slab / seq->cache->shape.kv_heads, from_name);
            return fail(err, RATP_NOT_RETAINED,
                        "policy: layer %u is to attend %s, but holds %s of %u tokens: token %u is "
                        "missing; %s",
                        slab / seq->cache->shape.kv_heads, to_name, from_name, seq->length, p,
                        seq->stores[from].dropped ? "fork a sequence before it is compressed"
                                                  : "retention \"full\" keeps all");
        }
    }
    return RATP_OK;
}

static ratp_status take_pages(struct change *change, struct error *err)
{
    uint32_t length = change->seq->length;
    ratp_cache *cache = change->seq->cache;
    ratp_status status =
        seq_mem_take(cache, change->to->queries_bytes, "ring of queries", &change->queries, err);
    for (uint32_t s = 0; s < change->to->store_count && !status; s++) {
        const struct store *store = &change->to->stores[s];
        if (change->goes_on[s] == NO_STORE)
            continue;
        const struct seq_store *old = &change->seq->stores[change->goes_on[s]];
        change->stores[s].dropped = old->dropped;
        change->stores[s].query_at = old->query_at;
        change->stores[s].queries = old->queries;
        if (old->dropped)
            status = seq_mem_take(cache, (uint64_t)store->slabs * store->keep.capacity *
                                             sizeof(uint32_t),
                                  "list of positions", &change->stores[s].positions, err);
    }
    if (!status)
        status = stores_take_pages(cache, change->to, length, change->stores, err);
    for (uint32_t s = 0; s < change->to->store_count && !status; s++) {
        const struct store *store = &change->to->stores[s];
        if (!store->everything)
            change->stores[s].ring_from =
                length > store->keep.window ? length - store->keep.window : 0;
    }
    return status;
}

/* Returns where the pages end, of which the first is `page`. */
static uint32_t place_lists(const struct seq_store *stores, uint32_t count, uint32_t page,
                            struct span *spans)
{
    for (uint32_t s = 0; s < count; s++) {
        spans[s] = (struct span){page, page + stores[s].kept.count};
        page = spans[s].ring + stores[s].ring.count;
    }
    return page;
}

static struct gpu_page *add_lists(const ratp_cache *cache, const struct seq_store *stores,
                                  uint32_t count, struct gpu_page *page)
{
    for (uint32_t s = 0; s < count; s++) {
        for (uint32_t i = 0; i < stores[s].kept.count; i++)
            *page++ = page_at(cache, stores[s].kept.page[i]->address);
        for (uint32_t i = 0; i < stores[s].ring.count; i++)
            *page++ = page_at(cache, stores[s].ring.page[i]->address);
    }
    return page;
}

/* The two views that every class shares: 0 is the old layout, 1 the new one. */
static void add_views(struct change *change, struct blob *blob, struct plan_list *views)
{
    const ratp_cache *cache = change->seq->cache;
    const struct layout *layouts[2] = {change->seq->layout, change->to};
    size_t bytes = cache->slabs * sizeof(uint32_t);
    uint32_t offsets[2] = {0};
    for (int i = 0; i < 2; i++) {
        void *table = blob_add(blob, bytes, &offsets[i]);
        if (table)
            memcpy(table, layouts[i]->slab_offset, bytes);
    }
    views->count = 2;
    struct gpu_view *view = blob_add(blob, 2 * sizeof *view, &views->offset);
    for (int i = 0; view && i < 2; i++)
        view[i].offsets = offsets[i];
}

struct move_list {
    struct gpu_move *at;
    uint32_t count, room;
    bool failed;
};

/* Puts a slot's move behind the others, or makes the last of them longer. */
static void add_move(struct move_list *list, struct gpu_slots from, struct gpu_slots to)
{
    struct gpu_move *last = list->count ? &list->at[list->count - 1] : NULL;
    if (last && last->from.page0 == from.page0 && last->to.page0 == to.page0) {
        if (last->count == 1) {
            last->from.slot_step = from.slot0 - last->from.slot0;
            last->to.slot_step = to.slot0 - last->to.slot0;
        }
        if (last->from.slot0 + last->count * last->from.slot_step == from.slot0 &&
            last->to.slot0 + last->count * last->to.slot_step == to.slot0) {
            last->count++;
            return;
        }
    }
    if (list->count == list->room) {
        uint32_t room = list->room ? list->room * 2 : 8;
        struct gpu_move *at = realloc(list->at, room * sizeof *at);
        if (!at) {
            list->failed = true;
            return;
        }
        list->at = at;
        list->room = room;
    }
    list->at[list->count++] = (struct gpu_move){from, to, 1};
}

/* The moves that fill one list of a new store from an old one, for a class of slabs. */
static void add_moves(const struct change *change, uint32_t c, bool ring, struct move_list *moves)
{
    const ratp_seq *seq = change->seq;
    uint32_t slab = change->class_slab[c];
    uint32_t from = seq->layout->slab_store[slab], to = change->to->slab_store[slab];
    const struct store *store = &change->to->stores[to];
    const struct seq_store *old = &seq->stores[from], *made = &change->stores[to];
    struct span source = change->from_spans[from], target = change->to_spans[to];
    bool as_it_is = made->dropped > 0; /* positions are not slots: go by those */
    for (uint32_t p = ring ? made->ring_from : 0; p < seq->length - made->dropped; p++) {
        struct place place = {.slot = p};
        if (!as_it_is &&
            ((!ring && !store_is_fixed(store, p)) || !find(change, slab, p, &place)))
            continue;
        add_move(moves,
                 (struct gpu_slots){.view = 0, .page0 = place.ring ? source.ring : source.kept,
                                    .pages = place.ring ? old->ring.count : old->kept.count,
                                    .slot0 = place.slot},
                 (struct gpu_slots){.view = 1, .page0 = ring ? target.ring : target.kept,
                                    .pages = ring ? made->ring.count : made->kept.count,
                                    .slot0 = ring ? p % store->ring_slots
                                                  : store_kept_slot(store, p)});
    }
}

static ratp_status make_plan(struct change *change, struct blob *blob, struct error *err)
{
    const ratp_seq *seq = change->seq;
    uint32_t old = seq->layout->store_count, made = change->to->store_count;
    uint32_t pages = place_lists(seq->stores, old, 0, change->from_spans);
    pages = place_lists(change->stores, made, pages, change->to_spans);
    struct plan_list views = {0};
    change->plan.pages.count = pages;
    struct gpu_page *page = blob_add(blob, pages * sizeof *page, &change->plan.pages.offset);
    if (page)
        add_lists(seq->cache, change->stores, made,
                  add_lists(seq->cache, seq->stores, old, page));
    add_views(change, blob, &views);
    for (uint32_t c = 0; c < change->class_count; c++) {
        uint32_t to = change->to->slab_store[change->class_slab[c]];
        struct plan_class *cls = &change->classes[c];
        struct move_list moves = {0};
        add_moves(change, c, false, &moves);
        if (!change->to->stores[to].everything)
            add_moves(change, c, true, &moves);
        cls->views = views;
        cls->moves.count = moves.count;
        void *list = blob_add(blob, moves.count * sizeof *moves.at, &cls->moves.offset);
        if (list && moves.count)
            memcpy(list, moves.at, moves.count * sizeof *moves.at);
        blob->failed |= moves.failed;
        free(moves.at);
    }
    return blob->failed ? fail(err, RATP_OUT_OF_MEMORY,
                               "no host memory to plan the move of %u tokens", seq->length)
                        : RATP_OK;
}

/* Positions and queries of a slab whose snapkv store goes on. */
static ratp_status copy_slab(const struct change *change, struct stream *stream, uint32_t slab,
                             struct error *err)
{
    const ratp_seq *seq = change->seq;
    const ratp_cache *cache = seq->cache;
    const struct backend_ops *ops = cache->backend->ops;
    uint32_t s = change->to->slab_store[slab], from = change->goes_on[s];
    if (from == NO_STORE)
        return RATP_OK;
    const struct store *made = &change->to->stores[s], *old = &seq->layout->stores[from];
    uint64_t at = slab_index(cache, change->to, slab), was = slab_index(cache, seq->layout, slab);
    uint64_t bytes = observe_slab_bytes(cache, made);
    ratp_status status = ops->copy(cache->backend, stream, &change->queries,
                                   made->queries_at + at * bytes, &seq->queries,
                                   old->queries_at + was * bytes, bytes, err);
    bytes = made->keep.capacity * sizeof(uint32_t);
    if (!status && change->stores[s].dropped)
        status = ops->copy(cache->backend, stream, &change->stores[s].positions, at * bytes,
                           &seq->stores[from].positions, was * bytes, bytes, err);
    return status;
}

static ratp_status run_moves(const struct change *change, ticket *done, struct error *err)
{
    ratp_cache *cache = change->seq->cache;
    struct backend *b = cache->backend;
    struct stream *stream;
    ratp_status status = b->ops->stream_begin(b, &stream, err);
    if (status)
        return status;
    for (uint32_t slab = 0, heads; slab < cache->slabs && !status; slab += heads) {
        heads = run_of(cache, slab, change->slab_class);
        const struct plan_class *cls = &change->classes[change->slab_class[slab]];
        struct layer_shape shape = shape_of_run(cache, heads);
        struct memory_args args = {
            .plan = &change->plan, .cls = cls, .shape = &shape, .slab = slab};
        if (cls->moves.count)
            status = b->ops->move(b, stream, &args, err);
    }
    for (uint32_t slab = 0; slab < cache->slabs && !status; slab++)
        status = copy_slab(change, stream, slab, err);
    if (status) {
        b->ops->stream_drop(b, stream);
        return status;
    }
    return b->ops->stream_submit(b, stream, done, err);
}

static ratp_status move_tokens(struct change *change, struct error *err)
{
    struct blob blob = {0};
    struct frame *frame = NULL;
    ratp_status status = make_plan(change, &blob, err);
    if (!status)
        status = frame_upload(change->seq->cache, &blob, &change->plan, &frame, err);
    if (!status) {
        ticket done = 0;
        status = run_moves(change, &done, err);
        frame_give(change->seq->cache, frame, done);
    }
    blob_free(&blob);
    return status;
}

/* The sequence in new stores, or as it was. */
static ratp_status restock(ratp_seq *seq, struct layout *to, struct error *err)
{
    struct change change = {.seq = seq, .to = to};
    ratp_status status = sort_slabs(&change, err);
    if (!status)
        status = read_positions(&change, err);
    if (!status)
        status = check_retained(&change, err);
    if (!status)
        status = take_pages(&change, err);
    if (!status && seq->length)
        status = move_tokens(&change, err);
    if (!status)
        status = stores_summarise(seq->cache, to, change.stores, seq->length, err);
    if (!status) {
        stores_drop(seq->cache, seq->layout, seq->stores);
        struct seq_store *old = seq->stores;
        const struct mem queries = seq->queries;
        seq->stores = change.stores;
        seq->queries = change.queries;
        change.stores = old;
        change.queries = queries;
    }
    if (status && change.stores)
        stores_drop(seq->cache, to, change.stores);
    seq_mem_give(seq->cache, &change.queries);
    for (uint32_t s = 0; change.positions && s < seq->layout->store_count; s++)
        free(change.positions[s]);
    free(change.positions);
    free(change.from_spans);
    free(change.to_spans);
    free(change.goes_on);
    free(change.stores);
    free(change.slab_class);
    free(change.class_slab);
    free(change.classes);
    return status;
}

/* Whether heads become snapkv that were something else. */
static bool new_snapkv(const ratp_cache *cache, const struct layout *from, const struct layout *to)
{
    for (uint32_t slab = 0; slab < cache->slabs; slab++)
        if (to->choice[slab].decode.kind == RATP_SNAPKV &&
            from->choice[slab].decode.kind != RATP_SNAPKV)
            return true;
    return false;
}

ratp_status seq_switch(ratp_seq *seq, const struct ratp_policy *policy, struct error *err)
{
    ratp_cache *cache = seq->cache;
    if (seq->step)
        return fail(err, RATP_WRONG_STATE,
                    "the sequence is part of an open step; commit or abort it before "
                    "seq_set_policy");
    struct layout *to = cache->layout;
    ratp_status status = RATP_OK;
    if (policy)
        status = layout_take(cache, policy, &to, err);
    else
        to->refs++;
    if (!status && !same_stores(cache, seq->layout, to))
        status = restock(seq, to, err);
    if (status) {
        if (to)
            layout_release(cache, to);
        return status;
    }
    if (seq->length && new_snapkv(cache, seq->layout, to))
        seq->when = COMPRESS_AFTER_PROMPT;
    layout_release(cache, seq->layout);
    seq->layout = to;
    return RATP_OK;
}
