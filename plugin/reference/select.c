/* Blocks of keys: what is known of them, and which of them a query attends. */
#include "internal.h"

#include "../dtype.h"

#include <stdlib.h>
#include <string.h>

/* Entry number `entry` of a sequence, of one key/value head. */
static uint8_t *entry_of(const struct plan *plan, const struct layer_shape *shape,
                         const struct gpu_view *view, uint32_t slab, uint32_t head,
                         uint32_t entry_at, uint32_t entry_tokens, uint32_t entry_bytes,
                         uint32_t entry)
{
    const struct gpu_page *pages = list_at(plan, plan->pages);
    const uint32_t *table = at(plan->params->address + view->summaries);
    uint32_t in_page = shape->page_slots / entry_tokens;
    uint32_t page = entry / in_page;
    page = view->entry_page0 + (page < view->entry_pages ? page : view->entry_pages - 1);
    return at(joined(pages[page].k) + table[slab] + (uint64_t)head * view->summary_head + entry_at +
              (uint64_t)(entry % in_page) * entry_bytes);
}

/* NaN where one of the two is not finite: such a block has no extremes, and is chosen first. */
static float least_of(float a, float b)
{
    return !isfinite(a) || !isfinite(b) ? NAN : a < b ? a : b;
}

static float greatest_of(float a, float b)
{
    return !isfinite(a) || !isfinite(b) ? NAN : a > b ? a : b;
}

static void summarise(const struct memory_args *args, const struct gpu_summary *summary,
                      uint32_t head, uint32_t entry)
{
    const struct layer_shape *shape = args->shape;
    const struct gpu_view *view =
        (const struct gpu_view *)list_at(args->plan, args->cls->views) + summary->view;
    uint32_t d = shape->head_size, offset = slab_offset(args->plan, view, args->slab);
    float row[MAX_CHANNELS], least[MAX_CHANNELS], greatest[MAX_CHANNELS];
    float sum[MAX_CHANNELS] = {0};
    for (uint32_t i = 0; i < summary->entry_tokens; i++) {
        struct slot slot = slot_at(args->plan, shape, view->line_page0, view->line_pages,
                                   entry * summary->entry_tokens + i, offset, head);
        dtype_load_row(slot.k, shape->k_dtype, d, row);
        for (uint32_t c = 0; c < d; c++) {
            least[c] = i ? least_of(least[c], row[c]) : least_of(row[c], row[c]);
            greatest[c] = i ? greatest_of(greatest[c], row[c]) : greatest_of(row[c], row[c]);
            sum[c] += row[c];
        }
    }
    uint8_t *to = entry_of(args->plan, shape, view, args->slab, head, summary->entry_at,
                           summary->entry_tokens, summary->entry_bytes, entry);
    ratp_dtype dtype = dtype_of_extremes(shape->k_dtype);
    if (summary->select == SELECT_MEAN) {
        dtype_store_row(to, RATP_F32, d, sum);
        return;
    }
    dtype_store_row(to, dtype, d, least);
    dtype_store_row(to + dtype_row_bytes(dtype, d), dtype, d, greatest);
}

ratp_status reference_summarise(struct backend *b, struct stream *s,
                                const struct memory_args *args, struct error *err)
{
    (void)b, (void)s;
    ratp_status status = shape_check(args->shape, err);
    if (status)
        return status;
    const struct gpu_summary *list = list_at(args->plan, args->cls->summaries);
    for (uint32_t i = 0; i < args->cls->summaries.count; i++)
        for (uint32_t n = 0; n < list[i].count; n++)
            for (uint32_t head = 0; head < args->shape->kv_heads; head++)
                summarise(args, &list[i], head, list[i].first + n);
    return RATP_OK;
}

/* A query head's score of one block: of its entries together. */
static float score_block(const struct attend_args *args, const struct gpu_view *view,
                         uint32_t kv_head, uint32_t block, const double *query)
{
    const struct layer_shape *shape = args->shape;
    uint32_t d = shape->head_size, entries = view->block / view->entry_tokens;
    ratp_dtype dtype = dtype_of_extremes(shape->k_dtype);
    float least[MAX_CHANNELS], greatest[MAX_CHANNELS];
    float low[MAX_CHANNELS] = {0}, high[MAX_CHANNELS] = {0};
    double total = 0;
    for (uint32_t e = 0; e < entries; e++) {
        const uint8_t *entry =
            entry_of(args->plan, shape, view, args->slab, kv_head, view->entry_at,
                     view->entry_tokens, view->entry_bytes, block * entries + e);
        if (view->select == SELECT_MEAN) {
            dtype_load_row(entry, RATP_F32, d, least);
            for (uint32_t c = 0; c < d; c++)
                total += query[c] * (double)least[c];
            continue;
        }
        dtype_load_row(entry, dtype, d, least);
        dtype_load_row(entry + dtype_row_bytes(dtype, d), dtype, d, greatest);
        for (uint32_t c = 0; c < d; c++) {
            low[c] = e ? least_of(low[c], least[c]) : least[c];
            high[c] = e ? greatest_of(high[c], greatest[c]) : greatest[c];
        }
    }
    if (view->select == SELECT_MEAN)
        return (float)(total / view->block);
    for (uint32_t c = 0; c < d; c++)
        total += query[c] * (double)(query[c] > 0 ? high[c] : low[c]);
    return (float)total;
}

static void load_query(const struct attend_args *args, uint32_t row, uint32_t head,
                       const struct rotation *rotation, double *query)
{
    const struct operand *q = &args->q;
    float values[MAX_CHANNELS];
    uint64_t address =
        q->address + (uint64_t)row * q->token_stride + (uint64_t)head * q->head_stride;
    dtype_load_row(at(address), q->dtype, args->shape->head_size, values);
    for (uint32_t c = 0; c < args->shape->head_size; c++)
        query[c] = values[c];
    if (args->shape->rope_style != RATP_ROPE_NONE)
        rotate(args->shape, rotation, query);
}

/* One that is not finite is better than all others, so that it is attended and shows. */
static bool better(float a, float b)
{
    if (!isfinite(a) || !isfinite(b))
        return isfinite(b);
    return a > b;
}

/* The `want` best of `count` scores, the lower number where they are equal, marked. */
static void mark_best(const float *score, uint32_t count, uint32_t want, bool *chosen)
{
    memset(chosen, 0, count * sizeof *chosen);
    for (uint32_t n = 0; n < want; n++) {
        uint32_t best = count;
        for (uint32_t i = 0; i < count; i++)
            if (!chosen[i] && (best == count || better(score[i], score[best])))
                best = i;
        chosen[best] = true;
    }
}

/* One query token and key/value head: its query heads' lists. */
static void choose(const struct attend_args *args, const struct gpu_chooser *chooser,
                   uint32_t number, uint32_t kv_head, float *score, bool *chosen)
{
    const struct layer_shape *shape = args->shape;
    const struct gpu_view *view =
        (const struct gpu_view *)list_at(args->plan, args->cls->views) + chooser->view;
    uint32_t group = shape->query_heads / shape->kv_heads, t = view->pos0 + chooser->token;
    uint32_t blocks = blocks_at(view, t), want = chosen_at(view, t);
    uint32_t stride = args->cls->most_chosen;
    double query[MAX_CHANNELS];
    struct rotation rotation;
    if (shape->rope_style != RATP_ROPE_NONE)
        rotation_at(shape, t, &rotation);
    uint32_t *lists = at(args->plan->chosen_address);
    memset(score, 0, blocks * sizeof *score);
    for (uint32_t g = 0; g < group; g++) {
        uint32_t head = kv_head * group + g;
        load_query(args, view->row0 + chooser->token, head, &rotation, query);
        for (uint32_t b = 0; b + 1 < blocks; b++)
            score[b] = (view->by_group ? score[b] : 0) +
                       score_block(args, view, kv_head, b, query);
        if (view->by_group && g + 1 < group)
            continue;
        mark_best(score, blocks - 1, want - 1, chosen);
        for (uint32_t to = view->by_group ? kv_head * group : head; to <= head; to++) {
            uint32_t *list = lists + ((uint64_t)number * shape->query_heads + to) * stride;
            for (uint32_t b = 0; b + 1 < blocks; b++)
                if (chosen[b])
                    *list++ = b;
            *list = blocks - 1;
        }
    }
}

ratp_status reference_choose(struct backend *b, struct stream *s, const struct attend_args *args,
                             struct error *err)
{
    (void)b, (void)s;
    ratp_status status = shape_check(args->shape, err);
    float *score = malloc(args->cls->most_blocks * sizeof *score);
    bool *chosen = malloc(args->cls->most_blocks * sizeof *chosen);
    if (!status && (!score || !chosen))
        status = fail(err, RATP_OUT_OF_MEMORY, "no host memory for the scores of %u blocks",
                      args->cls->most_blocks);
    const struct gpu_chooser *list = list_at(args->plan, args->cls->choosers);
    for (uint32_t i = 0; i < args->cls->choosers.count && !status; i++)
        for (uint32_t head = 0; head < args->shape->kv_heads; head++)
            choose(args, &list[i], i, head, score, chosen);
    free(score);
    free(chosen);
    return status;
}
