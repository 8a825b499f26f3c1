/* Shared by the files of the reference backend. */
#ifndef RATPLUS_REFERENCE_INTERNAL_H
#define RATPLUS_REFERENCE_INTERNAL_H

#include "../plan/plan.h"

#include <math.h>

enum {
    MAX_CHANNELS = 256, /* the ABI's largest head */
    LANES = 8,          /* sums of a dot product; divides every head size */
    BLOCK_KEYS = 64,    /* keys converted at once */
    BLOCK_ROWS = 64     /* (query token, query head) pairs that share them */
};

/* Work memory of one thread's operations. */
struct stream {
    float row[MAX_CHANNELS];
    double query[BLOCK_ROWS][MAX_CHANNELS];
    double sum[BLOCK_ROWS][MAX_CHANNELS]; /* of weighted V */
    double maximum[BLOCK_ROWS], total[BLOCK_ROWS];
    double key[BLOCK_KEYS][MAX_CHANNELS];
    float value[BLOCK_KEYS][MAX_CHANNELS];
    uint32_t position[BLOCK_KEYS];
    double score[BLOCK_KEYS];
};

static inline void *at(uint64_t address)
{
    return (void *)(uintptr_t)address;
}

static inline uint64_t joined(struct gpu_address a)
{
    return (uint64_t)a.hi << 32 | a.lo;
}

static inline const void *list_at(const struct plan *plan, struct plan_list list)
{
    return at(plan->params->address + list.offset);
}

/* Where K and V of one slot and key/value head lie. */
struct slot {
    uint8_t *k, *v;
};

/* The slot `index` of the run of `pages` pages, at least 1, that begins at
 * `page0`; indices that are too large are cut, so that nothing outside the
 * plan's pages is touched. */
struct slot slot_at(const struct plan *plan, const struct layer_shape *shape, uint32_t page0,
                    uint32_t pages, uint32_t index, uint32_t offset, uint32_t kv_head);

/* Where the heads of a call, the first of which is number `slab`, begin in the
 * view's layered pages. */
static inline uint32_t slab_offset(const struct plan *plan, const struct gpu_view *view,
                                   uint32_t slab)
{
    const uint32_t *table = at(plan->params->address + view->offsets);
    return table[slab];
}

/* cos and sin of the shape's rope_size / 2 angles at a position. */
struct rotation {
    double cosine[MAX_CHANNELS / 2], sine[MAX_CHANNELS / 2];
};

void rotation_at(const struct layer_shape *shape, uint32_t position, struct rotation *out);
void rotate(const struct layer_shape *shape, const struct rotation *rotation, double *row);
/* Undoes `rotate`, its YaRN attention factor too. */
void rotate_back(const struct layer_shape *shape, const struct rotation *rotation, double *row);

/* NaN for what float32 does not hold. */
static inline double finite_or_nan(double x)
{
    return isfinite((float)x) ? x : NAN;
}

/* Several sums, so that the compiler may use vectors. */
static inline double dot(const double *restrict a, const double *restrict b, uint32_t channels)
{
    double lane[LANES] = {0};
    for (uint32_t c = 0; c < channels; c += LANES)
        for (uint32_t l = 0; l < LANES; l++)
            lane[l] += a[c + l] * b[c + l];
    double sum = 0;
    for (uint32_t l = 0; l < LANES; l++)
        sum += lane[l];
    return sum;
}

/* RATP_INTERNAL for a head that MAX_CHANNELS does not hold. */
ratp_status shape_check(const struct layer_shape *shape, struct error *err);

ratp_status reference_memory(struct backend *b, struct stream *s, const struct memory_args *args,
                             struct error *err);
ratp_status reference_move(struct backend *b, struct stream *s, const struct memory_args *args,
                           struct error *err);
ratp_status reference_restore(struct backend *b, struct stream *s,
                              const struct restore_args *args, struct error *err);
ratp_status reference_summarise(struct backend *b, struct stream *s,
                                const struct memory_args *args, struct error *err);
ratp_status reference_choose(struct backend *b, struct stream *s, const struct attend_args *args,
                             struct error *err);
ratp_status reference_attend(struct backend *b, struct stream *s, const struct attend_args *args,
                             struct error *err);
ratp_status reference_observe(struct backend *b, struct stream *s, const struct attend_args *args,
                              struct error *err);
ratp_status reference_compress(struct backend *b, struct stream *s,
                               const struct compress_args *args, struct error *err);
ratp_status reference_merge(struct backend *b, struct stream *s, const struct merge_args *args,
                            struct error *err);

#endif
