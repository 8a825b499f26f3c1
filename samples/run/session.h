/* What every way of generating text shares: a cache, passes through the model
 * that feed its sequences, and tokens picked from the logits. */
#ifndef RUN_SESSION_H
#define RUN_SESSION_H

#include "engine.h"
#include "sampler.h"

struct session_options {
    uint32_t max_tokens; /* of the longest sequence */
    struct sampler_options sampler;
    const ratp_policy *policy; /* of new sequences; NULL: dense */
    ratp_retention retention;
    ratp_dtype cache_dtype;
    bool (*stopped)(void); /* asked between passes whether to stop; NULL: never */
};

struct session {
    struct engine *engine;
    ratp_cache *cache; /* its sequences are the caller's */
    struct sampler sampler;
    float *logits; /* [vocabulary]: of the token that was fed last */
    bool (*stopped)(void);
};

/* How a sequence goes on. */
struct session_continuation {
    uint32_t wanted; /* most tokens to pick */
    int32_t end;     /* a token that ends the text, and is picked last; -1: none */
    void (*on_token)(void *user, int32_t token);
    void *user;
};

/* session_close is due also when this fails. */
bool session_open(struct session *s, struct engine *engine, const struct session_options *options,
                  struct problem *problem);
/* Sequences of the cache must be gone. */
void session_close(struct session *s);

/* Feeds tokens, at most `chunk` in one pass. `all` gets the logits of each,
 * [count][vocabulary], or is NULL. When this fails, or is stopped, passes before
 * have done their work. */
bool session_feed(struct session *s, ratp_seq *seq, const int32_t *tokens, uint32_t count,
                  uint32_t chunk, float *all, struct problem *problem);

/* Picks tokens, and feeds each of them but the last, whose logits nobody needs:
 * *fed counts those. Being stopped is no failure. */
bool session_continue(struct session *s, ratp_seq *seq, const struct session_continuation *how,
                      uint32_t *fed, struct problem *problem);

#endif
