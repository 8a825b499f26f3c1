/* Reads safetensors files (https://huggingface.co/docs/safetensors): eight
 * bytes with the header's length, a JSON header, then the tensors' data. The
 * file is mapped, and nothing in it is trusted. */
#ifndef SAMPLES_SAFETENSORS_H
#define SAMPLES_SAFETENSORS_H

#include "problem.h"

#include <stddef.h>
#include <stdint.h>

struct cJSON;

enum st_dtype { ST_F32, ST_F16, ST_BF16, ST_I32, ST_I64 };

#define ST_MAX_DIMS 8

struct st_tensor {
    const char *name; /* lives as long as the file is open */
    enum st_dtype dtype;
    uint32_t dims;
    uint64_t shape[ST_MAX_DIMS];
    uint64_t count;   /* elements */
    uint64_t bytes;
    const void *data; /* in the mapping; may be unaligned for its type */
};

struct safetensors {
    const char *path; /* as given to safetensors_open, not copied */
    struct st_tensor *tensors; /* ordered by name */
    uint32_t count;
    struct cJSON *header;
    void *map;
    size_t map_size;
};

bool safetensors_open(struct safetensors *file, const char *path, struct problem *problem);
void safetensors_close(struct safetensors *file);

/* NULL when there is none of that name. */
const struct st_tensor *safetensors_find(const struct safetensors *file, const char *name);
/* A string of the header's __metadata__, or NULL. */
const char *safetensors_metadata(const struct safetensors *file, const char *key);

const char *st_dtype_name(enum st_dtype dtype);
uint32_t st_dtype_size(enum st_dtype dtype);
/* Elements first to first + count - 1 as float32. They must exist, and the
 * tensor must not be of an integer type. */
void st_read_f32(const struct st_tensor *tensor, uint64_t first, uint64_t count, float *out);
/* One element of an I32 or I64 tensor. */
int64_t st_read_int(const struct st_tensor *tensor, uint64_t index);

float float_from_f16(uint16_t bits);
float float_from_bf16(uint16_t bits);

#endif
