#include "step.h"

#include <stdlib.h>

static uint32_t pages_for(uint64_t slots, uint32_t page_slots)
{
    return (uint32_t)((slots + page_slots - 1) / page_slots);
}

/* A page of its own in place of the last one, which others hold too. */
static ratp_status replace_last(ratp_cache *cache, uint32_t index, struct page_list *kept,
                                struct part_store *change, struct error *err)
{
    ratp_status status = pool_take(cache, index, 1, kept, err);
    if (status)
        return status;
    uint32_t last = --kept->count;
    change->original = kept->page[last - 1];
    kept->page[last - 1] = kept->page[last];
    return RATP_OK;
}

static bool any_shared(const struct page_list *list)
{
    for (uint32_t i = 0; i < list->count; i++)
        if (list->page[i]->refs > 1)
            return true;
    return false;
}

/* Takes the pages that the part's new tokens need of one store. */
static ratp_status reserve(ratp_cache *cache, struct step_part *part, uint32_t index,
                           struct error *err)
{
    const struct store *store = &cache->stores[index];
    struct seq_store *held = &part->seq->stores[index];
    struct part_store *change = &part->stores[index];
    uint32_t slots = cache->shape.page_slots;
    uint32_t length = part->seq->length, total = length + part->rows;
    uint64_t kept = store_kept(store, length), keep = store_kept(store, total);
    uint32_t pages = pages_for(keep, slots);
    change->kept_before = held->kept.count;
    change->ring_before = held->ring.count;
    ratp_status status = RATP_OK;
    if (keep > kept && kept % slots && held->kept.page[held->kept.count - 1]->refs > 1)
        status = replace_last(cache, index, &held->kept, change, err);
    if (!status && pages > held->kept.count)
        status = pool_take(cache, index, pages - held->kept.count, &held->kept, err);
    if (status || store->everything)
        return status;

    uint32_t ring = total < store->ring_slots ? total : store->ring_slots;
    pages = pages_for(ring, slots);
    /* Overwriting is safe while what is overwritten has left the window of the
     * committed state's next token, and nobody else reads it; else the step
     * fills a ring of its own. */
    bool safe = total <= store->ring_slots || part->rows <= store->ring_slots - store->keep.window;
    if (safe && !any_shared(&held->ring))
        return pages > held->ring.count
                   ? pool_take(cache, index, pages - held->ring.count, &held->ring, err)
                   : RATP_OK;
    change->renewed = true;
    return pool_take(cache, index, pages, &change->fresh, err);
}

bool part_has_line(const ratp_cache *cache, const struct step_part *part)
{
    if (part->rows == 1)
        return false;
    for (uint32_t s = 0; s < cache->store_count; s++)
        if (!cache->stores[s].everything)
            return true;
    return false;
}

static void free_step(ratp_step *step)
{
    ratp_cache *cache = step->cache;
    const struct backend_ops *ops = cache->backend->ops;
    if (step->stream)
        ops->stream_drop(cache->backend, step->stream);
    if (step->frame)
        step->frame->busy = ops->latest(cache->backend);
    for (uint32_t i = 0; i < step->count; i++)
        if (step->parts[i].seq)
            step->parts[i].seq->step = NULL;
    if (cache->step == step) {
        cache->step = NULL;
        atomic_fetch_sub(&cache->object.children, 1);
    }
    free(step->parts);
    free(step->part_stores);
    free(step->classes);
    free(step->class_layer);
    free(step->layer_class);
    free(step->attended);
    object_fini(&step->object);
    free(step);
}

static void restore_original(struct pool *pool, struct page_list *kept, struct part_store *change)
{
    if (!change->original)
        return;
    page_release(pool, kept->page[kept->count - 1]);
    kept->page[kept->count - 1] = change->original;
    change->original = NULL;
}

/* Gives back what the step took. */
static void release(ratp_step *step)
{
    ratp_cache *cache = step->cache;
    for (uint32_t i = 0; i < step->count; i++) {
        struct step_part *part = &step->parts[i];
        for (uint32_t s = 0; part->seq && s < cache->store_count; s++) {
            struct pool *pool = &cache->stores[s].pool;
            page_list_cut(pool, &part->stores[s].fresh, 0);
            page_list_cut(pool, &part->seq->stores[s].kept, part->stores[s].kept_before);
            restore_original(pool, &part->seq->stores[s].kept, &part->stores[s]);
            page_list_cut(pool, &part->seq->stores[s].ring, part->stores[s].ring_before);
        }
    }
}

static ratp_status add_part(ratp_step *step, uint32_t i, ratp_seq *seq, uint32_t rows,
                            struct error *err)
{
    ratp_cache *cache = step->cache;
    if (seq->cache != cache)
        return fail(err, RATP_INVALID_ARGUMENT, "seqs[%u] belongs to another cache", i);
    if (seq->step)
        return fail(err, RATP_INVALID_ARGUMENT, "seqs[%u] is in the batch twice", i);
    if (rows == 0 || rows > cache->max_tokens - seq->length)
        return fail(err, RATP_INVALID_ARGUMENT,
                    "n_tokens[%u] is %u, the sequence has %u tokens and may have %u: from 1 to %u "
                    "more fit",
                    i, rows, seq->length, cache->max_tokens, cache->max_tokens - seq->length);
    if (rows > UINT32_MAX / 2 - step->rows)
        return fail(err, RATP_INVALID_ARGUMENT,
                    "n_tokens[%u] is %u, with the %u before it a batch of more than %u rows", i,
                    rows, step->rows, UINT32_MAX / 2);
    struct step_part *part = &step->parts[i];
    part->rows = rows;
    part->seq = seq;
    part->stores = step->part_stores + (size_t)i * cache->store_count;
    for (uint32_t s = 0; s < cache->store_count; s++) {
        part->stores[s].kept_before = seq->stores[s].kept.count;
        part->stores[s].ring_before = seq->stores[s].ring.count;
    }
    seq->step = step;
    step->rows += rows;
    return RATP_OK;
}

/* Whether two layers have the same work in every sequence of the step. */
static bool same_class(const ratp_step *step, struct layout *const *layouts, uint32_t count,
                       uint32_t a, uint32_t b)
{
    if (step->cache->layer_store[a] != step->cache->layer_store[b])
        return false;
    for (uint32_t i = 0; i < count; i++)
        if (!variant_equal(&layouts[i]->variant[a], &layouts[i]->variant[b]))
            return false;
    return true;
}

static ratp_status sort_layers(ratp_step *step, struct error *err)
{
    ratp_cache *cache = step->cache;
    struct layout **layouts = malloc(step->count * sizeof *layouts);
    if (!layouts)
        return fail(err, RATP_OUT_OF_MEMORY, "no host memory for a step of %u sequences",
                    step->count);
    uint32_t count = 0;
    cache->steps++;
    for (uint32_t i = 0; i < step->count; i++) {
        struct layout *layout = step->parts[i].seq->layout;
        if (layout->seen != cache->steps)
            layouts[count++] = layout;
        layout->seen = cache->steps;
    }
    for (uint32_t l = 0; l < cache->layers; l++) {
        uint32_t c = 0;
        while (c < step->class_count && !same_class(step, layouts, count, step->class_layer[c], l))
            c++;
        if (c == step->class_count)
            step->class_layer[step->class_count++] = l;
        step->layer_class[l] = c;
    }
    free(layouts);
    step->classes = calloc(step->class_count, sizeof *step->classes);
    if (!step->classes)
        return fail(err, RATP_OUT_OF_MEMORY, "no host memory for %u classes of layers",
                    step->class_count);
    return RATP_OK;
}

ratp_status step_open(ratp_cache *cache, uint32_t count, ratp_seq *const *seqs,
                      const uint32_t *n_tokens, ratp_step **out, struct error *err)
{
    *out = NULL;
    if (cache->step)
        return fail(err, RATP_WRONG_STATE,
                    "the cache has an open step; commit or abort it before the next step_begin");
    if (count == 0 || count > 65536)
        return fail(err, RATP_INVALID_ARGUMENT, "count is %u, it must be from 1 to 65536", count);
    ratp_step *step = calloc(1, sizeof *step);
    if (!step)
        return fail(err, RATP_OUT_OF_MEMORY, "no host memory for a step");
    object_init(&step->object, OBJECT_STEP);
    step->cache = cache;
    step->parts = calloc(count, sizeof *step->parts);
    step->part_stores = calloc((size_t)count * cache->store_count, sizeof *step->part_stores);
    step->class_layer = calloc(cache->layers, sizeof *step->class_layer);
    step->layer_class = calloc(cache->layers, sizeof *step->layer_class);
    step->attended = calloc(cache->layers, sizeof *step->attended);
    ratp_status status = RATP_OK;
    if (!step->parts || !step->part_stores || !step->class_layer || !step->layer_class ||
        !step->attended) {
        status = fail(err, RATP_OUT_OF_MEMORY, "no host memory for a step of %u sequences", count);
        goto error;
    }
    step->count = count;
    for (uint32_t i = 0; i < count && !status; i++)
        status = add_part(step, i, seqs[i], n_tokens[i], err);
    for (uint32_t i = 0; i < count && !status; i++)
        for (uint32_t s = 0; s < cache->store_count && !status; s++)
            status = reserve(cache, &step->parts[i], s, err);
    if (!status)
        status = sort_layers(step, err);
    if (!status)
        status = step_plan(step, err);
    if (status)
        goto error;
    cache->step = step;
    atomic_fetch_add(&cache->object.children, 1);
    *out = step;
    return RATP_OK;

error:
    release(step);
    free_step(step);
    return status;
}

uint32_t step_rows(const ratp_step *step)
{
    return step->rows;
}

ratp_cache *step_cache(const ratp_step *step)
{
    return step->cache;
}

ratp_status step_may_attend(const ratp_step *step, uint32_t layer, struct error *err)
{
    if (step->broken)
        return fail(err, RATP_WRONG_STATE, "an earlier call of this step failed; abort it");
    if (layer >= step->cache->layers)
        return fail(err, RATP_INVALID_ARGUMENT, "layer is %u, the geometry has %u", layer,
                    step->cache->layers);
    if (step->attended[layer])
        return fail(err, RATP_WRONG_STATE, "layer %u was attended in this step already", layer);
    if (step->attached && !step->awaited)
        return fail(err, RATP_WRONG_STATE,
                    "step_recorded was called; call step_record again, or commit or abort the step");
    return RATP_OK;
}

bool step_recording(const ratp_step *step)
{
    return step->attached;
}

ratp_status step_stream(ratp_step *step, struct stream **out, struct error *err)
{
    struct backend *b = step->cache->backend;
    ratp_status status = RATP_OK;
    if (!step->stream)
        status = b->ops->stream_begin(b, &step->stream, err);
    *out = step->stream;
    return status;
}

static ratp_status copy_page(ratp_step *step, const struct pool *pool, const struct page *to,
                             const struct page *from, struct error *err)
{
    struct backend *b = step->cache->backend;
    const struct mem *to_mem = &to->block->mem, *from_mem = &from->block->mem;
    return b->ops->copy(b, step->stream, to_mem, to->address - to_mem->address, from_mem,
                        from->address - from_mem->address, pool->page_bytes, err);
}

/* What comes before the first layer: a new sequence's memory state is zero, and
 * pages that were shared are copied. */
static ratp_status begin(ratp_step *step, struct error *err)
{
    ratp_cache *cache = step->cache;
    struct backend *b = cache->backend;
    uint64_t state = seq_state_bytes(cache);
    ratp_status status = RATP_OK;
    for (uint32_t i = 0; i < step->count && !status; i++) {
        const struct step_part *part = &step->parts[i];
        const ratp_seq *seq = part->seq;
        if (state && seq->length == 0)
            status = b->ops->fill_zero(b, step->stream, &seq->state,
                                       seq_state_offset(seq, seq->state_copy), state, err);
        for (uint32_t s = 0; s < cache->store_count && !status; s++) {
            const struct part_store *change = &part->stores[s];
            if (change->original)
                status = copy_page(step, &cache->stores[s].pool,
                                   seq->stores[s].kept.page[change->kept_before - 1],
                                   change->original, err);
        }
    }
    step->begun = true;
    return status;
}

static ratp_status run(ratp_step *step, uint32_t layer, const struct step_io *io,
                       struct error *err)
{
    ratp_cache *cache = step->cache;
    struct backend *b = cache->backend;
    struct stream *stream;
    ratp_status status = step_stream(step, &stream, err);
    if (!status && !step->begun)
        status = begin(step, err);
    if (status)
        return status;
    const struct plan_class *cls = &step->classes[step->layer_class[layer]];
    struct memory_args memory = {
        .plan = &step->plan, .cls = cls, .shape = &cache->shape,
        .layer_offset = cache->layer_offset[layer],
        .state_offset = layer * cache->state_layer_bytes,
        .k = io->k, .v = io->v, .f = io->f,
    };
    struct attend_args attend = {
        .plan = &step->plan, .cls = cls, .shape = &cache->shape,
        .layer_offset = cache->layer_offset[layer],
        .q = io->q, .o = io->o, .out = io->out, .lse = io->lse,
    };
    if (cls->moves.count)
        status = b->ops->move(b, stream, &memory, err);
    if (!status)
        status = b->ops->memory(b, stream, &memory, err);
    if (!status)
        status = b->ops->attend(b, stream, &attend, err);
    if (status || !io->wait)
        return status;
    ticket done;
    step->stream = NULL;
    status = b->ops->stream_submit(b, stream, &done, err);
    return status ? status : b->ops->wait(b, done, err);
}

ratp_status step_run(ratp_step *step, uint32_t layer, const struct step_io *io, struct error *err)
{
    ratp_status status = step_may_attend(step, layer, err);
    if (status)
        return status;
    if (step->attached && io->wait)
        return fail(err, RATP_INVALID_ARGUMENT,
                    "io has operands in host memory, a recorded step wants buffers only");
    status = run(step, layer, io, err);
    if (status) {
        step->broken = true;
        return status;
    }
    step->attended[layer] = true;
    step->attended_count++;
    return RATP_OK;
}

ratp_status step_attach(ratp_step *step, struct stream *stream, struct error *err)
{
    struct backend *b = step->cache->backend;
    if (step->broken)
        return fail(err, RATP_WRONG_STATE, "an earlier call of this step failed; abort it");
    if (!step->attached && step->attended_count)
        return fail(err, RATP_WRONG_STATE,
                    "%u layers were attended before step_record; record before the first attend",
                    step->attended_count);
    if (step->stream && !step->attached)
        return fail(err, RATP_WRONG_STATE,
                    "step_sync was called before step_record; a recorded step waits and signals "
                    "in the host's own submission");
    if (step->stream && step->stream != stream)
        b->ops->stream_drop(b, step->stream);
    step->stream = stream;
    step->attached = step->awaited = true;
    return RATP_OK;
}

ratp_status step_attached_done(ratp_step *step, ticket done, struct error *err)
{
    if (!step->attached)
        return fail(err, RATP_WRONG_STATE, "step_recorded needs a step_record before it");
    step->frame->busy = done;
    step->awaited = false;
    return RATP_OK;
}

/* The oldest position that is sure to be in a ring after the step. */
static uint32_t ring_from(const ratp_step *step, uint32_t i, uint32_t s)
{
    const ratp_cache *cache = step->cache;
    const struct step_part *part = &step->parts[i];
    const struct store *store = &cache->stores[s];
    if (store->everything)
        return 0;
    uint32_t total = part->seq->length + part->rows, before = part->seq->stores[s].ring_from;
    uint32_t from = total > store->ring_slots ? total - store->ring_slots : 0;
    from = from > before ? from : before;
    uint32_t window = store->keep.window + !part_has_line(cache, part);
    bool whole = part->rows <= window && !part->stores[s].renewed;
    return whole || total <= window ? from : total - window;
}

ratp_status step_finish(ratp_step *step, struct error *err)
{
    ratp_cache *cache = step->cache;
    struct backend *b = cache->backend;
    if (step->broken)
        return fail(err, RATP_WRONG_STATE, "an earlier call of this step failed; abort it");
    if (step->attended_count < cache->layers) {
        uint32_t layer = 0;
        while (step->attended[layer])
            layer++;
        return fail(err, RATP_WRONG_STATE, "%u of %u layers were attended, layer %u was not",
                    step->attended_count, cache->layers, layer);
    }
    if (step->awaited)
        return fail(err, RATP_WRONG_STATE,
                    "the step was recorded; tell step_recorded when its work is done, then commit");
    if (step->stream && !step->attached) {
        struct stream *stream = step->stream;
        ticket done;
        step->stream = NULL;
        ratp_status status = b->ops->stream_submit(b, stream, &done, err);
        if (status) {
            step->broken = true;
            return status;
        }
    }
    for (uint32_t i = 0; i < step->count; i++) {
        ratp_seq *seq = step->parts[i].seq;
        for (uint32_t s = 0; s < cache->store_count; s++) {
            struct part_store *change = &step->parts[i].stores[s];
            seq->stores[s].ring_from = ring_from(step, i, s);
            if (change->original)
                page_release(&cache->stores[s].pool, change->original);
            if (!change->renewed)
                continue;
            page_list_cut(&cache->stores[s].pool, &seq->stores[s].ring, 0);
            seq->stores[s].ring = change->fresh;
        }
        seq->length += step->parts[i].rows;
        seq->state_copy ^= 1;
    }
    free_step(step);
    return RATP_OK;
}

void step_cancel(ratp_step *step)
{
    /* What was recorded may have overwritten slots of rings that have left every
     * window; only a truncation could have asked for them. */
    for (uint32_t i = 0; i < step->count && step->begun; i++)
        for (uint32_t s = 0; s < step->cache->store_count; s++) {
            struct seq_store *held = &step->parts[i].seq->stores[s];
            const struct store *store = &step->cache->stores[s];
            uint64_t total = (uint64_t)step->parts[i].seq->length + step->parts[i].rows;
            if (!store->everything && !step->parts[i].stores[s].renewed &&
                total > held->ring_from + store->ring_slots)
                held->ring_from = (uint32_t)(total - store->ring_slots);
        }
    release(step);
    free_step(step);
}
