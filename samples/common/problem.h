/* Errors of the samples: a sentence that names the file, the field or the
 * argument. Functions that can fail return false and leave one behind. */
#ifndef SAMPLES_PROBLEM_H
#define SAMPLES_PROBLEM_H

#include <stdbool.h>

struct problem {
    char text[640];
};

/* Writes the sentence and returns false, for `return problem_set(p, ...)`. */
bool problem_set(struct problem *p, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Puts "what: " before the sentence that is there; returns false. */
bool problem_about(struct problem *p, const char *what);

#endif
