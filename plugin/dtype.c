#include "dtype.h"

#include <math.h>
#include <string.h>

enum {
    Q8_MOST = 127,
    SCALE_BYTES = 2, /* before the numbers of a host's block */
    Q8_BLOCK_BYTES = SCALE_BYTES + BLOCK_CHANNELS,
    Q4_BLOCK_BYTES = SCALE_BYTES + BLOCK_CHANNELS / 2,
    Q4_ZERO = 8 /* the four bits of the number 0 */
};

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

static size_t q8_scales_bytes(size_t count)
{
    return (count / BLOCK_CHANNELS * sizeof(uint16_t) + 3) / 4 * 4;
}

size_t dtype_row_bytes(ratp_dtype dtype, size_t count)
{
    switch (dtype) {
    case RATP_Q8_0:
        return (count + q8_scales_bytes(count) + 7) / 8 * 8;
    case RATP_Q4_0:
        return count / BLOCK_CHANNELS * Q4_BLOCK_BYTES;
    case DTYPE_Q8_0_BLOCKS:
        return count / BLOCK_CHANNELS * Q8_BLOCK_BYTES;
    default:
        return count * dtype_size(dtype);
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
    case RATP_Q8_0:
    case DTYPE_Q8_0_BLOCKS:
        return "q8_0";
    case RATP_Q4_0:
        return "q4_0";
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

static void load_q8_row(const int8_t *from, size_t count, float *restrict to)
{
    for (size_t block = 0; block < count / BLOCK_CHANNELS; block++) {
        uint16_t half;
        memcpy(&half, from + count + block * sizeof half, sizeof half);
        float scale = half_to_float(half);
        for (size_t i = block * BLOCK_CHANNELS; i < (block + 1) * BLOCK_CHANNELS; i++)
            to[i] = scale * (float)from[i];
    }
}

static float load_scale(const uint8_t *block)
{
    uint16_t half;
    memcpy(&half, block, sizeof half);
    return half_to_float(half);
}

static void load_q8_blocks(const uint8_t *from, size_t count, float *restrict to)
{
    for (; count; count -= BLOCK_CHANNELS, from += Q8_BLOCK_BYTES, to += BLOCK_CHANNELS) {
        const int8_t *numbers = (const int8_t *)from + SCALE_BYTES;
        float scale = load_scale(from);
        for (size_t i = 0; i < BLOCK_CHANNELS; i++)
            to[i] = scale * (float)numbers[i];
    }
}

static void load_q4_blocks(const uint8_t *from, size_t count, float *restrict to)
{
    for (; count; count -= BLOCK_CHANNELS, from += Q4_BLOCK_BYTES, to += BLOCK_CHANNELS) {
        const uint8_t *numbers = from + SCALE_BYTES;
        float scale = load_scale(from);
        for (size_t i = 0; i < BLOCK_CHANNELS / 2; i++) {
            to[i] = scale * (float)((numbers[i] & 15) - Q4_ZERO);
            to[i + BLOCK_CHANNELS / 2] = scale * (float)((numbers[i] >> 4) - Q4_ZERO);
        }
    }
}

static void store_q8_row(int8_t *to, size_t count, const float *restrict from)
{
    memset(to + count, 0, q8_scales_bytes(count));
    for (size_t block = 0; block < count / BLOCK_CHANNELS; block++) {
        const float *x = from + block * BLOCK_CHANNELS;
        /* Bits, of which the greatest are those that are not finite: their scale is NaN. */
        uint32_t most = 0;
        for (size_t i = 0; i < BLOCK_CHANNELS; i++) {
            uint32_t size = to_bits(x[i]) & 0x7fffffff;
            most = size > most ? size : most;
        }
        uint16_t half = most < 0x7f800000 ? float_to_half(from_bits(most) / Q8_MOST) : 0x7e00;
        memcpy(to + count + block * sizeof half, &half, sizeof half);
        float scale = half_to_float(half);
        float inverse = scale > 0 ? 1 / scale : 0;
        for (size_t i = 0; i < BLOCK_CHANNELS; i++) {
            float q = inverse > 0 ? rintf(x[i] * inverse) : 0;
            q = q > -Q8_MOST ? q : -Q8_MOST;
            to[block * BLOCK_CHANNELS + i] = (int8_t)(q < Q8_MOST ? q : Q8_MOST);
        }
    }
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
    case RATP_Q8_0:
        load_q8_row(from, count, to);
        break;
    case RATP_Q4_0:
        load_q4_blocks(from, count, to);
        break;
    case DTYPE_Q8_0_BLOCKS:
        load_q8_blocks(from, count, to);
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
    case RATP_Q8_0:
        store_q8_row(to, count, from);
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
