#include "snapshot.h"

#include "../file.h"

#include <string.h>
#include <zlib.h>

/* The first byte is no text, and the last is changed where line ends are. */
const unsigned char snapshot_magic[8] = {0x89, 'R', 'A', 'T', 'S', 'E', 'Q', '\n'};

const char *const snapshot_number_name[SNAPSHOT_NUMBERS] = {
    "geometry.layers", "geometry.kv_heads", "geometry.first_kv_head", "geometry.total_kv_heads",
    "geometry.head_size", "geometry.value_size", "geometry.memory", "k_dtype", "v_dtype",
    "bytes of a K row", "bytes of a V row", "retention", "rope.style", "rope.size",
    "rope.yarn_context",
};

const char *const snapshot_real_name[SNAPSHOT_REALS] = {
    "rope.theta", "rope.scale", "rope.yarn_factor", "rope.yarn_beta_fast", "rope.yarn_beta_slow",
    "rope.yarn_attention",
};

void snapshot_model_of(const ratp_cache *cache, struct snapshot_model *out)
{
    const struct layer_shape *shape = &cache->shape;
    const struct ratp_rope *rope = &cache->rotation;
    *out = (struct snapshot_model){
        .number = {cache->layers, shape->kv_heads, cache->first_kv_head, cache->total_kv_heads,
                   shape->head_size, shape->value_size, shape->memory, (uint32_t)shape->k_dtype,
                   (uint32_t)shape->v_dtype, shape->k_slot, shape->v_slot,
                   (uint32_t)cache->retention, (uint32_t)rope->style, rope->size,
                   rope->yarn_context},
        .real = {rope->theta, rope->scale, rope->yarn_factor, rope->yarn_beta_fast,
                 rope->yarn_beta_slow, rope->yarn_attention},
    };
}

/* The tokens below `position` that are in the ring alone. */
static uint32_t not_fixed(const struct store *store, uint32_t position)
{
    return position - (uint32_t)store_kept(store, position);
}

uint64_t snapshot_slab_bytes(const ratp_cache *cache, const struct snapshot_store *s)
{
    return ((uint64_t)s->kept + s->ring) * (cache->shape.k_slot + cache->shape.v_slot);
}

uint64_t snapshot_place(const ratp_cache *cache, const struct layout *layout, uint32_t length,
                        uint64_t at, struct snapshot_store *stores)
{
    for (uint32_t i = 0; i < layout->store_count; i++) {
        struct snapshot_store *s = &stores[i];
        s->store = &layout->stores[i];
        s->length = length;
        s->kept = (uint32_t)store_kept(s->store, length);
        if (store_compresses(s->store))
            s->kept -= s->from;
        s->ring = not_fixed(s->store, length) - not_fixed(s->store, s->from);
        s->at = at;
        at += s->store->slabs * snapshot_slab_bytes(cache, s);
    }
    return at;
}

void snapshot_rows(const ratp_cache *cache, const struct snapshot_store *s, bool ring,
                   uint32_t ring_from, uint32_t page, uint32_t *rows)
{
    const struct store *store = s->store;
    uint32_t slots = cache->shape.page_slots, first = page * slots;
    for (uint32_t i = 0; i < slots; i++) {
        uint32_t slot = first + i, lap = store->ring_slots;
        rows[i] = NO_ROW;
        if (!ring) {
            rows[i] = slot < s->kept ? slot : NO_ROW;
            continue;
        }
        uint32_t position = ring_from + (slot + lap - ring_from % lap) % lap;
        if (position >= s->length)
            continue;
        rows[i] = store_is_fixed(store, position)
                      ? store_kept_slot(store, position)
                      : s->kept + not_fixed(store, position) - not_fixed(store, s->from);
    }
}

ratp_status snapshot_read(const struct snapshot_source *from, uint64_t at, uint64_t bytes,
                          void *to, struct error *err)
{
    if (!from->data)
        return file_read(from->file, at, bytes, to, err);
    memcpy(to, from->data + at, (size_t)bytes);
    return RATP_OK;
}

uint64_t snapshot_image_bytes(const struct layout *layout, const struct seq_store *stores)
{
    enum { ENOUGH = 4 << 20 }; /* what a transfer costs by itself is no more to be seen */
    uint64_t most = 0;
    for (uint32_t s = 0; s < layout->store_count; s++) {
        uint64_t page = layout->stores[s].pool->page_bytes;
        uint64_t pages = stores[s].kept.count > stores[s].ring.count ? stores[s].kept.count
                                                                     : stores[s].ring.count;
        uint64_t bytes = pages * page <= ENOUGH ? pages * page : page > ENOUGH ? page : ENOUGH;
        most = bytes > most ? bytes : most;
    }
    return most;
}

uint32_t snapshot_run(const struct page_list *list, uint32_t page, uint64_t page_bytes,
                      uint64_t image_bytes)
{
    uint32_t run = 1;
    while (page + run < list->count && (run + 1) * page_bytes <= image_bytes &&
           list->page[page + run]->block == list->page[page]->block &&
           list->page[page + run]->address == list->page[page]->address + run * page_bytes)
        run++;
    return run;
}

uint32_t snapshot_checksum(const unsigned char *data, uint64_t size)
{
    return (uint32_t)crc32_z(0, data, (size_t)size);
}
