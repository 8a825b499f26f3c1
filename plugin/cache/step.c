#include "../index.h"
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

/* Takes the pages that the part's new tokens need of one store. */
static ratp_status reserve(ratp_cache *cache, struct step_part *part, uint32_t index,
                           struct error *err)
{
    const struct store *store = &part->seq->layout->stores[index];
    struct seq_store *held = &part->seq->stores[index];
    struct part_store *change = &part->stores[index];
    uint32_t slots = cache->shape.page_slots;
    uint32_t length = part->seq->length, total = length + part->rows;
    uint64_t kept = store_kept(store, length) - held->dropped;
    uint64_t keep = store_kept(store, total) - held->dropped;
    uint32_t pages = pages_for(cache, keep);
    change->kept_before = held->kept.count;
    change->ring_before = held->ring.count;
    ratp_status status = RATP_OK;
    if (keep > kept && kept % slots && held->kept.page[held->kept.count - 1]->refs > 1)
        status = replace_last(cache, store->pool, &held->kept, change, err);
    if (!status && pages > held->kept.count)
        status = pool_take(cache, store->pool, pages - held->kept.count, &held->kept, err);
    return status || store->everything ? status : ring_reserve(cache, part, index, err);
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
    if (step->frame)
        frame_give(cache, step->frame, ops->latest(cache->backend));
    scratch_release(cache);
    for (uint32_t i = 0; i < step->count; i++)
        if (step->parts[i].seq)
            step->parts[i].seq->step = NULL;
    if (cache->step == step) {
        cache->step = NULL;
        atomic_fetch_sub(&cache->object.children, 1);
    }
    for (uint32_t i = 0; i < step->count; i++)
        free(step->parts[i].before);
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
            page_list_cut(pool, &part->seq->stores[s].kept, part->stores[s].kept_before);
            restore_original(pool, &part->seq->stores[s].kept, &part->stores[s]);
            ring_abort(pool, &part->seq->stores[s], &part->stores[s]);
        }
        if (part->before) {
            compress_swap(part->seq, part->before);
            stores_drop(step->cache, part->seq->layout, part->before);
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

/* Compresses the past of decoded tokens where that is due. The pages that hold it are
 * kept until the step is over. */
static ratp_status compress_part(struct step_part *part, struct error *err)
{
    ratp_seq *seq = part->seq;
    if (part->prompt || !compress_due(seq, &part->waits))
        return RATP_OK;
    struct seq_store *other = calloc(seq->layout->store_count, sizeof *other);
    if (!other)
        return fail(err, RATP_OUT_OF_MEMORY, "no host memory to compress %u stores",
                    seq->layout->store_count);
    ratp_status status = compress_run(seq, other, err);
    if (status)
        free(other);
    else
        part->before = other;
    return status;
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
        if (layout->slab_kind[a] != layout->slab_kind[b])
            return false;
    }
    return true;
}

static uint64_t class_hash(const ratp_step *step, uint32_t slab)
{
    uint64_t hash = 0;
    for (uint32_t i = 0; i < step->layout_count; i++)
        hash = hash_add(hash, step->layouts[i]->slab_kind[slab]);
    return hash;
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
    struct index index;
    if (!index_open(&index, cache->slabs))
        return fail(err, RATP_OUT_OF_MEMORY, "no host memory to sort %u heads", cache->slabs);
    for (uint32_t slab = 0; slab < cache->slabs; slab++) {
        uint32_t *slot = index_first(&index, class_hash(step, slab));
        while (*slot != INDEX_NONE && !same_class(step, step->class_slab[*slot], slab))
            slot = index_next(&index, slot);
        if (*slot == INDEX_NONE) {
            *slot = step->class_count++;
            step->class_slab[*slot] = slab;
        }
        step->slab_class[slab] = *slot;
    }
    free(index.slot);
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
        status = compress_part(&step->parts[i], err);
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
        ratp_status status = step_acted(step, b->ops->stream_submit(b, stream, &done, err));
        if (status)
            return status;
    }
    for (uint32_t i = 0; i < step->count; i++) {
        struct step_part *part = &step->parts[i];
        ratp_seq *seq = part->seq;
        for (uint32_t s = 0; s < seq->layout->store_count; s++) {
            struct part_store *change = &part->stores[s];
            struct pool *pool = seq->layout->stores[s].pool;
            ring_commit(pool, &seq->stores[s], change);
            observe_commit(&seq->layout->stores[s], &seq->stores[s], part->rows);
            if (change->original)
                page_release(pool, change->original);
        }
        if (part->before)
            stores_drop(cache, seq->layout, part->before);
        if (part->prompt && seq->when == COMPRESS_AFTER_PROMPT)
            seq->when = COMPRESS_AT_DECODE;
        else if (!part->prompt && seq->when == COMPRESS_AT_DECODE && !part->waits)
            seq->when = COMPRESS_WHEN_ASKED;
        seq->length += part->rows;
        seq->state_copy ^= 1;
    }
    free_step(step);
    return RATP_OK;
}

void step_cancel(ratp_step *step)
{
    release(step);
    free_step(step);
}
