/* The search for a policy: which variant each layer takes, so that the whole
 * costs at most a target and loses least. Knows nothing of models: what a policy
 * loses comes from a callback, and is asked for seldom, as it is slow. */
#ifndef TUNE_SEARCH_H
#define TUNE_SEARCH_H

#include "problem.h"

#include <stdint.h>

struct search {
    uint32_t layers, variants; /* at least 1 each */
    const double *cost;        /* [variants]: what a layer costs */
    double target;             /* most that a layer may cost, on average */
    const double *uniform;     /* [variants]: the loss when all layers take it */
    uint32_t patience;         /* measurements without a gain, after which the search ends */
    /* The loss of choice[layers], the variant of each layer. */
    bool (*measure)(void *user, const uint32_t *choice, double *loss, struct problem *problem);
    /* How far the losses of two policies that were measured may differ by chance; what
     * gains less is not taken. NULL: they do not. */
    double (*doubt)(void *user, const uint32_t *a, const uint32_t *b);
    void *user;
};

struct search_result {
    uint32_t base;    /* the uniform variant that loses least within the target */
    uint32_t *choice; /* [layers]: the best policy; the base where nothing is better */
    double loss;
};

/* Three passes: what each layer loses or gains when it alone leaves the base; the
 * policy that is best if those add up; then its neighbours, likeliest first, as far
 * as measuring them shows a gain. Fails when no variant is within the target. */
bool search_run(const struct search *search, struct search_result *out, struct problem *problem);
void search_result_free(struct search_result *result);

#endif
