/* What ratplus-run prints besides the text: speeds, sizes, comparisons. */
#ifndef RUN_REPORT_H
#define RUN_REPORT_H

#include "generate.h"
#include "policy_name.h"
#include "tokenizer.h"

/* One policy and what came out of it. */
struct report_run {
    char name[POLICY_NAME_SIZE]; /* "d16w256s4", or the policy's file */
    ratp_policy *policy;
    struct generated result;
    char *text; /* of the generated tokens */
    size_t text_size;
};

struct report {
    const char *device;
    const char *model;
    uint32_t prompt;
    const struct report_run *runs;
    uint32_t count;
};

/* Two lines of speeds and sizes, to stderr. */
void report_stats(const struct report *report);
/* A table of all runs, then their texts, to stdout. */
bool report_compare(const struct report *report, struct problem *problem);
/* Everything as one JSON object, to stdout. */
bool report_json(const struct report *report, struct problem *problem);

/* Tokens of `run` that equal those of the first, place by place. */
uint32_t report_equal_tokens(const struct report_run *first, const struct report_run *run);

#endif
