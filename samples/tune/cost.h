/* What a layer costs under a variant. */
#ifndef TUNE_COST_H
#define TUNE_COST_H

#include <ratplus.h>

/* Keys that a query attends, on average over the tokens of a sequence of `length`. */
double attended_keys(const struct ratp_variant *variant, uint32_t length);

#endif
