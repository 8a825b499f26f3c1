/* Element types of tensors and caches, on the host. */
#ifndef RATPLUS_DTYPE_H
#define RATPLUS_DTYPE_H

#include <ratplus.h>

/* Bytes of one element; 0 for a dtype that is none. */
size_t dtype_size(ratp_dtype dtype);
/* "float32", "float16", "bfloat16". */
const char *dtype_name(ratp_dtype dtype);

float dtype_load(const void *from, ratp_dtype dtype);
/* Rounds to nearest, ties to even. */
void dtype_store(void *to, ratp_dtype dtype, float value);

/* `count` neighbours at once. */
void dtype_load_row(const void *from, ratp_dtype dtype, size_t count, float *to);
void dtype_store_row(void *to, ratp_dtype dtype, size_t count, const float *from);

#endif
