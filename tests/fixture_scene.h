/* A random scene of the fixture, and its layout in device memory. */
#ifndef TESTS_FIXTURE_SCENE_H
#define TESTS_FIXTURE_SCENE_H

#include "fixture.h"
#include "random.h"

enum { SCENE_SEQUENCES = 8, SCENE_PARTS = 5, SCENE_HEADS = 64 };

/* Pages in a row of the plan's list. */
struct scene_run {
    uint32_t page0, pages;
};

struct scene_sequence {
    uint32_t row0, rows, pos0;
    bool everything; /* slot = position in `line`; else kept, ring and line */
    bool new_ring;   /* the ring changes: past tokens are moved */
    bool lined;      /* new tokens are read from `line`, not from the ring */
    uint32_t sinks, dilation, window; /* dense: dilation 1 */
    uint32_t ring_slots, old_slots;
    struct scene_run kept, ring, old_ring, line;
    bool loose; /* huge numbers are near: of the results only what is NaN is compared */
    uint64_t state_in, state_out; /* arena offsets */
    float *k, *v; /* [position][kv_head][channel]: K rotated, as in the cache; past, or all */
};

struct scene_operand {
    uint64_t offset; /* in the arena; 0: absent */
    uint32_t token_stride, head_stride;
    ratp_dtype dtype;
    uint32_t tokens, heads, channels;
};

struct scene {
    struct random random;
    struct fixture_options only;
    uint32_t ops;
    struct layer_shape shape; /* table addresses are arena offsets */
    struct ratp_rope rope;
    uint32_t layers, layer;   /* in a layered page; the layer that is run */
    uint32_t layer_bytes;
    bool slot_major;          /* [slot][head] in a page, else [head][slot] */
    bool causal, external;
    uint32_t count, rows;
    bool spoilt;              /* numbers among the inputs are not finite, or huge */
    struct scene_sequence sequence[SCENE_SEQUENCES];
    uint64_t *page;           /* arena offset of each page of the list */
    bool *page_layered;
    uint32_t pages;
    struct scene_operand q, k, v, f, o, out, lse, mask;
    uint32_t mask_view_stride;
    struct scene_operand sinks; /* one row, of all query heads */
    bool sloped;
    float slopes[SCENE_HEADS]; /* of the mask */
    uint32_t parts;
    struct scene_operand part_out[SCENE_PARTS], part_lse[SCENE_PARTS];
    uint64_t state_size;      /* of one sequence, all layers */
    uint32_t state_offset;    /* of the layer */
    uint64_t size;            /* of the arena, without scratch */
    uint8_t *image;           /* [size] what device memory holds before */
};

/* False: no host memory. */
bool scene_make(struct scene *scene, uint64_t seed, const struct fixture_options *only);
void scene_free(struct scene *scene);
void scene_describe(const struct scene *scene, char *text, size_t size);

/* Where the K or V of a slot lies in the arena. */
uint64_t scene_slot(const struct scene *scene, struct scene_run run, uint32_t slot,
                    uint32_t kv_head, bool value);
/* Writes K and V of a position to every slot that keeps it, in an image of the
 * arena; `fresh`: as a new token, else as a past one. */
void scene_put(const struct scene *scene, uint8_t *image, const struct scene_sequence *sequence,
               uint32_t position, bool fresh, const float *k, const float *v);
void scene_store(const struct scene_operand *operand, uint8_t *image, uint32_t row, uint32_t head,
                 const float *from);
void scene_load(const struct scene_operand *operand, const uint8_t *image, uint32_t row,
                uint32_t head, float *to);

/* What a row of the cache holds of `channels` numbers. */
void scene_hold(ratp_dtype dtype, uint32_t channels, float *row);
/* Puts numbers that are not finite, or huge, among the inputs of a scene that is made. */
void scene_spoil(struct scene *scene);

/* The plan's lists, for memory that begins at address `base`. */
struct scene_plan {
    struct plan plan;
    struct plan_class cls;
    uint8_t *lists;
    uint64_t lists_size, lists_room;
    uint64_t carries_size, partials_size; /* bytes of scratch needed */
    bool failed;
};

bool scene_plan(struct scene *scene, const struct work_limits *limits, uint64_t base,
                struct scene_plan *out);
void scene_plan_free(struct scene_plan *plan);

/* What the definition gives, as an image of the arena after the run. */
bool scene_naive(const struct scene *scene, uint8_t *image);

#endif
