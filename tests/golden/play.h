/* Plays a golden layer through the public ABI and measures the errors. */
#ifndef TESTS_GOLDEN_PLAY_H
#define TESTS_GOLDEN_PLAY_H

#include "layer.h"

struct golden_device {
    const struct ratp_api *api;
    ratp_instance *instance;
    ratp_device *device;
};

/* The worst error of all runs, by the cache's element type; see ratp_dtype.
 * Negative: the file has nothing to compare with. */
struct golden_errors {
    double out[RATP_Q8_0 + 1], lse[RATP_Q8_0 + 1];
    double state; /* of the memory after the last token */
    uint32_t runs;
};

/* Every way of feeding the tokens, both retentions, all cache types. On
 * GOLDEN_FAILED the problem says which run was wrong, and by how much. */
enum golden_status golden_play(const struct golden_device *device, const struct golden_layer *layer,
                               struct golden_errors *errors, struct problem *problem);

#endif
