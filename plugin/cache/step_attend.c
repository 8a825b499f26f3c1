/* A step's work, layer by layer, on the stream that it is recorded on. */
#include "step.h"

uint32_t step_rows(const ratp_step *step)
{
    return step->rows;
}

ratp_cache *step_cache(const ratp_step *step)
{
    return step->cache;
}

static ratp_status intact(const ratp_step *step, struct error *err)
{
    if (step->broken)
        return fail(err, RATP_WRONG_STATE, "an earlier call of this step failed; abort it");
    return RATP_OK;
}

ratp_status step_may_attend(const ratp_step *step, uint32_t layer, struct error *err)
{
    struct backend *b = step->cache->backend;
    ratp_status status = intact(step, err);
    if (status)
        return status;
    if (layer >= step->cache->layers)
        return fail(err, RATP_INVALID_ARGUMENT, "layer is %u, the geometry has %u", layer,
                    step->cache->layers);
    if (step->attended[layer])
        return fail(err, RATP_WRONG_STATE, "layer %u was attended in this step already", layer);
    if (step->attached && !step->awaited)
        return fail(err, RATP_WRONG_STATE,
                    "step_recorded was called; call step_record again, or commit or abort the step");
    return b->ops->alive(b, err);
}

ratp_status step_may_record(const ratp_step *step, struct error *err)
{
    ratp_status status = intact(step, err);
    if (status || step->attached)
        return status;
    if (step->attended_count)
        return fail(err, RATP_WRONG_STATE,
                    "%u layers were attended before step_record; record before the first attend",
                    step->attended_count);
    if (step->stream)
        return fail(err, RATP_WRONG_STATE,
                    "step_sync was called before step_record; a recorded step waits and signals "
                    "in the host's own submission");
    return RATP_OK;
}

/* A broken step too: what the host has submitted of it must be waited for. */
ratp_status step_may_end_record(const ratp_step *step, struct error *err)
{
    if (!step->attached)
        return fail(err, RATP_WRONG_STATE, "step_recorded needs a step_record before it");
    return RATP_OK;
}

ratp_status step_may_sync(const ratp_step *step, struct error *err)
{
    ratp_status status = intact(step, err);
    if (!status && step->attached)
        status = fail(err, RATP_WRONG_STATE,
                      "the step records into the host's command buffer: the host synchronises it");
    return status;
}

ratp_status step_acted(ratp_step *step, ratp_status status)
{
    if (status)
        step->broken = true;
    return status;
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
        .sinks = io->sinks ? io->sinks + (uint64_t)head * group * sizeof(float) : 0,
    };
    ratp_status status = RATP_OK;
    if (cls->moves.count)
        status = b->ops->move(b, step->stream, &memory, err);
    if (!status)
        status = b->ops->memory(b, step->stream, &memory, err);
    if (!status && cls->observers.count)
        status = b->ops->observe(b, step->stream, &attend, err);
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
    status = step_acted(step, run(step, layer, io, err));
    if (status)
        return status;
    step->attended[layer] = true;
    step->attended_count++;
    return RATP_OK;
}

void step_attached(ratp_step *step)
{
    step->attached = step->awaited = true;
}

void step_attached_done(ratp_step *step, ticket done)
{
    step->frame->busy = done;
    step->awaited = false;
}
