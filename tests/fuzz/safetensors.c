/* The safetensors reader of the samples. What it accepts lies inside the file. */
#include "fuzz.h"

#include "file.h"
#include "folder.h"
#include "safetensors.h"

static char folder[FOLDER_ROOM], path[FOLDER_ROOM + 32];
static bool started;
static unsigned long accepted, refused, tensors;

bool fuzz_start(void)
{
    folder_make(folder);
    snprintf(path, sizeof path, "%s/file", folder);
    return started = true;
}

void fuzz_end(void)
{
    unlink(path);
    rmdir(folder);
}

size_t fuzz_seed(size_t index, uint8_t *out)
{
    static const struct {
        const char *header;
        size_t data;
    } seeds[] = {
        {"{}", 0},
        {"{\"__metadata__\":{\"key\":\"value\"},"
         "\"b\":{\"dtype\":\"F16\",\"shape\":[2,3],\"data_offsets\":[0,12]},"
         "\"a\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[12,20]},"
         "\"none\":{\"dtype\":\"F32\",\"shape\":[0,4],\"data_offsets\":[20,20]}}", 20},
        {"{\"x\":{\"dtype\":\"BF16\",\"shape\":[1,2,1,2,1,2,1,2],\"data_offsets\":[16,48]},"
         "\"y\":{\"dtype\":\"I32\",\"shape\":[4],\"data_offsets\":[0,16]}}   ", 48},
        {"{\"f\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[4,16]},"
         "\"f\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[4,16]}}", 16},
    };
    if (index >= sizeof seeds / sizeof *seeds)
        return 0;
    const uint64_t length = strlen(seeds[index].header);
    memcpy(out, &length, sizeof length);
    memcpy(out + sizeof length, seeds[index].header, length);
    for (size_t i = 0; i < seeds[index].data; i++)
        out[sizeof length + length + i] = (uint8_t)(37 * i);
    return sizeof length + length + seeds[index].data;
}

static void check_tensor(const struct safetensors *file, const struct st_tensor *t, size_t size,
                         size_t *bytes)
{
    struct problem problem;
    uint64_t count = 1;
    int64_t whole;
    float values[16];
    REQUIRE(t->dims <= ST_MAX_DIMS);
    for (uint32_t i = 0; i < t->dims; i++)
        count *= t->shape[i];
    REQUIRE(t->count == count && t->bytes == count * st_dtype_size(t->dtype));
    REQUIRE(t->offset >= 8 && t->offset <= size && t->bytes <= size - t->offset);
    REQUIRE(safetensors_find(file, t->name) == t);
    for (uint64_t i = 0; i < count; i += 16) {
        const uint64_t some = count - i < 16 ? count - i : 16;
        if (t->dtype == ST_I32 || t->dtype == ST_I64)
            REQUIRE(st_read_int(t, i + some - 1, &whole, &problem));
        else
            REQUIRE(st_read_f32(t, i, some, values, &problem));
    }
    *bytes += t->bytes;
    tensors++;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct safetensors file;
    struct problem problem = {""};
    if (!started && !fuzz_start())
        return 0;
    REQUIRE(file_write(path, data, size, &problem));
    if (!safetensors_open(&file, path, &problem)) {
        REQUIRE(strncmp(problem.text, path, strlen(path)) == 0 && !file.parts);
        refused++;
        return 0;
    }
    REQUIRE(file.part_count == 1 && file.parts[0].file.size == size);
    /* Every byte behind the header belongs to one tensor. */
    uint64_t header = 0;
    size_t bytes = 0;
    memcpy(&header, data, sizeof header);
    for (uint32_t i = 0; i < file.count; i++)
        check_tensor(&file, &file.tensors[i], size, &bytes);
    REQUIRE(8 + header + bytes == size);
    safetensors_metadata(&file, "key");
    REQUIRE(!safetensors_find(&file, "__metadata__"));
    safetensors_close(&file);
    accepted++;
    return 0;
}

bool fuzz_report(void)
{
    printf("%lu files with %lu tensors; %lu refused\n", accepted, tensors, refused);
    return accepted && tensors && refused;
}
