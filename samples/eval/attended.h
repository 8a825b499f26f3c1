/* What decoded tokens attend under a policy, as far as that does not show in what the
 * cache holds. */
#ifndef EVAL_ATTENDED_H
#define EVAL_ATTENDED_H

#include "engine.h"

struct attended {
    uint32_t layers, heads;
    /* [layers][heads]: the most keys that a query chooses; UINT32_MAX: it attends all
     * that its variant keeps. */
    uint32_t *most;
    bool compresses; /* some head compresses its prompt: snapkv */
};

/* Of a policy for the engine's model; to be closed also after a failure. */
bool attended_open(const struct engine *engine, const ratp_policy *policy, struct attended *out,
                   struct problem *problem);
void attended_close(struct attended *attended);

#endif
