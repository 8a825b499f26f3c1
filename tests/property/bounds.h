/* How far from the naive program the answers of random worlds may be. */
#ifndef RATPLUS_TESTS_BOUNDS_H
#define RATPLUS_TESTS_BOUNDS_H

#include <math.h>
#include <ratplus.h>
#include <stddef.h>

/* Of values that went through this type, as `distance` has them. */
static inline double dtype_bound(ratp_dtype dtype)
{
    return dtype == RATP_F32 ? 2e-5 : dtype == RATP_F16 ? 1e-3 : dtype == RATP_BF16 ? 8e-3 : 1e-2;
}

/* The root of the summed squares of the errors, over that of what is wanted. */
static inline double distance(const float *got, const double *want, size_t count)
{
    double error = 0, size = 0;
    for (size_t i = 0; i < count; i++) {
        error += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
        size += want[i] * want[i];
    }
    return sqrt(error) / (sqrt(size) + 1e-30);
}

#endif
