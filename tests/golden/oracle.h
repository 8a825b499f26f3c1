/* The naive program on golden layers. */
#ifndef TESTS_GOLDEN_ORACLE_H
#define TESTS_GOLDEN_ORACLE_H

#include "../naive.h"
#include "layer.h"

/* Sequence `b`, as a prompt and decoded tokens. False: no memory. */
bool golden_oracle(const struct golden_layer *layer, uint32_t b, const struct naive_answer *answer);

/* How close the choice of every row's keys was, see naive_answer: [batch][token][query
 * head], to be freed. NULL: no memory. */
double *golden_gaps(const struct golden_layer *layer);

#endif
