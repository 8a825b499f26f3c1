/* A sequence changes its policy: what it holds is sorted into the new one's stores. */
#include "../plan/build.h"
#include "cache.h"

#include <stdlib.h>
#include <string.h>

/* What a switch is about to make. */
struct change {
    ratp_seq *seq;
    struct layout *to;
    struct seq_store *stores; /* [to->store_count] */
    uint32_t *slab_class;     /* [slabs] slabs with the same stores, before and after */
    uint32_t *class_slab;     /* [class_count] the first of its slabs */
    uint32_t class_count;
    struct plan_class *classes;
    struct plan plan;
};

static bool same_stores(const ratp_cache *cache, const struct layout *a, const struct layout *b)
{
    if (a->store_count != b->store_count)
        return false;
    for (uint32_t s = 0; s < a->store_count; s++)
        if (a->stores[s].everything != b->stores[s].everything ||
            (!a->stores[s].everything && !variant_equal(&a->stores[s].keep, &b->stores[s].keep)))
            return false;
    return memcmp(a->slab_store, b->slab_store, cache->slabs * sizeof *a->slab_store) == 0;
}

static ratp_status sort_slabs(struct change *change, struct error *err)
{
    const ratp_cache *cache = change->seq->cache;
    const struct layout *from = change->seq->layout, *to = change->to;
    change->stores = calloc(to->store_count, sizeof *change->stores);
    change->slab_class = calloc(cache->slabs, sizeof *change->slab_class);
    change->class_slab = calloc(cache->slabs, sizeof *change->class_slab);
    change->classes = calloc(cache->slabs, sizeof *change->classes);
    if (!change->stores || !change->slab_class || !change->class_slab || !change->classes)
        return fail(err, RATP_OUT_OF_MEMORY, "no host memory to sort %u heads anew", cache->slabs);
    for (uint32_t slab = 0; slab < cache->slabs; slab++) {
        uint32_t c = 0;
        while (c < change->class_count &&
               (from->slab_store[change->class_slab[c]] != from->slab_store[slab] ||
                to->slab_store[change->class_slab[c]] != to->slab_store[slab]))
            c++;
        if (c == change->class_count)
            change->class_slab[change->class_count++] = slab;
        change->slab_class[slab] = c;
    }
    return RATP_OK;
}

/* Whether the new store holds a position of a sequence of that length. */
static bool wants(const struct store *store, uint32_t length, uint32_t position)
{
    return store->everything || variant_keeps(&store->keep, length, position);
}

static ratp_status check_retained(const struct change *change, struct error *err)
{
    const ratp_seq *seq = change->seq;
    struct place place;
    for (uint32_t c = 0; c < change->class_count; c++) {
        uint32_t slab = change->class_slab[c], from = seq->layout->slab_store[slab];
        const struct store *to = &change->to->stores[change->to->slab_store[slab]];
        for (uint32_t p = 0; p < seq->length; p++) {
            if (!wants(to, seq->length, p) || seq_find(seq, from, p, &place))
                continue;
            char from_name[64], to_name[64];
            variant_name(&seq->layout->stores[from].keep, from_name, sizeof from_name);
            variant_name(&change->to->variant[slab], to_name, sizeof to_name);
            return fail(err, RATP_NOT_RETAINED,
                        "policy: layer %u is to attend %s, but holds %s of %u tokens: token %u is "
                        "missing; retention \"full\" keeps all",
                        slab / seq->cache->shape.kv_heads, to_name, from_name, seq->length, p);
        }
    }
    return RATP_OK;
}

static ratp_status take_pages(struct change *change, struct error *err)
{
    uint32_t length = change->seq->length;
    ratp_status status =
        stores_take_pages(change->seq->cache, change->to, length, change->stores, err);
    for (uint32_t s = 0; s < change->to->store_count && !status; s++) {
        const struct store *store = &change->to->stores[s];
        if (!store->everything)
            change->stores[s].ring_from =
                length > store->keep.window ? length - store->keep.window : 0;
    }
    return status;
}

/* Where the lists of a store begin in the page list. */
struct span {
    uint32_t kept, ring;
};

static struct span span_of(const struct seq_store *stores, uint32_t store)
{
    uint32_t page = 0;
    for (uint32_t s = 0; s < store; s++)
        page += stores[s].kept.count + stores[s].ring.count;
    return (struct span){page, page + stores[store].kept.count};
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

static uint32_t page_count(const struct seq_store *stores, uint32_t count)
{
    uint32_t pages = 0;
    for (uint32_t s = 0; s < count; s++)
        pages += stores[s].kept.count + stores[s].ring.count;
    return pages;
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

/* The moves that fill one list of a new store from an old one. */
static void add_moves(const struct change *change, uint32_t from, uint32_t to, bool ring,
                      struct move_list *moves)
{
    const ratp_seq *seq = change->seq;
    const struct store *store = &change->to->stores[to];
    const struct seq_store *old = &seq->stores[from], *made = &change->stores[to];
    uint32_t behind = page_count(seq->stores, seq->layout->store_count);
    struct span source = span_of(seq->stores, from), target = span_of(change->stores, to);
    for (uint32_t p = ring ? made->ring_from : 0; p < seq->length; p++) {
        struct place place;
        if ((!ring && !store_is_fixed(store, p)) || !seq_find(seq, from, p, &place))
            continue;
        add_move(moves,
                 (struct gpu_slots){.view = 0, .page0 = place.ring ? source.ring : source.kept,
                                    .pages = place.ring ? old->ring.count : old->kept.count,
                                    .slot0 = place.slot},
                 (struct gpu_slots){.view = 1, .page0 = behind + (ring ? target.ring : target.kept),
                                    .pages = ring ? made->ring.count : made->kept.count,
                                    .slot0 = ring ? p % store->ring_slots
                                                  : store_kept_slot(store, p)});
    }
}

static ratp_status make_plan(struct change *change, struct blob *blob, struct error *err)
{
    const ratp_seq *seq = change->seq;
    uint32_t old = seq->layout->store_count, made = change->to->store_count;
    uint32_t pages = page_count(seq->stores, old) + page_count(change->stores, made);
    struct plan_list views = {0};
    change->plan.pages.count = pages;
    struct gpu_page *page = blob_add(blob, pages * sizeof *page, &change->plan.pages.offset);
    if (page)
        add_lists(seq->cache, change->stores, made,
                  add_lists(seq->cache, seq->stores, old, page));
    add_views(change, blob, &views);
    for (uint32_t c = 0; c < change->class_count; c++) {
        uint32_t from = seq->layout->slab_store[change->class_slab[c]];
        uint32_t to = change->to->slab_store[change->class_slab[c]];
        struct plan_class *cls = &change->classes[c];
        struct move_list moves = {0};
        add_moves(change, from, to, false, &moves);
        if (!change->to->stores[to].everything)
            add_moves(change, from, to, true, &moves);
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

static ratp_status run_moves(const struct change *change, struct frame *frame, struct error *err)
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
    if (status) {
        b->ops->stream_drop(b, stream);
        return status;
    }
    return b->ops->stream_submit(b, stream, &frame->busy, err);
}

static ratp_status move_tokens(struct change *change, struct error *err)
{
    struct blob blob = {0};
    struct frame *frame = NULL;
    ratp_status status = make_plan(change, &blob, err);
    if (!status)
        status = frame_upload(change->seq->cache, &blob, &change->plan, &frame, err);
    if (!status)
        status = run_moves(change, frame, err);
    blob_free(&blob);
    return status;
}

/* The sequence in new stores, or as it was. */
static ratp_status restock(ratp_seq *seq, struct layout *to, struct error *err)
{
    struct change change = {.seq = seq, .to = to};
    ratp_status status = sort_slabs(&change, err);
    if (!status)
        status = check_retained(&change, err);
    if (!status)
        status = take_pages(&change, err);
    if (!status && seq->length)
        status = move_tokens(&change, err);
    if (!status) {
        stores_drop_pages(seq->layout, seq->stores);
        struct seq_store *old = seq->stores;
        seq->stores = change.stores;
        change.stores = old;
    }
    if (status && change.stores)
        stores_drop_pages(to, change.stores);
    free(change.stores);
    free(change.slab_class);
    free(change.class_slab);
    free(change.classes);
    return status;
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
    layout_release(cache, seq->layout);
    seq->layout = to;
    return RATP_OK;
}
