/* Making a plan: views, tiles, chunks, and one piece of bytes to upload. */
#ifndef RATPLUS_PLAN_BUILD_H
#define RATPLUS_PLAN_BUILD_H

#include "../policy.h"
#include "plan.h"

/* Bytes that grow. After an allocation failure everything is a no-op and
 * `failed` says so, so that callers check once. */
struct blob {
    unsigned char *data;
    size_t size, room;
    bool failed;
};

void blob_free(struct blob *b);
/* Room for `size` more bytes at a multiple of 16, zeroed; *offset gets where.
 * NULL on failure. Earlier pointers into the blob become invalid. */
void *blob_add(struct blob *b, size_t size, uint32_t *offset);

/* What the planner needs to know of one sequence under one class. */
struct view_source {
    uint32_t row0, rows, pos0;
    struct variant variant;
    bool everything; /* slot = position in the line pages, less `dropped` */
    uint32_t dropped; /* tokens that were taken from among the first: all others are attended */
    uint32_t line_page0, line_pages; /* everything: all; else the step's new tokens (0: none) */
    uint32_t kept_page0, kept_pages;
    uint32_t ring_page0, ring_pages, ring_slots;
    uint32_t old_page0, old_pages; /* the ring that past window tokens are read from */
    uint64_t state_in, state_out;
};

void plan_view(const struct view_source *source, struct gpu_view *view);

/* Queries of a planned view choose as the variant says, by entries that tell of K so. Where
 * the last has nothing to leave out all is attended, in reads that heads share. */
void plan_selection(struct gpu_view *view, const struct variant *variant, uint32_t select,
                    uint32_t entry_tokens, uint32_t entry_bytes);

/* Memory-scan lists for the batch; fills plan->chunks, locals, scans, carries.
 * The new tokens of each view stand in the blob as words from `rows_offset` on. */
void plan_chunks(struct plan *plan, struct blob *blob, uint32_t rows_offset, uint32_t views,
                 bool memory, const struct work_limits *limits);

/* Tiles, singles and gathers of one class whose views are in the blob. Long
 * runs of keys are split so that the batch fills the device; *partials gets
 * the partial rows that this takes. */
void plan_tiles(struct plan_class *cls, struct blob *blob, const struct work_limits *limits,
                uint32_t *partials);

/* Whether a view's tokens go in waves: plan_tiles makes no tiles of them then. */
bool view_has_waves(const struct gpu_view *view, const struct work_limits *limits);

/* The waves of a class after its tiles; adds the partial rows that they take. */
void plan_waves(struct plan_class *cls, struct blob *blob, const struct work_limits *limits,
                uint32_t *partials);

/* What is known of the blocks of a host's K, [entry][sequence][head]. */
struct external_entries {
    uint32_t select; /* enum gpu_select; SELECT_NONE: there are no entries */
    uint32_t tokens; /* of an entry: a whole block, or a part of it */
    uint32_t head, sequence, step; /* bytes to the next head's, sequence's, and next entry */
    uint64_t address;    /* of sequence 0's */
    uint32_t summarised; /* keys of which they tell already */
};

/* A plan of one class for attention over the host's own tensors: `batch`
 * sequences of `rows` query tokens and `keys` keys. The page list has one page
 * a sequence, and behind these one for each with its entries, if there are any. */
struct external_source {
    uint32_t batch, rows, keys, first_position;
    bool causal;
    struct variant variant;
    uint64_t k, v; /* addresses of sequence 0 */
    uint64_t k_stride, v_stride; /* bytes to the next sequence */
    uint32_t k_slot, k_head, v_slot, v_head; /* bytes to the next key, and head */
    const float *slopes; /* of the query heads, of which there are `slope_count`; or none */
    uint32_t slope_count;
    struct external_entries entries;
};
/* The class's waves are the caller's to free. */
void plan_external(struct plan *plan, struct plan_class *cls, struct blob *blob,
                   const struct external_source *source, const struct work_limits *limits);

#endif
