/* Rows of GGUF's q8_0 and q4_0, which the library reads and hosts write. */
#ifndef TESTS_BLOCKS_H
#define TESTS_BLOCKS_H

#include "../plugin/dtype.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

/* `dtype`: DTYPE_Q8_0_BLOCKS or RATP_Q4_0. `count` is a multiple of 32. */
static inline void blocks_store_row(void *to, ratp_dtype dtype, size_t count, const float *from)
{
    enum { HALF = BLOCK_CHANNELS / 2 };
    bool bytes = dtype == DTYPE_Q8_0_BLOCKS;
    int most = bytes ? 127 : 7; /* and -8, which the largest becomes */
    unsigned char *block = to;
    for (size_t n = 0; n < count; n += BLOCK_CHANNELS) {
        float largest = 0;
        for (size_t i = 0; i < BLOCK_CHANNELS; i++)
            largest = fabsf(from[n + i]) > fabsf(largest) ? from[n + i] : largest;
        /* A block that has a number that is not finite has none. */
        for (size_t i = 0; i < BLOCK_CHANNELS; i++)
            largest = isfinite(from[n + i]) ? largest : NAN;
        dtype_store(block, RATP_F16, bytes ? fabsf(largest) / 127 : largest / -8);
        float scale = dtype_load(block, RATP_F16);
        block += 2;
        for (size_t i = 0; i < BLOCK_CHANNELS; i++) {
            int number = scale < 0 || scale > 0 ? (int)lroundf(from[n + i] / scale) : 0;
            number = number < most ? number : most;
            if (bytes)
                block[i] = (unsigned char)number;
            else if (i < HALF)
                block[i] = (unsigned char)(number + 8);
            else
                block[i - HALF] |= (unsigned char)((number + 8) << 4);
        }
        block += bytes ? BLOCK_CHANNELS : HALF;
    }
}

#endif
