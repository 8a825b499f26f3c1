/* The member "memory" of a policy file: how RAT+ models keep their memory. */
#ifndef RATPLUS_GGML_MEMORY_H
#define RATPLUS_GGML_MEMORY_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>

struct memory_options {
    bool packed;  /* q, k and v come packed with the gates of a RAT+ model (packed.h) */
    double theta; /* the model's rotary base; default 10000 */
};

/* Reads the member, NULL when the file has none: then the defaults. False, and a sentence
 * in `why`, when it is not what this build supports. */
bool memory_read(const cJSON *json, struct memory_options *out, char *why, size_t size);

bool memory_is_same(const struct memory_options *a, const struct memory_options *b);

#endif
