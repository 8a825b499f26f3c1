/* A cache with sequences, operands for its layers, and steps that are timed. */
#ifndef BENCH_CACHED_H
#define BENCH_CACHED_H

#include "bench.h"

#define WARM_STEPS 3

struct shape {
    const struct ratp_variant *variant; /* of new sequences */
    uint32_t query_heads, kv_heads, head_size;
    uint32_t tokens; /* of the longest sequence, before single ones are decoded */
    uint32_t batch;
    uint32_t layers;
    uint64_t rows; /* new tokens of the largest step */
    ratp_retention retention;
};

/* Operands, packed: those of one layer, which all layers take. */
struct operands {
    ratp_buffer *buffers[6];
    struct ratp_tensor tensors[6];
    struct ratp_attend_io io;
};

struct cached {
    struct bench *bench;
    uint32_t batch, layers;
    ratp_policy *policy;
    ratp_cache *cache;
    ratp_seq **seqs; /* [batch], made by seqs_create */
    uint32_t *n_tokens;
    struct operands operands;
};

bool cached_open(struct bench *b, const struct shape *shape, struct cached *c,
                 struct problem *problem);
void cached_close(struct cached *c);
bool seqs_create(struct cached *c, struct problem *problem);
bool seqs_destroy(struct cached *c, struct problem *problem);
/* A policy that says this everywhere. */
bool policy_make(struct bench *b, const struct ratp_variant *variant, ratp_policy **out,
                 struct problem *problem);

/* `tokens` new ones of each of so many sequences; it ends when the device is done. The
 * seconds are one layer's part. */
bool timed_step(struct cached *c, uint32_t first, uint32_t count, uint32_t tokens,
                double *seconds, struct problem *problem);
/* Single tokens of all sequences, after a few that are not timed. */
bool time_tokens(struct cached *c, struct stopwatch *watch, struct problem *problem);

#endif
