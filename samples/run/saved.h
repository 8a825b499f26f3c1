/* A conversation in a file: its tokens, and the sequence as the plugin saves it. */
#ifndef RUN_SAVED_H
#define RUN_SAVED_H

#include "interactive.h"

/* Writes the current conversation. A file that was there is replaced when the new
 * one is complete. */
bool saved_write(const struct interactive *it, const char *path, struct problem *problem);
/* Puts the conversation of a file in the place of the current one. On failure that
 * stays as it was. */
bool saved_read(struct interactive *it, const char *path, struct problem *problem);

#endif
