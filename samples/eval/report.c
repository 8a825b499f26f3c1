#include "eval.h"
#include "file.h"
#include "row_json.h"
#include "terminal.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CELL 80

/* Cells of a table, filled from left to right. */
struct table {
    size_t columns, rows, filled;
    char (*cells)[CELL];
};

static void cell(struct table *t, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void cell(struct table *t, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(t->cells[t->filled++], CELL, format, arguments);
    va_end(arguments);
}

static bool table_open(struct table *t, size_t columns, size_t rows, struct problem *problem)
{
    *t = (struct table){.columns = columns, .rows = rows};
    t->cells = calloc(columns * rows, sizeof *t->cells);
    return t->cells || problem_set(problem, "out of memory for a table");
}

static bool table_close(struct table *t, struct problem *problem)
{
    const char **pointers = malloc(t->columns * t->rows * sizeof *pointers);
    if (pointers) {
        for (size_t i = 0; i < t->columns * t->rows; i++)
            pointers[i] = t->cells[i];
        table_print(pointers, t->rows, t->columns);
    }
    free(t->cells);
    const bool good = pointers || problem_set(problem, "out of memory for a table");
    free(pointers);
    return good;
}

static void cell_share(struct table *t, struct score score)
{
    if (score.asked)
        cell(t, "%.1f%%", 100 * score_share(score));
    else
        cell(t, "-");
}

static bool table_of_variants(const struct eval_list *list, struct problem *problem)
{
    struct table t;
    if (!table_open(&t, 6, list->count + 1, problem))
        return false;
    cell(&t, "model");
    cell(&t, "variant");
    cell(&t, "cache");
    cell(&t, "keys a layer");
    cell(&t, "perplexity");
    cell(&t, "right answers");
    for (uint32_t i = 0; i < list->count; i++) {
        const struct eval_row *row = &list->rows[i];
        char bytes[32];
        bytes_print(row->measured.cache_bytes, bytes, sizeof bytes);
        cell(&t, "%s", row->model);
        cell(&t, "%s", row->variant);
        cell(&t, "%s", bytes);
        cell(&t, "%.1f", row->measured.keys);
        if (row->measured.text_tokens)
            cell(&t, "%.3f", exp(row->measured.nats));
        else
            cell(&t, "-");
        cell_share(&t, row->measured.all);
    }
    return table_close(&t, problem);
}

static bool table_of_answers(const struct eval_list *list, struct problem *problem)
{
    struct table t;
    if (!table_open(&t, 2 + NEEDLE_CLASSES + DISTANCE_CLASSES, list->count + 1, problem))
        return false;
    cell(&t, "model");
    cell(&t, "variant");
    for (uint32_t i = 0; i < NEEDLE_CLASSES; i++)
        cell(&t, i == 0 ? "%u needle" : "to %u needles", needle_limits[i]);
    for (uint32_t i = 0; i < DISTANCE_CLASSES; i++)
        if (distance_limits[i] == UINT32_MAX)
            cell(&t, "farther");
        else
            cell(&t, "to %u back", distance_limits[i]);
    for (uint32_t i = 0; i < list->count; i++) {
        const struct eval_row *row = &list->rows[i];
        cell(&t, "%s", row->model);
        cell(&t, "%s", row->variant);
        for (uint32_t j = 0; j < NEEDLE_CLASSES; j++)
            cell_share(&t, row->measured.by_needles[j]);
        for (uint32_t j = 0; j < DISTANCE_CLASSES; j++)
            cell_share(&t, row->measured.by_distance[j]);
    }
    return table_close(&t, problem);
}

bool report_tables(const struct eval_list *list, struct problem *problem)
{
    if (!table_of_variants(list, problem))
        return false;
    if (list->rows[0].measured.all.asked == 0)
        return true;
    printf("\nRight answers by needles in the text, and by distance in bytes\n\n");
    return table_of_answers(list, problem);
}

bool report_json(const struct eval_list *list, const char *settings, const char *path,
                 struct problem *problem)
{
    cJSON *root = cJSON_CreateObject();
    bool good = root && cJSON_AddStringToObject(root, "settings", settings);
    cJSON *rows = good ? cJSON_AddArrayToObject(root, "rows") : NULL;
    good = rows != NULL;
    for (uint32_t i = 0; i < list->count && good; i++) {
        cJSON *row = row_to_json(&list->rows[i]);
        good = row && cJSON_AddItemToArray(rows, row);
        if (!good)
            cJSON_Delete(row);
    }
    char *text = good ? cJSON_Print(root) : NULL;
    cJSON_Delete(root);
    if (!text)
        return problem_set(problem, "out of memory for the results");
    good = strcmp(path, "-") == 0 ? puts(text) >= 0
                                  : file_write(path, text, strlen(text), problem);
    free(text);
    return good;
}
