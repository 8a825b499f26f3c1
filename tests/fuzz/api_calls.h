/* One call, or a few that belong together, on what the world has. */
#ifndef RATPLUS_TESTS_FUZZ_API_CALLS_H
#define RATPLUS_TESTS_FUZZ_API_CALLS_H

#include "api_world.h"

void call_cache(struct world *w);
void call_seq(struct world *w);
void call_step(struct world *w);
void call_external(struct world *w);
void call_merge(struct world *w);

struct ratp_variant draw_variant(struct world *w);

#endif
