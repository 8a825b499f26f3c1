/* Reads the fields of a JSON object from a file, each of its type and within its
 * range. The first that is wrong is the problem; what is read after it does not count. */
#ifndef SAMPLES_FIELDS_H
#define SAMPLES_FIELDS_H

#include "problem.h"

#include <cjson/cJSON.h>
#include <stdint.h>

struct fields {
    const char *path; /* of the file */
    const char *name; /* of the object in it, "" for the outermost; for messages */
    const cJSON *object;
    struct problem *problem;
    bool good;
};

/* The fields of the member `name`, which `fields` must be an object. */
struct fields fields_of(struct fields *f, const char *name, const char *wanted);
/* NULL when it is absent or null. */
const cJSON *fields_find(const struct fields *f, const char *name);

uint32_t fields_whole(struct fields *f, const char *name, uint32_t min, uint32_t max);
double fields_number(struct fields *f, const char *name, double min, double max);
bool fields_flag(struct fields *f, const char *name);
/* The index of the field's text in `names`. */
int fields_choice(struct fields *f, const char *name, const char *const *names, int count,
                  const char *wanted);

/* Refuses the field: names it and its value, and says `why`. */
void fields_refuse(struct fields *f, const char *name, const char *why);
/* Refuses a number that stands at `other` too (a full name), where it is `value`. */
void fields_refuse_other(struct fields *f, const char *name, const char *other, double value);
/* Refuses a name that is there twice, and one that is not among `known` (each ends with the
 * list's NULL) and does not begin with "_". */
void fields_only(struct fields *f, const char *const *const *known, int lists);

#endif
