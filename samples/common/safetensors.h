/* Reads safetensors files (https://huggingface.co/docs/safetensors): eight
 * bytes with the header's length, a JSON header, then the tensors' data. Nothing
 * in a file is trusted. Files are read where a value is wanted, and not mapped:
 * a file that somebody cuts short is then a problem that is told, not a signal
 * that ends the process. */
#ifndef SAMPLES_SAFETENSORS_H
#define SAMPLES_SAFETENSORS_H

#include "file.h"

struct cJSON;

enum st_dtype { ST_F32, ST_F16, ST_BF16, ST_I32, ST_I64 };

#define ST_MAX_DIMS 8

struct st_tensor {
    const char *name; /* lives as long as the file is open */
    enum st_dtype dtype;
    uint32_t dims;
    uint64_t shape[ST_MAX_DIMS];
    uint64_t count; /* elements */
    uint64_t bytes;
    const struct file *file;
    uint64_t offset; /* where its data begins in the file */
};

/* The tensors of one file, or of the files that an index names. */
struct safetensors {
    char *path;            /* of the file or of the index */
    struct st_part *parts; /* the files, ordered as the index names them first */
    uint32_t part_count;
    struct st_tensor *tensors; /* ordered by name */
    uint32_t count;
};

struct st_part {
    char *path;
    struct file file;
    struct cJSON *header;
};

bool safetensors_open(struct safetensors *weights, const char *path, struct problem *problem);
/* model.safetensors of a folder or, where there is none, the files that its
 * model.safetensors.index.json names. */
bool safetensors_open_folder(struct safetensors *weights, const char *folder,
                             struct problem *problem);
void safetensors_close(struct safetensors *weights);

/* NULL when there is none of that name. */
const struct st_tensor *safetensors_find(const struct safetensors *weights, const char *name);
/* A string of the first file's __metadata__, or NULL. */
const char *safetensors_metadata(const struct safetensors *weights, const char *key);

const char *st_dtype_name(enum st_dtype dtype);
uint32_t st_dtype_size(enum st_dtype dtype);
/* Bytes of the tensor's data, from its byte `first`. They must exist. */
bool st_read(const struct st_tensor *tensor, uint64_t first, size_t size, void *out,
             struct problem *problem);
/* Elements first to first + count - 1 as float32. They must exist, and the
 * tensor must not be of an integer type. */
bool st_read_f32(const struct st_tensor *tensor, uint64_t first, uint64_t count, float *out,
                 struct problem *problem);
/* One element of an I32 or I64 tensor. */
bool st_read_int(const struct st_tensor *tensor, uint64_t index, int64_t *out,
                 struct problem *problem);

float float_from_f16(uint16_t bits);
float float_from_bf16(uint16_t bits);

/* For safetensors_open_folder: adds the tensors of one file, which becomes the
 * last part. */
bool safetensors_add(struct safetensors *weights, const char *path, struct problem *problem);
/* Orders the tensors, and refuses a name that is there twice. */
bool safetensors_order(struct safetensors *weights, struct problem *problem);

#endif
