#include "build.h"

#include <string.h>

/* Tokens that one gpu_summary tells of, at most: 64 workgroups share them, and
 * lavapipe's loops end after 65535 passes. */
enum { SUMMARY_TOKENS = 1 << 20 };

static struct gpu_address split_address(uint64_t a)
{
    return (struct gpu_address){(uint32_t)a, (uint32_t)(a >> 32)};
}

/* Entries [*first, *first + the result) are new. */
static uint32_t new_entries(const struct external_source *source, uint32_t *first)
{
    const struct external_entries *e = &source->entries;
    uint32_t end = (source->first_position + source->rows) / e->tokens;
    *first = e->summarised / e->tokens;
    return end > *first ? end - *first : 0;
}

/* Those that the calls before did not make, of every sequence. */
static void add_summaries(struct plan_class *cls, struct blob *blob,
                          const struct external_source *source)
{
    const struct external_entries *e = &source->entries;
    uint32_t first, count = new_entries(source, &first), most = SUMMARY_TOKENS / e->tokens;
    uint32_t pieces = count ? (count - 1) / most + 1 : 0;
    cls->summaries.count = source->batch * pieces;
    cls->most_entries = count < most ? count : most;
    struct gpu_summary *s =
        blob_add(blob, cls->summaries.count * sizeof *s, &cls->summaries.offset);
    for (uint32_t b = 0; s && b < source->batch; b++)
        for (uint32_t i = 0; i < pieces; i++) {
            uint32_t left = count - i * most;
            *s++ = (struct gpu_summary){
                .view = b, .select = e->select, .entry_tokens = e->tokens,
                .entry_bytes = e->step, .first = first + i * most,
                .count = left < most ? left : most};
        }
}

/* How the queries of a view choose their keys, if they leave any out. */
static void add_selection(const struct external_source *source, uint32_t zero, uint32_t page,
                          struct gpu_view *view)
{
    const struct external_entries *e = &source->entries;
    view->offsets = view->summaries = zero;
    view->summary_head = e->head;
    view->entry_page0 = page;
    view->entry_pages = 1;
    plan_selection(view, &source->variant, e->select, e->tokens, e->step);
}

static void add_view(const struct external_source *source, uint32_t b, struct gpu_view *view)
{
    struct view_source s = {
        .row0 = b * source->rows, .rows = source->rows, .pos0 = source->first_position,
        .variant = source->variant, .everything = true, .line_page0 = b, .line_pages = 1,
    };
    plan_view(&s, view);
    view->causal = source->causal;
    view->k_slot = source->k_slot;
    view->k_head = source->k_head;
    view->v_slot = source->v_slot;
    view->v_head = source->v_head;
    /* Keys may end before the last query's position, or after it. */
    if (!source->causal) {
        view->segments = 1;
        view->segment[0] = (struct gpu_segment){
            .page0 = b, .pages = 1, .pos_step = 1, .slot_step = 1, .keys = source->keys};
        return;
    }
    for (uint32_t i = 0; i < view->segments; i++) {
        struct gpu_segment *g = &view->segment[i];
        g->layered = 0;
        uint32_t there =
            source->keys > g->pos0 ? (source->keys - 1 - g->pos0) / g->pos_step + 1 : 0;
        if (g->keys > there)
            g->keys = there;
    }
}

void plan_external(struct plan *plan, struct plan_class *cls, struct blob *blob,
                   const struct external_source *source, const struct work_limits *limits)
{
    const struct external_entries *entries = &source->entries;
    uint32_t batch = source->batch, zero = 0, slopes = 0;
    *plan = (struct plan){.rows = batch * source->rows, .views = batch};
    *cls = (struct plan_class){.views.count = batch};
    plan->pages.count = entries->select ? 2 * batch : batch;
    blob_add(blob, plan->pages.count * sizeof(struct gpu_page), &plan->pages.offset);
    blob_add(blob, batch * sizeof(struct gpu_view), &cls->views.offset);
    if (entries->select) {
        blob_add(blob, sizeof(uint32_t), &zero); /* where heads begin: nowhere else */
        add_summaries(cls, blob, source);
    }
    void *factors =
        source->slope_count ? blob_add(blob, source->slope_count * sizeof(float), &slopes) : NULL;
    if (blob->failed)
        return;
    if (factors)
        memcpy(factors, source->slopes, source->slope_count * sizeof(float));
    struct gpu_page *page = (void *)(blob->data + plan->pages.offset);
    struct gpu_view *view = (void *)(blob->data + cls->views.offset);
    for (uint32_t b = 0; b < batch; b++) {
        page[b] = (struct gpu_page){split_address(source->k + b * source->k_stride),
                                    split_address(source->v + b * source->v_stride)};
        add_view(source, b, &view[b]);
        view[b].slopes = slopes;
        if (!entries->select)
            continue;
        page[batch + b].k = split_address(entries->address + (uint64_t)b * entries->sequence);
        add_selection(source, zero, batch + b, &view[b]);
    }
    plan_tiles(cls, blob, limits, &plan->partials);
    plan_waves(cls, blob, limits, &plan->partials);
}
