/* Whether the cells of a host's cache are in the order of their positions.
 *
 * A variant counts positions, a mask only says which cells are seen: after a context
 * shift, or where freed cells are filled again, cell 3 may hold a later token than cell
 * 9, and a decoded token's mask looks as it always does. So what is written to the cache
 * is followed: cells from a stream's first on are in order while each was written by the
 * token whose mask sees all before it and no other. What the host writes by itself is
 * known to be when this process read it from cells that were (a slot that is saved and
 * restored), else not (a file of another process). All calls may come from any thread. */
#ifndef RATPLUS_GGML_ORDER_H
#define RATPLUS_GGML_ORDER_H

#include <ggml.h>
#include <stdbool.h>
#include <stdint.h>

/* The layer whose keys `tensor`, or what it is a view of, holds: -1 where its name is not
 * llama.cpp's cache_k_l0, cache_k_l1 ... */
int order_layer(const struct ggml_tensor *tensor);

/* Each of these also tells the summaries of K. */

/* A cache write of one token a row; `op` is a SET_ROWS node that was run. */
void order_set_rows(const struct ggml_tensor *op);
/* The host read, or wrote, `size` bytes from `offset` on in the tensor's data. */
void order_host_read(const struct ggml_tensor *tensor, size_t offset, size_t size);
void order_host_wrote(const struct ggml_tensor *tensor, size_t offset, size_t size);
/* The host is told to run `op` itself: it may turn K where it lies, as a context shift does. */
void order_host_runs(const struct ggml_tensor *op);
/* The host freed or cleared this memory. */
void order_forget(const void *memory, size_t size);

/* Whether cells 0 to first + queries - 1 of sequence `sequence` of `keys`, a node's K, are
 * in order, when its mask is causal from `first` on; with `causal` false that no cell
 * written since the last call is. To be called once for each sequence of a node. */
bool order_holds(const struct ggml_tensor *keys, int64_t sequence, int64_t queries, bool causal,
                 uint32_t first);

#endif
