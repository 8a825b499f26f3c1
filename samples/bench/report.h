/* What the two tables, and their JSON, share. */
#ifndef BENCH_REPORT_H
#define BENCH_REPORT_H

#include "bench.h"

#include <cjson/cJSON.h>

#define CELL 32

/* The first line is the heading. */
bool cells_print(char (*cells)[CELL], size_t lines, size_t columns, struct problem *problem);

/* A failed allocation shows as a NULL item, which cJSON adds nowhere; the flag
 * remembers it. */
void json_number(cJSON *object, const char *name, double value, bool *good);
void json_text(cJSON *object, const char *name, const char *value, bool *good);
void json_time(cJSON *object, const struct timing *t, bool *good);

bool report_cache_table(const struct bench *b, struct problem *problem);
/* The array "cache" in `root`. */
void report_cache_json(cJSON *root, const struct bench *b, bool *good);

#endif
