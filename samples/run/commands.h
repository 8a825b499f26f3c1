/* What lines that begin with / do. */
#ifndef RUN_COMMANDS_H
#define RUN_COMMANDS_H

#include "interactive.h"

/* Runs a line such as "/variant d16w256s4". What fails has changed nothing. */
bool command_run(struct interactive *it, const char *line, size_t size, struct problem *problem);

#endif
