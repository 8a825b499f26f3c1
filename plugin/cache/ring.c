/* The window's ring under a step. Whatever the committed ring holds can still be asked for,
 * by a truncation, a change of policy or a snapshot: as long as the step may be aborted,
 * nothing of it is overwritten. A step writes where the ring holds nothing, and elsewhere
 * to a page of its own, which becomes the ring's at commit. */
#include "step.h"

#include <stdlib.h>
#include <string.h>

/* The ring gets the step's tokens from here on: see plan_view. */
static uint32_t first_written(const struct step_part *part, const struct store *store)
{
    uint32_t length = part->seq->length;
    uint32_t most = part_has_line(part) ? store->keep.window : part->rows;
    return part->rows > most ? length + part->rows - most : length;
}

/* How many slots are left without a position that can be asked for, at commit: a step of
 * as many tokens needs no pages. Of the slots beyond the window half are for that, the
 * others are the way back of a truncation; a larger step leaves what it took, for the
 * next is likely to be as large. */
static uint32_t room_after(const struct store *store, uint32_t rows)
{
    uint32_t beyond = store->ring_slots - store->keep.window, half = (beyond + 1) / 2;
    return rows > half && rows <= beyond ? rows : half;
}

/* The oldest position that is to be in the ring after the step. A ring that never was full
 * keeps all. */
static uint32_t from_after(const struct step_part *part, const struct store *store,
                           const struct seq_store *held)
{
    uint32_t total = part->seq->length + part->rows, first = first_written(part, store);
    if (first > part->seq->length)
        return first;
    uint32_t from = total > store->ring_slots
                        ? total - store->ring_slots + room_after(store, part->rows) : 0;
    return from > held->ring_from ? from : held->ring_from;
}

/* Whether the slots from `slot` to `end` have one of the positions from `from` to `length`. */
static bool any_held(uint32_t ring_slots, uint32_t slot, uint32_t end, uint32_t from,
                     uint32_t length)
{
    uint32_t at = from % ring_slots;
    uint32_t next = at >= slot && at < end ? from : from + (slot + ring_slots - at) % ring_slots;
    return next < length;
}

static ratp_status replace_page(ratp_cache *cache, struct pool *pool, struct page_list *ring,
                                struct part_store *change, uint32_t page, struct error *err)
{
    if (!change->old_ring.count) {
        struct page **old = malloc(ring->count * sizeof *old);
        if (!old)
            return fail(err, RATP_OUT_OF_MEMORY, "no host memory for a page table of %u pages",
                        ring->count);
        memcpy(old, ring->page, ring->count * sizeof *old);
        change->old_ring = (struct page_list){old, ring->count, ring->count};
    }
    ratp_status status = pool_take(cache, pool, 1, ring, err);
    if (!status)
        ring->page[page] = ring->page[--ring->count];
    return status;
}

static bool is_replaced(const struct page_list *ring, const struct part_store *change,
                        uint32_t page)
{
    return page < change->old_ring.count && ring->page[page] != change->old_ring.page[page];
}

ratp_status ring_reserve(ratp_cache *cache, struct step_part *part, uint32_t index,
                         struct error *err)
{
    const struct store *store = &part->seq->layout->stores[index];
    struct seq_store *held = &part->seq->stores[index];
    struct part_store *change = &part->stores[index];
    uint32_t slots = cache->shape.page_slots, ring_slots = store->ring_slots;
    uint32_t length = part->seq->length, total = length + part->rows;
    ratp_status status = RATP_OK;
    for (uint32_t p = first_written(part, store), end; p < total && !status; p = end) {
        uint32_t slot = p % ring_slots, page = slot / slots, left = slots - slot % slots;
        end = left < total - p ? p + left : total;
        if (page >= change->ring_before || is_replaced(&held->ring, change, page))
            continue;
        if (held->ring.page[page]->refs > 1 ||
            any_held(ring_slots, slot, slot + (end - p), held->ring_from, length))
            status = replace_page(cache, store->pool, &held->ring, change, page, err);
    }
    uint32_t pages = pages_for(cache, total < ring_slots ? total : ring_slots);
    if (!status && pages > held->ring.count)
        status = pool_take(cache, store->pool, pages - held->ring.count, &held->ring, err);
    change->ring_from = from_after(part, store, held);
    return status;
}

void ring_commit(struct pool *pool, struct seq_store *held, struct part_store *change)
{
    for (uint32_t i = 0; i < change->old_ring.count; i++)
        if (is_replaced(&held->ring, change, i))
            page_release(pool, change->old_ring.page[i]);
    free(change->old_ring.page);
    change->old_ring = (struct page_list){0};
    held->ring_from = change->ring_from;
}

void ring_abort(struct pool *pool, struct seq_store *held, struct part_store *change)
{
    for (uint32_t i = 0; i < change->old_ring.count; i++)
        if (is_replaced(&held->ring, change, i)) {
            page_release(pool, held->ring.page[i]);
            held->ring.page[i] = change->old_ring.page[i];
        }
    free(change->old_ring.page);
    change->old_ring = (struct page_list){0};
    page_list_cut(pool, &held->ring, change->ring_before);
}

uint32_t ring_move_first(const struct step_part *part, uint32_t index)
{
    const struct part_store *change = &part->stores[index];
    uint32_t total = part->seq->length + part->rows;
    /* A single token reads its own window there, too. */
    uint32_t window = part->seq->layout->stores[index].keep.window + !part_has_line(part);
    uint32_t from = total > window ? total - window : 0;
    return from < change->ring_from ? from : change->ring_from;
}

uint32_t ring_move_next(const struct step_part *part, uint32_t index, uint32_t *from)
{
    const struct part_store *change = &part->stores[index];
    const struct page_list *ring = &part->seq->stores[index].ring;
    uint32_t ring_slots = part->seq->layout->stores[index].ring_slots;
    uint32_t slots = part->seq->cache->shape.page_slots, length = part->seq->length;
    if (!change->old_ring.count)
        return 0;
    uint32_t p = *from;
    while (p < length && !is_replaced(ring, change, p % ring_slots / slots))
        p += slots - p % slots;
    *from = p;
    while (p < length && is_replaced(ring, change, p % ring_slots / slots))
        p += slots - p % slots;
    p = p < length ? p : length;
    return p > *from ? p - *from : 0;
}
