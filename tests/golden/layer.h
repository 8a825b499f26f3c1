/* One golden file: the inputs of a layer and what must come out. */
#ifndef TESTS_GOLDEN_LAYER_H
#define TESTS_GOLDEN_LAYER_H

#include "problem.h"

#include <ratplus.h>

#include <stdbool.h>

enum { GOLDEN_VARIANTS = 8 };

/* Arrays are [batch][token][head][channel]; those that the file lacks are NULL. */
struct golden_layer {
    uint32_t batch, tokens;
    uint32_t prefill; /* tokens of the prompt; the rest is decoded */
    uint32_t query_heads, kv_heads, head_size;
    double scale, softcap;
    struct ratp_rope rope;
    /* Key/value head h uses variant h % variants. */
    struct ratp_variant variant[GOLDEN_VARIANTS];
    uint32_t variants;
    float *q, *k, *v, *o;
    float *f; /* logits; NULL: no memory */
    float *out;
    float *lse;            /* [batch][token][query head] */
    uint32_t *attended;    /* likewise */
    float *last_k, *last_v; /* [batch][kv_head][channel] */
    /* What snapkv kept of the prompt: [batch][kv_head][capacity] positions, ascending. */
    uint32_t *kept;
    uint32_t capacity;
};

enum golden_status { GOLDEN_PASSED, GOLDEN_FAILED, GOLDEN_SKIPPED };

/* Whether decoded tokens attend otherwise than those of the prompt. */
bool golden_has_prompt(const struct golden_layer *layer);

/* GOLDEN_SKIPPED for a variant that ratplus.h does not have. Frees nothing of
 * an earlier layer; golden_free also after a failure. */
enum golden_status golden_load(struct golden_layer *layer, const char *path,
                               struct problem *problem);
void golden_free(struct golden_layer *layer);

#endif
