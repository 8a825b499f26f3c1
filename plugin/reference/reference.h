/* The backend in plain C: float64 inside, one thread, no Vulkan. It is the
 * oracle of the kernels' tests, and the device of last resort. */
#ifndef RATPLUS_REFERENCE_H
#define RATPLUS_REFERENCE_H

#include "../backend.h"

/* memory_budget: the most bytes that mem_alloc hands out; 0: no limit. */
ratp_status reference_open(const struct log *log, uint64_t memory_budget, struct backend **out,
                           struct error *err);

#endif
