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
    const float *sinks;             /* [query_heads] logits of keys without a value, or NULL */
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
    /* [query][query head][key]: nonzero where the key is attended, whatever the
     * variants and `causal` say; or NULL. */
    const unsigned char *set;
};

/* Scaled and soft-capped; both rows are rotated. */
double naive_logit(const struct naive_layer *layer, const double *q, const double *k);

/* q, o, out: [query][query_heads][channels], q un-rotated; keys: rotated
 * [key][kv_heads][channels]. Key/value head h uses variants[h % variant_count],
 * none of which chooses by the query. `o`, `lse`, `attended` may be NULL. A query
 * that sees no key gets 0, and as its log-sum-exp its sink's logit, or -inf. */
void naive_attend(const struct naive_layer *layer, const struct naive_span *span,
                  const struct ratp_variant *variants, uint32_t variant_count, const float *q,
                  const double *k, const double *v, const float *o, double *out, double *lse,
                  uint32_t *attended);

/* A sequence from its beginning. */
struct naive_tokens {
    uint32_t count;
    const float *q, *k, *v; /* [count][heads][channels] */
    const float *f, *o;     /* or NULL */
    const unsigned char *prompt; /* [count]: nonzero for tokens of a prompt; NULL: none is */
    /* Lengths at which a prompt ends and snapkv compresses, ascending. The scores are
     * those of the last `observe` tokens over all before them, whatever prompts attend. */
    const uint32_t *compress;
    uint32_t compressions;
    /* What a compression drops is gone: later ones choose among the tokens that were
     * kept, which are then each other's neighbours, and later prompts attend those and
     * what came since. Otherwise each chooses among all, and prompts attend as if there
     * were none. */
    bool gone;
    /* [compressions][kv_heads][count]: nonzero for what a device kept, or NULL. Where
     * that differs by tokens alone whose scores are within `close` times the last chosen
     * score of it, the device's choice counts: what follows is held against it. Of equal
     * scores that no other comes near it must have kept the first. */
    const unsigned char *kept;
    double close;
};

/* What comes of it; all but `out` may be NULL. */
struct naive_answer {
    double *out;        /* [count][query_heads][value_size] */
    double *lse;        /* [count][query_heads] */
    uint32_t *attended; /* [count][query_heads]: how many keys */
    /* [count][query_heads]: how close the choice of the row's keys was: the distance of
     * the last chosen score from the first that was not, over the largest score (quest,
     * moba) or over the last chosen (snapkv). Inf: there was nothing to choose. Scores
     * that are equal to the last bit keep their order, so of these it is the distance to
     * the nearest other one. A device that rounds may choose otherwise where this is small. */
    double *gap;
    unsigned char *held; /* [kv_heads][count]: nonzero for what snapkv kept, or came later */
    uint32_t *taken; /* [kv_heads]: how often a device's choice counted that was another */
};

/* Key/value head h uses variants[h % variant_count], of any kind; its `prompt` says
 * what the tokens of prompts attend. False: no memory. */
bool naive_sequence(const struct naive_layer *layer, const struct ratp_variant *variants,
                    uint32_t variant_count, const struct naive_tokens *tokens,
                    const struct naive_answer *answer);

#endif
