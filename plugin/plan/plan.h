/* The plan of a step: work lists that say, for every class of layers, which
 * keys each new token attends and where K and V are read and written. Made
 * once a step and reused by every layer of the class.
 *
 * The structs named gpu_* are read by shaders (shaders/include/plan.glsl has
 * the same ones): only 32-bit words, no padding. The planner alone writes
 * them; shaders clamp page indices to `pages`, so that no bad number leaves
 * the pool. */
#ifndef RATPLUS_PLAN_H
#define RATPLUS_PLAN_H

#include "../backend.h"

/* The attention of one layer, as kernels need it. */
struct layer_shape {
    uint32_t query_heads, kv_heads;
    uint32_t head_size, value_size;
    float scale, softcap; /* softcap 0: off */
    bool memory;          /* forget gates are applied */
    ratp_dtype k_dtype, v_dtype;
    /* Strides inside a layered page, in bytes. */
    uint32_t page_slots;
    uint32_t k_slot, k_head, v_slot, v_head;
    bool view_strides; /* attend_external: kernels take them from the views, because a host's
                          change with every call, and a constant would be a new pipeline */
    uint32_t row_bits; /* ... and the low bits of the addresses of all rows of K and V and of what
                          is known of K's blocks, below 16; a cache's are 0 */
    /* Rotation; style RATP_ROPE_NONE: none. The table holds cos and sin pairs
     * of float32: coarse[p / ROPE_FINE][i], times the YaRN attention factor,
     * for all positions below max_tokens, and behind it fine[p % ROPE_FINE][i],
     * i < rope_size / 2; the angle of position p is the sum of both. */
    ratp_rope_style rope_style;
    uint32_t rope_size;
    uint64_t rope_table; /* address */
    uint32_t max_tokens; /* positions the table covers */
};

enum { ROPE_FINE = 1024 };

/* Whether new rows take a detour through plan->raw_address: of q8_0, a value
 * depends on its neighbours. */
static inline bool shape_is_quantized(const struct layer_shape *shape)
{
    return shape->k_dtype == RATP_Q8_0 || shape->v_dtype == RATP_Q8_0;
}

/* Bytes of a row at plan->raw_address. */
static inline uint64_t shape_raw_bytes(const struct layer_shape *shape)
{
    return (uint64_t)shape->kv_heads * (shape->head_size + shape->value_size) * sizeof(float);
}

/* Work memory of a compression: of a head (votes, pooled votes, slots that are kept), and
 * of each row, a query's logits with what their softmax is made of. There is room for one
 * head and row at least; with more, more of them go together. */
static inline uint64_t compress_head_bytes(uint32_t held, uint32_t capacity)
{
    return (((uint64_t)held + 3) / 4 * 8 + capacity) * sizeof(float);
}

static inline uint64_t compress_row_bytes(uint32_t held)
{
    return ((uint64_t)held + 2) * sizeof(float);
}

struct gpu_address {
    uint32_t lo, hi;
};

/* Where a page's K and V of its first head begin. */
struct gpu_page {
    struct gpu_address k, v;
};

/* A run of keys: key i has position pos0 + i * pos_step and lies in slot
 * (slot0 + i * slot_step), modulo slot_ring if that is not 0, of the pages
 * [page0, page0 + pages) of the page list. A slot s is in page s / page_slots. */
struct gpu_segment {
    uint32_t page0, pages;
    uint32_t pos0, pos_step;
    uint32_t slot0, slot_step, slot_ring;
    uint32_t keys;
    uint32_t windowed; /* 0: attended when pos <= t.
                          1: also t - pos <= window, and pos is neither sink nor dilated */
    uint32_t layered;  /* 1: the heads' offset is added to the page address */
};

enum { PLAN_SEGMENTS = 4 };

/* One sequence of the batch under one class. */
struct gpu_view {
    uint32_t row0, rows;  /* its new tokens in the batch */
    uint32_t pos0;        /* position of the first of them */
    uint32_t sinks, dilation, window; /* dilation 0: no dilated keys */
    uint32_t causal;      /* 0: every key is attended (attend_external) */
    uint32_t segments;    /* how many of `segment` are used */
    struct gpu_address state_in, state_out; /* [kv_head][K channels, V channels] float32 */
    /* Where token p = pos0 + i is written; pages 0: nowhere. */
    uint32_t kept_page0, kept_pages;   /* sinks and dilated tokens, at their kept index */
    uint32_t ring_page0, ring_pages;   /* p >= ring_from, at p % ring_slots */
    uint32_t ring_slots, ring_from;
    uint32_t line_page0, line_pages;   /* every token, at p - line_pos0 */
    uint32_t line_pos0, line_layered;
    uint32_t k_slot, k_head, v_slot, v_head; /* where the shape has view_strides */
    uint32_t offsets; /* bytes from the plan to a table: where each head of the model begins in
                         layered pages; 0 where there are none */
    /* Queries that choose among blocks of keys (quest, moba): */
    uint32_t select; /* enum gpu_select: by what a block is scored */
    uint32_t block;  /* its tokens; key i of a chosen list is in its block i / block */
    uint32_t choose; /* blocks that a query attends, its own the last of them */
    uint32_t by_group; /* 1: the query heads of a group choose together */
    /* What is known of a block: an entry for so many of its tokens, all of them or a part:
     * in a cache those of one page, behind its rows. */
    uint32_t summaries;    /* like `offsets`: where each head's entries begin */
    uint32_t summary_head; /* bytes to the next head's */
    uint32_t entry_at;     /* bytes from a head's entries to those that score */
    uint32_t entry_tokens, entry_bytes; /* the bytes: from an entry to the next */
    uint32_t entry_page0, entry_pages;  /* pages with entries, as many in each as entry_tokens
                                           in page_slots; a cache's are the line's */
    uint32_t slopes; /* bytes from the plan to the factor on the mask of each query head,
                        float32; 0: 1 */
    struct gpu_segment segment[PLAN_SEGMENTS];
};

enum gpu_select { /* plan_class.selects has room for all */
    SELECT_NONE = 0,
    SELECT_EXTREMES = 1, /* an entry has each channel's least and greatest K */
    SELECT_MEAN = 2      /* the sum of K, float32 */
};

/* Entries [first, first + count) of a view, counted from the sequence's first, that the
 * step's new tokens complete. */
struct gpu_summary {
    uint32_t view;
    uint32_t select; /* what an entry holds */
    uint32_t entry_at, entry_tokens, entry_bytes;
    uint32_t first, count;
};

/* Query tokens [token0, token0 + tokens) of a view over part `split` of
 * `splits` equal parts of their keys, the view's segments counted as one run
 * (each cut to the keys that the tile can see). splits 1: written to `out`;
 * else to partials. */
struct gpu_tile {
    uint32_t view, token0, tokens;
    uint32_t split, splits;
    uint32_t partial; /* first partial row: (partial + split * tokens + i) is token i's */
    uint32_t chooser; /* where the view selects: number of the token in plan_class.choosers */
};

/* A query token that chooses blocks. */
struct gpu_chooser {
    uint32_t view, token;
};

/* Queries that a compression may ask for: those of tokens [token0, token0 + tokens) of a
 * view go, as they came, to rows at, at + 1, ... (modulo `ring`) of their head's ring. The
 * view has the table of offsets: heads follow each other as they do in its pages. */
struct gpu_observer {
    uint32_t view, token0, tokens;
    uint32_t at, ring;
    struct gpu_address queries; /* [head of the store][ring][query head of it][channel] float32 */
};

/* Query tokens [token0, token0 + tokens) of a view that selects, whose attention goes
 * block by block: over the blocks that they choose, then over their own, and is then
 * merged. Token i's result over the block of its list's place j is partial row partial +
 * (j + 1) * tokens + i, that over its own block partial + i. */
struct gpu_wave {
    uint32_t view, token0, tokens;
    uint32_t chooser; /* number of the first token in plan_class.choosers */
    uint32_t places;  /* of a list, without the own block's */
    uint32_t blocks;  /* before the last token's own: those that may be chosen */
    uint32_t partial;
};

/* A token whose partials are merged: rows partial + split * step. */
struct gpu_gather {
    uint32_t row, partial, step, splits;
};

/* Tokens [token0, token0 + tokens) of a view through the memory, from the
 * carry `carry` (NO_CARRY: the view's state_in). The chunk that ends the
 * view's rows writes state_out. */
struct gpu_chunk {
    uint32_t view, token0, tokens, carry;
};

/* A sequence longer than one chunk. The local results of its chunks 0 ...
 * carries - 1 (all but the last) lie at carry0, carry0 + 1, ...; the scan runs
 * s = state_in, then for each of them s = A * s + local, and stores s over the
 * local K and V: it is the carry of the chunk after. */
struct gpu_scan {
    uint32_t view, carry0, carries, unused;
};

/* A run of slots in layered pages: slot (slot0 + i * slot_step), modulo slot_ring
 * if that is not 0. The view has the table of offsets. */
struct gpu_slots {
    uint32_t view;
    uint32_t page0, pages;
    uint32_t slot0, slot_step, slot_ring;
};

/* Copies `count` slots; the two runs have none in common. */
struct gpu_move {
    struct gpu_slots from, to;
    uint32_t count;
};

#define NO_CARRY UINT32_MAX
#define NO_WINDOW UINT32_MAX /* a window that holds everything */

/* A list in the plan's memory. */
struct plan_list {
    uint32_t offset; /* bytes from the plan's address, a multiple of 16 */
    uint32_t count;
};

/* What the host keeps of a wave. */
struct plan_wave {
    struct gpu_wave wave;
    uint32_t offset;        /* where the plan has it */
    uint32_t block;         /* tokens of a block */
    struct plan_list tiles; /* its tokens over their own blocks */
    struct plan_list gathers;
};

/* Heads that share a variant. The address of list L is plan->params.address + L.offset. */
struct plan_class {
    struct plan_list views;
    struct plan_list moves;
    struct plan_list tiles;   /* tiles of several tokens: prompts */
    struct plan_list singles; /* tiles of one token: decoding */
    /* Tokens that are in none of both; the waves run one after the other in the same work
     * memory. Owned by the class. */
    struct plan_wave *waves;
    uint32_t wave_count;
    struct plan_list gathers;
    struct plan_list summaries;
    uint32_t most_entries; /* of a summary; 0: most tokens complete none */
    struct plan_list choosers;
    struct plan_list observers;
    uint32_t most_blocks;  /* of a chooser, among which it chooses */
    uint32_t most_chosen;  /* view->choose at most: the stride of the lists of chosen blocks */
    bool heads_choose;     /* in some view each query head has a list of its own */
    /* [enum gpu_select][by_group] how many entries a block has, at most, of the views that
     * do so; 0: none does */
    uint32_t block_entries[3][2];
    /* Kernels choose their form by these: query tokens in tiles, and about how
     * many keys they attend altogether. */
    uint64_t tile_queries, tile_keys;
};

struct plan {
    struct mem *params; /* the lists, in one piece of upload memory */
    uint32_t rows;      /* new tokens in the batch */
    uint32_t views;     /* sequences in the batch */
    struct plan_list pages; /* struct gpu_page */
    /* The same for every class: view indices count within the class. */
    struct plan_list chunks; /* every token is in one of them */
    struct plan_list locals; /* the chunks whose local result is wanted; carry = index to write */
    struct plan_list scans;
    uint32_t carries; /* how many */
    /* Work memory of the step, shared by the layers. */
    uint64_t carry_address;   /* [carry][kv_head][3][head_size] float32: the product A of the
                                 chunk's gates, and its local K and V */
    uint64_t raw_address;     /* [row][kv_head][head_size K, value_size V] float32, where
                                 shape_is_quantized */
    uint64_t partial_address; /* [partial row][query head][value_size + 2] float32: the weighted
                                 sum of V, the running maximum, the sum of exponentials */
    uint32_t partials;        /* partial rows */
    uint64_t wave_address;    /* a wave's table: see wave_words */
    uint64_t chosen_address;  /* [chooser][query head][most_chosen] block numbers, ascending */
    uint64_t score_address;   /* [chooser of a batch][query head][most_blocks] of
                               * 32 bits */
    uint64_t score_bytes;     /* room there: as many choosers go together */
};

/* The keys [*lo, *hi) of a segment that queries at positions first_t ... last_t
 * of the view can see: a superset for each of them, exact for their union. Where the
 * view selects, the query is a single, and the keys are counted along its list. */
void segment_range(const struct gpu_view *view, const struct gpu_segment *segment,
                   uint32_t first_t, uint32_t last_t, uint32_t *lo, uint32_t *hi);

/* Blocks up to the one that holds position t, and how many of them, and of their keys,
 * a query there attends. */
uint32_t blocks_at(const struct gpu_view *view, uint32_t t);
uint32_t chosen_at(const struct gpu_view *view, uint32_t t);
uint32_t chosen_keys(const struct gpu_view *view, uint32_t t);

/* The first key of the block that holds position t, of a view that selects. */
uint32_t block_start(const struct gpu_view *view, uint32_t t);

/* Rows of a wave for each key/value head, of `group` query heads: tokens x heads x places,
 * sorted by the block that they choose; and the most tiles that these take at
 * WAVE_TILE_ROWS rows or more a tile. */
enum { WAVE_TILE_ROWS = 4 };
uint64_t wave_rows(const struct gpu_wave *wave, uint32_t group);
uint64_t wave_tiles(const struct gpu_wave *wave, uint32_t group, uint32_t tile_rows);
/* Words of the wave's table for each of them: the number of tiles; three words a tile, its
 * block, first row and rows; the rows; a word a block, to count by. */
uint64_t wave_words(const struct gpu_wave *wave, uint32_t group);

/* Work memory of a class that chooses, in a dispatch of `kv_heads` heads of `group` query
 * heads: its lists of chosen blocks; the scores, for all choosers at once or for as many as
 * are worth it; the largest table of a wave. Bytes. */
struct choice_work {
    uint64_t chosen, scores, table;
};
struct choice_work choice_work(const struct plan_class *cls, uint32_t kv_heads, uint32_t group);

/* Whether a query at position t attends position pos through `segment`. */
bool segment_attends(const struct gpu_view *view, const struct gpu_segment *segment, uint32_t t,
                     uint32_t pos);

/* The kept index of position p, which is a sink or dilated: p itself below
 * `sinks`, else sinks + (p + 1) / dilation - 1 - sinks / dilation (dilated
 * positions below `sinks` are counted once, as sinks). */
uint32_t kept_index(uint32_t p, uint32_t sinks, uint32_t dilation);

#endif
