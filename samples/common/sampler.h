/* Picks the next token from logits. */
#ifndef SAMPLES_SAMPLER_H
#define SAMPLES_SAMPLER_H

#include "problem.h"

#include <stdint.h>

struct sampler_options {
    double temperature; /* 0: greedy, the likeliest token */
    uint32_t top_k;     /* only the k likeliest; 0: all */
    double top_p;       /* only the likeliest that together have this probability; 1: all */
    uint64_t seed;      /* equal seeds pick equal tokens from equal logits */
};

struct sampler {
    struct sampler_options options;
    uint64_t state;
    struct sampler_entry *entries; /* [count] */
    uint32_t count;
};

bool sampler_open(struct sampler *sampler, const struct sampler_options *options, uint32_t count,
                  struct problem *problem);
void sampler_close(struct sampler *sampler);
/* The token, or -1 when no logit is a finite number. */
int32_t sampler_pick(struct sampler *sampler, const float *logits);

#endif
