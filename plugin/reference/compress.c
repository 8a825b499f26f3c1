/* Compression (snapkv): queries that are kept for it, and what they choose. */
#include "internal.h"

#include "../dtype.h"

#include <float.h>
#include <stdlib.h>
#include <string.h>

ratp_status reference_observe(struct backend *b, struct stream *s, const struct attend_args *args,
                              struct error *err)
{
    (void)b;
    const struct layer_shape *shape = args->shape;
    ratp_status status = shape_check(shape, err);
    if (status)
        return status;
    const struct gpu_observer *list = list_at(args->plan, args->cls->observers);
    const struct gpu_view *views = list_at(args->plan, args->cls->views);
    uint32_t group = shape->query_heads / shape->kv_heads, d = shape->head_size;
    for (uint32_t i = 0; i < args->cls->observers.count; i++) {
        const struct gpu_observer *o = &list[i];
        const struct gpu_view *view = &views[o->view];
        /* Heads lie in the ring as they do in the pages of their store. */
        uint32_t head0 = slab_offset(args->plan, view, args->slab) / shape->k_head;
        for (uint32_t n = 0; n < o->tokens; n++)
            for (uint32_t head = 0; head < shape->query_heads; head++) {
                uint64_t from = args->q.address +
                                (uint64_t)(view->row0 + o->token0 + n) * args->q.token_stride +
                                (uint64_t)head * args->q.head_stride;
                uint64_t row = (uint64_t)(head0 + head / group) * o->ring + (o->at + n) % o->ring;
                dtype_load_row(at(from), args->q.dtype, d, s->row);
                memcpy(at(joined(o->queries) + (row * group + head % group) * d * sizeof(float)),
                       s->row, d * sizeof(float));
            }
    }
    return RATP_OK;
}

/* Work of one head. */
struct ballot {
    const struct compress_args *args;
    uint32_t head;
    uint32_t candidates; /* tokens before those of the queries */
    double *logits;      /* [held] */
    double *votes;       /* [candidates] */
    float *pooled;       /* [candidates] */
    uint32_t *order;     /* [held] slots */
};

static struct slot slot_of(const struct ballot *ballot, bool made, uint32_t slot)
{
    const struct compress_args *args = ballot->args;
    return slot_at(args->plan, args->shape, made ? args->to_page0 : args->from_page0,
                   made ? args->to_pages : args->from_pages, slot, args->offset, ballot->head);
}

/* One query of one query head. */
static void vote(const struct ballot *ballot, uint32_t query, uint32_t g)
{
    const struct compress_args *args = ballot->args;
    const struct layer_shape *shape = args->shape;
    uint32_t d = shape->head_size, group = shape->query_heads / shape->kv_heads;
    uint32_t ring = args->query_ring, keys = ballot->candidates + query + 1;
    uint64_t row = (uint64_t)ballot->head * ring + (args->query_at + query) % ring;
    const float *q = at(args->queries + (row * group + g) * d * sizeof(float));
    double turned[MAX_CHANNELS], key[MAX_CHANNELS], softcap = (double)shape->softcap;
    double most = -INFINITY, sum = 0;
    float values[MAX_CHANNELS];
    struct rotation rotation;
    for (uint32_t c = 0; c < d; c++)
        turned[c] = q[c];
    if (shape->rope_style != RATP_ROPE_NONE) {
        rotation_at(shape, args->length - args->observe + query, &rotation);
        rotate(shape, &rotation, turned);
    }
    for (uint32_t i = 0; i < keys; i++) {
        dtype_load_row(slot_of(ballot, false, i).k, shape->k_dtype, d, values);
        for (uint32_t c = 0; c < d; c++)
            key[c] = values[c];
        double x = (double)shape->scale * dot(turned, key, d);
        ballot->logits[i] = softcap > 0 ? softcap * tanh(x / softcap) : x;
        /* One that is not finite takes all votes of its row: so its key is kept, and shows. */
        if (!isfinite((float)x))
            ballot->logits[i] = (double)FLT_MAX;
        most = fmax(most, ballot->logits[i]);
    }
    for (uint32_t i = 0; i < keys; i++)
        sum += exp(ballot->logits[i] - most);
    for (uint32_t i = 0; i < ballot->candidates; i++)
        ballot->votes[i] += exp(ballot->logits[i] - most) / sum;
}

static void pool(const struct ballot *ballot)
{
    uint32_t kernel = ballot->args->kernel, count = ballot->candidates;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t first = i - (i < kernel / 2 ? i : kernel / 2), end = i + kernel / 2 + 1;
        double sum = 0, most = ballot->votes[i];
        for (uint32_t n = first; n < end && n < count; n++) {
            sum += ballot->votes[n];
            most = fmax(most, ballot->votes[n]);
        }
        ballot->pooled[i] = (float)(ballot->args->average ? sum / kernel : most);
    }
}

/* Of equal scores, which are finite, the higher number is worse. */
static bool worse(const float *score, uint32_t a, uint32_t b)
{
    return score[a] < score[b] || (!(score[a] > score[b]) && a > b);
}

static void sink(const float *score, uint32_t *heap, uint32_t count, uint32_t i)
{
    for (;;) {
        uint32_t next = 2 * i + 1, old = heap[i];
        if (next + 1 < count && worse(score, heap[next + 1], heap[next]))
            next++;
        if (next >= count || !worse(score, heap[next], old))
            return;
        heap[i] = heap[next];
        heap[next] = old;
        i = next;
    }
}

static int ascending(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* The slots that are kept, ascending, in `order`: the best are found in a heap that has the
 * worst of them on top. */
static void elect(const struct ballot *ballot)
{
    const struct compress_args *args = ballot->args;
    uint32_t want = args->capacity - args->observe, *order = ballot->order;
    for (uint32_t i = 0; i < want; i++)
        order[i] = i;
    for (uint32_t i = want; i-- > 0;)
        sink(ballot->pooled, order, want, i);
    for (uint32_t i = want; i < ballot->candidates; i++)
        if (worse(ballot->pooled, order[0], i)) {
            order[0] = i;
            sink(ballot->pooled, order, want, 0);
        }
    qsort(order, want, sizeof *order, ascending);
    for (uint32_t i = 0; i < args->observe; i++)
        order[want + i] = ballot->candidates + i;
}

static void gather(const struct ballot *ballot)
{
    const struct compress_args *args = ballot->args;
    const struct layer_shape *shape = args->shape;
    size_t k_bytes = dtype_row_bytes(shape->k_dtype, shape->head_size);
    size_t v_bytes = dtype_row_bytes(shape->v_dtype, shape->value_size);
    uint64_t row = (uint64_t)ballot->head * args->capacity;
    uint32_t dropped = args->length - args->held;
    const uint32_t *before = at(args->positions_in);
    uint32_t *after = at(args->positions);
    for (uint32_t i = 0; i < args->capacity; i++) {
        uint32_t slot = ballot->order[i];
        bool moved = dropped && slot < args->capacity;
        struct slot from = slot_of(ballot, false, slot), to = slot_of(ballot, true, i);
        memcpy(to.k, from.k, k_bytes);
        memcpy(to.v, from.v, v_bytes);
        after[row + i] = moved ? before[row + slot] : slot + dropped;
    }
}

ratp_status reference_compress(struct backend *b, struct stream *s,
                               const struct compress_args *args, struct error *err)
{
    (void)b, (void)s;
    const struct layer_shape *shape = args->shape;
    ratp_status status = shape_check(shape, err);
    struct ballot ballot = {
        .args = args,
        .candidates = args->held - args->observe,
        .logits = malloc(args->held * sizeof *ballot.logits),
        .votes = malloc(args->held * sizeof *ballot.votes),
        .pooled = malloc(args->held * sizeof *ballot.pooled),
        .order = malloc(args->held * sizeof *ballot.order),
    };
    if (!status && (!ballot.logits || !ballot.votes || !ballot.pooled || !ballot.order))
        status = fail(err, RATP_OUT_OF_MEMORY, "no host memory for the votes on %u tokens",
                      args->held);
    for (uint32_t head = 0; head < shape->kv_heads && !status; head++) {
        ballot.head = head;
        for (uint32_t i = 0; i < ballot.candidates; i++)
            ballot.votes[i] = 0;
        for (uint32_t i = 0; i < args->observe; i++)
            for (uint32_t g = 0; g < shape->query_heads / shape->kv_heads; g++)
                vote(&ballot, i, g);
        pool(&ballot);
        elect(&ballot);
        gather(&ballot);
    }
    free(ballot.logits);
    free(ballot.votes);
    free(ballot.pooled);
    free(ballot.order);
    return status;
}
