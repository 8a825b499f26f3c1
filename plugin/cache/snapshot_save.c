/* Writes snapshots. All numbers are little endian, u32 and u64 unsigned, f32 and
 * f64 as IEEE 754 has them; nothing is aligned. In this order:
 *
 *     8 bytes   89 52 41 54 53 45 51 0a
 *     u64       bytes in the whole, the last checksum included
 *     u32       version: 1
 *     u32       checksum
 *     u32       length: tokens fed
 *     u32       number of runs
 *     u32       number of stores
 *     u32 x 15  layers, kv_heads, first_kv_head, total_kv_heads, head_size, value_size,
 *               memory (0 or 1), k_dtype, v_dtype, bytes of a K row, bytes of a V row,
 *               retention, rope style, rope size, yarn_context
 *     f64 x 6   rope theta, scale, yarn_factor, yarn_beta_fast, yarn_beta_slow,
 *               yarn_attention
 *     u32       checksum
 *     f32       x rope size / 2: the rope's factors
 *     runs      u32 heads, then u32 x 13 twice, what prompts attend and what decoded tokens
 *               do: kind, dilation, window, sinks, page, budget, block, topk, selection,
 *               observe, capacity, kernel, pool. So many key/value heads, counted layer by
 *               layer, have these variants; neighbouring runs have different ones
 *     stores    u32 from, kept, ring, queries
 *     u32       when  \ of snapkv: 0 unless length and a store is of snapkv
 *     u32       group /
 *     u32       checksum
 *     rows      for each store, for each of its heads: its tokens' K rows, then their V rows
 *     snapkv    for each store of snapkv: for each of its heads, where `from` is not 0,
 *               u32 x capacity positions, ascending; for each of its heads
 *               f32 x queries x group x head_size
 *     state     if memory and length: f32 K[head_size], V[head_size] of each head
 *     u32       checksum
 *
 * Each checksum is the CRC-32 (that of zlib) of all bytes before. One stands wherever
 * what was read decides how much is read next: so a reader knows from a sound head how
 * long the whole must be before it reads on. The first four fields and the last are the
 * same in every version. Defaults are written as the values that they stand for; without
 * a rotation all of the rope's are 0, without YaRN its four.
 *
 * Heads whose variants keep the same tokens share a store: with retention `full`
 * all, else those with equal variants; snapkv heads do so with equal variants only.
 * Stores are numbered by their first head. A store that keeps everything has `from`
 * and `ring` 0 and `kept` tokens 0 ... length - 1. Any other has `kept` sinks and dilated tokens, and behind them
 * `ring` tokens: those of positions `from` ... length - 1 that are neither. Both
 * are in the order of positions. Of the tokens that the next one's window reaches
 * none is missing. A store of snapkv has `from` tokens fewer than the length, which its
 * compression took away: the tokens of the positions are there, and all that came later.
 *
 * `when` snapkv heads are compressed unasked: 0 with the next token that is decoded, 1
 * with the one after the next prompt, 2 never. The queries are those of the last tokens,
 * not turned; `group` is the number of query heads of a key/value head, and a cache with
 * another reads all but the queries.
 *
 * A row is what the cache has of one token and head: turned K, in the cache's dtype. */
#include "snapshot.h"

#include <stdlib.h>
#include <string.h>

struct saving {
    ratp_seq *seq;
    struct snapshot_store *stores; /* [store_count] */
    uint32_t runs;
    uint64_t snapkv, state, end; /* where they and the state begin, and where the checksum does */
    unsigned char *data;
    unsigned char *image; /* neighbouring pages, as read */
    uint64_t image_bytes;
    uint32_t *rows; /* [page_slots] */
};

/* How many heads from `slab` on have its variant. */
static uint32_t variant_run(const ratp_seq *seq, uint32_t slab)
{
    const struct choice *choice = seq->layout->choice;
    uint32_t end = slab + 1;
    while (end < seq->cache->slabs && choice_equal(&choice[slab], &choice[end]))
        end++;
    return end - slab;
}

static ratp_status measure(struct saving *save, struct error *err)
{
    const ratp_seq *seq = save->seq;
    const ratp_cache *cache = seq->cache;
    uint32_t stores = seq->layout->store_count;
    save->stores = calloc(stores, sizeof *save->stores);
    if (!save->stores)
        return fail(err, RATP_OUT_OF_MEMORY, "no host memory to save %u stores", stores);
    for (uint32_t slab = 0; slab < cache->slabs; slab += variant_run(seq, slab))
        save->runs++;
    for (uint32_t s = 0; s < stores; s++)
        save->stores[s].from = store_compresses(&seq->layout->stores[s])
                                   ? seq->stores[s].dropped : seq->stores[s].ring_from;
    uint64_t head = SNAPSHOT_HEAD + snapshot_tables(cache, save->runs, stores);
    save->snapkv = snapshot_place(cache, seq->layout, seq->length, head, save->stores);
    for (uint32_t s = 0; s < stores; s++)
        if (seq->length && store_compresses(&seq->layout->stores[s]))
            save->stores[s].queries = seq->stores[s].queries;
    save->state = save->snapkv +
                  snapshot_snapkv_bytes(cache, seq->layout, save->stores, snapshot_group(cache));
    save->end = save->state + (seq->length ? seq_state_bytes(cache) : 0);
    return RATP_OK;
}

static unsigned char *put_variant(unsigned char *at, const struct variant *v)
{
    uint32_t numbers[VARIANT_NUMBERS];
    variant_numbers(v, numbers);
    at = put_u32(at, (uint32_t)v->kind);
    for (int i = 0; i < VARIANT_NUMBERS; i++)
        at = put_u32(at, numbers[i]);
    return at;
}

static void write_head(const struct saving *save)
{
    const ratp_seq *seq = save->seq;
    const ratp_cache *cache = seq->cache;
    const struct choice *choice = seq->layout->choice;
    struct snapshot_model model;
    snapshot_model_of(cache, &model);
    memcpy(save->data, snapshot_magic, sizeof snapshot_magic);
    unsigned char *at = save->data + sizeof snapshot_magic;
    at = put_u64(at, save->end + SNAPSHOT_CHECKSUM);
    at = put_u32(at, SNAPSHOT_VERSION);
    at = put_checksum(at, save->data);
    at = put_u32(at, seq->length);
    at = put_u32(at, save->runs);
    at = put_u32(at, seq->layout->store_count);
    for (int i = 0; i < SNAPSHOT_NUMBERS; i++)
        at = put_u32(at, model.number[i]);
    for (int i = 0; i < SNAPSHOT_REALS; i++)
        at = put_u64(at, bits_of_double(model.real[i]));
    at = put_checksum(at, save->data);
    for (uint32_t i = 0; i < snapshot_factors(cache); i++)
        at = put_u32(at, bits_of_float(cache->factors[i]));
    for (uint32_t slab = 0, run; slab < cache->slabs; slab += run) {
        run = variant_run(seq, slab);
        at = put_u32(at, run);
        at = put_variant(at, &choice[slab].prompt);
        at = put_variant(at, &choice[slab].decode);
    }
    for (uint32_t s = 0; s < seq->layout->store_count; s++) {
        at = put_u32(at, save->stores[s].from);
        at = put_u32(at, save->stores[s].kept);
        at = put_u32(at, save->stores[s].ring);
        at = put_u32(at, save->stores[s].queries);
    }
    bool snapkv = snapshot_has_snapkv(seq->layout, seq->length);
    at = put_u32(at, snapkv ? seq->when : 0);
    at = put_u32(at, snapkv ? snapshot_group(cache) : 0);
    put_checksum(at, save->data);
}

/* Takes the rows out of one page. */
static void pick_rows(const struct saving *save, const struct snapshot_store *s, bool ring,
                      uint32_t page, const unsigned char *image)
{
    const ratp_cache *cache = save->seq->cache;
    size_t k_row = cache->shape.k_slot, v_row = cache->shape.v_slot;
    uint32_t slots = cache->shape.page_slots;
    snapshot_rows(cache, s, ring, s->from, page, save->rows);
    for (uint32_t slab = 0; slab < s->store->slabs; slab++) {
        const unsigned char *k = image + (size_t)slab * cache->slab_bytes, *v = k + slots * k_row;
        unsigned char *to_k = save->data + s->at + slab * snapshot_slab_bytes(cache, s);
        unsigned char *to_v = to_k + ((size_t)s->kept + s->ring) * k_row;
        for (uint32_t i = 0; i < slots; i++) {
            size_t row = save->rows[i];
            /* What is kept for good stands in the ring, too. */
            if (row == NO_ROW || (ring && row < s->kept))
                continue;
            memcpy(to_k + row * k_row, k + i * k_row, k_row);
            memcpy(to_v + row * v_row, v + i * v_row, v_row);
        }
    }
}

static ratp_status save_list(const struct saving *save, const struct snapshot_store *s, bool ring,
                             const struct page_list *list, struct error *err)
{
    struct backend *b = save->seq->cache->backend;
    uint64_t page_bytes = s->store->pool->page_bytes;
    for (uint32_t page = 0, run; page < list->count; page += run) {
        run = snapshot_run(list, page, page_bytes, save->image_bytes);
        const struct mem *mem = &list->page[page]->block->mem;
        ratp_status status = b->ops->mem_read(b, mem, list->page[page]->address - mem->address,
                                              save->image, run * page_bytes, err);
        if (status)
            return status;
        for (uint32_t i = 0; i < run; i++)
            pick_rows(save, s, ring, page + i, save->image + i * page_bytes);
    }
    return RATP_OK;
}

static ratp_status write_tokens(struct saving *save, struct error *err)
{
    const ratp_seq *seq = save->seq;
    const ratp_cache *cache = seq->cache;
    struct backend *b = cache->backend;
    save->image_bytes = snapshot_image_bytes(seq->layout, seq->stores);
    save->image = malloc((size_t)save->image_bytes);
    save->rows = malloc(cache->shape.page_slots * sizeof *save->rows);
    if (!save->image || !save->rows)
        return fail(err, RATP_OUT_OF_MEMORY, "no host memory for %llu bytes of pages",
                    (unsigned long long)save->image_bytes);
    ratp_status status = RATP_OK;
    for (uint32_t s = 0; s < seq->layout->store_count && !status; s++) {
        status = save_list(save, &save->stores[s], false, &seq->stores[s].kept, err);
        if (!status)
            status = save_list(save, &save->stores[s], true, &seq->stores[s].ring, err);
    }
    if (!status && save->state > save->snapkv)
        status = snapshot_save_snapkv(seq, save->stores, save->data + save->snapkv, err);
    if (!status && save->end > save->state)
        status = b->ops->mem_read(b, &seq->state, seq_state_offset(seq, seq->state_copy),
                                  save->data + save->state, save->end - save->state, err);
    return status;
}

static ratp_status write_whole(struct saving *save, struct error *err)
{
    write_head(save);
    ratp_status status = save->seq->length ? write_tokens(save, err) : RATP_OK;
    if (!status)
        put_checksum(save->data + save->end, save->data);
    return status;
}

ratp_status seq_save(ratp_seq *seq, void *data, uint64_t size, uint64_t *needed, struct error *err)
{
    if (seq->step)
        return fail(err, RATP_WRONG_STATE,
                    "the sequence is part of an open step; commit or abort it before it is saved");
    struct saving save = {.seq = seq, .data = data};
    ratp_status status = measure(&save, err);
    uint64_t wanted = save.end + SNAPSHOT_CHECKSUM;
    if (!status)
        *needed = wanted;
    if (!status && data && size < wanted)
        status = fail(err, RATP_INVALID_ARGUMENT, "size is %llu, the snapshot takes %llu bytes",
                      (unsigned long long)size, (unsigned long long)wanted);
    if (!status && data)
        status = write_whole(&save, err);
    free(save.stores);
    free(save.image);
    free(save.rows);
    return status;
}
