/* One turn: text goes in, and the model goes on with it. */
#ifndef RUN_TURN_H
#define RUN_TURN_H

#include "interactive.h"

/* Feeds tokens to the current conversation, then generates and prints. Without
 * tokens the model goes on with what is there. When they cannot be fed, or Ctrl-C
 * comes meanwhile, the conversation stays as it was; what was printed stays part
 * of it in any case. */
bool turn_take(struct interactive *it, const int32_t *tokens, uint32_t count,
               struct problem *problem);

/* The speeds of the last turn, as a line to stderr. */
void turn_report(const struct turn_speed *speed);

#endif
