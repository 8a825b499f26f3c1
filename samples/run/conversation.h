/* Conversations: texts that sequences of one cache hold, and their forks. */
#ifndef RUN_CONVERSATION_H
#define RUN_CONVERSATION_H

#include "policy_name.h"

#define CONVERSATION_NAME_SIZE 32

/* A text, and the sequence that was fed with it. The sequence may lack the last
 * token, which was picked and has not been fed yet. */
struct conversation {
    uint32_t number;                   /* counts from 1, and is not used again */
    char name[CONVERSATION_NAME_SIZE]; /* "": none */
    char variant[POLICY_NAME_SIZE];    /* what it attends, or the policy's file */
    ratp_seq *seq;
    int32_t *tokens;
    uint32_t count, room;
};

/* All of one cache; there is always at least one. */
struct conversations {
    const struct ratp_api *ratp;
    ratp_cache *cache;
    struct conversation *list;
    uint32_t count;
    uint32_t current; /* in list */
    uint32_t numbers; /* that were given out */
    uint32_t limit;   /* most tokens of a text */
};

/* One empty conversation under the cache's policy, which is called `variant`.
 * `limit` is the longest text. conversations_close is due also when this fails. */
bool conversations_open(struct conversations *c, const struct ratp_api *ratp, ratp_cache *cache,
                        const char *variant, uint32_t limit, struct problem *problem);
void conversations_close(struct conversations *c);

static inline struct conversation *conversations_now(const struct conversations *c)
{
    return &c->list[c->current];
}

/* Goes on in a second conversation with the same past. `name` may be "". */
bool conversations_fork(struct conversations *c, const char *name, struct problem *problem);
/* By number or name. */
bool conversations_switch(struct conversations *c, const char *which, struct problem *problem);
/* Not the current one. */
bool conversations_drop(struct conversations *c, const char *which, struct problem *problem);

/* The calls below change the current conversation, all of it or nothing. */

/* Room for `more` tokens behind those that are there. */
bool conversations_reserve(struct conversations *c, uint32_t more, struct problem *problem);
/* Forgets all tokens but the first `count`, of at most as many as there are. */
bool conversations_keep(struct conversations *c, uint32_t count, struct problem *problem);
/* Puts another text in its place, and owns its tokens and its sequence from then on. */
void conversations_replace(struct conversations *c, const struct conversation *with);

/* What the sequence says of itself. */
bool conversation_stats(const struct conversations *c, const struct conversation *which,
                        struct ratp_seq_stats *stats, struct problem *problem);

#endif
