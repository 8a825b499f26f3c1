/* Summaries: what the cache knows of a block of keys, for queries that choose among
 * blocks. An entry is made when the last of its tokens comes: the block of the query
 * itself is always attended, so that no unfinished entry is ever read, and neither an
 * abort nor a truncation has any to mend. */
#include "../dtype.h"
#include "../plan/build.h"
#include "cache.h"

#include <stdlib.h>
#include <string.h>

static ratp_status summary_of(const ratp_cache *cache, const struct variant *v,
                              struct summary *out, struct error *err)
{
    const struct layer_shape *shape = &cache->shape;
    uint32_t slots = shape->page_slots;
    *out = (struct summary){0};
    if (v->kind != RATP_QUEST && v->kind != RATP_MOBA)
        return RATP_OK;
    if (v->block % slots && slots % v->block)
        return fail(err, RATP_INVALID_ARGUMENT,
                    "policy: %s is %u and page_slots %u: one must be a multiple of the other",
                    v->kind == RATP_QUEST ? "a quest variant's page" : "a moba variant's block",
                    v->block, slots);
    bool extremes = v->kind == RATP_QUEST;
    *out = (struct summary){
        .select = extremes ? SELECT_EXTREMES : SELECT_MEAN,
        .block = v->block,
        .entry_tokens = v->block < slots ? v->block : slots,
        .entry_bytes = extremes
            ? 2 * (uint32_t)dtype_row_bytes(dtype_of_extremes(shape->k_dtype), shape->head_size)
            : shape->head_size * (uint32_t)sizeof(float),
    };
    return RATP_OK;
}

bool summary_equal(const struct summary *a, const struct summary *b)
{
    return a->select == b->select && a->block == b->block;
}

ratp_status summaries_of(const ratp_cache *cache, const struct choice *choice,
                         struct summary out[SUMMARIES], struct error *err)
{
    ratp_status status = summary_of(cache, &choice->prompt, &out[SUMMARY_PROMPT], err);
    if (!status)
        status = summary_of(cache, &choice->decode, &out[SUMMARY_DECODE], err);
    if (!status && summary_equal(&out[0], &out[1]))
        out[SUMMARY_DECODE] = (struct summary){0};
    return status;
}

const struct summary *summary_for(const struct store *store, const struct variant *variant)
{
    uint32_t select = variant->kind == RATP_QUEST ? SELECT_EXTREMES
                      : variant->kind == RATP_MOBA ? SELECT_MEAN : SELECT_NONE;
    for (int i = 0; select && i < SUMMARIES; i++)
        if (store->summaries[i].select == select && store->summaries[i].block == variant->block)
            return &store->summaries[i];
    return NULL;
}

uint32_t summary_count(const struct store *store)
{
    uint32_t count = 0;
    for (int i = 0; i < SUMMARIES; i++)
        count += store->summaries[i].select != SELECT_NONE;
    return count;
}

void summary_list(const struct store *store, uint32_t view, uint32_t pos0, uint32_t rows,
                  struct gpu_summary *out, struct plan_class *cls)
{
    for (int i = 0; i < SUMMARIES; i++) {
        const struct summary *s = &store->summaries[i];
        if (!s->select)
            continue;
        uint32_t first = pos0 / s->entry_tokens, end = (pos0 + rows) / s->entry_tokens;
        *out++ = (struct gpu_summary){
            .view = view, .select = s->select, .entry_at = s->at,
            .entry_tokens = s->entry_tokens, .entry_bytes = s->entry_bytes,
            .first = first, .count = end - first};
        if (end - first > cls->most_entries)
            cls->most_entries = end - first;
    }
}

/* ---- All of them, afresh ---- */

/* What a sequence holds, or is about to. */
struct held {
    ratp_cache *cache;
    const struct layout *layout;
    const struct seq_store *stores;
    uint32_t length;
};

/* What is compressed has none: a slot is no position there, and no query chooses. */
static uint32_t entries_of(const struct held *held, uint32_t s)
{
    return held->stores[s].dropped ? 0 : summary_count(&held->layout->stores[s]);
}

/* One view for each store: all classes are made of these. */
static ratp_status make_plan(const struct held *held, struct blob *blob, struct plan *plan,
                             struct plan_class *classes, struct error *err)
{
    const ratp_cache *cache = held->cache;
    const struct layout *layout = held->layout;
    uint32_t pages = 0, page0 = 0, offsets = 0, summaries = 0;
    for (uint32_t s = 0; s < layout->store_count; s++)
        pages += held->stores[s].kept.count;
    plan->pages.count = pages;
    struct gpu_page *page = blob_add(blob, pages * sizeof *page, &plan->pages.offset);
    for (uint32_t s = 0; page && s < layout->store_count; s++)
        for (uint32_t i = 0; i < held->stores[s].kept.count; i++)
            *page++ = page_at(cache, held->stores[s].kept.page[i]->address);
    size_t bytes = cache->slabs * sizeof(uint32_t);
    void *table = blob_add(blob, bytes, &offsets);
    if (table)
        memcpy(table, layout->slab_offset, bytes);
    table = blob_add(blob, bytes, &summaries);
    if (table)
        memcpy(table, layout->slab_summary, bytes);
    for (uint32_t s = 0; s < layout->store_count; s++) {
        const struct store *store = &layout->stores[s];
        struct plan_class *cls = &classes[s];
        cls->views.count = 1;
        cls->summaries.count = entries_of(held, s);
        struct gpu_view *view = blob_add(blob, sizeof *view, &cls->views.offset);
        if (view)
            *view = (struct gpu_view){
                .line_page0 = page0, .line_pages = held->stores[s].kept.count, .line_layered = 1,
                .entry_page0 = page0, .entry_pages = held->stores[s].kept.count,
                .offsets = offsets, .summaries = summaries,
                .summary_head = store->summary_bytes};
        struct gpu_summary *list =
            blob_add(blob, cls->summaries.count * sizeof *list, &cls->summaries.offset);
        if (list && cls->summaries.count)
            summary_list(store, 0, 0, held->length, list, cls);
        page0 += held->stores[s].kept.count;
    }
    return blob->failed ? fail(err, RATP_OUT_OF_MEMORY,
                               "no host memory to plan the summaries of %u tokens", held->length)
                        : RATP_OK;
}

static ratp_status run(const struct held *held, const struct plan *plan,
                       const struct plan_class *classes, ticket *done, struct error *err)
{
    const ratp_cache *cache = held->cache;
    const uint32_t *slab_store = held->layout->slab_store;
    struct backend *b = cache->backend;
    struct stream *stream;
    ratp_status status = b->ops->stream_begin(b, &stream, err);
    if (status)
        return status;
    for (uint32_t slab = 0, heads; slab < cache->slabs && !status; slab += heads) {
        heads = run_of(cache, slab, slab_store);
        struct layer_shape shape = shape_of_run(cache, heads);
        struct memory_args args = {.plan = plan, .cls = &classes[slab_store[slab]],
                                   .shape = &shape, .slab = slab};
        if (args.cls->summaries.count)
            status = b->ops->summarise(b, stream, &args, err);
    }
    if (status) {
        b->ops->stream_drop(b, stream);
        return status;
    }
    return b->ops->stream_submit(b, stream, done, err);
}

ratp_status stores_summarise(ratp_cache *cache, const struct layout *layout,
                             const struct seq_store *stores, uint32_t length, struct error *err)
{
    const struct held held = {cache, layout, stores, length};
    uint32_t count = 0;
    for (uint32_t s = 0; s < layout->store_count; s++)
        count += entries_of(&held, s);
    if (!count || !length)
        return RATP_OK;
    struct plan plan = {0};
    struct blob blob = {0};
    struct frame *frame = NULL;
    struct plan_class *classes = calloc(layout->store_count, sizeof *classes);
    ratp_status status = RATP_OK;
    if (!classes)
        status = fail(err, RATP_OUT_OF_MEMORY, "no host memory for the summaries of %u stores",
                      layout->store_count);
    if (!status)
        status = make_plan(&held, &blob, &plan, classes, err);
    if (!status)
        status = frame_upload(cache, &blob, &plan, &frame, err);
    if (!status) {
        ticket done = 0;
        status = run(&held, &plan, classes, &done, err);
        frame_give(cache, frame, done);
    }
    blob_free(&blob);
    free(classes);
    return status;
}
