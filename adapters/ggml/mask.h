/* What a host's mask says: whether it is the causal mask of keys in a row. */
#ifndef RATPLUS_GGML_MASK_H
#define RATPLUS_GGML_MASK_H

#include "statistics.h"

#include <ggml.h>
#include <stdbool.h>
#include <stdint.h>

/* Which operand of FLASH_ATTN_EXT is its mask. */
enum { MASK_SOURCE = 3 };

/* One sequence of a mask, whose first query sees the keys up to its own, at `first`, and
 * each further query one more. Where it is not so, `why` says what stands against it. */
struct mask_plane {
    enum fallback why; /* FALLBACK_NONE: causal */
    uint32_t first;
};

enum { MASK_PLANES = 64 };

/* What was found in the planes of one forward pass: its layers share their masks. Begin
 * a pass with `count` 0. */
struct mask_memory {
    uint32_t count;
    struct {
        const void *rows;
        int64_t keys, queries;
        struct mask_plane found;
    } known[MASK_PLANES];
};

/* Reads the rows of the first `queries` queries of sequence `sequence`; further rows are
 * padding. `mask` is in memory that the host reads, float16, or NULL. */
struct mask_plane mask_read(struct mask_memory *memory, const struct ggml_tensor *mask,
                            int64_t queries, int64_t sequence);

#endif
