/* Compares the kernels of two backends on random work: random geometry, cache
 * layout, ragged batch, attended sets and splits, with the same seed on both.
 * Every byte of the device memory that may not change must not have changed,
 * and slots that hold no token are filled with NaN, so that a stray read or
 * write shows.
 *
 *     struct fixture_options only = {.ops = FIXTURE_SINGLES, .head_size = 128};
 *     failed += fixture_compare_many(vulkan, reference, 1, 200, &only, "decode");
 */
#ifndef TESTS_FIXTURE_H
#define TESTS_FIXTURE_H

#include "../plugin/plan/plan.h"

enum fixture_ops {
    FIXTURE_MEMORY = 1,   /* the memory operation, after a move where rings change */
    FIXTURE_PROMPTS = 2,  /* attention of views with several tokens: tiles */
    FIXTURE_SINGLES = 4,  /* attention of views with one token: singles */
    FIXTURE_EXTERNAL = 8, /* attention over the host's own tensors, masks, causal = 0 */
    FIXTURE_MERGE = 16    /* the merge of partial results */
};

/* Zero means random in each field. Without FIXTURE_MEMORY the new tokens' K
 * and V are in the cache before, so that attention is tested alone. */
struct fixture_options {
    uint32_t ops; /* 0: one of the sensible sets at random */
    uint32_t head_size, value_size, group, kv_heads;
    uint32_t page_slots;
    ratp_dtype cache_dtype, io_dtype;
    uint32_t rope;       /* 1 + ratp_rope_style */
    uint32_t sequences;  /* in the batch */
    uint32_t max_tokens; /* new tokens of a sequence at most; 0: 100 */
    uint32_t max_past;   /* past tokens of a sequence at most; 0: 300 */
    uint32_t splits;     /* 1: never split */
    bool full;           /* everything is kept */
    bool spoilt;         /* numbers among the inputs are not finite; else in some scenes */
    bool plain;          /* no soft-cap, gate, log-sum-exp, memory or strides */
};

/* The worst relative errors found (L2 over a sequence's rows), the worst
 * absolute error of a log-sum-exp, and what was tested. */
struct fixture_report {
    double out, lse, cache, state;
    uint32_t ops;
    char scene[320];
    char failure[320]; /* empty: passed */
};

/* Runs one random scene on both and compares; `b` NULL: with tests/naive.
 * Returns how many failed (0 or 1); prints the scene and the failure to
 * stderr. `report` may be NULL. */
int fixture_compare(struct backend *a, struct backend *b, uint64_t seed,
                    const struct fixture_options *only, struct fixture_report *report);

/* Seeds first ... first + count - 1; prints one line with the worst errors. */
int fixture_compare_many(struct backend *a, struct backend *b, uint64_t first, uint32_t count,
                         const struct fixture_options *only, const char *name);

#endif
