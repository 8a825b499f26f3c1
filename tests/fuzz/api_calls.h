/* One call, or a few that belong together, on what the world has. */
#ifndef RATPLUS_TESTS_FUZZ_API_CALLS_H
#define RATPLUS_TESTS_FUZZ_API_CALLS_H

#include "api_world.h"

void call_cache(struct world *w);
void call_seq(struct world *w);
void call_snapshot(struct world *w);
void call_step(struct world *w);
void call_external(struct world *w);
void call_merge(struct world *w);

/* The folder for the files of call_snapshot. */
void snapshot_start(void);
void snapshot_end(void);

struct ratp_variant draw_variant(struct world *w);

#endif
