#include "safetensors.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* What the format's own readers accept at most. */
#define MAX_HEADER 100000000u
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

static bool parse_tensor(const struct safetensors *file, const cJSON *item, uint64_t data_start,
                         struct st_tensor *out, struct problem *problem)
{
    const char *path = file->path, *name = item->string;
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
    *out = (struct st_tensor){.name = name, .dtype = (enum st_dtype)type, .count = 1};

    const uint64_t room = file->map_size - data_start;
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
                           "file's %llu data bytes",
                           path, name, (unsigned long long)room);
    if (end - begin != out->bytes)
        return problem_set(problem,
                           "%s: tensor \"%.80s\" has %llu bytes of data, its shape needs %llu",
                           path, name, (unsigned long long)(end - begin),
                           (unsigned long long)out->bytes);
    out->data = (const char *)file->map + data_start + begin;
    return true;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct st_tensor *)a)->name, ((const struct st_tensor *)b)->name);
}

static bool parse_header(struct safetensors *file, struct problem *problem)
{
    const char *path = file->path;
    uint64_t header_size = 0;
    if (file->map_size < 8)
        return problem_set(problem, "%s: too short for a safetensors file", path);
    for (int i = 7; i >= 0; i--)
        header_size = header_size << 8 | ((const uint8_t *)file->map)[i];
    if (header_size > MAX_HEADER || header_size > file->map_size - 8)
        return problem_set(problem,
                           "%s: the header's length (%llu) does not fit the file; not safetensors?",
                           path, (unsigned long long)header_size);

    const char *text = (const char *)file->map + 8;
    file->header = cJSON_ParseWithLength(text, header_size);
    if (!cJSON_IsObject(file->header))
        return problem_set(problem, "%s: the header is not a JSON object", path);
    const int entries = cJSON_GetArraySize(file->header);
    file->tensors = calloc((size_t)entries + 1, sizeof *file->tensors);
    if (!file->tensors)
        return problem_set(problem, "%s: out of memory for %d tensors", path, entries);

    const cJSON *item;
    cJSON_ArrayForEach(item, file->header)
    {
        if (strcmp(item->string, "__metadata__") == 0)
            continue;
        if (!parse_tensor(file, item, 8 + header_size, &file->tensors[file->count], problem))
            return false;
        file->count++;
    }
    qsort(file->tensors, file->count, sizeof *file->tensors, by_name);
    for (uint32_t i = 1; i < file->count; i++)
        if (strcmp(file->tensors[i - 1].name, file->tensors[i].name) == 0)
            return problem_set(problem, "%s: tensor \"%.80s\" is there twice", path,
                               file->tensors[i].name);
    return true;
}

bool safetensors_open(struct safetensors *file, const char *path, struct problem *problem)
{
    *file = (struct safetensors){.path = path};
    struct stat info;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return problem_set(problem, "%s: %s", path, strerror(errno));
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode) || info.st_size <= 0) {
        close(fd);
        return problem_set(problem, "%s: not a file with data in it", path);
    }
    void *map = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    const int map_errno = errno;
    close(fd);
    if (map == MAP_FAILED)
        return problem_set(problem, "%s: cannot be mapped: %s", path, strerror(map_errno));
    file->map = map;
    file->map_size = (size_t)info.st_size;
    if (parse_header(file, problem))
        return true;
    safetensors_close(file);
    return false;
}

void safetensors_close(struct safetensors *file)
{
    free(file->tensors);
    cJSON_Delete(file->header);
    if (file->map)
        munmap(file->map, file->map_size);
    *file = (struct safetensors){0};
}

const struct st_tensor *safetensors_find(const struct safetensors *file, const char *name)
{
    const struct st_tensor key = {.name = name};
    if (file->count == 0)
        return NULL;
    return bsearch(&key, file->tensors, file->count, sizeof *file->tensors, by_name);
}

const char *safetensors_metadata(const struct safetensors *file, const char *key)
{
    const cJSON *metadata = cJSON_GetObjectItemCaseSensitive(file->header, "__metadata__");
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

void st_read_f32(const struct st_tensor *tensor, uint64_t first, uint64_t count, float *out)
{
    const char *data = (const char *)tensor->data + first * dtypes[tensor->dtype].size;
    if (tensor->dtype == ST_F32) {
        memcpy(out, data, count * sizeof *out);
        return;
    }
    for (uint64_t i = 0; i < count; i++) {
        uint16_t bits;
        memcpy(&bits, data + i * sizeof bits, sizeof bits);
        out[i] = tensor->dtype == ST_F16 ? float_from_f16(bits) : float_from_bf16(bits);
    }
}

int64_t st_read_int(const struct st_tensor *tensor, uint64_t index)
{
    const char *data = (const char *)tensor->data + index * dtypes[tensor->dtype].size;
    if (tensor->dtype == ST_I64) {
        int64_t value;
        memcpy(&value, data, sizeof value);
        return value;
    }
    int32_t value;
    memcpy(&value, data, sizeof value);
    return value;
}
