/* Makes sequences of snapshots. */
#include "snapshot.h"

#include <stdlib.h>
#include <string.h>

struct loading {
    struct snapshot s;
    unsigned char *image; /* neighbouring pages, to be written */
    uint64_t image_bytes;
    uint32_t *rows; /* [page_slots] */
};

/* Reads the rows of one page's slots, whose numbers are known, to where they lie in it. The
 * other slots get zeros. `at` is where the slab's rows of this kind begin. */
static ratp_status read_rows(const struct loading *load, uint64_t at, size_t row_bytes,
                             unsigned char *to, struct error *err)
{
    uint32_t slots = load->s.cache->shape.page_slots;
    ratp_status status = RATP_OK;
    for (uint32_t i = 0, count; i < slots && !status; i += count) {
        uint32_t row = load->rows[i];
        for (count = 1; row != NO_ROW && i + count < slots; count++)
            if (load->rows[i + count] != row + count)
                break;
        if (row == NO_ROW)
            memset(to + i * row_bytes, 0, row_bytes);
        else
            status = snapshot_read(&load->s.from, at + row * (uint64_t)row_bytes,
                                   count * (uint64_t)row_bytes, to + i * row_bytes, err);
    }
    return status;
}

/* Puts the rows into one page. */
static ratp_status put_rows(const struct loading *load, const struct snapshot_store *own, bool ring,
                            uint32_t ring_from, uint32_t page, unsigned char *image,
                            struct error *err)
{
    const ratp_cache *cache = load->s.cache;
    size_t k_row = cache->shape.k_slot, v_row = cache->shape.v_slot;
    ratp_status status = RATP_OK;
    snapshot_rows(cache, own, ring, ring_from, page, load->rows);
    for (uint32_t slab = 0; slab < own->store->slabs && !status; slab++) {
        unsigned char *k = image + (size_t)slab * cache->slab_bytes;
        uint64_t from_k = own->at + slab * snapshot_slab_bytes(cache, own);
        uint64_t from_v = from_k + ((uint64_t)own->kept + own->ring) * k_row;
        status = read_rows(load, from_k, k_row, k, err);
        if (!status)
            status = read_rows(load, from_v, v_row, k + cache->shape.page_slots * k_row, err);
    }
    return status;
}

static ratp_status load_list(const struct loading *load, const struct snapshot_store *own,
                             bool ring, uint32_t ring_from, const struct page_list *list,
                             struct error *err)
{
    struct backend *b = load->s.cache->backend;
    uint64_t page_bytes = own->store->pool->page_bytes;
    ratp_status status = RATP_OK;
    for (uint32_t page = 0, run; page < list->count && !status; page += run) {
        run = snapshot_run(list, page, page_bytes, load->image_bytes);
        for (uint32_t i = 0; i < run && !status; i++)
            status = put_rows(load, own, ring, ring_from, page + i, load->image + i * page_bytes,
                              err);
        const struct mem *mem = &list->page[page]->block->mem;
        if (!status)
            status = b->ops->mem_write(b, mem, list->page[page]->address - mem->address,
                                       load->image, run * page_bytes, err);
    }
    return status;
}

static ratp_status load_state(const struct snapshot *s, ratp_seq *seq, struct error *err)
{
    struct backend *b = s->cache->backend;
    uint64_t bytes = s->end - s->state;
    void *state = malloc((size_t)bytes);
    if (!state)
        return fail(err, RATP_OUT_OF_MEMORY, "no host memory for a state of %llu bytes",
                    (unsigned long long)bytes);
    ratp_status status = snapshot_read(&s->from, s->state, bytes, state, err);
    if (!status)
        status = b->ops->mem_write(b, &seq->state, seq_state_offset(seq, seq->state_copy), state,
                                   bytes, err);
    free(state);
    return status;
}

static ratp_status load_tokens(struct loading *load, ratp_seq *seq, struct error *err)
{
    const struct snapshot *s = &load->s;
    ratp_cache *cache = s->cache;
    for (uint32_t i = 0; i < s->store_count; i++)
        if (store_compresses(s->stores[i].store))
            seq->stores[i].dropped = s->stores[i].from;
    ratp_status status = stores_take_pages(cache, s->layout, s->length, seq->stores, err);
    if (status)
        return status;
    load->image_bytes = snapshot_image_bytes(s->layout, seq->stores);
    load->image = calloc(1, (size_t)load->image_bytes);
    load->rows = malloc(cache->shape.page_slots * sizeof *load->rows);
    if (!load->image || !load->rows)
        return fail(err, RATP_OUT_OF_MEMORY, "no host memory for %llu bytes of pages",
                    (unsigned long long)load->image_bytes);
    for (uint32_t i = 0; i < s->store_count && !status; i++) {
        const struct snapshot_store *from = &s->stores[i];
        struct seq_store *held = &seq->stores[i];
        uint32_t lap = from->store->ring_slots, length = s->length;
        /* Longer pages may have held more of the past than these do. */
        bool longer = lap && length > lap && from->from < length - lap;
        held->ring_from = held->dropped ? 0 : longer ? length - lap : from->from;
        status = load_list(load, from, false, 0, &held->kept, err);
        if (!status)
            status = load_list(load, from, true, held->ring_from, &held->ring, err);
    }
    if (!status && s->state > s->snapkv)
        status = snapshot_load_snapkv(seq, s, err);
    if (!status && s->end > s->state)
        status = load_state(s, seq, err);
    if (!status)
        status = stores_summarise(cache, s->layout, seq->stores, s->length, err);
    return status;
}

static ratp_status make(struct loading *load, ratp_seq **out, struct error *err)
{
    ratp_seq *seq = NULL;
    ratp_status status = seq_open(load->s.cache, load->s.layout, &seq, err);
    if (status)
        return status;
    if (load->s.length)
        status = load_tokens(load, seq, err);
    if (status) {
        struct error ignored;
        seq_close(seq, &ignored);
        return status;
    }
    seq->length = load->s.length;
    *out = seq;
    return RATP_OK;
}

ratp_status seq_load(ratp_cache *cache, const struct snapshot_source *from, ratp_seq **out,
                     struct error *err)
{
    *out = NULL;
    struct loading load = {.image = NULL};
    ratp_status status = snapshot_check(&load.s, cache, from, err);
    if (!status)
        status = make(&load, out, err);
    snapshot_close(&load.s);
    free(load.image);
    free(load.rows);
    return status;
}
