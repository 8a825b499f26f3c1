#include "step.h"

#include <stdlib.h>

/* A page of its own in place of the last one, which others hold too. */
static ratp_status replace_last(ratp_cache *cache, struct pool *pool, struct page_list *kept,
                                struct part_store *change, struct error *err)
{
    ratp_status status = pool_take(cache, pool, 1, kept, err);
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
    const struct store *store = &part->seq->layout->stores[index];
    struct seq_store *held = &part->seq->stores[index];
    struct part_store *change = &part->stores[index];
    uint32_t slots = cache->shape.page_slots;
    uint32_t length = part->seq->length, total = length + part->rows;
    uint64_t kept = store_kept(store, length), keep = store_kept(store, total);
    uint32_t pages = pages_for(cache, keep);
    change->kept_before = held->kept.count;
    change->ring_before = held->ring.count;
    ratp_status status = RATP_OK;
    if (keep > kept && kept % slots && held->kept.page[held->kept.count - 1]->refs > 1)
        status = replace_last(cache, store->pool, &held->kept, change, err);
    if (!status && pages > held->kept.count)
        status = pool_take(cache, store->pool, pages - held->kept.count, &held->kept, err);
    if (status || store->everything)
        return status;

    uint32_t ring = total < store->ring_slots ? total : store->ring_slots;
    pages = pages_for(cache, ring);
    /* Overwriting is safe while what is overwritten has left the window of the
     * committed state's next token, and nobody else reads it; else the step
     * fills a ring of its own. */
    bool safe = total <= store->ring_slots || part->rows <= store->ring_slots - store->keep.window;
    if (safe && !any_shared(&held->ring))
        return pages > held->ring.count
                   ? pool_take(cache, store->pool, pages - held->ring.count, &held->ring, err)
                   : RATP_OK;
    change->renewed = true;
    return pool_take(cache, store->pool, pages, &change->fresh, err);
}

bool part_has_line(const struct step_part *part)
{
    const struct layout *layout = part->seq->layout;
    if (part->rows == 1)
        return false;
    for (uint32_t s = 0; s < layout->store_count; s++)
        if (!layout->stores[s].everything)
            return true;
    return false;
}

static void free_step(ratp_step *step)
{
    ratp_cache *cache = step->cache;
    const struct backend_ops *ops = cache->backend->ops;
    if (step->stream)
        ops->stream_drop(cache->backend, step->stream);
    if (step->frame) {
        step->frame->busy = ops->latest(cache->backend);
        step->frame->held = false;
    }
    for (uint32_t i = 0; i < step->count; i++)
        if (step->parts[i].seq)
            step->parts[i].seq->step = NULL;
    if (cache->step == step) {
        cache->step = NULL;
        atomic_fetch_sub(&cache->object.children, 1);
    }
    free(step->parts);
    free(step->part_stores);
    for (uint32_t i = 0; step->classes && i < step->class_count; i++)
        free(step->classes[i].waves);
    free(step->classes);
    free(step->layouts);
    free(step->class_slab);
    free(step->slab_class);
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
    for (uint32_t i = 0; i < step->count; i++) {
        struct step_part *part = &step->parts[i];
        for (uint32_t s = 0; part->stores && s < part->seq->layout->store_count; s++) {
            struct pool *pool = part->seq->layout->stores[s].pool;
            page_list_cut(pool, &part->stores[s].fresh, 0);
            page_list_cut(pool, &part->seq->stores[s].kept, part->stores[s].kept_before);
            restore_original(pool, &part->seq->stores[s].kept, &part->stores[s]);
            page_list_cut(pool, &part->seq->stores[s].ring, part->stores[s].ring_before);
        }
    }
}

static ratp_status add_part(ratp_step *step, uint32_t i, const struct ratp_step_params *params,
                            struct error *err)
{
    ratp_cache *cache = step->cache;
    ratp_seq *seq = params->seqs[i];
    uint32_t rows = params->n_tokens[i];
    ratp_part_kind kind = params->kinds ? params->kinds[i] : RATP_PART_AUTO;
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
    if (kind < RATP_PART_AUTO || kind > RATP_PART_DECODE)
        return fail(err, RATP_INVALID_ARGUMENT,
                    "kinds[%u] is %d, it must be 0 (auto), 1 (prompt) or 2 (decode)", i, (int)kind);
    struct step_part *part = &step->parts[i];
    part->rows = rows;
    part->prompt = kind == RATP_PART_PROMPT || (kind == RATP_PART_AUTO && rows > 1);
    part->seq = seq;
    seq->step = step;
    step->rows += rows;
    return RATP_OK;
}

/* Room for what the step changes in every store. */
static ratp_status add_stores(ratp_step *step, struct error *err)
{
    size_t count = 0;
    for (uint32_t i = 0; i < step->count; i++)
        count += step->parts[i].seq->layout->store_count;
    step->part_stores = calloc(count, sizeof *step->part_stores);
    if (!step->part_stores)
        return fail(err, RATP_OUT_OF_MEMORY, "no host memory for a step of %u sequences",
                    step->count);
    struct part_store *next = step->part_stores;
    for (uint32_t i = 0; i < step->count; i++) {
        struct step_part *part = &step->parts[i];
        part->stores = next;
        for (uint32_t s = 0; s < part->seq->layout->store_count; s++, next++) {
            next->kept_before = part->seq->stores[s].kept.count;
            next->ring_before = part->seq->stores[s].ring.count;
        }
    }
    return RATP_OK;
}

/* Whether two slabs have the same work in every sequence of the step. */
static bool same_class(const ratp_step *step, uint32_t a, uint32_t b)
{
    for (uint32_t i = 0; i < step->layout_count; i++) {
        const struct layout *layout = step->layouts[i];
        if (layout->slab_store[a] != layout->slab_store[b] ||
            !choice_equal(&layout->choice[a], &layout->choice[b]))
            return false;
    }
    return true;
}

static ratp_status sort_slabs(ratp_step *step, struct error *err)
{
    ratp_cache *cache = step->cache;
    cache->steps++;
    for (uint32_t i = 0; i < step->count; i++) {
        struct layout *layout = step->parts[i].seq->layout;
        if (layout->seen != cache->steps)
            step->layouts[step->layout_count++] = layout;
        layout->seen = cache->steps;
    }
    for (uint32_t slab = 0; slab < cache->slabs; slab++) {
        uint32_t c = 0;
        while (c < step->class_count && !same_class(step, step->class_slab[c], slab))
            c++;
        if (c == step->class_count)
            step->class_slab[step->class_count++] = slab;
        step->slab_class[slab] = c;
    }
    step->classes = calloc(step->class_count, sizeof *step->classes);
    if (!step->classes)
        return fail(err, RATP_OUT_OF_MEMORY, "no host memory for %u classes of heads",
                    step->class_count);
    return RATP_OK;
}

ratp_status step_open(ratp_cache *cache, const struct ratp_step_params *params, ratp_step **out,
                      struct error *err)
{
    uint32_t count = params->count;
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
    step->layouts = calloc(count, sizeof *step->layouts);
    step->class_slab = calloc(cache->slabs, sizeof *step->class_slab);
    step->slab_class = calloc(cache->slabs, sizeof *step->slab_class);
    step->attended = calloc(cache->layers, sizeof *step->attended);
    ratp_status status = RATP_OK;
    if (!step->parts || !step->layouts || !step->class_slab || !step->slab_class ||
        !step->attended) {
        status = fail(err, RATP_OUT_OF_MEMORY, "no host memory for a step of %u sequences", count);
        goto error;
    }
    step->count = count;
    for (uint32_t i = 0; i < count && !status; i++)
        status = add_part(step, i, params, err);
    if (!status)
        status = add_stores(step, err);
    for (uint32_t i = 0; i < count && !status; i++)
        for (uint32_t s = 0; s < step->parts[i].seq->layout->store_count && !status; s++)
            status = reserve(cache, &step->parts[i], s, err);
    if (!status)
        status = sort_slabs(step, err);
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
        for (uint32_t s = 0; s < seq->layout->store_count && !status; s++) {
            const struct part_store *change = &part->stores[s];
            if (change->original)
                status = copy_page(step, seq->layout->stores[s].pool,
                                   seq->stores[s].kept.page[change->kept_before - 1],
                                   change->original, err);
        }
    }
    step->begun = true;
    return status;
}

/* The operand from key/value head `head` on; `group` query heads belong to one. */
static struct operand heads_from(struct operand o, uint32_t head, uint32_t group)
{
    if (o.address)
        o.address += (uint64_t)head * group * o.head_stride;
    return o;
}

/* A run of heads of a layer that are one class. */
static ratp_status run_heads(ratp_step *step, uint32_t slab, uint32_t heads,
                             const struct step_io *io, struct error *err)
{
    const ratp_cache *cache = step->cache;
    struct backend *b = cache->backend;
    uint32_t head = slab % cache->shape.kv_heads;
    uint32_t group = cache->shape.query_heads / cache->shape.kv_heads;
    struct layer_shape shape = shape_of_run(cache, heads);
    const struct plan_class *cls = &step->classes[step->slab_class[slab]];
    struct memory_args memory = {
        .plan = &step->plan, .cls = cls, .shape = &shape, .slab = slab,
        .state_offset = slab * cache->slab_state_bytes,
        .k = heads_from(io->k, head, 1), .v = heads_from(io->v, head, 1),
        .f = heads_from(io->f, head, 1),
    };
    struct attend_args attend = {
        .plan = &step->plan, .cls = cls, .shape = &shape, .slab = slab,
        .q = heads_from(io->q, head, group), .o = heads_from(io->o, head, group),
        .out = heads_from(io->out, head, group), .lse = heads_from(io->lse, head, group),
    };
    ratp_status status = RATP_OK;
    if (cls->moves.count)
        status = b->ops->move(b, step->stream, &memory, err);
    if (!status)
        status = b->ops->memory(b, step->stream, &memory, err);
    if (!status && cls->summaries.count)
        status = b->ops->summarise(b, step->stream, &memory, err);
    if (!status && cls->choosers.count)
        status = b->ops->choose(b, step->stream, &attend, err);
    if (!status)
        status = b->ops->attend(b, step->stream, &attend, err);
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
    uint32_t end = (layer + 1) * cache->shape.kv_heads;
    for (uint32_t slab = layer * cache->shape.kv_heads, heads; slab < end && !status;
         slab += heads) {
        heads = run_of(cache, slab, step->slab_class);
        status = run_heads(step, slab, heads, io, err);
    }
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
    const struct step_part *part = &step->parts[i];
    const struct store *store = &part->seq->layout->stores[s];
    if (store->everything)
        return 0;
    uint32_t total = part->seq->length + part->rows, before = part->seq->stores[s].ring_from;
    uint32_t from = total > store->ring_slots ? total - store->ring_slots : 0;
    from = from > before ? from : before;
    uint32_t window = store->keep.window + !part_has_line(part);
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
        for (uint32_t s = 0; s < seq->layout->store_count; s++) {
            struct part_store *change = &step->parts[i].stores[s];
            struct pool *pool = seq->layout->stores[s].pool;
            seq->stores[s].ring_from = ring_from(step, i, s);
            if (change->original)
                page_release(pool, change->original);
            if (!change->renewed)
                continue;
            page_list_cut(pool, &seq->stores[s].ring, 0);
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
        for (uint32_t s = 0; s < step->parts[i].seq->layout->store_count; s++) {
            struct seq_store *held = &step->parts[i].seq->stores[s];
            const struct store *store = &step->parts[i].seq->layout->stores[s];
            uint64_t total = (uint64_t)step->parts[i].seq->length + step->parts[i].rows;
            if (!store->everything && !step->parts[i].stores[s].renewed &&
                total > held->ring_from + store->ring_slots)
                held->ring_from = (uint32_t)(total - store->ring_slots);
        }
    release(step);
    free_step(step);
}
