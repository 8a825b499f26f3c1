/* Element types of tensors and caches, on the host. */
#ifndef RATPLUS_DTYPE_H
#define RATPLUS_DTYPE_H

#include <ratplus.h>

enum {
    BLOCK_CHANNELS = 32, /* of q8_0 and q4_0 */
    /* q8_0 as a host's tensors have it, where RATP_Q8_0 is as the cache has it. Known to
     * this library alone. */
    DTYPE_Q8_0_BLOCKS = 6
};

/* Bytes of one element; 0 for a dtype that is none, or whose elements share a scale. */
size_t dtype_size(ratp_dtype dtype);
/* Bytes of a row of `count` elements; of q8_0 and q4_0, `count` is a multiple of 32. In
 * the cache a row of q8_0 is all its 8-bit numbers, then a float16 scale for each 32 of
 * them, up to a multiple of 8 bytes: what GGUF puts in blocks of 34 bytes lies so
 * that a kernel can load 8 numbers at once. */
size_t dtype_row_bytes(ratp_dtype dtype, size_t count);
/* The type of the least and greatest K of some tokens, where K is of this type: the same,
 * as they are values of K; of q8_0 and q4_0, rounded to float16. extremes_type of
 * shaders/include/io.glsl is the same. */
ratp_dtype dtype_of_extremes(ratp_dtype dtype);
/* "float32", "float16", "bfloat16", "q8_0", "q4_0". */
const char *dtype_name(ratp_dtype dtype);

float dtype_load(const void *from, ratp_dtype dtype);
/* Rounds to nearest, ties to even. */
void dtype_store(void *to, ratp_dtype dtype, float value);

/* `count` neighbours at once: for q8_0 and q4_0, a row. */
void dtype_load_row(const void *from, ratp_dtype dtype, size_t count, float *to);
/* Not for the types that only a host writes: DTYPE_Q8_0_BLOCKS and RATP_Q4_0. */
void dtype_store_row(void *to, ratp_dtype dtype, size_t count, const float *from);

#endif
