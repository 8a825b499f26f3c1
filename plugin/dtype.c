#include "dtype.h"

#include <string.h>

size_t dtype_size(ratp_dtype dtype)
{
    switch (dtype) {
    case RATP_F32:
        return 4;
    case RATP_F16:
    case RATP_BF16:
        return 2;
    default:
        return 0;
    }
}

const char *dtype_name(ratp_dtype dtype)
{
    switch (dtype) {
    case RATP_F32:
        return "float32";
    case RATP_F16:
        return "float16";
    case RATP_BF16:
        return "bfloat16";
    default:
        return "unknown";
    }
}

static inline float from_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint32_t to_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* The exponent's bias is put right by a product, which subnormals survive too:
 * no branches, so that loops over it vectorise. */
static inline float half_to_float(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000) << 16;
    uint32_t magnitude = half & 0x7fff;
    uint32_t special = magnitude > 0x7bff ? 0x7f800000u : 0;
    return from_bits(to_bits(from_bits(magnitude << 13) * 0x1p112f) | special | sign);
}

static inline uint16_t float_to_half(float value)
{
    uint32_t bits = to_bits(value);
    uint32_t sign = bits >> 16 & 0x8000;
    uint32_t magnitude = bits & 0x7fffffff;
    uint32_t half;
    if (magnitude > 0x7f800000)
        half = 0x7e00;
    else if (magnitude >= 0x47800000) /* 65536 */
        half = 0x7c00;
    else if (magnitude < 0x38800000) /* 2^-14: adding 0.5 rounds to the subnormals' 2^-24 */
        half = to_bits(from_bits(magnitude) + 0.5f) - 0x3f000000;
    else
        half = (magnitude + 0xfff + (magnitude >> 13 & 1) - 0x38000000) >> 13;
    return (uint16_t)(sign | half);
}

static inline float bfloat_to_float(uint16_t bfloat)
{
    return from_bits((uint32_t)bfloat << 16);
}

static inline uint16_t float_to_bfloat(float value)
{
    uint32_t bits = to_bits(value);
    if ((bits & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

void dtype_load_row(const void *from, ratp_dtype dtype, size_t count, float *restrict to)
{
    const uint16_t *words = from;
    switch (dtype) {
    case RATP_F16:
        for (size_t i = 0; i < count; i++)
            to[i] = half_to_float(words[i]);
        break;
    case RATP_BF16:
        for (size_t i = 0; i < count; i++)
            to[i] = bfloat_to_float(words[i]);
        break;
    default:
        memcpy(to, from, count * sizeof *to);
        break;
    }
}

void dtype_store_row(void *to, ratp_dtype dtype, size_t count, const float *restrict from)
{
    uint16_t *words = to;
    switch (dtype) {
    case RATP_F16:
        for (size_t i = 0; i < count; i++)
            words[i] = float_to_half(from[i]);
        break;
    case RATP_BF16:
        for (size_t i = 0; i < count; i++)
            words[i] = float_to_bfloat(from[i]);
        break;
    default:
        memcpy(to, from, count * sizeof *from);
        break;
    }
}

float dtype_load(const void *from, ratp_dtype dtype)
{
    float value;
    dtype_load_row(from, dtype, 1, &value);
    return value;
}

void dtype_store(void *to, ratp_dtype dtype, float value)
{
    dtype_store_row(to, dtype, 1, &value);
}
