/* Command lines: one table gives the options their meaning and their help. */
#ifndef SAMPLES_ARGUMENTS_H
#define SAMPLES_ARGUMENTS_H

#include "problem.h"

#include <stddef.h>
#include <stdint.h>

enum option_kind {
    OPTION_FLAG,   /* target: bool */
    OPTION_TEXT,   /* target: const char * */
    OPTION_NUMBER, /* target: uint64_t, in [min, max] */
    OPTION_REAL    /* target: double, in [min, max] */
};

struct option {
    const char *name; /* "--tokens"; a positional argument has no dashes, and is text */
    enum option_kind kind;
    const char *value; /* what help calls the value, "N"; NULL for flags */
    void *target;      /* keeps its value when the option is not given */
    double min, max;
    const char *help;
};

/* Takes "--name value", "--name=value" and positional arguments, in the
 * table's order. "--help" is part of the table like any other flag. */
bool arguments_parse(const struct option *options, size_t count, int argc, char **argv,
                     struct problem *problem);
/* One line for each option, to stdout. */
void arguments_help(const struct option *options, size_t count);

/* Numbers in [min, max] from text that holds nothing else; messages begin with `name`. */
bool number_read(const char *name, const char *text, double min, double max, uint64_t *out,
                 struct problem *problem);
bool real_read(const char *name, const char *text, double min, double max, double *out,
               struct problem *problem);

#endif
