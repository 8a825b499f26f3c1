#include "terminal.h"
#include "tune.h"

#include <stdio.h>
#include <stdlib.h>

#define COLUMNS 6
#define CELL 48

static void fill(const struct tuner *t, char (*row)[CELL], const char *name, double keys,
                 const struct trial *trial, const struct trial *unseen, struct score answers)
{
    snprintf(row[0], CELL, "%.*s", CELL - 1, name);
    snprintf(row[1], CELL, "%.1f", keys);
    bytes_print(trial->cache_bytes, row[2], CELL);
    snprintf(row[3], CELL, "%.4f", trial->loss);
    snprintf(row[4], CELL, "-");
    snprintf(row[5], CELL, "-");
    if (unseen)
        snprintf(row[4], CELL, "%.4f", unseen->loss);
    if (unseen && t->options.questions)
        snprintf(row[5], CELL, "%.1f%%", 100 * score_share(answers));
}

static double keys_of(const struct tuner *t, const uint32_t *choice)
{
    double sum = 0;
    for (uint32_t i = 0; i < t->model.config.layers; i++)
        sum += t->keys[choice[i]];
    return sum / t->model.config.layers;
}

bool report_print(const struct tuner *t, const struct tune_report *report,
                  struct problem *problem)
{
    static const char *const heading[COLUMNS] = {"policy", "keys a query", "cache", "loss",
                                                 "unseen loss", "unseen answers"};
    char cells[MAX_CANDIDATES + 2][COLUMNS][CELL];
    const char *pointers[(MAX_CANDIDATES + 2) * COLUMNS];
    char *layers = tuner_name(t, report->choice);
    if (!layers)
        return problem_set(problem, "out of memory for a policy's name");
    for (uint32_t i = 0; i < COLUMNS; i++)
        snprintf(cells[0][i], CELL, "%s", heading[i]);
    for (uint32_t i = 0; i < t->count; i++)
        fill(t, cells[i + 1], t->names[i], t->keys[i], &t->uniform[i],
             i == report->base ? &report->base_unseen : NULL, report->base_answers);
    fill(t, cells[t->count + 1], "tuned", keys_of(t, report->choice), &report->trial,
         &report->unseen, report->answers);
    const uint32_t rows = t->count + 2;
    for (uint32_t i = 0; i < rows * COLUMNS; i++)
        pointers[i] = cells[i / COLUMNS][i % COLUMNS];
    printf("%s, sequences of %u tokens; loss in nats\n\n", t->options.model, report->trial.length);
    table_print(pointers, rows, COLUMNS);
    printf("\nThe layers: %s\n", layers);
    printf("The best uniform variant for this cost: %s\n", t->names[report->base]);
    printf("On the unseen half the tuned policy's loss differs from its by %+.4f (standard error %.4f)\n",
           report->unseen.loss - report->base_unseen.loss,
           standard_error(report->unseen.units, report->base_unseen.units,
                          measure_units(&t->unseen)));
    free(layers);
    return true;
}
