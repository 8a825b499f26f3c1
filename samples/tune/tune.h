/* ratplus-tune: the parts around the search. */
#ifndef TUNE_TUNE_H
#define TUNE_TUNE_H

#include "measure.h"
#include "policy_name.h"

struct tune_options {
    const char *model;
    const char *questions, *text; /* at least one */
    const char *candidates;
    const char *like; /* one of the three targets is given; 0: not */
    uint64_t cache;
    double keys;
    const char *out, *resume, *device, *dtype;
    uint64_t row_limit, text_bytes, patience;
    bool quiet;
    ratp_dtype cache_dtype;
};

bool tune_options_parse(int argc, char **argv, struct tune_options *out, bool *done,
                        struct problem *problem);

/* What was measured before, by the policy's name; kept in a file when there is one. */
struct memo {
    const char *path; /* NULL: none */
    const char *settings; /* lines made with others are passed over */
    uint32_t units;       /* of a trial */
    struct memo_entry *entries;
    uint32_t count;
};

struct trial {
    double loss; /* nats of a text's token plus nats of an answer's token */
    uint64_t cache_bytes;
    uint32_t length; /* of the longest sequence, in tokens */
    double *units;   /* [units]: the shares of the loss of rows and of parts of the text */
};

bool memo_open(struct memo *memo, const char *path, const char *settings, uint32_t units,
               struct problem *problem);
const struct trial *memo_find(const struct memo *memo, const char *name);
/* The units are copied. */
bool memo_add(struct memo *memo, const char *name, const struct trial *trial,
              struct problem *problem);
void memo_close(struct memo *memo);

#define MAX_CANDIDATES 32
#define CANDIDATE_SIZE 64

/* A model, what it is asked, and the variants that its layers may take. */
struct tuner {
    struct tune_options options;
    struct model model;
    struct tokenizer tokenizer;
    struct engine *engine;
    uint32_t messages;
    int32_t *text;
    struct question_list questions;
    struct measure_input known, unseen; /* the half to tune with, and the half to check with */
    struct memo memo;
    char settings[640];
    struct ratp_variant candidates[MAX_CANDIDATES];
    char names[MAX_CANDIDATES][CANDIDATE_SIZE];
    uint32_t count;
    struct trial uniform[MAX_CANDIDATES];
    double keys[MAX_CANDIDATES]; /* attended by a token, on average */
    double cost[MAX_CANDIDATES], target; /* of a layer, in keys or in bytes of the cache */
    uint32_t trials; /* asked for, and about how many there will be */
    uint32_t trials_expected;
};

/* The policy that gives layer i the candidate choice[i]. */
bool tuner_policy(const struct tuner *t, const uint32_t *choice, ratp_policy **out,
                  struct problem *problem);
/* "dense/d16/d16/d4", to be freed; NULL when out of memory. */
char *tuner_name(const struct tuner *t, const uint32_t *choice);
/* Measures with the known half, or remembers. */
bool tuner_try(struct tuner *t, const uint32_t *choice, struct trial *out,
               struct problem *problem);
/* Measures with either half; trial->units is to be freed. `measured` may be NULL. */
bool tuner_measure(struct tuner *t, const uint32_t *choice, struct measure_input *input,
                   struct trial *trial, struct measured *measured, struct problem *problem);
/* The standard error of the difference of two losses, of the same questions and text. */
double standard_error(const double *a, const double *b, uint32_t units);

/* The outcome, as a table and the layers' variants, to stdout. */
struct tune_report {
    uint32_t base;          /* the best uniform candidate */
    const uint32_t *choice; /* the tuned policy */
    struct trial trial;
    struct trial base_unseen, unseen; /* of the base and of the policy */
    struct score base_answers, answers; /* unseen ones */
};

bool report_print(const struct tuner *t, const struct tune_report *report,
                  struct problem *problem);

#endif
