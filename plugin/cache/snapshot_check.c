/* Checks snapshots: all of one, before a sequence is made from it. */
#include "snapshot.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

static uint32_t next_u32(struct snapshot *s)
{
    s->at += 4;
    return get_u32(s->head + s->at - 4);
}

/* ---- Checksums ---- */

static ratp_status compare_sums(uint64_t at, uint32_t said, uint32_t is, struct error *err)
{
    if (said == is)
        return RATP_OK;
    return fail(err, RATP_PARSE_ERROR,
                "byte %llu: the checksum is %08x, that of the bytes before is %08x: the snapshot "
                "is damaged",
                (unsigned long long)at, said, is);
}

/* One in the head, at byte `at`. */
static ratp_status check_head_sum(const struct snapshot *s, uint64_t at, struct error *err)
{
    return compare_sums(at, get_u32(s->head + at), snapshot_checksum(s->head, at), err);
}

/* The last one, for which all is read. */
static ratp_status check_whole_sum(const struct snapshot *s, struct error *err)
{
    enum { PART = 1 << 18 };
    unsigned char said[SNAPSHOT_CHECKSUM], *part = s->from.data ? NULL : malloc(PART);
    uint32_t is = 0;
    ratp_status status = RATP_OK;
    if (s->from.data)
        is = snapshot_checksum(s->from.data, s->end);
    else if (!part)
        return fail(err, RATP_OUT_OF_MEMORY, "no host memory for %d bytes of a file", PART);
    for (uint64_t at = 0, bytes; part && at < s->end && !status; at += bytes) {
        bytes = s->end - at < PART ? s->end - at : PART;
        status = snapshot_read(&s->from, at, bytes, part, err);
        if (!status)
            is = (uint32_t)crc32_z(is, part, (size_t)bytes);
    }
    free(part);
    if (!status)
        status = snapshot_read(&s->from, s->end, sizeof said, said, err);
    return status ? status : compare_sums(s->end, get_u32(said), is, err);
}

/* ---- The head ---- */

static ratp_status check_start(struct snapshot *s, struct error *err)
{
    uint64_t size = s->from.size, said = get_u64(s->head + sizeof snapshot_magic);
    if (size >= sizeof snapshot_magic &&
        memcmp(s->head, snapshot_magic, sizeof snapshot_magic) != 0)
        return fail(err, RATP_PARSE_ERROR,
                    "byte 0: this is no snapshot of a sequence, it begins with other bytes");
    if (size < SNAPSHOT_SHORTEST)
        return fail(err, RATP_PARSE_ERROR,
                    "the snapshot ends at byte %llu, the shortest has %d: it is cut short, or none",
                    (unsigned long long)size, SNAPSHOT_SHORTEST);
    if (said != size)
        return fail(err, RATP_PARSE_ERROR,
                    "byte %zu: the snapshot says that it has %llu bytes, and there are %llu",
                    sizeof snapshot_magic, (unsigned long long)said, (unsigned long long)size);
    ratp_status status = check_head_sum(s, SNAPSHOT_START - SNAPSHOT_CHECKSUM, err);
    s->at = SNAPSHOT_START - SNAPSHOT_CHECKSUM - 4;
    uint32_t version = next_u32(s);
    if (!status && version != SNAPSHOT_VERSION)
        status = fail(err, RATP_UNSUPPORTED,
                      "byte %llu: the snapshot has version %u, this library reads version %d",
                      (unsigned long long)s->at - 4, version, SNAPSHOT_VERSION);
    s->at = SNAPSHOT_START;
    return status ? status : check_head_sum(s, SNAPSHOT_HEAD - SNAPSHOT_CHECKSUM, err);
}

/* What the rows are, and what they were turned by: it must be the same here. */
static ratp_status check_model(struct snapshot *s, struct error *err)
{
    struct snapshot_model model;
    snapshot_model_of(s->cache, &model);
    for (int i = 0; i < SNAPSHOT_NUMBERS; i++) {
        uint32_t value = next_u32(s);
        if (value != model.number[i])
            return fail(err, RATP_INVALID_ARGUMENT, "%s is %u in the snapshot, %u in the cache",
                        snapshot_number_name[i], value, model.number[i]);
    }
    for (int i = 0; i < SNAPSHOT_REALS; i++) {
        union {
            uint64_t bits;
            double value;
        } real = {get_u64(s->head + s->at)};
        s->at += sizeof real;
        if (real.bits != bits_of_double(model.real[i]))
            return fail(err, RATP_INVALID_ARGUMENT,
                        "%s is %.17g in the snapshot, %.17g in the cache", snapshot_real_name[i],
                        real.value, model.real[i]);
    }
    return RATP_OK;
}

static ratp_status check_count(uint32_t count, const char *what, uint32_t most, uint64_t at,
                               struct error *err)
{
    if (count > 0 && count <= most)
        return RATP_OK;
    return fail(err, RATP_PARSE_ERROR,
                "byte %llu: the snapshot has %u %s, a cache of %u heads has 1 to %u",
                (unsigned long long)at, count, what, most, most);
}

static ratp_status check_head(struct snapshot *s, struct error *err)
{
    ratp_status status = check_start(s, err);
    if (status)
        return status;
    s->length = next_u32(s);
    s->runs = next_u32(s);
    s->store_count = next_u32(s);
    uint32_t slabs = s->cache->slabs;
    status = check_model(s, err);
    if (!status && s->length > s->cache->max_tokens)
        status = fail(err, RATP_INVALID_ARGUMENT,
                      "length is %u in the snapshot, a sequence of the cache has at most %u tokens",
                      s->length, s->cache->max_tokens);
    if (!status)
        status = check_count(s->runs, "runs", slabs, SNAPSHOT_START + 4, err);
    if (!status)
        status = check_count(s->store_count, "stores", slabs, SNAPSHOT_START + 8, err);
    s->head_end = SNAPSHOT_HEAD + snapshot_tables(s->cache, s->runs, s->store_count);
    if (!status && s->head_end > s->end)
        status = fail(err, RATP_PARSE_ERROR,
                      "byte %d: %llu bytes of variants and stores are to follow, and %llu are left",
                      SNAPSHOT_HEAD, (unsigned long long)(s->head_end - SNAPSHOT_HEAD),
                      (unsigned long long)(s->end - SNAPSHOT_HEAD));
    s->at = SNAPSHOT_HEAD;
    return status;
}

/* Reads the tables behind the head, whose size is known now. */
static ratp_status read_tables(struct snapshot *s, struct error *err)
{
    unsigned char *head = realloc(s->head, (size_t)s->head_end);
    if (!head)
        return fail(err, RATP_OUT_OF_MEMORY, "no host memory for a head of %llu bytes",
                    (unsigned long long)s->head_end);
    s->head = head;
    ratp_status status = snapshot_read(&s->from, SNAPSHOT_HEAD, s->head_end - SNAPSHOT_HEAD,
                                       head + SNAPSHOT_HEAD, err);
    return status ? status : check_head_sum(s, s->head_end - SNAPSHOT_CHECKSUM, err);
}

/* ---- The tables ---- */

static ratp_status check_factors(struct snapshot *s, struct error *err)
{
    const ratp_cache *cache = s->cache;
    uint32_t factors = snapshot_factors(cache);
    ratp_status status = RATP_OK;
    for (uint32_t i = 0; i < factors && !status; i++) {
        union {
            uint32_t bits;
            float value;
        } factor = {next_u32(s)};
        if (factor.bits != bits_of_float(cache->factors[i]))
            status = fail(err, RATP_INVALID_ARGUMENT,
                          "rope.factors[%u] is %.9g in the snapshot, %.9g in the cache", i,
                          (double)factor.value, (double)cache->factors[i]);
    }
    return status;
}

/* One of a run's variants, which must be written as it was saved: a second way to
 * write the same would be a second snapshot of the same sequence. */
static ratp_status read_variant(struct snapshot *s, uint32_t run, const char *what,
                                struct variant *out, struct error *err)
{
    unsigned long long at = s->at;
    uint32_t kind = next_u32(s), numbers[VARIANT_NUMBERS], again[VARIANT_NUMBERS];
    for (int i = 0; i < VARIANT_NUMBERS; i++)
        numbers[i] = next_u32(s);
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

static ratp_status read_run(struct snapshot *s, uint32_t index, uint32_t left,
                            struct choice *choice, uint32_t *heads, struct error *err)
{
    unsigned long long at = s->at;
    *heads = next_u32(s);
    if (*heads == 0 || *heads > left)
        return fail(err, RATP_PARSE_ERROR, "byte %llu: run %u has %u heads, it must be 1 to %u",
                    at, index, *heads, left);
    struct error why;
    ratp_status status = read_variant(s, index, "prompt", &choice->prompt, err);
    if (!status && choice_check_prompt(&choice->prompt, "prompt", &why))
        status = fail(err, RATP_PARSE_ERROR, "byte %llu: run %u: %s", at, index, why.text);
    if (!status)
        status = read_variant(s, index, "variant", &choice->decode, err);
    return status;
}

static ratp_status read_runs(struct snapshot *s, struct choice *choices, struct error *err)
{
    uint32_t slabs = s->cache->slabs, slab = 0;
    ratp_status status = RATP_OK;
    for (uint32_t i = 0; i < s->runs && !status; i++) {
        struct choice choice;
        uint32_t heads = 0;
        status = read_run(s, i, slabs - slab, &choice, &heads, err);
        if (!status && slab && choice_equal(&choice, &choices[slab - 1]))
            status = fail(err, RATP_PARSE_ERROR, "byte %llu: run %u has the variants of run %u",
                          (unsigned long long)s->at - SNAPSHOT_RUN, i, i - 1);
        for (uint32_t end = slab + heads; !status && slab < end; slab++)
            choices[slab] = choice;
    }
    if (!status && slab < slabs)
        status = fail(err, RATP_PARSE_ERROR,
                      "byte %llu: %u runs have %u heads, the geometry has %u",
                      (unsigned long long)s->at, s->runs, slab, slabs);
    return status;
}

static ratp_status read_layout(struct snapshot *s, struct error *err)
{
    uint32_t slabs = s->cache->slabs;
    struct choice *choices = calloc(slabs, sizeof *choices);
    if (!choices)
        return fail(err, RATP_OUT_OF_MEMORY, "no host memory for the variants of %u heads", slabs);
    ratp_status status = read_runs(s, choices, err);
    if (!status)
        status = layout_take_choices(s->cache, choices, &s->layout, err);
    free(choices);
    if (!status && s->store_count != s->layout->store_count)
        status = fail(err, RATP_PARSE_ERROR,
                      "byte %d: the snapshot has %u stores, its variants make %u",
                      SNAPSHOT_START + 8, s->store_count, s->layout->store_count);
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

static ratp_status check_store(const struct snapshot *s, uint32_t index, uint32_t kept,
                               uint32_t ring, unsigned long long at, struct error *err)
{
    const struct snapshot_store *own = &s->stores[index];
    if (kept != own->kept || ring != own->ring)
        return fail(err, RATP_PARSE_ERROR,
                    "byte %llu: store %u has %u and %u tokens, of %u from token %u on it must have "
                    "%u and %u",
                    at, index, kept, ring, own->length, own->from, own->kept, own->ring);
    if (!ring_is_whole(own->store, own->length, own->from) && store_compresses(own->store))
        return fail(err, RATP_PARSE_ERROR,
                    "byte %llu: store %u has lost %u of %u tokens, and keeps %u of them", at, index,
                    own->from, own->length, own->store->keep.capacity);
    if (!ring_is_whole(own->store, own->length, own->from))
        return fail(err, RATP_PARSE_ERROR,
                    "byte %llu: the ring of store %u begins at token %u of %u, after the window of "
                    "%u",
                    at, index, own->from, own->length, own->store->keep.window);
    return RATP_OK;
}

static ratp_status read_stores(struct snapshot *s, struct error *err)
{
    uint64_t table = s->at;
    s->stores = calloc(s->store_count, sizeof *s->stores);
    if (!s->stores)
        return fail(err, RATP_OUT_OF_MEMORY, "no host memory for %u stores", s->store_count);
    for (uint32_t i = 0; i < s->store_count; i++) {
        const unsigned char *store = s->head + table + (uint64_t)SNAPSHOT_STORE * i;
        s->stores[i].from = get_u32(store);
        s->stores[i].queries = get_u32(store + 12);
        if (s->stores[i].from > s->length)
            return fail(err, RATP_PARSE_ERROR,
                        "byte %llu: the ring of store %u begins at token %u of %u",
                        (unsigned long long)s->at, i, s->stores[i].from, s->length);
        s->at += SNAPSHOT_STORE;
    }
    s->snapkv = snapshot_place(s->cache, s->layout, s->length, s->head_end, s->stores);
    ratp_status status = RATP_OK;
    for (uint32_t i = 0; i < s->store_count && !status; i++) {
        uint64_t at = table + (uint64_t)SNAPSHOT_STORE * i;
        status = check_store(s, i, get_u32(s->head + at + 4), get_u32(s->head + at + 8), at, err);
    }
    return status;
}

/* ---- The size ---- */

/* What follows the head has the size that the head says, no more and no less. */
static ratp_status check_size(struct snapshot *s, struct error *err)
{
    s->when = (enum compress_when)next_u32(s);
    s->group = next_u32(s);
    ratp_status status = snapshot_check_snapkv(s, err);
    if (status)
        return status;
    s->state = s->snapkv + snapshot_snapkv_bytes(s->cache, s->layout, s->stores, s->group);
    uint64_t end = s->state + (s->length ? seq_state_bytes(s->cache) : 0);
    if (end != s->end)
        status = fail(err, RATP_PARSE_ERROR,
                      "byte %llu: %llu bytes of rows and state are to follow, and there are %llu",
                      (unsigned long long)s->head_end, (unsigned long long)(end - s->head_end),
                      (unsigned long long)(s->end - s->head_end));
    return status;
}

/* A cache that could not take it if it were empty need not read it. */
static ratp_status check_room(const struct snapshot *s, struct error *err)
{
    const ratp_cache *cache = s->cache;
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < s->store_count; i++) {
        const struct store *store = s->stores[i].store;
        uint32_t ring = s->length < store->ring_slots ? s->length : store->ring_slots;
        uint64_t pages = (uint64_t)pages_for(cache, s->stores[i].kept) + pages_for(cache, ring);
        bytes += pages * store->pool->page_bytes;
    }
    if (bytes <= cache->budget)
        return RATP_OK;
    return fail(err, RATP_CACHE_FULL,
                "the %u tokens of the snapshot take %llu bytes of pages, the budget is %llu; raise "
                "the budget",
                s->length, (unsigned long long)bytes, (unsigned long long)cache->budget);
}

ratp_status snapshot_check(struct snapshot *s, ratp_cache *cache,
                           const struct snapshot_source *from, struct error *err)
{
    *s = (struct snapshot){.cache = cache, .from = *from};
    uint64_t size = from->size;
    s->end = size < SNAPSHOT_CHECKSUM ? 0 : size - SNAPSHOT_CHECKSUM;
    s->head = calloc(1, SNAPSHOT_HEAD);
    if (!s->head)
        return fail(err, RATP_OUT_OF_MEMORY, "no host memory for a head of %d bytes",
                    SNAPSHOT_HEAD);
    ratp_status status = snapshot_read(from, 0, size < SNAPSHOT_HEAD ? size : SNAPSHOT_HEAD, s->head,
                                       err);
    if (!status)
        status = check_head(s, err);
    if (!status)
        status = read_tables(s, err);
    if (!status)
        status = check_factors(s, err);
    if (!status)
        status = read_layout(s, err);
    if (!status)
        status = read_stores(s, err);
    if (!status)
        status = check_size(s, err);
    if (!status)
        status = check_room(s, err);
    if (!status)
        status = check_whole_sum(s, err);
    return status ? status : snapshot_read_positions(s, err);
}

void snapshot_close(struct snapshot *s)
{
    for (uint32_t i = 0; s->stores && i < s->store_count; i++)
        free(s->stores[i].positions);
    if (s->layout)
        layout_release(s->cache, s->layout);
    free(s->stores);
    free(s->head);
}
