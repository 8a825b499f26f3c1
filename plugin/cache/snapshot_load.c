/* Reads snapshots: all of one is checked before a sequence is made from it. */
#include "snapshot.h"

#include <stdlib.h>
#include <string.h>

enum { SHORTEST = SNAPSHOT_HEAD + SNAPSHOT_CHECKSUM };

struct loading {
    ratp_cache *cache;
    const unsigned char *data;
    uint64_t at, end; /* the next byte to read, and where the checksum begins */
    uint32_t length;
    struct layout *layout;
    struct snapshot_store *stores; /* [store_count] */
    uint64_t snapkv, state;        /* where they begin */
    unsigned char *image;          /* neighbouring pages, to be written */
    uint64_t image_bytes;
    uint32_t *rows; /* [page_slots] */
};

/* ---- Checks ---- */

ratp_status snapshot_check_start(const void *start, uint64_t size, struct error *err)
{
    const unsigned char *data = start;
    if (size < SHORTEST)
        return fail(err, RATP_PARSE_ERROR,
                    "the snapshot ends at byte %llu, the shortest has %d: it is cut short, or none",
                    (unsigned long long)size, SHORTEST);
    if (memcmp(data, snapshot_magic, sizeof snapshot_magic) != 0)
        return fail(err, RATP_PARSE_ERROR,
                    "byte 0: this is no snapshot of a sequence, it begins with other bytes");
    uint64_t said = get_u64(data + sizeof snapshot_magic);
    if (said != size)
        return fail(err, RATP_PARSE_ERROR,
                    "byte %zu: the snapshot says that it has %llu bytes, and there are %llu",
                    sizeof snapshot_magic, (unsigned long long)said, (unsigned long long)size);
    return RATP_OK;
}

static ratp_status check_sum(const struct loading *load, struct error *err)
{
    uint32_t said = get_u32(load->data + load->end);
    uint32_t is = snapshot_checksum(load->data, load->end);
    if (said != is)
        return fail(err, RATP_PARSE_ERROR,
                    "byte %llu: the checksum is %08x, that of the bytes before is %08x: the "
                    "snapshot is damaged",
                    (unsigned long long)load->end, said, is);
    return RATP_OK;
}

static ratp_status need(const struct loading *load, uint64_t bytes, const char *what,
                        struct error *err)
{
    return snapshot_need(load->at, load->end, bytes, what, err);
}

static uint32_t next_u32(struct loading *load)
{
    load->at += 4;
    return get_u32(load->data + load->at - 4);
}

static ratp_status check_factors(struct loading *load, struct error *err)
{
    const ratp_cache *cache = load->cache;
    uint32_t factors = snapshot_factors(cache);
    ratp_status status = need(load, sizeof(float) * factors, "rotary factors", err);
    for (uint32_t i = 0; i < factors && !status; i++) {
        union {
            uint32_t bits;
            float value;
        } factor = {next_u32(load)};
        if (factor.bits != bits_of_float(cache->factors[i]))
            status = fail(err, RATP_INVALID_ARGUMENT,
                          "rope.factors[%u] is %.9g in the snapshot, %.9g in the cache", i,
                          (double)factor.value, (double)cache->factors[i]);
    }
    return status;
}

/* What the rows are, and what they were turned by: it must be the same here. */
static ratp_status check_model(struct loading *load, struct error *err)
{
    struct snapshot_model model;
    snapshot_model_of(load->cache, &model);
    ratp_status status =
        need(load, sizeof(uint32_t) * SNAPSHOT_NUMBERS + sizeof(double) * SNAPSHOT_REALS,
             "geometry", err);
    if (status)
        return status;
    for (int i = 0; i < SNAPSHOT_NUMBERS; i++) {
        uint32_t value = next_u32(load);
        if (value != model.number[i])
            return fail(err, RATP_INVALID_ARGUMENT, "%s is %u in the snapshot, %u in the cache",
                        snapshot_number_name[i], value, model.number[i]);
    }
    for (int i = 0; i < SNAPSHOT_REALS; i++) {
        union {
            uint64_t bits;
            double value;
        } real = {get_u64(load->data + load->at)};
        load->at += sizeof real;
        if (real.bits != bits_of_double(model.real[i]))
            return fail(err, RATP_INVALID_ARGUMENT,
                        "%s is %.17g in the snapshot, %.17g in the cache", snapshot_real_name[i],
                        real.value, model.real[i]);
    }
    return check_factors(load, err);
}

/* One of a run's variants, which must be written as it was saved: a second way to
 * write the same would be a second snapshot of the same sequence. */
static ratp_status read_variant(struct loading *load, uint32_t run, const char *what,
                                struct variant *out, struct error *err)
{
    unsigned long long at = load->at;
    uint32_t kind = next_u32(load), numbers[VARIANT_NUMBERS], again[VARIANT_NUMBERS];
    for (int i = 0; i < VARIANT_NUMBERS; i++)
        numbers[i] = next_u32(load);
    struct error why;
    int wrong;
    if (variant_make((ratp_variant_kind)kind, numbers, what, out, &wrong, &why))
        return fail(err, RATP_PARSE_ERROR, "byte %llu: run %u: %s", at, run, why.text);
    char name[VARIANT_NAME_SIZE];
    variant_name(out, name, sizeof name);
    variant_numbers(out, again);
    if ((uint32_t)out->kind != kind)
        return fail(err, RATP_PARSE_ERROR, "byte %llu: run %u: %s.kind is %u, %s is written as %d",
                    at, run, what, kind, name, (int)out->kind);
    for (int i = 0; i < VARIANT_NUMBERS; i++)
        if (numbers[i] != again[i])
            return fail(err, RATP_PARSE_ERROR,
                        "byte %llu: run %u: %s.%s is %u, of %s it is written as %u", at, run, what,
                        variant_number_name[i], numbers[i], name, again[i]);
    return RATP_OK;
}

static ratp_status read_run(struct loading *load, uint32_t index, uint32_t left,
                            struct choice *choice, uint32_t *heads, struct error *err)
{
    unsigned long long at = load->at;
    *heads = next_u32(load);
    if (*heads == 0 || *heads > left)
        return fail(err, RATP_PARSE_ERROR, "byte %llu: run %u has %u heads, it must be 1 to %u",
                    at, index, *heads, left);
    struct error why;
    ratp_status status = read_variant(load, index, "prompt", &choice->prompt, err);
    if (!status && choice_check_prompt(&choice->prompt, "prompt", &why))
        status = fail(err, RATP_PARSE_ERROR, "byte %llu: run %u: %s", at, index, why.text);
    if (!status)
        status = read_variant(load, index, "variant", &choice->decode, err);
    return status;
}

static ratp_status read_runs(struct loading *load, uint32_t runs, struct choice *choices,
                             struct error *err)
{
    uint32_t slabs = load->cache->slabs, slab = 0;
    ratp_status status = need(load, (uint64_t)SNAPSHOT_RUN * runs, "variants", err);
    for (uint32_t i = 0; i < runs && !status; i++) {
        struct choice choice;
        uint32_t heads = 0;
        status = read_run(load, i, slabs - slab, &choice, &heads, err);
        if (!status && slab && choice_equal(&choice, &choices[slab - 1]))
            status = fail(err, RATP_PARSE_ERROR, "byte %llu: run %u has the variants of run %u",
                          (unsigned long long)load->at - SNAPSHOT_RUN, i, i - 1);
        for (uint32_t end = slab + heads; !status && slab < end; slab++)
            choices[slab] = choice;
    }
    if (!status && slab < slabs)
        status = fail(err, RATP_PARSE_ERROR,
                      "byte %llu: %u runs have %u heads, the geometry has %u",
                      (unsigned long long)load->at, runs, slab, slabs);
    return status;
}

static ratp_status read_layout(struct loading *load, uint32_t runs, struct error *err)
{
    uint32_t slabs = load->cache->slabs;
    struct choice *choices = calloc(slabs, sizeof *choices);
    if (!choices)
        return fail(err, RATP_OUT_OF_MEMORY, "no host memory for the variants of %u heads", slabs);
    ratp_status status = read_runs(load, runs, choices, err);
    if (!status)
        status = layout_take_choices(load->cache, choices, &load->layout, err);
    free(choices);
    return status;
}

/* Whether a store's ring that begins at `from` has all that the next token's window
 * reaches and that is not kept for good. */
static bool ring_is_whole(const struct store *store, uint32_t length, uint32_t from)
{
    if (store_compresses(store))
        return from == 0 || length - from >= store->keep.capacity;
    if (store->everything)
        return from == 0;
    uint32_t window = store->keep.window, first = length > window ? length - window : 0;
    return from <= first ||
           from - first == store_kept(store, from) - store_kept(store, first);
}

static ratp_status check_store(const struct loading *load, uint32_t index, uint32_t kept,
                               uint32_t ring, unsigned long long at, struct error *err)
{
    const struct snapshot_store *s = &load->stores[index];
    if (kept != s->kept || ring != s->ring)
        return fail(err, RATP_PARSE_ERROR,
                    "byte %llu: store %u has %u and %u tokens, of %u from token %u on it must have "
                    "%u and %u",
                    at, index, kept, ring, s->length, s->from, s->kept, s->ring);
    if (!ring_is_whole(s->store, s->length, s->from) && store_compresses(s->store))
        return fail(err, RATP_PARSE_ERROR,
                    "byte %llu: store %u has lost %u of %u tokens, and keeps %u of them", at, index,
                    s->from, s->length, s->store->keep.capacity);
    if (!ring_is_whole(s->store, s->length, s->from))
        return fail(err, RATP_PARSE_ERROR,
                    "byte %llu: the ring of store %u begins at token %u of %u, after the window of "
                    "%u",
                    at, index, s->from, s->length, s->store->keep.window);
    return RATP_OK;
}

static ratp_status read_stores(struct loading *load, uint32_t stores, struct error *err)
{
    const ratp_cache *cache = load->cache;
    uint64_t bytes = (uint64_t)SNAPSHOT_STORE * stores, table = load->at;
    if (stores != load->layout->store_count)
        return fail(err, RATP_PARSE_ERROR,
                    "byte %d: the snapshot has %u stores, its variants make %u", SNAPSHOT_HEAD - 4,
                    stores, load->layout->store_count);
    ratp_status status = need(load, bytes, "stores", err);
    if (status)
        return status;
    load->stores = calloc(stores, sizeof *load->stores);
    if (!load->stores)
        return fail(err, RATP_OUT_OF_MEMORY, "no host memory for %u stores", stores);
    for (uint32_t s = 0; s < stores; s++) {
        load->stores[s].from = get_u32(load->data + table + (uint64_t)SNAPSHOT_STORE * s);
        if (load->stores[s].from > load->length)
            return fail(err, RATP_PARSE_ERROR,
                        "byte %llu: the ring of store %u begins at token %u of %u",
                        (unsigned long long)load->at, s, load->stores[s].from, load->length);
        load->at += SNAPSHOT_STORE;
    }
    load->snapkv = snapshot_place(cache, load->layout, load->length, load->at, load->stores);
    for (uint32_t s = 0; s < stores && !status; s++) {
        uint64_t at = table + (uint64_t)SNAPSHOT_STORE * s;
        status = check_store(load, s, get_u32(load->data + at + 4), get_u32(load->data + at + 8),
                             at, err);
    }
    load->state = load->snapkv;
    if (!status)
        status = snapshot_check_snapkv(cache, load->layout, load->stores, load->data, load->end,
                                       &load->state, err);
    uint64_t end = load->state + (load->length ? seq_state_bytes(cache) : 0);
    if (!status && end != load->end)
        status = fail(err, RATP_PARSE_ERROR,
                      "byte %llu: %llu bytes of rows and state are to follow, and there are %llu",
                      (unsigned long long)load->at, (unsigned long long)(end - load->at),
                      (unsigned long long)(load->end - load->at));
    return status;
}

static ratp_status check(struct loading *load, uint64_t size, struct error *err)
{
    ratp_status status = snapshot_check_start(load->data, size, err);
    load->end = size - SNAPSHOT_CHECKSUM;
    if (!status)
        status = check_sum(load, err);
    if (status)
        return status;
    load->at = SNAPSHOT_START;
    uint32_t version = next_u32(load);
    load->length = next_u32(load);
    uint32_t runs = next_u32(load), stores = next_u32(load);
    if (version != SNAPSHOT_VERSION)
        return fail(err, RATP_UNSUPPORTED,
                    "byte %d: the snapshot has version %u, this library reads version %d",
                    SNAPSHOT_START, version, SNAPSHOT_VERSION);
    status = check_model(load, err);
    if (!status && load->length > load->cache->max_tokens)
        status = fail(err, RATP_INVALID_ARGUMENT,
                      "length is %u in the snapshot, a sequence of the cache has at most %u tokens",
                      load->length, load->cache->max_tokens);
    if (!status)
        status = read_layout(load, runs, err);
    if (!status)
        status = read_stores(load, stores, err);
    return status;
}

/* ---- The sequence ---- */

/* Puts the rows into one page; the other slots get zeros. */
static void put_rows(const struct loading *load, const struct snapshot_store *s, bool ring,
                     uint32_t ring_from, uint32_t page, unsigned char *image)
{
    const ratp_cache *cache = load->cache;
    size_t k_row = cache->shape.k_slot, v_row = cache->shape.v_slot;
    uint32_t slots = cache->shape.page_slots;
    snapshot_rows(cache, s, ring, ring_from, page, load->rows);
    for (uint32_t slab = 0; slab < s->store->slabs; slab++) {
        unsigned char *k = image + (size_t)slab * cache->slab_bytes, *v = k + slots * k_row;
        const unsigned char *from_k =
            load->data + s->at + slab * snapshot_slab_bytes(cache, s);
        const unsigned char *from_v = from_k + ((size_t)s->kept + s->ring) * k_row;
        for (uint32_t i = 0; i < slots; i++, k += k_row, v += v_row) {
            size_t row = load->rows[i];
            if (row == NO_ROW) {
                memset(k, 0, k_row);
                memset(v, 0, v_row);
                continue;
            }
            memcpy(k, from_k + row * k_row, k_row);
            memcpy(v, from_v + row * v_row, v_row);
        }
    }
}

static ratp_status load_list(const struct loading *load, const struct snapshot_store *s, bool ring,
                             uint32_t ring_from, const struct page_list *list, struct error *err)
{
    struct backend *b = load->cache->backend;
    uint64_t page_bytes = s->store->pool->page_bytes;
    for (uint32_t page = 0, run; page < list->count; page += run) {
        run = snapshot_run(list, page, page_bytes, load->image_bytes);
        for (uint32_t i = 0; i < run; i++)
            put_rows(load, s, ring, ring_from, page + i, load->image + i * page_bytes);
        const struct mem *mem = &list->page[page]->block->mem;
        ratp_status status = b->ops->mem_write(b, mem, list->page[page]->address - mem->address,
                                               load->image, run * page_bytes, err);
        if (status)
            return status;
    }
    return RATP_OK;
}

static ratp_status read_tokens(struct loading *load, ratp_seq *seq, struct error *err)
{
    ratp_cache *cache = load->cache;
    struct backend *b = cache->backend;
    for (uint32_t s = 0; s < load->layout->store_count; s++)
        if (store_compresses(&load->layout->stores[s]))
            seq->stores[s].dropped = load->stores[s].from;
    ratp_status status = stores_take_pages(cache, load->layout, load->length, seq->stores, err);
    if (status)
        return status;
    load->image_bytes = snapshot_image_bytes(load->layout, seq->stores);
    load->image = malloc((size_t)load->image_bytes);
    load->rows = malloc(cache->shape.page_slots * sizeof *load->rows);
    if (!load->image || !load->rows)
        return fail(err, RATP_OUT_OF_MEMORY, "no host memory for %llu bytes of pages",
                    (unsigned long long)load->image_bytes);
    for (uint32_t s = 0; s < load->layout->store_count && !status; s++) {
        const struct snapshot_store *from = &load->stores[s];
        struct seq_store *held = &seq->stores[s];
        uint32_t lap = from->store->ring_slots;
        /* Longer pages may have held more of the past than these do. */
        held->ring_from = held->dropped ? 0 : lap && load->length > lap && from->from < load->length - lap
                              ? load->length - lap : from->from;
        status = load_list(load, from, false, 0, &held->kept, err);
        if (!status)
            status = load_list(load, from, true, held->ring_from, &held->ring, err);
    }
    if (!status && load->state > load->snapkv)
        status = snapshot_load_snapkv(seq, load->stores, load->data + load->snapkv, err);
    if (!status && load->end > load->state)
        status = b->ops->mem_write(b, &seq->state, seq_state_offset(seq, seq->state_copy),
                                   load->data + load->state, load->end - load->state, err);
    if (!status)
        status = stores_summarise(cache, load->layout, seq->stores, load->length, err);
    return status;
}

static ratp_status make(struct loading *load, ratp_seq **out, struct error *err)
{
    ratp_seq *seq = NULL;
    ratp_status status = seq_open(load->cache, load->layout, &seq, err);
    if (status)
        return status;
    if (load->length)
        status = read_tokens(load, seq, err);
    if (status) {
        struct error ignored;
        seq_close(seq, &ignored);
        return status;
    }
    seq->length = load->length;
    *out = seq;
    return RATP_OK;
}

ratp_status seq_load(ratp_cache *cache, const void *data, uint64_t size, ratp_seq **out,
                     struct error *err)
{
    *out = NULL;
    struct loading load = {.cache = cache, .data = data};
    ratp_status status = check(&load, size, err);
    if (!status)
        status = make(&load, out, err);
    if (load.layout)
        layout_release(cache, load.layout);
    free(load.stores);
    free(load.image);
    free(load.rows);
    return status;
}
