/* A host that keeps K and V in tensors of its own, and asks what queries choose of them. */
#ifndef RATPLUS_TESTS_API_EXTERNAL_SELECT_H
#define RATPLUS_TESTS_API_EXTERNAL_SELECT_H

#include "../random.h"
#include "api_host.h"

struct keys {
    uint32_t batch, kv_heads, group, head_size, value_size, capacity;
    struct ratp_variant variant;
    ratp_dtype k_dtype;  /* of K and V */
    bool heads_outside;  /* [head][token], as llama.cpp views its cache; else [token][head] */
    uint32_t gap;        /* bytes between sequences of the batch, of the queries too */
    bool sunk;           /* calls have sink logits, `sinks` */
    /* What keys_open makes. q, k and v: [batch][capacity][heads][channels], as rounded;
     * out and lse: the last call's, [batch][queries][heads][channels]. */
    float *q, *k, *v, *out, *lse;
    float sinks[16]; /* of the query heads */
    ratp_buffer *k_buffer, *v_buffer, *summaries;
    uint64_t offset; /* of the summaries in their buffer */
};

struct asked {
    uint32_t first, queries, keys;
    ratp_buffer *summaries;
    uint64_t offset;
    uint32_t summarised;
};

/* Random tokens up to the capacity, in buffers of the device. */
void keys_open(struct keys *keys, struct random *r);
void keys_close(struct keys *keys);
/* K and V from `from` on: other tokens; or no numbers, which no query may see. */
void keys_rewrite(struct keys *keys, uint32_t from, struct random *r);
void keys_spoil(struct keys *keys, uint32_t from);
/* K and V to the buffers, after a change by hand. */
void keys_write(struct keys *keys);
ratp_status keys_attend(struct keys *keys, const struct asked *asked);
/* What external_summary_bytes says of so many keys. */
uint64_t keys_bytes(const struct keys *keys, uint32_t tokens);

#endif
