/* Snapshots: a sequence as bytes, for what writes them and what reads them.
 * snapshot_save.c says what stands where. */
#ifndef RATPLUS_SNAPSHOT_H
#define RATPLUS_SNAPSHOT_H

#include "cache.h"

enum { SNAPSHOT_NUMBERS = 15, SNAPSHOT_REALS = 6 };

/* Bytes of the parts. A checksum of all before stands wherever what was read decides
 * how much follows. */
enum {
    SNAPSHOT_VERSION = 1,
    SNAPSHOT_CHECKSUM = 4,
    SNAPSHOT_START = 20 + SNAPSHOT_CHECKSUM, /* the same in every version */
    SNAPSHOT_HEAD = SNAPSHOT_START + 3 * 4 + 4 * SNAPSHOT_NUMBERS + 8 * SNAPSHOT_REALS +
                    SNAPSHOT_CHECKSUM,
    SNAPSHOT_VARIANT = 4 + 4 * VARIANT_NUMBERS,
    SNAPSHOT_RUN = 4 + 2 * SNAPSHOT_VARIANT, /* of a run of heads */
    SNAPSHOT_STORE = 16,                     /* of a store's numbers */
    SNAPSHOT_SNAPKV = 8,                     /* when, group */
    SNAPSHOT_SHORTEST = SNAPSHOT_HEAD + SNAPSHOT_SNAPKV + 2 * SNAPSHOT_CHECKSUM
};

extern const unsigned char snapshot_magic[8];

/* ---- The model: what a snapshot and a cache must have in common ---- */

struct snapshot_model {
    uint32_t number[SNAPSHOT_NUMBERS];
    double real[SNAPSHOT_REALS];
};

extern const char *const snapshot_number_name[SNAPSHOT_NUMBERS];
extern const char *const snapshot_real_name[SNAPSHOT_REALS];
void snapshot_model_of(const ratp_cache *cache, struct snapshot_model *out);
/* How many rotary factors follow the model. */
static inline uint32_t snapshot_factors(const ratp_cache *cache)
{
    return cache->rotation.size / 2;
}

/* ---- The tokens ---- */

/* What a store has in a snapshot. The tokens kept for good come first, then those
 * of the ring, both by position; a slab's row r is that of token r. */
struct snapshot_store {
    const struct store *store;
    uint32_t length;     /* of the sequence */
    uint32_t from;       /* the ring's tokens are those from here on that are not kept for good */
    uint32_t kept, ring; /* tokens */
    uint32_t queries;    /* of snapkv: how many of the last are there */
    uint64_t at;         /* where the rows of its first slab begin */
    uint32_t *positions; /* being read, of a compressed one: [slabs][capacity]; else NULL */
};

/* Fills in the tokens and where they are, for rows that begin at byte `at`; returns their end. */
uint64_t snapshot_place(const ratp_cache *cache, const struct layout *layout, uint32_t length,
                        uint64_t at, struct snapshot_store *stores);
/* Bytes of one slab's rows. */
uint64_t snapshot_slab_bytes(const ratp_cache *cache, const struct snapshot_store *s);

#define NO_ROW UINT32_MAX

/* The rows of the tokens in a page of the store, one for each of its slots: page `page`
 * of the ring, which holds the positions from `ring_from` on, or of the kept. */
void snapshot_rows(const ratp_cache *cache, const struct snapshot_store *s, bool ring,
                   uint32_t ring_from, uint32_t page, uint32_t *rows);

/* Bytes of host memory for neighbouring pages of the lists, which go in one transfer. */
uint64_t snapshot_image_bytes(const struct layout *layout, const struct seq_store *stores);
/* How many of the pages from index `page` on are neighbours, and fit in `image_bytes`. */
uint32_t snapshot_run(const struct page_list *list, uint32_t page, uint64_t page_bytes,
                      uint64_t image_bytes);

/* Of the factors, the runs, the stores, what all snapkv heads share, and their checksum. */
static inline uint64_t snapshot_tables(const ratp_cache *cache, uint32_t runs, uint32_t stores)
{
    return sizeof(float) * (uint64_t)snapshot_factors(cache) + (uint64_t)SNAPSHOT_RUN * runs +
           (uint64_t)SNAPSHOT_STORE * stores + SNAPSHOT_SNAPKV + SNAPSHOT_CHECKSUM;
}

/* ---- Reading ---- */

/* Where a snapshot is read from. Of a file no more is in memory than is asked for. */
struct snapshot_source {
    const unsigned char *data; /* NULL: the file */
    int file;
    uint64_t size;
};

/* A snapshot that is being read. */
struct snapshot {
    ratp_cache *cache;
    struct snapshot_source from;
    unsigned char *head; /* its bytes up to the rows */
    uint64_t at, head_end;
    uint32_t length, runs, store_count;
    struct layout *layout;
    struct snapshot_store *stores; /* [store_count] */
    enum compress_when when;
    uint32_t group;
    uint64_t snapkv, state, end; /* where they and the last checksum begin */
};

ratp_status snapshot_read(const struct snapshot_source *from, uint64_t at, uint64_t bytes,
                          void *to, struct error *err);
/* snapshot_check.c: opens a snapshot and checks all of it, in an order that bounds what is
 * read: what the head says of the size comes before the rest. To be closed then, whatever
 * was answered. */
ratp_status snapshot_check(struct snapshot *s, ratp_cache *cache,
                           const struct snapshot_source *from, struct error *err);
void snapshot_close(struct snapshot *s);

/* ---- snapshot_snapkv.c: what heads of snapkv know beside their rows ---- */

/* The number of query heads of a key/value head. */
uint32_t snapshot_group(const ratp_cache *cache);
/* Whether a sequence of such a layout has any of it. */
bool snapshot_has_snapkv(const struct layout *layout, uint32_t length);
/* With queries of so many heads. 0 where there is none. */
uint64_t snapshot_snapkv_bytes(const ratp_cache *cache, const struct layout *layout,
                               const struct snapshot_store *stores, uint32_t group);
ratp_status snapshot_save_snapkv(const ratp_seq *seq, const struct snapshot_store *stores,
                                 unsigned char *at, struct error *err);
/* Checks the numbers of the head. */
ratp_status snapshot_check_snapkv(const struct snapshot *s, struct error *err);
/* Reads the positions into the stores, and checks them. */
ratp_status snapshot_read_positions(struct snapshot *s, struct error *err);
/* Gives it to a sequence, of which it was checked. */
ratp_status snapshot_load_snapkv(ratp_seq *seq, const struct snapshot *s, struct error *err);

/* ---- Bytes ---- */

static inline unsigned char *put_u32(unsigned char *at, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        *at++ = (unsigned char)(value >> 8 * i);
    return at;
}

static inline unsigned char *put_u64(unsigned char *at, uint64_t value)
{
    return put_u32(put_u32(at, (uint32_t)value), (uint32_t)(value >> 32));
}

static inline uint32_t get_u32(const unsigned char *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static inline uint64_t get_u64(const unsigned char *at)
{
    return get_u32(at) | (uint64_t)get_u32(at + 4) << 32;
}

/* The bits of IEEE 754 numbers. */
static inline uint32_t bits_of_float(float value)
{
    union {
        float value;
        uint32_t bits;
    } x = {value};
    return x.bits;
}

static inline uint64_t bits_of_double(double value)
{
    union {
        double value;
        uint64_t bits;
    } x = {value};
    return x.bits;
}

uint32_t snapshot_checksum(const unsigned char *data, uint64_t size);
/* Writes the checksum of all before `at`. Returns what follows. */
static inline unsigned char *put_checksum(unsigned char *at, const unsigned char *begin)
{
    return put_u32(at, snapshot_checksum(begin, (uint64_t)(at - begin)));
}

#endif
