/* A row as JSON, for the results and for resuming. */
#ifndef EVAL_ROW_JSON_H
#define EVAL_ROW_JSON_H

#include "eval.h"

#include <cjson/cJSON.h>

/* NULL when out of memory. */
cJSON *row_to_json(const struct eval_row *row);
/* False when something is missing. */
bool row_from_json(const cJSON *object, struct measured *out);

#endif
