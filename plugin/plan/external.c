#include "build.h"

#include <string.h>

void plan_external(struct plan *plan, struct plan_class *cls, struct blob *blob,
                   const struct external_source *source, const struct work_limits *limits)
{
    *plan = (struct plan){.rows = source->batch * source->rows, .views = source->batch};
    *cls = (struct plan_class){0};
    plan->pages.count = cls->views.count = source->batch;
    blob_add(blob, source->batch * sizeof(struct gpu_page), &plan->pages.offset);
    blob_add(blob, source->batch * sizeof(struct gpu_view), &cls->views.offset);
    uint32_t slopes = 0;
    void *factors =
        source->slope_count ? blob_add(blob, source->slope_count * sizeof(float), &slopes) : NULL;
    if (blob->failed)
        return;
    if (factors)
        memcpy(factors, source->slopes, source->slope_count * sizeof(float));
    struct gpu_page *page = (void *)(blob->data + plan->pages.offset);
    struct gpu_view *view = (void *)(blob->data + cls->views.offset);
    for (uint32_t b = 0; b < source->batch; b++) {
        uint64_t k = source->k + b * source->k_stride, v = source->v + b * source->v_stride;
        page[b] = (struct gpu_page){{(uint32_t)k, (uint32_t)(k >> 32)},
                                    {(uint32_t)v, (uint32_t)(v >> 32)}};
        struct view_source s = {
            .row0 = b * source->rows, .rows = source->rows, .pos0 = source->first_position,
            .variant = source->variant, .everything = true, .line_page0 = b, .line_pages = 1,
        };
        plan_view(&s, &view[b]);
        view[b].line_pages = 0; /* nothing is written */
        view[b].causal = source->causal;
        view[b].k_slot = source->k_slot;
        view[b].k_head = source->k_head;
        view[b].v_slot = source->v_slot;
        view[b].v_head = source->v_head;
        view[b].slopes = slopes;
        /* Keys may end before the last query's position, or after it. */
        if (!source->causal) {
            view[b].segments = 1;
            view[b].segment[0] = (struct gpu_segment){
                .page0 = b, .pages = 1, .pos_step = 1, .slot_step = 1,
                .keys = source->keys};
            continue;
        }
        for (uint32_t i = 0; i < view[b].segments; i++) {
            struct gpu_segment *g = &view[b].segment[i];
            g->layered = 0;
            uint32_t there = source->keys > g->pos0
                                 ? (source->keys - 1 - g->pos0) / g->pos_step + 1 : 0;
            if (g->keys > there)
                g->keys = there;
        }
    }
    plan_tiles(cls, blob, limits, &plan->partials);
}
