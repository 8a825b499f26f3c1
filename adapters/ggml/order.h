/* Whether the cells of a host's cache are in the order of their positions.
 *
 * A variant counts positions, a mask only says which cells are seen: after a context
 * shift, or where freed cells are filled again, cell 3 may hold a later token than cell
 * 9, and a decoded token's mask looks as it always does. So what is written to the cache
 * is followed: cells from a stream's first on are in order while each was written by the
 * token whose mask sees all before it and no other. What the host writes by itself is
 * known to be when this process read it from cells that were (a slot that is saved and
 * restored) or copied it from them, else not (a file of another process). All calls may come
 * from any thread. */
#ifndef RATPLUS_GGML_ORDER_H
#define RATPLUS_GGML_ORDER_H

#include "parts.h"

#include <ggml.h>

/* The layer whose keys `tensor`, or what it is a view of, holds: -1 where its name is not
 * llama.cpp's cache_k_l0, cache_k_l1 ... */
int order_layer(const struct ggml_tensor *tensor);

/* Each of these also tells the summaries of K. */

/* A cache write of one token a row; `op` is a SET_ROWS node that was run. */
void order_set_rows(const struct ggml_tensor *op);
/* The host read `size` bytes from `offset` on in the tensor's data ... */
void order_host_read(const struct ggml_tensor *tensor, size_t offset, size_t size);
/* ... or wrote them: it copied them from `from`, which may lie in a cache, or it set them all
 * alike (NULL). */
void order_host_wrote(const struct ggml_tensor *tensor, size_t offset, size_t size,
                      const void *from);
/* The host plans a FLASH_ATTN_EXT node like `op`: so it says how many tokens a pass may have. */
void order_planned(const struct ggml_tensor *op);
/* The host is told to run `op` itself: it may turn K where it lies, as a context shift does. */
void order_host_runs(const struct ggml_tensor *op);
/* The host cleared, or freed, this memory. */
void order_cleared(const void *memory, size_t size);
void order_freed(const void *memory, size_t size);

/* One sequence of a FLASH_ATTN_EXT node. */
struct order_pass {
    int64_t sequence; /* of the node's K */
    int64_t queries;
    bool causal; /* its mask is causal ... */
    uint32_t first; /* ... from this cell on */
};

struct order_found {
    bool ordered;        /* all cells that it sees, its own too, are in order of position */
    ratp_part_kind part; /* RATP_PART_PROMPT or RATP_PART_DECODE */
};

/* Follows the sequence through the node. To be called once for each sequence of a node whose K
 * is `keys`, in their order. */
struct order_found order_follow(const struct ggml_tensor *keys, const struct order_pass *pass);

#endif
