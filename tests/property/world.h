/* A random model with random sequences, fed through the ABI in random pieces,
 * and checked at the end against the naive program, which knows nothing of
 * pieces, batches, pages or retention. */
#ifndef RATPLUS_TESTS_WORLD_H
#define RATPLUS_TESTS_WORLD_H

#include "../futures.h"
#include "../host.h"
#include "../random.h"

enum {
    MAX_LAYERS = 3,
    MAX_HEADS = 4, /* key/value heads */
    MAX_QUERY_HEADS = 8 * MAX_HEADS,
    MAX_SEQS = 4,
    MAX_TOKENS = 200,
    MAX_CHANGES = 30,
    MAX_POLICIES = 4
};

struct world_seq {
    ratp_seq *seq;
    uint32_t tokens;
    uint32_t id;   /* what the input of its next tokens is made from */
    uint32_t *ids; /* [token] what each was made from */
    uint32_t policy;    /* index of what its next tokens attend */
    uint32_t *policies; /* [token] what each attended */
    unsigned char *prompt; /* [token] whether it was of a prompt */
    float *out[MAX_LAYERS]; /* [token][query head][value channel], as the library gave it */
    float *lse[MAX_LAYERS]; /* [token][query head] */
};

struct world {
    struct host *host;
    ratp_device *device;
    ratp_cache *cache;
    ratp_cache *spare; /* the same but for the page size; sequences pass through it */
    struct random random;
    uint64_t seed;
    struct ratp_geometry geometry;
    struct ratp_rope rope;
    struct ratp_variant variants[MAX_POLICIES][MAX_LAYERS][MAX_HEADS]; /* [0]: the cache's */
    struct ratp_variant prompts[MAX_POLICIES][MAX_LAYERS][MAX_HEADS]; /* of those that have one */
    ratp_policy *policies[MAX_POLICIES];
    struct ratp_cache_params params;
    ratp_dtype io_dtype;
    bool output_gate, buffers, sunk;
    bool thin; /* retention `needed`, and no head keeps everything */
    float sinks[MAX_LAYERS][MAX_QUERY_HEADS]; /* where `sunk` */
    uint32_t max_tokens, spare_slots;
    uint32_t next_id, changes;
    struct random hypothetical; /* of what is tried and comes to nothing */
    uint32_t future_lengths, future_samples, future_policies; /* how much of it is looked at */
    struct world_seq seqs[MAX_SEQS];
    uint32_t count;
};

/* Draws a model and its policies. */
bool world_draw(struct world *w);
/* Draws a model and opens its cache with `count` empty sequences. */
bool world_open(struct world *w, struct host *host, ratp_device *device, uint64_t seed);
/* One random step over a random part of the sequences; `commit` false aborts
 * it after a random number of layers, and all that could follow still can. False when
 * nothing more fits. */
bool world_step(struct world *w, bool commit);
/* What may become of a sequence, by the same lengths and policies at each call until the
 * next draw. */
void world_futures(struct world *w, struct world_seq *s, struct futures *out);
/* Now and then: a sequence becomes a fork of another, or what was saved of itself,
 * loses its end or everything, or attends something else from now on. */
void world_change(struct world *w);
/* Now and then: a call that must fail, on a sequence or a batch, changes nothing. */
void world_refuse(struct world *w);
/* What `needed` promises: no more slots a layer than S + W + T/D + two pages. */
void world_check_slots(struct world *w, const struct world_seq *s);
/* Compares everything with the naive program. */
void world_check(struct world *w);
void world_close(struct world *w);

#endif
