/* What an interactive conversation tells of itself, to stderr. */
#ifndef RUN_STATUS_H
#define RUN_STATUS_H

#include "interactive.h"

/* One line: which conversation, how long, what it attends, its cache. */
bool status_line(struct interactive *it, struct problem *problem);
/* All about the current conversation and its last turn. */
bool status_table(struct interactive *it, struct problem *problem);
/* A row for each conversation. */
bool status_forks(struct interactive *it, struct problem *problem);

#endif
