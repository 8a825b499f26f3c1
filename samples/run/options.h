/* The command line of ratplus-run. */
#ifndef RUN_OPTIONS_H
#define RUN_OPTIONS_H

#include "problem.h"

#include <ratplus.h>

struct run_options {
    const char *model;
    const char *prompt, *file, *tokens_file; /* exactly one; interactive: at most one */
    uint64_t tokens, prompt_tokens, chunk, top_k, seed;
    double temperature, top_p;
    const char *variant, *policy, *compare;
    const char *device;
    const char *logits;
    bool validate, stats, json, interactive;
    ratp_retention retention;
    ratp_dtype cache_dtype;
};

/* *done: --help or --version was answered, and there is nothing else to do. */
bool run_options_parse(int argc, char **argv, struct run_options *out, bool *done,
                       struct problem *problem);

#endif
