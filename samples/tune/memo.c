#include "file.h"
#include "tune.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct memo_entry {
    char *name;
    struct trial trial;
};

static bool keep(struct memo *memo, const char *name, const struct trial *trial,
                 struct problem *problem)
{
    struct memo_entry *grown = realloc(memo->entries, (memo->count + 1) * sizeof *grown);
    if (!grown)
        return problem_set(problem, "out of memory for a trial");
    memo->entries = grown;
    struct memo_entry *entry = &grown[memo->count++];
    *entry = (struct memo_entry){strdup(name), *trial};
    entry->trial.units = malloc((memo->units + 1) * sizeof *trial->units);
    if (!entry->name || !entry->trial.units)
        return problem_set(problem, "out of memory for a trial");
    memcpy(entry->trial.units, trial->units, memo->units * sizeof *trial->units);
    return true;
}

static bool read_units(const cJSON *list, double *units, uint32_t count)
{
    bool good = (uint32_t)cJSON_GetArraySize(list) == count;
    const cJSON *item = good && count > 0 ? list->child : NULL;
    for (uint32_t i = 0; good && i < count; i++, item = item->next) {
        good = cJSON_IsNumber(item);
        units[i] = good ? item->valuedouble : 0;
    }
    return good;
}

/* A line that was cut short when a run was stopped is passed over. */
static bool take_line(struct memo *memo, const char *line, struct problem *problem)
{
    cJSON *root = cJSON_Parse(line);
    const char *settings = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(root, "settings"));
    const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(root, "policy"));
    const cJSON *loss = cJSON_GetObjectItemCaseSensitive(root, "loss");
    const cJSON *bytes = cJSON_GetObjectItemCaseSensitive(root, "cache_bytes");
    const cJSON *length = cJSON_GetObjectItemCaseSensitive(root, "length");
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(root, "units");
    double *units = malloc((memo->units + 1) * sizeof *units);
    bool good = units || problem_set(problem, "out of memory for a trial");
    if (good && settings && strcmp(settings, memo->settings) == 0 && name && cJSON_IsNumber(loss) &&
        cJSON_IsNumber(bytes) && bytes->valuedouble >= 0 && bytes->valuedouble < 1e18 &&
        cJSON_IsNumber(length) && length->valuedouble >= 1 && length->valuedouble < 1e9 &&
        read_units(list, units, memo->units)) {
        const struct trial trial = {loss->valuedouble, (uint64_t)bytes->valuedouble,
                                    (uint32_t)length->valuedouble, units};
        good = keep(memo, name, &trial, problem);
    }
    free(units);
    cJSON_Delete(root);
    return good;
}

bool memo_open(struct memo *memo, const char *path, const char *settings, uint32_t units,
               struct problem *problem)
{
    char *text, *rest = NULL;
    size_t size;
    *memo = (struct memo){.path = path, .settings = settings, .units = units};
    if (!path || access(path, F_OK) != 0)
        return true;
    if (!file_read(path, FILE_MAX_TEXT, &text, &size, problem))
        return false;
    bool good = true;
    for (char *line = strtok_r(text, "\n", &rest); line && good; line = strtok_r(NULL, "\n", &rest))
        good = take_line(memo, line, problem);
    free(text);
    return good;
}

const struct trial *memo_find(const struct memo *memo, const char *name)
{
    for (uint32_t i = 0; i < memo->count; i++)
        if (strcmp(memo->entries[i].name, name) == 0)
            return &memo->entries[i].trial;
    return NULL;
}

static bool append(const struct memo *memo, const char *name, const struct trial *trial,
                   struct problem *problem)
{
    cJSON *object = cJSON_CreateObject();
    cJSON *units = cJSON_CreateDoubleArray(trial->units, (int)memo->units);
    char *text = NULL;
    if (object && cJSON_AddStringToObject(object, "policy", name) &&
        cJSON_AddNumberToObject(object, "loss", trial->loss) &&
        cJSON_AddNumberToObject(object, "cache_bytes", (double)trial->cache_bytes) &&
        cJSON_AddNumberToObject(object, "length", trial->length) &&
        cJSON_AddStringToObject(object, "settings", memo->settings) && units &&
        cJSON_AddItemToObject(object, "units", units)) {
        units = NULL; /* the object's now */
        text = cJSON_PrintUnformatted(object);
    }
    cJSON_Delete(units);
    cJSON_Delete(object);
    if (!text)
        return problem_set(problem, "out of memory for a trial");
    /* The newline comes first, so that a line that was cut short spoils no other. */
    const size_t length = strlen(text);
    char *line = malloc(length + 1);
    if (line) {
        line[0] = '\n';
        memcpy(line + 1, text, length);
    }
    const bool good = line ? file_append(memo->path, line, length + 1, problem)
                           : problem_set(problem, "out of memory for a trial");
    free(line);
    free(text);
    return good;
}

bool memo_add(struct memo *memo, const char *name, const struct trial *trial,
              struct problem *problem)
{
    return keep(memo, name, trial, problem) &&
           (!memo->path || append(memo, name, trial, problem));
}

void memo_close(struct memo *memo)
{
    for (uint32_t i = 0; i < memo->count; i++) {
        free(memo->entries[i].name);
        free(memo->entries[i].trial.units);
    }
    free(memo->entries);
    memo->entries = NULL;
    memo->count = 0;
}
