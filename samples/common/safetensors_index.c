/* Weights in several files: an index says which file holds which tensor. */
#include "safetensors.h"

#include <cjson/cJSON.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct index {
    const char *folder;
    struct safetensors *weights;
    const char **names; /* of the files, as weights->parts */
    struct problem *problem;
};

/* An index says nothing about files elsewhere. */
static bool is_plain_name(const char *name)
{
    return name && *name && !strchr(name, '/') && strcmp(name, ".") != 0 &&
           strcmp(name, "..") != 0;
}

/* The part of this file, opened when it is named for the first time; NULL when it cannot be. */
static const struct st_part *part_of(struct index *index, const char *name)
{
    struct safetensors *weights = index->weights;
    for (uint32_t i = 0; i < weights->part_count; i++)
        if (strcmp(index->names[i], name) == 0)
            return &weights->parts[i];
    const char **names = realloc(index->names, (weights->part_count + 1) * sizeof *names);
    char *path = names ? path_join(index->folder, name) : NULL;
    bool good = path != NULL;
    if (names)
        index->names = names;
    if (good) {
        names[weights->part_count] = name;
        good = safetensors_add(weights, path, index->problem);
    } else {
        problem_set(index->problem, "%s: out of memory", weights->path);
    }
    free(path);
    return good ? &weights->parts[weights->part_count - 1] : NULL;
}

/* Opens each file, and counts the entries. */
static bool open_parts(struct index *index, const cJSON *map, uint32_t *count)
{
    const cJSON *item;
    *count = 0;
    cJSON_ArrayForEach(item, map)
    {
        const char *name = cJSON_GetStringValue(item);
        if (!is_plain_name(name))
            return problem_set(index->problem, "%s: \"weight_map\" does not name a file of the "
                               "same folder for tensor \"%.80s\"", index->weights->path,
                               item->string);
        if (!part_of(index, name))
            return false;
        (*count)++;
    }
    return true;
}

/* Every entry's tensor is in its file, and the files hold no other. */
static bool check_map(struct index *index, const cJSON *map, uint32_t count)
{
    struct safetensors *weights = index->weights;
    const cJSON *item;
    cJSON_ArrayForEach(item, map)
    {
        const struct st_part *part = part_of(index, item->valuestring);
        const struct st_tensor *tensor = safetensors_find(weights, item->string);
        if (!tensor || tensor->file != &part->file)
            return problem_set(index->problem, "%s: tensor \"%.80s\" is not in %s, where the index "
                               "says it is", weights->path, item->string, part->path);
    }
    if (weights->count > count)
        return problem_set(index->problem, "%s: the files hold %" PRIu32 " tensors, but the index "
                           "names %" PRIu32, weights->path, weights->count, count);
    return count <= weights->count ||
           problem_set(index->problem, "%s: \"weight_map\" names a tensor twice", weights->path);
}

static bool read_index(struct index *index)
{
    char *text;
    size_t size;
    uint32_t count;
    if (!file_read(index->weights->path, FILE_MAX_LIST, &text, &size, index->problem))
        return false;
    cJSON *root = cJSON_ParseWithLengthOpts(text, size + 1, NULL, true);
    const cJSON *map = cJSON_GetObjectItemCaseSensitive(root, "weight_map");
    bool good = cJSON_IsObject(map) && map->child;
    if (!good)
        problem_set(index->problem, "%s: not a JSON object with a \"weight_map\" of tensors and "
                    "files", index->weights->path);
    good = good && open_parts(index, map, &count) &&
           safetensors_order(index->weights, index->problem) && check_map(index, map, count);
    cJSON_Delete(root);
    free(text);
    return good;
}

bool safetensors_open_folder(struct safetensors *weights, const char *folder,
                             struct problem *problem)
{
    *weights = (struct safetensors){0};
    char *single = path_join(folder, "model.safetensors");
    char *listed = path_join(folder, "model.safetensors.index.json");
    bool good = single && listed;
    if (!good) {
        problem_set(problem, "%s: out of memory", folder);
    } else if (access(single, F_OK) == 0 || access(listed, F_OK) != 0) {
        good = safetensors_open(weights, single, problem);
    } else {
        struct index index = {folder, weights, NULL, problem};
        weights->path = listed;
        listed = NULL;
        good = read_index(&index);
        free(index.names);
        if (!good)
            safetensors_close(weights);
    }
    free(single);
    free(listed);
    return good;
}
