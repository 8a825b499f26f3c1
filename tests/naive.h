/* RAT+ attention straight from its definition, in float64: it keeps every
 * token, recomputes everything, and knows the attended set as a predicate on
 * two positions. The oracle of the tests. */
#ifndef TESTS_NAIVE_H
#define TESTS_NAIVE_H

#include <ratplus.h>

#include <stdbool.h>

struct naive_layer {
    uint32_t query_heads, kv_heads;
    uint32_t head_size, value_size; /* value_size 0: head_size */
    double scale;                   /* 0: head_size^-1/2 */
    double softcap;                 /* 0: off */
    const struct ratp_rope *rope;   /* NULL: no rotation */
};

/* Whether a query at position t attends the key at position j. NULL: dense. */
bool naive_attends(const struct ratp_variant *variant, uint64_t t, uint64_t j);

/* Turns one row of head_size channels in place. */
void naive_rotate(const struct naive_layer *layer, uint64_t position, double *row);

/* The memory: tokens [tokens][kv_heads][channels] from `state`, which is
 * [kv_heads][K channels, V channels], to the un-rotated `memory_k` and
 * `memory_v`, and to `state` again. f NULL: no memory, state is not used.
 * state NULL: zeros, and the last state is not wanted. */
void naive_memory(const struct naive_layer *layer, uint32_t tokens, const float *k, const float *v,
                  const float *f, double *state, double *memory_k, double *memory_v);

/* Where attention stands: `queries` queries from position `first` over `keys`
 * keys, whose positions are 0, 1, ... */
struct naive_span {
    uint32_t first, queries, keys;
    bool causal;
    /* [query][query head][key] logits to add, or NULL. */
    const double *mask;
};

/* q, o, out: [query][query_heads][channels], q un-rotated; keys: rotated
 * [key][kv_heads][channels]. Key/value head h uses variants[h % variant_count].
 * `o`, `lse`, `attended` may be NULL. A query that sees no key gets 0, and
 * -inf as its log-sum-exp. */
void naive_attend(const struct naive_layer *layer, const struct naive_span *span,
                  const struct ratp_variant *variants, uint32_t variant_count, const float *q,
                  const double *k, const double *v, const float *o, double *out, double *lse,
                  uint32_t *attended);

/* A whole sequence from its beginning, all of the above. False: no memory. */
bool naive_sequence(const struct naive_layer *layer, const struct ratp_variant *variants,
                    uint32_t variant_count, uint32_t tokens, const float *q, const float *k,
                    const float *v, const float *f, const float *o, double *out, double *lse);

#endif
