/* Compression: of what a snapkv head holds, the tokens that its last queries attend most
 * go to fresh pages, on the device; what they were stays until the caller drops it. */
#include "../plan/build.h"
#include "cache.h"

#include <stdlib.h>

/* Logits are made for as many heads and queries at a time as this holds. */
enum { WORK_BYTES = 32 << 20 };

/* Whether the store has more than it is to keep. */
static bool is_over(const ratp_seq *seq, uint32_t s)
{
    const struct store *store = &seq->layout->stores[s];
    return store_compresses(store) &&
           seq->length - seq->stores[s].dropped > store->keep.capacity;
}

static bool is_known(const ratp_seq *seq, uint32_t s)
{
    return seq->stores[s].queries >= seq->layout->stores[s].keep.observe;
}

bool compress_due(const ratp_seq *seq, bool *waits)
{
    bool over = false;
    *waits = false;
    if (seq->when != COMPRESS_AT_DECODE)
        return false;
    for (uint32_t s = 0; s < seq->layout->store_count; s++)
        if (is_over(seq, s)) {
            over = true;
            *waits |= !is_known(seq, s);
        }
    return over && !*waits;
}

/* Fresh pages and positions for the stores that are over. */
static ratp_status take_room(const ratp_seq *seq, struct seq_store *other, struct error *err)
{
    ratp_cache *cache = seq->cache;
    ratp_status status = RATP_OK;
    for (uint32_t s = 0; s < seq->layout->store_count && !status; s++) {
        const struct store *store = &seq->layout->stores[s];
        uint32_t capacity = store->keep.capacity;
        if (!is_over(seq, s))
            continue;
        other[s].dropped = seq->length - capacity;
        status = pool_take(cache, store->pool, pages_for(cache, capacity), &other[s].kept, err);
        if (!status)
            status = seq_mem_take(cache, (uint64_t)store->slabs * capacity * sizeof(uint32_t),
                                  "list of positions", &other[s].positions, err);
    }
    return status;
}

static struct gpu_page *add_pages(const ratp_cache *cache, const struct page_list *list,
                                  struct gpu_page *page)
{
    for (uint32_t i = 0; i < list->count; i++)
        *page++ = page_at(cache, list->page[i]->address);
    return page;
}

/* The pages of the stores that are over: for each, those it has, then the fresh ones. */
static ratp_status upload_pages(const ratp_seq *seq, const struct seq_store *other,
                                struct plan *plan, struct frame **frame, struct error *err)
{
    ratp_cache *cache = seq->cache;
    struct blob blob = {0};
    for (uint32_t s = 0; s < seq->layout->store_count; s++)
        if (is_over(seq, s))
            plan->pages.count += seq->stores[s].kept.count + other[s].kept.count;
    struct gpu_page *page = blob_add(&blob, plan->pages.count * sizeof *page, &plan->pages.offset);
    for (uint32_t s = 0; page && s < seq->layout->store_count; s++)
        if (is_over(seq, s))
            page = add_pages(cache, &other[s].kept, add_pages(cache, &seq->stores[s].kept, page));
    ratp_status status = RATP_OK;
    if (blob.failed)
        status = fail(err, RATP_OUT_OF_MEMORY,
                      "no host memory to plan the compression of %u tokens", seq->length);
    if (!status)
        status = frame_upload(cache, &blob, plan, frame, err);
    blob_free(&blob);
    return status;
}

/* Work memory for any run of heads of the stores that are over. */
static uint64_t work_bytes(const ratp_seq *seq)
{
    const struct layer_shape *shape = &seq->cache->shape;
    uint64_t most = 0, group = shape->query_heads / shape->kv_heads;
    for (uint32_t s = 0; s < seq->layout->store_count; s++) {
        const struct variant *keep = &seq->layout->stores[s].keep;
        if (!is_over(seq, s))
            continue;
        uint32_t held = seq->length - seq->stores[s].dropped;
        uint64_t head = compress_head_bytes(held, keep->capacity), row = compress_row_bytes(held);
        uint64_t bytes = shape->kv_heads * (head + keep->observe * group * row);
        bytes = bytes < WORK_BYTES ? bytes : WORK_BYTES;
        bytes = bytes > head + row ? bytes : head + row;
        most = bytes > most ? bytes : most;
    }
    return most;
}

static ratp_status record(const ratp_seq *seq, const struct seq_store *other, struct stream *stream,
                          const struct plan *plan, const struct mem *work, struct error *err)
{
    const ratp_cache *cache = seq->cache;
    const struct layout *layout = seq->layout;
    struct backend *b = cache->backend;
    ratp_status status = RATP_OK;
    for (uint32_t slab = 0, heads; slab < cache->slabs && !status; slab += heads) {
        heads = run_of(cache, slab, layout->slab_store);
        uint32_t s = layout->slab_store[slab], page0 = 0;
        if (!is_over(seq, s))
            continue;
        for (uint32_t before = 0; before < s; before++)
            if (is_over(seq, before))
                page0 += seq->stores[before].kept.count + other[before].kept.count;
        const struct store *store = &layout->stores[s];
        const struct seq_store *held = &seq->stores[s];
        struct layer_shape shape = shape_of_run(cache, heads);
        uint64_t index = slab_index(cache, layout, slab);
        uint64_t positions = index * store->keep.capacity * sizeof(uint32_t);
        const struct compress_args args = {
            .plan = plan, .shape = &shape,
            .from_page0 = page0, .from_pages = held->kept.count,
            .to_page0 = page0 + held->kept.count, .to_pages = other[s].kept.count,
            .offset = layout->slab_offset[slab],
            .held = seq->length - held->dropped, .length = seq->length,
            .capacity = store->keep.capacity, .observe = store->keep.observe,
            .kernel = store->keep.kernel, .average = store->keep.average,
            .queries = seq->queries.address + store->queries_at +
                       index * observe_slab_bytes(cache, store),
            .query_at = observe_oldest(store, held), .query_ring = observe_ring(store),
            .positions_in = held->dropped ? held->positions.address + positions : 0,
            .positions = other[s].positions.address + positions,
            .work = work->address, .work_bytes = work->size,
        };
        status = b->ops->compress(b, stream, &args, err);
    }
    return status;
}

static ratp_status run(const ratp_seq *seq, const struct seq_store *other, struct error *err)
{
    struct backend *b = seq->cache->backend;
    struct plan plan = {0};
    struct frame *frame = NULL;
    ticket done = 0;
    struct stream *stream = NULL;
    struct mem work = {0};
    ratp_status status = upload_pages(seq, other, &plan, &frame, err);
    if (!status)
        status = cache_alloc(seq->cache, work_bytes(seq), MEM_DEVICE, "compression's work memory",
                             &work, err);
    if (!status)
        status = b->ops->stream_begin(b, &stream, err);
    if (!status)
        status = record(seq, other, stream, &plan, &work, err);
    if (!status)
        status = b->ops->stream_submit(b, stream, &done, err);
    else if (stream)
        b->ops->stream_drop(b, stream);
    if (frame)
        frame_give(seq->cache, frame, done);
    if (work.size)
        b->ops->mem_free(b, &work);
    return status;
}

void compress_swap(ratp_seq *seq, struct seq_store *other)
{
    for (uint32_t s = 0; s < seq->layout->store_count; s++) {
        struct seq_store *held = &seq->stores[s];
        const struct seq_store old = *held;
        if (!other[s].kept.count)
            continue;
        held->kept = other[s].kept;
        held->positions = other[s].positions;
        held->dropped = other[s].dropped;
        other[s] = (struct seq_store){
            .kept = old.kept, .positions = old.positions, .dropped = old.dropped};
    }
}

ratp_status compress_run(ratp_seq *seq, struct seq_store *other, struct error *err)
{
    ratp_status status = take_room(seq, other, err);
    if (!status)
        status = run(seq, other, err);
    if (status)
        stores_drop(seq->cache, seq->layout, other);
    else
        compress_swap(seq, other);
    return status;
}

ratp_status seq_compress(ratp_seq *seq, struct error *err)
{
    const struct layout *layout = seq->layout;
    if (seq->step)
        return fail(err, RATP_WRONG_STATE,
                    "the sequence is part of an open step; commit or abort it before seq_compress");
    bool over = false;
    for (uint32_t s = 0; s < layout->store_count; s++) {
        uint32_t slab = 0;
        over |= is_over(seq, s);
        if (!is_over(seq, s) || is_known(seq, s))
            continue;
        while (layout->slab_store[slab] != s)
            slab++;
        return fail(err, RATP_NOT_RETAINED,
                    "layer %u is compressed by its last %u queries, and of %u tokens only the last "
                    "%u queries are known; feed %u more tokens",
                    slab / seq->cache->shape.kv_heads, layout->stores[s].keep.observe, seq->length,
                    seq->stores[s].queries,
                    layout->stores[s].keep.observe - seq->stores[s].queries);
    }
    if (!over)
        return RATP_OK;
    struct seq_store *other = calloc(layout->store_count, sizeof *other);
    if (!other)
        return fail(err, RATP_OUT_OF_MEMORY, "no host memory to compress %u stores",
                    layout->store_count);
    ratp_status status = compress_run(seq, other, err);
    if (!status)
        stores_drop(seq->cache, layout, other);
    free(other);
    return status;
}

ratp_status compress_positions(const ratp_seq *seq, uint32_t s, uint32_t slab, uint32_t *positions,
                               struct error *err)
{
    struct backend *b = seq->cache->backend;
    const struct store *store = &seq->layout->stores[s];
    uint64_t bytes = store->keep.capacity * sizeof *positions, at = 0;
    if (slab == UINT32_MAX)
        bytes *= store->slabs;
    else
        at = bytes * slab_index(seq->cache, seq->layout, slab);
    return b->ops->mem_read(b, &seq->stores[s].positions, at, positions, bytes, err);
}
