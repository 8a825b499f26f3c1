#include "step.h"

#include <string.h>

/* Where the pages of one sequence's store begin in the plan's page list. */
struct spans {
    uint32_t kept, ring, old;
    uint32_t old_pages; /* 0: the ring's pages stay */
};

static uint32_t line_pages(const ratp_cache *cache, const struct step_part *part)
{
    return part_has_line(part) ? (part->rows - 1) / cache->shape.page_slots + 1 : 0;
}

/* Page lists of a part's store, in the order in which they are written. */
static uint32_t list_pages(const struct step_part *part, uint32_t store,
                           const struct page_list *lists[3])
{
    const struct seq_store *held = &part->seq->stores[store];
    lists[0] = &held->kept;
    lists[1] = &held->ring;
    lists[2] = &part->stores[store].old_ring;
    return lists[0]->count + lists[1]->count + lists[2]->count;
}

/* Page list: for each part, its stores' pages, then room for its line pages,
 * which lie in the work memory: place_scratch fills them in. */
static void add_pages(ratp_step *step, struct blob *blob)
{
    const ratp_cache *cache = step->cache;
    const struct page_list *lists[3];
    uint64_t count = 0;
    for (uint32_t i = 0; i < step->count; i++) {
        for (uint32_t s = 0; s < step->parts[i].seq->layout->store_count; s++)
            count += list_pages(&step->parts[i], s, lists);
        count += line_pages(cache, &step->parts[i]);
    }
    step->plan.pages.count = (uint32_t)count;
    if (count > UINT32_MAX / sizeof(struct gpu_page)) {
        blob->failed = true;
        return;
    }
    struct gpu_page *page = blob_add(blob, (size_t)count * sizeof *page, &step->plan.pages.offset);
    if (!page)
        return;
    for (uint32_t i = 0; i < step->count; i++) {
        const struct step_part *part = &step->parts[i];
        for (uint32_t s = 0; s < part->seq->layout->store_count; s++) {
            list_pages(part, s, lists);
            for (uint32_t l = 0; l < 3; l++)
                for (uint32_t p = 0; p < lists[l]->count; p++)
                    *page++ = page_at(cache, lists[l]->page[p]->address);
        }
        page += line_pages(cache, part);
    }
}

static uint64_t state_address(const ratp_seq *seq, uint32_t copy)
{
    return seq->state.address + seq_state_offset(seq, copy);
}

/* A head that was compressed attends all that it holds, in prompts too. */
static const struct variant *variant_of(const struct step_part *part, uint32_t slab)
{
    const struct choice *choice = &part->seq->layout->choice[slab];
    bool compressed = part->seq->stores[part->seq->layout->slab_store[slab]].dropped > 0;
    return part->prompt && !compressed ? &choice->prompt : &choice->decode;
}

/* How the part's queries choose their keys, if they do. */
static void add_selection(const struct step_part *part, uint32_t slab, struct gpu_view *view)
{
    const struct store *store = seq_store_of(part->seq, slab);
    const struct variant *variant = variant_of(part, slab);
    const struct summary *summary = view->line_pos0 ? NULL : summary_for(store, variant);
    view->summaries = part->seq->layout->summaries;
    view->summary_head = store->summary_bytes;
    if (!summary)
        return;
    view->entry_at = summary->at;
    plan_selection(view, variant, summary->select, summary->entry_tokens, summary->entry_bytes);
}

/* The view of part i in a class, of which `slab` is one; the part's line pages
 * begin at `line0`. */
static struct view_source source_of(const ratp_step *step, uint32_t i,
                                    uint32_t slab, struct spans at, uint32_t line0,
                                    uint32_t row0)
{
    const ratp_cache *cache = step->cache;
    const struct step_part *part = &step->parts[i];
    const struct layout *layout = part->seq->layout;
    const struct store *store = seq_store_of(part->seq, slab);
    const struct page_list *lists[3];
    list_pages(part, layout->slab_store[slab], lists);
    struct view_source source = {
        .row0 = row0, .rows = part->rows, .pos0 = part->seq->length,
        .variant = *variant_of(part, slab), .everything = store->everything,
        .state_in = state_address(part->seq, part->seq->state_copy),
        .state_out = state_address(part->seq, part->seq->state_copy ^ 1),
    };
    if (store->everything) {
        source.line_page0 = at.kept;
        source.line_pages = lists[0]->count;
        source.dropped = part->seq->stores[layout->slab_store[slab]].dropped;
        return source;
    }
    source.kept_page0 = at.kept;
    source.kept_pages = lists[0]->count;
    source.ring_page0 = at.ring;
    source.ring_pages = lists[1]->count;
    source.ring_slots = store->ring_slots;
    source.line_page0 = line0;
    source.line_pages = line_pages(cache, part);
    /* A prompt reads the window before it where it was; a single token reads all
     * of its window where it is written. */
    bool old = at.old_pages && source.line_pages;
    source.old_page0 = old ? at.old : at.ring;
    source.old_pages = old ? at.old_pages : lists[1]->count;
    return source;
}

/* Puts what the part's own pages need of the old ring from `out` on, if that is not NULL;
 * its places have their list and their ring from these two. Returns how many moves it is. */
static uint32_t add_moves(const struct step_part *part, uint32_t s, struct gpu_slots old,
                          struct gpu_slots ring, struct gpu_move *out)
{
    uint32_t moves = 0, from = ring_move_first(part, s), count;
    for (; (count = ring_move_next(part, s, &from)) > 0; from += count, moves++) {
        if (!out)
            continue;
        old.slot0 = ring.slot0 = from % ring.slot_ring;
        *out++ = (struct gpu_move){.from = old, .to = ring, .count = count};
    }
    return moves;
}

/* Entries that the part's new tokens complete; where tokens are gone, none is read. */
static uint32_t entries_of(const struct step_part *part, uint32_t s)
{
    return part->seq->stores[s].dropped ? 0 : summary_count(&part->seq->layout->stores[s]);
}

static void add_views(ratp_step *step, struct blob *blob, uint32_t index)
{
    const ratp_cache *cache = step->cache;
    uint32_t slab = step->class_slab[index];
    struct plan_class *out = &step->classes[index];
    const struct gpu_slots none = {0};
    uint32_t move_count = 0, summaries = 0, observers = 0;
    for (uint32_t i = 0; i < step->count; i++) {
        uint32_t store = step->parts[i].seq->layout->slab_store[slab];
        move_count += add_moves(&step->parts[i], store, none, none, NULL);
        summaries += entries_of(&step->parts[i], store);
        observers += observe_count(&step->parts[i].seq->layout->stores[store]);
    }
    out->views.count = step->count;
    out->moves.count = move_count;
    out->summaries.count = summaries;
    out->most_entries = 0;
    out->observers.count = observers;
    blob_add(blob, step->count * sizeof(struct gpu_view), &out->views.offset);
    blob_add(blob, move_count * sizeof(struct gpu_move), &out->moves.offset);
    blob_add(blob, summaries * sizeof(struct gpu_summary), &out->summaries.offset);
    blob_add(blob, observers * sizeof(struct gpu_observer), &out->observers.offset);
    if (blob->failed)
        return;
    struct gpu_view *view = (void *)(blob->data + out->views.offset);
    struct gpu_move *move = (void *)(blob->data + out->moves.offset);
    struct gpu_summary *summary = (void *)(blob->data + out->summaries.offset);
    struct gpu_observer *observer = (void *)(blob->data + out->observers.offset);
    uint32_t page = 0, row = 0;
    for (uint32_t i = 0; i < step->count; i++) {
        const struct page_list *lists[3];
        struct spans at = {0};
        const struct layout *layout = step->parts[i].seq->layout;
        uint32_t store = layout->slab_store[slab], ring_slots = layout->stores[store].ring_slots;
        for (uint32_t s = 0; s < layout->store_count; s++) {
            uint32_t pages = list_pages(&step->parts[i], s, lists);
            if (s == store)
                at = (struct spans){page, page + lists[0]->count,
                                    page + lists[0]->count + lists[1]->count,
                                    lists[2]->count};
            page += pages;
        }
        struct view_source source = source_of(step, i, slab, at, page, row);
        plan_view(&source, &view[i]);
        view[i].offsets = layout->offsets;
        add_selection(&step->parts[i], slab, &view[i]);
        if (entries_of(&step->parts[i], store))
            summary_list(&layout->stores[store], i, source.pos0, source.rows, summary, out);
        summary += entries_of(&step->parts[i], store);
        observe_list(step->parts[i].seq, store, i, source.rows, observer);
        observer += observe_count(&layout->stores[store]);
        struct gpu_slots old = {i, at.old, at.old_pages, 0, 1, ring_slots};
        struct gpu_slots ring = {i, source.ring_page0, source.ring_pages, 0, 1, ring_slots};
        move += add_moves(&step->parts[i], store, old, ring, move);
        page += line_pages(cache, &step->parts[i]);
        row += step->parts[i].rows;
    }
}

/* The most neighbouring heads of one layer that are of the class. */
static uint32_t widest_run(const ratp_step *step, uint32_t index)
{
    uint32_t widest = 1;
    for (uint32_t slab = 0, heads; slab < step->cache->slabs; slab += heads) {
        heads = run_of(step->cache, slab, step->slab_class);
        if (step->slab_class[slab] == index && heads > widest)
            widest = heads;
    }
    return widest;
}

static uint64_t aligned(uint64_t offset)
{
    return (offset + 15) / 16 * 16;
}

/* Work memory: line pages, then raw rows, carries, partials, chosen blocks, scores and a
 * wave's table. */
static ratp_status place_scratch(ratp_step *step, struct blob *blob, struct error *err)
{
    ratp_cache *cache = step->cache;
    const struct layer_shape *shape = &cache->shape;
    uint64_t lines = 0;
    for (uint32_t i = 0; i < step->count; i++)
        lines += line_pages(cache, &step->parts[i]);
    uint64_t line_bytes = (uint64_t)shape->kv_heads * cache->slab_bytes;
    uint64_t raw_at = aligned(lines * line_bytes);
    uint64_t carry_at = raw_at;
    if (shape_is_quantized(shape))
        carry_at = aligned(raw_at + step->rows * shape_raw_bytes(shape));
    uint64_t partial_at = carry_at + (uint64_t)step->plan.carries * shape->kv_heads * 3 *
                                         shape->head_size * sizeof(float);
    uint64_t chosen_at = partial_at + (uint64_t)step->plan.partials * shape->query_heads *
                                          (shape->value_size + 2) * sizeof(float);
    uint32_t group = shape->query_heads / shape->kv_heads;
    uint64_t chosen = 0, scores = 0, table = 0;
    for (uint32_t c = 0; c < step->class_count; c++) {
        struct choice_work work = choice_work(&step->classes[c], widest_run(step, c), group);
        chosen = work.chosen > chosen ? work.chosen : chosen;
        scores = work.scores > scores ? work.scores : scores;
        table = work.table > table ? work.table : table;
    }
    chosen_at = aligned(chosen_at);
    uint64_t score_at = aligned(chosen_at + chosen);
    uint64_t wave_at = aligned(score_at + scores);
    uint64_t size = wave_at + table;
    ratp_status status = scratch_hold(cache, size, err);
    if (status)
        return status;
    uint64_t base = cache->scratch.address;
    step->plan.raw_address = base + raw_at;
    step->plan.carry_address = base + carry_at;
    step->plan.partial_address = base + partial_at;
    step->plan.chosen_address = base + chosen_at;
    step->plan.score_address = base + score_at;
    step->plan.score_bytes = scores;
    step->plan.wave_address = base + wave_at;

    struct gpu_page *page = (void *)(blob->data + step->plan.pages.offset);
    uint64_t line = 0;
    for (uint32_t i = 0; i < step->count; i++) {
        const struct page_list *lists[3];
        for (uint32_t s = 0; s < step->parts[i].seq->layout->store_count; s++)
            page += list_pages(&step->parts[i], s, lists);
        for (uint32_t p = line_pages(cache, &step->parts[i]); p; p--) {
            *page++ = page_at(cache, base + line);
            line += line_bytes;
        }
    }
    return RATP_OK;
}

/* The tables of offsets that the views name. */
static void add_offsets(ratp_step *step, struct blob *blob)
{
    size_t bytes = step->cache->slabs * sizeof(uint32_t);
    for (uint32_t i = 0; i < step->layout_count; i++) {
        struct layout *layout = step->layouts[i];
        void *table = blob_add(blob, bytes, &layout->offsets);
        if (table)
            memcpy(table, layout->slab_offset, bytes);
        table = blob_add(blob, bytes, &layout->summaries);
        if (table)
            memcpy(table, layout->slab_summary, bytes);
    }
}

ratp_status step_plan(ratp_step *step, struct error *err)
{
    ratp_cache *cache = step->cache;
    struct backend *b = cache->backend;
    struct work_limits limits;
    b->ops->limits(b, &cache->shape, &limits);
    struct blob blob = {0};
    uint32_t offset;
    uint32_t *rows = blob_add(&blob, step->count * sizeof *rows, &offset);
    for (uint32_t i = 0; rows && i < step->count; i++)
        rows[i] = step->parts[i].rows;
    step->plan.rows = step->rows;
    step->plan.views = step->count;
    add_pages(step, &blob);
    add_offsets(step, &blob);
    plan_chunks(&step->plan, &blob, offset, step->count, cache->shape.memory, &limits);
    /* Partial rows are as wide as a whole layer, whatever a class has of it. */
    uint32_t wave_partials = limits.wave_partials;
    for (uint32_t c = 0; c < step->class_count; c++) {
        uint32_t partials = 0;
        struct layer_shape shape = shape_of_run(cache, widest_run(step, c));
        b->ops->limits(b, &shape, &limits);
        limits.wave_partials = wave_partials;
        add_views(step, &blob, c);
        plan_tiles(&step->classes[c], &blob, &limits, &partials);
        plan_waves(&step->classes[c], &blob, &limits, &partials);
        if (partials > step->plan.partials)
            step->plan.partials = partials;
    }
    ratp_status status = RATP_OK;
    if (blob.failed)
        status = fail(err, RATP_OUT_OF_MEMORY,
                      "no host memory for the plan of %u sequences and %u new tokens", step->count,
                      step->rows);
    if (!status)
        status = place_scratch(step, &blob, err);
    if (!status)
        status = frame_upload(cache, &blob, &step->plan, &step->frame, err);
    blob_free(&blob);
    return status;
}
