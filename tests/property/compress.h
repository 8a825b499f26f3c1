/* Random worlds for snapkv: a model, and sequences of which some heads compress what
 * they hold. */
#ifndef RATPLUS_TESTS_COMPRESS_H
#define RATPLUS_TESTS_COMPRESS_H

#include "../futures.h"
#include "../host.h"
#include "../random.h"

enum {
    LAYERS = 2,
    HEADS = 3, /* key/value heads */
    QUERY_HEADS = 4 * HEADS,
    CHANNELS = 128,
    SEQS = 3,
    POLICIES = 2,
    TOKENS = 160,
    COMPRESSIONS = 12,
    MOST_OBSERVE = 32
};

enum { Q, K, V, F, O, INPUTS, OUT = INPUTS, LSE, SINKS, OPERANDS };

struct sequence {
    ratp_seq *seq;
    uint32_t tokens, policy;
    uint32_t goal; /* where its first prompt ends, in most worlds */
    uint32_t id;   /* what the input of its next tokens is made from */
    uint32_t ids[TOKENS];
    unsigned char prompt[TOKENS];
    bool decoded; /* it has been compressed by itself, or never will be */
    uint32_t fed;   /* tokens since it lost some: the queries of so many are known, or of
                       MOST_OBSERVE */
    uint32_t least; /* the length at which something was dropped last */
    uint32_t lengths[COMPRESSIONS], compressions;
    unsigned char kept[COMPRESSIONS][LAYERS][HEADS][TOKENS]; /* what the device chose */
    uint32_t dropped[LAYERS][HEADS];
    float out[LAYERS][TOKENS * QUERY_HEADS * CHANNELS], lse[LAYERS][TOKENS * QUERY_HEADS];
};

struct world {
    struct host *host;
    const struct ratp_api *api;
    ratp_device *device;
    ratp_cache *cache, *spare; /* `spare`: pages of another size; snapshots pass through it */
    struct random random;
    uint64_t seed;
    struct ratp_geometry geometry;
    struct ratp_rope rope;
    struct ratp_cache_params params;
    struct ratp_variant variants[POLICIES][LAYERS][HEADS], prompts[POLICIES][LAYERS][HEADS];
    ratp_policy *policies[POLICIES];
    float sinks[LAYERS][QUERY_HEADS];
    bool output_gate, sunk, buffers;
    uint32_t max_tokens, next_id, count;
    struct random hypothetical; /* of what is tried and comes to nothing */
    uint32_t future_lengths, future_samples; /* how much of it is looked at */
    struct sequence seqs[SEQS];
    uint64_t choices; /* how often a head had more than it was to keep */
    uint64_t taken;   /* of these, where the device's choice was another, as rounding allows */
    uint64_t rows, left_out; /* checked at the end */
};

uint32_t row_size(const struct world *w, int operand);
/* The input of one token. */
void make_row(const struct world *w, uint32_t id, uint32_t layer, uint32_t token, int input,
              float *row);
/* Whether a head forgets by itself. */
bool is_thin(const struct world *w, const struct sequence *s, uint32_t layer, uint32_t head);
/* Marks what the sequence lists: all but what compression has dropped. */
void read_held(struct world *w, const struct sequence *s, uint32_t layer, uint32_t head,
               unsigned char held[TOKENS]);
/* Whether a head has more than it is to keep. */
bool is_over(const struct world *w, const struct sequence *s);
/* The device has compressed the first `length` tokens, where there was something to drop. */
void note_compression(struct world *w, struct sequence *s, uint32_t length);
/* What may become of a sequence, by the same lengths at each call until the next draw. */
void read_futures(struct world *w, const struct sequence *s, struct futures *out);
/* One random step over a random part of the sequences. Without `commit` it is aborted after
 * any part of the layers, leaves what was held, and all that could follow still can. False:
 * it failed. */
bool step_once(struct world *w, bool commit);
/* Compares what a sequence gave and holds with the naive program, and changes what it gave. */
void check_seq(struct world *w, struct sequence *s, uint32_t layer);

#endif
