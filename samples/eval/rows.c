#include "eval.h"
#include "file.h"

#include <stdlib.h>
#include <string.h>

bool rows_add(struct eval_list *list, const char *model, const char *variant,
              struct problem *problem)
{
    struct eval_row *rows = realloc(list->rows, (list->count + 1) * sizeof *rows);
    if (!rows)
        return problem_set(problem, "out of memory for the rows");
    list->rows = rows;
    struct eval_row *row = &rows[list->count];
    *row = (struct eval_row){.model = strdup(model), .variant = strdup(variant)};
    list->count++;
    return (row->model && row->variant) || problem_set(problem, "out of memory for the rows");
}

bool rows_read(struct eval_list *list, const char *path, struct problem *problem)
{
    char *text, *rest = NULL;
    size_t size;
    if (!file_read(path, FILE_MAX_LIST, &text, &size, problem))
        return false;
    bool good = true;
    for (char *line = strtok_r(text, "\n", &rest); line && good;
         line = strtok_r(NULL, "\n", &rest)) {
        char *inner = NULL;
        const char *model = strtok_r(line, " \t\r", &inner);
        const char *variant = strtok_r(NULL, " \t\r", &inner);
        if (!model || *model == '#')
            continue;
        good = (variant && !strtok_r(NULL, " \t\r", &inner)) ||
               problem_set(problem, "%s: \"%.60s\" is not followed by one variant", path, model);
        good = good && rows_add(list, model, variant, problem);
    }
    free(text);
    return good && (list->count > 0 || problem_set(problem, "%s names no row", path));
}

void rows_free(struct eval_list *list)
{
    for (uint32_t i = 0; i < list->count; i++) {
        free(list->rows[i].model);
        free(list->rows[i].variant);
    }
    free(list->rows);
    *list = (struct eval_list){0};
}
