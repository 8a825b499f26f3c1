/* ratplus-eval: models under variants, in rows. */
#ifndef EVAL_EVAL_H
#define EVAL_EVAL_H

#include "measure.h"
#include "policy_name.h"

struct eval_options {
    const char *folder; /* of a model, or of models with a file rows.txt */
    const char *variants, *policy, *rows;
    const char *questions, *text;
    const char *resume, *json, *device, *dtype;
    uint64_t row_limit, text_bytes;
    bool quiet;
    ratp_dtype cache_dtype;
};

bool eval_options_parse(int argc, char **argv, struct eval_options *out, bool *done,
                        struct problem *problem);

/* One model under one policy. */
struct eval_row {
    char *model;   /* the folder's name */
    char *variant; /* a policy's name, or "@FILE" */
    bool known;    /* measured, now or before */
    struct measured measured;
};

struct eval_list {
    struct eval_row *rows;
    uint32_t count;
};

bool rows_add(struct eval_list *list, const char *model, const char *variant,
              struct problem *problem);
/* Lines "MODEL VARIANT"; empty ones and those that begin with # are passed over. */
bool rows_read(struct eval_list *list, const char *path, struct problem *problem);
void rows_free(struct eval_list *list);

/* Rows that were measured before, in a file with one a line. `settings` says of what:
 * a row counts only when it was made with the same. A file that is not there is empty. */
bool resume_read(const char *path, const char *settings, struct eval_list *list,
                 struct problem *problem);
bool resume_append(const char *path, const char *settings, const struct eval_row *row,
                   struct problem *problem);

/* Two tables to stdout: of the variants, then answers by needles and distance. */
bool report_tables(const struct eval_list *list, struct problem *problem);
bool report_json(const struct eval_list *list, const char *settings, const char *path,
                 struct problem *problem);

#endif
