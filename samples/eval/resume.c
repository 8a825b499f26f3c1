#include "eval.h"
#include "file.h"
#include "row_json.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool has_text(const cJSON *object, const char *name, const char *text)
{
    const char *found = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, name));
    return found && strcmp(found, text) == 0;
}

/* A line that was cut short when a run was stopped is passed over. */
static void take_line(const char *line, const char *settings, struct eval_list *list)
{
    cJSON *root = cJSON_Parse(line);
    if (has_text(root, "settings", settings))
        for (uint32_t i = 0; i < list->count; i++) {
            struct eval_row *row = &list->rows[i];
            if (has_text(root, "model", row->model) && has_text(root, "variant", row->variant))
                row->known |= row_from_json(root, &row->measured);
        }
    cJSON_Delete(root);
}

bool resume_read(const char *path, const char *settings, struct eval_list *list,
                 struct problem *problem)
{
    char *text, *rest = NULL;
    size_t size;
    if (access(path, F_OK) != 0)
        return true;
    if (!file_read(path, FILE_MAX_TEXT, &text, &size, problem))
        return false;
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest))
        take_line(line, settings, list);
    free(text);
    return true;
}

bool resume_append(const char *path, const char *settings, const struct eval_row *row,
                   struct problem *problem)
{
    cJSON *object = row_to_json(row);
    char *text = NULL;
    if (object && cJSON_AddStringToObject(object, "settings", settings))
        text = cJSON_PrintUnformatted(object);
    cJSON_Delete(object);
    if (!text)
        return problem_set(problem, "out of memory for a row");
    const size_t length = strlen(text);
    text[length] = '\n'; /* in place of the NUL */
    const bool good = file_append(path, text, length + 1, problem);
    free(text);
    return good;
}
