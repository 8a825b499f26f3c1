/* ratplus-run --interactive: a conversation in which the cache's abilities are
 * shown live. */
#ifndef RUN_INTERACTIVE_H
#define RUN_INTERACTIVE_H

#include "conversation.h"
#include "session.h"
#include "tokenizer.h"

struct interactive_options {
    const int32_t *tokens; /* the first turn; count 0: none */
    uint32_t count;
    uint32_t wanted; /* most tokens to generate in a turn */
    struct sampler_options sampler;
    const ratp_policy *policy;
    const char *variant; /* what the policy is called */
    ratp_retention retention;
    ratp_dtype cache_dtype;
    bool stats; /* after each turn */
};

/* Of the last turn. */
struct turn_speed {
    uint32_t prompt, decoded; /* tokens fed: together, and one at a time */
    double prompt_seconds, decode_seconds;
};

struct interactive {
    const struct interactive_options *options;
    const struct tokenizer *tokenizer;
    struct engine *engine;
    struct session session;
    struct conversations conversations;
    struct turn_speed speed;
    bool noted_context; /* that a text is longer than the model's context */
    bool quit;
};

/* Reads standard input to its end. What fails in a conversation is told there, and
 * it goes on; false when it cannot begin, or input cannot be read. */
bool interactive_run(struct engine *engine, const struct tokenizer *tokenizer,
                     const struct interactive_options *options, struct problem *problem);

#endif
