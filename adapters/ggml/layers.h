/* Which layers of the host's model follow the policy, and the lines on stderr that say so.
 *
 * A layer's attention runs here, or it stays with the host. Then no node of it comes: what is
 * known of it is what the host's scheduler asks of other nodes before a pass, weights among
 * them. Layers are those of the cache's names, and those of several models are one. All calls
 * may come from any thread. */
#ifndef RATPLUS_GGML_LAYERS_H
#define RATPLUS_GGML_LAYERS_H

#include "policy.h"
#include "statistics.h"

#include <ggml.h>

/* Why a layer's attention stays with the host. */
enum away {
    AWAY_CACHE, /* nothing was asked that reads or writes its cache */
    AWAY_TYPE,
    AWAY_FORM,
    AWAY_NO_FLASH,
    AWAY_REASONS
};

/* The layer whose keys `keys`, of an attention node, are; -1: none's. *copied, unless NULL:
 * they are a copy, which the host made to have another type. */
int layers_of_keys(const struct ggml_tensor *keys, bool *copied);

/* Says so when the process ends and no line came before, where RATPLUS_POLICY names a file. */
void layers_start(void);
/* The host asks whether `op` runs here, and the answer is `supported`. */
void layers_asked(const struct ggml_tensor *op, bool supported);
/* An attention node of the layer was run; `fallbacks` are bits of enum fallback. */
void layers_ran(int layer, uint32_t kv_heads, uint64_t fallbacks);
/* The nodes of a pass, in which `policy` was in force, have been run. */
void layers_pass_ended(struct adapter_policy *policy);
/* The host waits for the backend, which it does again and again in each pass. */
void layers_waited(void);

/* How many layers there are of which `policy` asks more than dense attention, how many of
 * them follow it, and how many do not for each reason. */
struct layers_tally {
    uint32_t asked, following;
    uint32_t fallbacks[FALLBACK_REASONS], away[AWAY_REASONS];
};
void layers_count(struct adapter_policy *policy, struct layers_tally *out);
const char *layers_reason(enum away why);

#endif
