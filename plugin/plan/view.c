#include "build.h"

static struct gpu_address split_address(uint64_t a)
{
    return (struct gpu_address){(uint32_t)a, (uint32_t)(a >> 32)};
}

static void add_segment(struct gpu_view *view, struct gpu_segment segment)
{
    if (segment.keys)
        view->segment[view->segments++] = segment;
}

/* Sinks and dilated tokens: where they stand in `everything` pages, or at
 * their kept index. */
static void add_kept(const struct view_source *s, struct gpu_view *view)
{
    uint32_t total = s->pos0 + s->rows;
    uint32_t page0 = s->everything ? s->line_page0 : s->kept_page0;
    uint32_t pages = s->everything ? s->line_pages : s->kept_pages;
    uint32_t sinks = s->variant.sinks, dilation = s->variant.dilation;
    add_segment(view, (struct gpu_segment){
        .page0 = page0, .pages = pages, .pos0 = 0, .pos_step = 1, .slot0 = 0, .slot_step = 1,
        .keys = sinks < total ? sinks : total, .layered = 1});
    if (dilation == 0)
        return;
    uint32_t skipped = sinks / dilation; /* dilated positions that are sinks */
    uint32_t dilated = total / dilation;
    uint32_t first = (skipped + 1) * dilation - 1;
    add_segment(view, (struct gpu_segment){
        .page0 = page0, .pages = pages, .pos0 = first, .pos_step = dilation,
        .slot0 = s->everything ? first : sinks, .slot_step = s->everything ? dilation : 1,
        .keys = dilated > skipped ? dilated - skipped : 0, .layered = 1});
}

static void add_window(const struct view_source *s, struct gpu_view *view)
{
    uint32_t total = s->pos0 + s->rows;
    uint32_t window = s->variant.window;
    uint32_t oldest = s->pos0 > window ? s->pos0 - window : 0;
    if (s->everything) {
        add_segment(view, (struct gpu_segment){
            .page0 = s->line_page0, .pages = s->line_pages, .pos0 = oldest, .pos_step = 1,
            .slot0 = oldest, .slot_step = 1, .keys = total - oldest, .windowed = 1,
            .layered = 1});
        return;
    }
    /* The new tokens are in the ring only when there is one of them; a prompt
     * reads its own from the line. */
    uint32_t end = s->line_pages ? s->pos0 : total;
    if (s->ring_slots)
        add_segment(view, (struct gpu_segment){
            .page0 = s->old_page0, .pages = s->old_pages, .pos0 = oldest, .pos_step = 1,
            .slot0 = oldest % s->ring_slots, .slot_step = 1, .slot_ring = s->ring_slots,
            .keys = end - oldest, .windowed = 1, .layered = 1});
    if (s->line_pages)
        add_segment(view, (struct gpu_segment){
            .page0 = s->line_page0, .pages = s->line_pages, .pos0 = s->pos0, .pos_step = 1,
            .slot0 = 0, .slot_step = 1, .keys = s->rows, .windowed = 1, .layered = 0});
}

void plan_view(const struct view_source *s, struct gpu_view *view)
{
    uint32_t total = s->pos0 + s->rows;
    *view = (struct gpu_view){
        .row0 = s->row0, .rows = s->rows, .pos0 = s->pos0,
        .sinks = s->variant.sinks, .dilation = s->variant.dilation, .window = s->variant.window,
        .causal = 1,
        .state_in = split_address(s->state_in), .state_out = split_address(s->state_out),
        .kept_page0 = s->kept_page0, .kept_pages = s->kept_pages,
        .ring_page0 = s->ring_page0, .ring_pages = s->ring_pages, .ring_slots = s->ring_slots,
        .line_page0 = s->line_page0, .line_pages = s->line_pages,
        .line_pos0 = s->everything ? s->dropped : s->pos0, .line_layered = s->everything,
        .entry_page0 = s->line_page0, .entry_pages = s->line_pages,
    };
    /* Of a prompt only the window of the next token goes to the ring: older
     * tokens would share its slots. */
    uint32_t recent = s->line_pages ? s->variant.window : s->rows;
    view->ring_from = s->rows > recent ? total - recent : s->pos0;
    if (s->variant.kind != RATP_DILATED && s->variant.kind != RATP_STREAMING) {
        /* Where tokens are gone, those that stayed count as the last before the others: K
         * is turned already, and none is after the query. */
        add_segment(view, (struct gpu_segment){
            .page0 = s->line_page0, .pages = s->line_pages, .pos0 = s->dropped, .pos_step = 1,
            .slot0 = 0, .slot_step = 1, .keys = total - s->dropped, .layered = 1});
        return;
    }
    add_kept(s, view);
    add_window(s, view);
}

void plan_selection(struct gpu_view *view, const struct variant *variant, uint32_t select,
                    uint32_t entry_tokens, uint32_t entry_bytes)
{
    uint32_t last = view->pos0 + view->rows - 1;
    if (last / variant->block < variant->choose)
        return;
    view->select = select;
    view->block = variant->block;
    view->choose = variant->choose;
    view->by_group = variant->by_group;
    view->entry_tokens = entry_tokens;
    view->entry_bytes = entry_bytes;
}
