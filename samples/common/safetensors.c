#include "safetensors.h"

#include <cjson/cJSON.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The format allows 100 MB; this is 100,000 tensors, and bounds what a parsed header takes. */
#define MAX_HEADER (16u << 20)
/* How many files one set of weights may have: each is kept open. */
#define MAX_PARTS 512
#define MAX_EXACT 9007199254740992.0 /* 2^53: JSON numbers arrive as doubles */

static const struct {
    const char *name;
    uint32_t size;
} dtypes[] = {
    [ST_F32] = {"F32", 4}, [ST_F16] = {"F16", 2}, [ST_BF16] = {"BF16", 2},
    [ST_I32] = {"I32", 4}, [ST_I64] = {"I64", 8},
};

const char *st_dtype_name(enum st_dtype dtype)
{
    return dtypes[dtype].name;
}

uint32_t st_dtype_size(enum st_dtype dtype)
{
    return dtypes[dtype].size;
}

static bool read_count(const cJSON *item, uint64_t *out)
{
    if (!cJSON_IsNumber(item) || !(item->valuedouble >= 0) || item->valuedouble > MAX_EXACT ||
        floor(item->valuedouble) != item->valuedouble)
        return false;
    *out = (uint64_t)item->valuedouble;
    return true;
}

static bool parse_tensor(const struct st_part *part, const cJSON *item, uint64_t data_start,
                         struct st_tensor *out, struct problem *problem)
{
    const char *path = part->path, *name = item->string;
    const cJSON *dtype = cJSON_GetObjectItemCaseSensitive(item, "dtype");
    const cJSON *shape = cJSON_GetObjectItemCaseSensitive(item, "shape");
    const cJSON *offsets = cJSON_GetObjectItemCaseSensitive(item, "data_offsets");
    if (!cJSON_IsString(dtype) || !cJSON_IsArray(shape) || !cJSON_IsArray(offsets))
        return problem_set(problem, "%s: tensor \"%.80s\" lacks dtype, shape or data_offsets",
                           path, name);

    uint32_t type = 0;
    while (type < sizeof dtypes / sizeof *dtypes &&
           strcmp(dtypes[type].name, dtype->valuestring) != 0)
        type++;
    if (type == sizeof dtypes / sizeof *dtypes)
        return problem_set(problem,
                           "%s: tensor \"%.80s\": dtype \"%.16s\" is not read here "
                           "(F32, F16, BF16, I32, I64 are)",
                           path, name, dtype->valuestring);
    *out = (struct st_tensor){
        .name = name, .dtype = (enum st_dtype)type, .count = 1, .file = &part->file};

    const uint64_t room = part->file.size - data_start;
    const cJSON *dim;
    bool empty = false;
    cJSON_ArrayForEach(dim, shape)
    {
        uint64_t n;
        if (out->dims == ST_MAX_DIMS || !read_count(dim, &n))
            return problem_set(problem, "%s: tensor \"%.80s\": shape is not up to %d sizes", path,
                               name, ST_MAX_DIMS);
        out->shape[out->dims++] = n;
        empty = empty || n == 0;
        /* A product past the file's size is refused here, before it can wrap. */
        if (n > 0 && out->count > room / n)
            out->count = room + 1;
        else if (n > 0)
            out->count *= n;
    }
    if (empty)
        out->count = 0;
    if (out->count > room / dtypes[type].size)
        return problem_set(problem, "%s: tensor \"%.80s\" is larger than the file", path, name);
    out->bytes = out->count * dtypes[type].size;

    uint64_t begin, end;
    if (cJSON_GetArraySize(offsets) != 2 || !read_count(cJSON_GetArrayItem(offsets, 0), &begin) ||
        !read_count(cJSON_GetArrayItem(offsets, 1), &end) || begin > end || end > room)
        return problem_set(problem,
                           "%s: tensor \"%.80s\": data_offsets are not two places inside the "
                           "file's %" PRIu64 " data bytes",
                           path, name, room);
    if (end - begin != out->bytes)
        return problem_set(problem,
                           "%s: tensor \"%.80s\" has %" PRIu64 " bytes of data, its shape needs "
                           "%" PRIu64,
                           path, name, end - begin, out->bytes);
    out->offset = data_start + begin;
    return true;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct st_tensor *)a)->name, ((const struct st_tensor *)b)->name);
}

/* Tensors without bytes come before the one that begins at the same place. */
static int by_place(const void *a, const void *b)
{
    const struct st_tensor *x = a, *y = b;
    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

/* The format's rule for a whole file: each byte of data belongs to one tensor. What
 * two programs might read differently cannot hide in such a file. */
static bool check_places(const struct st_part *part, struct st_tensor *tensors, uint32_t count,
                         uint64_t data_start, struct problem *problem)
{
    uint64_t end = data_start;
    qsort(tensors, count, sizeof *tensors, by_place);
    for (uint32_t i = 0; i < count; i++) {
        if (tensors[i].offset < end)
            return problem_set(problem, "%s: tensors \"%.80s\" and \"%.80s\" lie over the same "
                               "bytes", part->path, tensors[i - 1].name, tensors[i].name);
        if (tensors[i].offset > end)
            return problem_set(problem, "%s: %" PRIu64 " bytes before tensor \"%.80s\" belong to "
                               "no tensor", part->path, tensors[i].offset - end, tensors[i].name);
        end += tensors[i].bytes;
    }
    return end == part->file.size ||
           problem_set(problem, "%s: %" PRIu64 " bytes after the last tensor belong to no tensor",
                       part->path, part->file.size - end);
}

/* __metadata__ is an object of strings. */
static bool check_metadata(const char *path, const cJSON *metadata, struct problem *problem)
{
    const cJSON *item;
    bool good = cJSON_IsObject(metadata);
    cJSON_ArrayForEach(item, metadata)
        good = good && cJSON_IsString(item);
    return good || problem_set(problem, "%s: __metadata__ is not an object of strings", path);
}

/* The header's text as JSON; *data_start is where the data begins. */
static bool read_header(struct st_part *part, uint64_t *data_start, struct problem *problem)
{
    const char *path = part->path, *end = NULL;
    uint8_t start[8];
    uint64_t size = 0;
    if (part->file.size < sizeof start)
        return problem_set(problem, "%s: too short for a safetensors file", path);
    if (!file_read_at(&part->file, 0, start, sizeof start, problem))
        return false;
    for (int i = 7; i >= 0; i--)
        size = size << 8 | start[i];
    if (size > part->file.size - sizeof start)
        return problem_set(problem, "%s: the header's length (%" PRIu64 ") does not fit the file; "
                           "not safetensors, or cut short?", path, size);
    if (size > MAX_HEADER)
        return problem_set(problem, "%s: the header's length (%" PRIu64 ") is more than the %u "
                           "that are read here", path, size, MAX_HEADER);
    char *text = malloc((size_t)size + 1);
    if (!text)
        return problem_set(problem, "%s: out of memory for a header of %" PRIu64 " bytes", path,
                           size);
    bool good = file_read_at(&part->file, sizeof start, text, (size_t)size, problem);
    if (good) {
        text[size] = '\0';
        part->header = cJSON_ParseWithLengthOpts(text, (size_t)size, &end, false);
        good = cJSON_IsObject(part->header) && text[0] == '{' &&
               end + strspn(end, " \t\r\n") == text + size;
        if (!good)
            problem_set(problem, "%s: the header is not a JSON object", path);
    }
    free(text);
    *data_start = sizeof start + size;
    return good;
}

static bool add_tensors(struct safetensors *weights, struct st_part *part, struct problem *problem)
{
    uint64_t data_start = 0;
    uint32_t added = 0;
    if (!read_header(part, &data_start, problem))
        return false;
    const size_t entries = (size_t)cJSON_GetArraySize(part->header);
    struct st_tensor *all =
        realloc(weights->tensors, (weights->count + entries + 1) * sizeof *all);
    if (!all)
        return problem_set(problem, "%s: out of memory for %zu tensors", part->path, entries);
    weights->tensors = all;
    const cJSON *item;
    cJSON_ArrayForEach(item, part->header)
    {
        const bool tensor = strcmp(item->string, "__metadata__") != 0;
        if (tensor ? !parse_tensor(part, item, data_start, &all[weights->count + added], problem)
                   : !check_metadata(part->path, item, problem))
            return false;
        added += tensor;
    }
    if (!check_places(part, all + weights->count, added, data_start, problem))
        return false;
    weights->count += added;
    return true;
}

bool safetensors_add(struct safetensors *weights, const char *path, struct problem *problem)
{
    if (!weights->parts)
        weights->parts = calloc(MAX_PARTS, sizeof *weights->parts);
    char *copy = strdup(path);
    if (!weights->parts || !copy) {
        free(copy);
        return problem_set(problem, "%s: out of memory", path);
    }
    if (weights->part_count == MAX_PARTS) {
        free(copy);
        return problem_set(problem, "%s: the weights are in more than %d files, the limit here",
                           weights->path, MAX_PARTS);
    }
    struct st_part *part = &weights->parts[weights->part_count++];
    *part = (struct st_part){.path = copy};
    return file_open(&part->file, copy, problem) && add_tensors(weights, part, problem);
}

bool safetensors_order(struct safetensors *weights, struct problem *problem)
{
    qsort(weights->tensors, weights->count, sizeof *weights->tensors, by_name);
    for (uint32_t i = 1; i < weights->count; i++)
        if (strcmp(weights->tensors[i - 1].name, weights->tensors[i].name) == 0)
            return problem_set(problem, "%s: tensor \"%.80s\" is there twice", weights->path,
                               weights->tensors[i].name);
    return true;
}

bool safetensors_open(struct safetensors *weights, const char *path, struct problem *problem)
{
    *weights = (struct safetensors){.path = strdup(path)};
    if (!weights->path)
        return problem_set(problem, "%s: out of memory", path);
    if (safetensors_add(weights, path, problem) && safetensors_order(weights, problem))
        return true;
    safetensors_close(weights);
    return false;
}

void safetensors_close(struct safetensors *weights)
{
    for (uint32_t i = 0; i < weights->part_count; i++) {
        file_close(&weights->parts[i].file);
        cJSON_Delete(weights->parts[i].header);
        free(weights->parts[i].path);
    }
    free(weights->parts);
    free(weights->tensors);
    free(weights->path);
    *weights = (struct safetensors){0};
}

const struct st_tensor *safetensors_find(const struct safetensors *weights, const char *name)
{
    const struct st_tensor key = {.name = name};
    if (weights->count == 0)
        return NULL;
    return bsearch(&key, weights->tensors, weights->count, sizeof *weights->tensors, by_name);
}

const char *safetensors_metadata(const struct safetensors *weights, const char *key)
{
    if (weights->part_count == 0)
        return NULL;
    const cJSON *metadata =
        cJSON_GetObjectItemCaseSensitive(weights->parts[0].header, "__metadata__");
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(metadata, key));
}

float float_from_bf16(uint16_t bits)
{
    const uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, sizeof value);
    return value;
}

float float_from_f16(uint16_t bits)
{
    const int exponent = bits >> 10 & 31, fraction = bits & 1023;
    float value;
    if (exponent == 31)
        value = fraction ? NAN : INFINITY;
    else if (exponent == 0)
        value = ldexpf((float)fraction, -24);
    else
        value = ldexpf((float)(fraction + 1024), exponent - 25);
    return bits >> 15 ? -value : value;
}

bool st_read(const struct st_tensor *tensor, uint64_t first, size_t size, void *out,
             struct problem *problem)
{
    return file_read_at(tensor->file, tensor->offset + first, out, size, problem);
}

bool st_read_f32(const struct st_tensor *tensor, uint64_t first, uint64_t count, float *out,
                 struct problem *problem)
{
    const uint32_t width = dtypes[tensor->dtype].size;
    uint16_t bits[4096];
    if (tensor->dtype == ST_F32)
        return st_read(tensor, first * width, (size_t)count * width, out, problem);
    for (uint64_t done = 0; done < count;) {
        const uint64_t rest = count - done, room = sizeof bits / sizeof *bits;
        const size_t some = (size_t)(rest < room ? rest : room);
        if (!st_read(tensor, (first + done) * width, some * width, bits, problem))
            return false;
        for (size_t i = 0; i < some; i++)
            out[done + i] =
                tensor->dtype == ST_F16 ? float_from_f16(bits[i]) : float_from_bf16(bits[i]);
        done += some;
    }
    return true;
}

bool st_read_int(const struct st_tensor *tensor, uint64_t index, int64_t *out,
                 struct problem *problem)
{
    int32_t narrow = 0;
    if (tensor->dtype == ST_I64)
        return st_read(tensor, index * sizeof *out, sizeof *out, out, problem);
    const bool good = st_read(tensor, index * sizeof narrow, sizeof narrow, &narrow, problem);
    *out = narrow;
    return good;
}
