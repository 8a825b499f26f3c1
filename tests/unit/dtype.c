/* Every float16 and bfloat16 value, and the rounding between them; blocks of 8-bit numbers. */
#include "../check.h"

#include "../../plugin/dtype.h"
#include "../blocks.h"
#include "../random.h"

#include <math.h>

static double half_value(uint16_t bits)
{
    int exponent = bits >> 10 & 31, fraction = bits & 1023;
    double sign = bits & 0x8000 ? -1 : 1;
    if (exponent == 31)
        return fraction ? (double)NAN : sign * (double)INFINITY;
    return sign * (exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24));
}

static double bfloat_value(uint16_t bits)
{
    int exponent = bits >> 7 & 255, fraction = bits & 127;
    double sign = bits & 0x8000 ? -1 : 1;
    if (exponent == 255)
        return fraction ? (double)NAN : sign * (double)INFINITY;
    return sign * (exponent ? ldexp(128 + fraction, exponent - 134) : ldexp(fraction, -133));
}

static bool same(double a, double b)
{
    return isnan(a) ? isnan(b) : a == b && !signbit(a) == !signbit(b);
}

static void test_all(ratp_dtype dtype, double (*value)(uint16_t))
{
    int wrong_load = 0, wrong_store = 0, wrong_middle = 0;
    for (uint32_t bits = 0; bits < 0x10000; bits++) {
        uint16_t word = (uint16_t)bits, stored;
        double wanted = value(word);
        float got = dtype_load(&word, dtype);
        wrong_load += !same((double)got, wanted);
        dtype_store(&stored, dtype, got);
        wrong_store += isnan(got) ? !isnan(dtype_load(&stored, dtype)) : stored != word;

        /* Half way to the next value: to the even one; a little more: up. */
        double next = value((uint16_t)(word + 1));
        if ((word & 0x7fff) == 0x7fff || isnan(wanted) || isinf(wanted) || isinf(next))
            continue;
        float middle = (float)((wanted + next) / 2);
        if ((double)middle != (wanted + next) / 2)
            continue;
        dtype_store(&stored, dtype, middle);
        wrong_middle += stored != (word & 1 ? word + 1 : word);
        dtype_store(&stored, dtype, nextafterf(middle, (float)next));
        wrong_middle += stored != word + 1;
    }
    CHECK_EQUAL(wrong_load, 0);
    CHECK_EQUAL(wrong_store, 0);
    CHECK_EQUAL(wrong_middle, 0);
}

static void test_half(void)
{
    test_all(RATP_F16, half_value);
}

static void test_bfloat(void)
{
    test_all(RATP_BF16, bfloat_value);
}

static void test_overflow(void)
{
    uint16_t stored;
    dtype_store(&stored, RATP_F16, 65519.0f);
    CHECK_EQUAL(stored, 0x7bff);
    dtype_store(&stored, RATP_F16, 65520.0f);
    CHECK_EQUAL(stored, 0x7c00);
    dtype_store(&stored, RATP_F16, -1e30f);
    CHECK_EQUAL(stored, 0xfc00);
    dtype_store(&stored, RATP_F16, 0x1p-26f);
    CHECK_EQUAL(stored, 0);
}

static void test_rows(void)
{
    float values[5] = {1, -2, 0.5f, 3, -0.25f}, back[5];
    uint16_t words[5];
    for (ratp_dtype dtype = RATP_F16; dtype <= RATP_BF16; dtype++) {
        dtype_store_row(words, dtype, 5, values);
        dtype_load_row(words, dtype, 5, back);
        CHECK(memcmp(values, back, sizeof back) == 0);
        CHECK_EQUAL(dtype_size(dtype), 2);
    }
    CHECK_EQUAL(dtype_size(RATP_F32), 4);
    CHECK_EQUAL(dtype_size(99), 0);
}

static void test_blocks(void)
{
    enum { COUNT = 96 };
    float values[COUNT], back[COUNT];
    uint64_t row[(COUNT + 8) / sizeof(uint64_t)]; /* 3 scales */
    CHECK_EQUAL(dtype_row_bytes(RATP_Q8_0, COUNT), sizeof row);
    CHECK_EQUAL(dtype_row_bytes(RATP_Q8_0, 32), 40);
    CHECK_EQUAL(dtype_row_bytes(RATP_Q8_0, 128), 136);
    CHECK_EQUAL(dtype_row_bytes(RATP_F16, 40), 80);
    CHECK_EQUAL(dtype_size(RATP_Q8_0), 0);
    for (int i = 0; i < COUNT; i++)
        values[i] = (float)((i * 37) % 65 - 32) * (i < 32 ? 1.0f : i < 64 ? 1e-4f : 0);
    dtype_store_row(row, RATP_Q8_0, COUNT, values);
    dtype_load_row(row, RATP_Q8_0, COUNT, back);
    for (int i = 0; i < COUNT; i++) {
        /* Half a step of the block, and the rounding of its scale, of which each of the
         * number's steps has its part. */
        float step = i < 32 ? 32.0f / 127 : i < 64 ? 32e-4f / 127 : 0;
        float rounding = fmaxf(step * 0x1p-11f, 0x1p-25f);
        float steps = step > 0 ? fabsf(values[i]) / step + 0.5f : 0;
        CHECK(fabsf(back[i] - values[i]) <= 0.5001f * step + rounding * steps);
    }
    /* A number that is none spoils its block and no other. */
    static const float none[] = {INFINITY, -INFINITY, NAN};
    for (int n = 0; n < 3; n++) {
        values[n] = none[n];
        dtype_store_row(row, RATP_Q8_0, COUNT, values);
        dtype_load_row(row, RATP_Q8_0, COUNT, back);
        for (int i = 0; i < 32; i++)
            CHECK(isnan(back[i]) && isfinite(back[32 + i]) && back[64 + i] == 0);
        values[n] = 1;
    }
    /* A scale beyond float16 is infinite, one below it 0. */
    for (int i = 0; i < COUNT; i++)
        values[i] = i < 32 ? 9e6f : i < 64 ? -1e-7f : 1e-42f;
    dtype_store_row(row, RATP_Q8_0, COUNT, values);
    dtype_load_row(row, RATP_Q8_0, COUNT, back);
    CHECK(isinf(back[0]) && back[32] == 0 && back[64] == 0);
    /* The small ones beside such a number are no numbers either. */
    for (int i = 0; i < 32; i++)
        values[i] = i == 5 ? 1e7f : 1;
    dtype_store_row(row, RATP_Q8_0, COUNT, values);
    dtype_load_row(row, RATP_Q8_0, COUNT, back);
    for (int i = 0; i < 32; i++)
        CHECK(!isfinite(back[i]));
}

/* The same values as GGUF's blocks have, and the same numbers. */
static void test_as_gguf(void)
{
    enum { COUNT = 64, ROWS = 20000 };
    struct random r = {7};
    for (int n = 0; n < ROWS; n++) {
        float values[COUNT], back[COUNT], wanted[COUNT];
        uint64_t row[(COUNT + 8) / sizeof(uint64_t)];
        uint8_t blocks[2 * 34];
        for (int i = 0; i < COUNT; i++) {
            values[i] = ldexpf(random_normal(&r), (int)random_in(&r, 0, 3) - n % 14);
            /* Whole and half steps, when 127 is the largest. */
            values[i] = n % 4 ? values[i] : i % 32 ? (float)((int)(values[i] * 200) % 254) / 2 : 127;
        }
        dtype_store_row(row, RATP_Q8_0, COUNT, values);
        dtype_load_row(row, RATP_Q8_0, COUNT, back);
        blocks_store_row(blocks, DTYPE_Q8_0_BLOCKS, COUNT, values);
        dtype_load_row(blocks, DTYPE_Q8_0_BLOCKS, COUNT, wanted);
        CHECK(memcmp(back, wanted, sizeof back) == 0);
        CHECK(memcmp(row, blocks + 2, 32) == 0 &&
              memcmp((uint8_t *)row + 32, blocks + 34 + 2, 32) == 0);
    }
}

/* As GGUF has them. */
static void test_host_blocks(void)
{
    enum { COUNT = 64 };
    uint8_t eight[2 * 34] = {0, 0x38, 1, 0xff, 127, 0x80}, four[2 * 18] = {0, 0xbc, 0x0f, 0xf0, 0x98};
    float back[COUNT];
    CHECK_EQUAL(dtype_row_bytes(DTYPE_Q8_0_BLOCKS, COUNT), sizeof eight);
    CHECK_EQUAL(dtype_row_bytes(RATP_Q4_0, COUNT), sizeof four);
    CHECK_EQUAL(dtype_size(DTYPE_Q8_0_BLOCKS), 0);
    CHECK_EQUAL(dtype_size(RATP_Q4_0), 0);
    eight[35] = 0x40; /* scale 2 */
    eight[34 + 2 + 31] = 0xfd;
    dtype_load_row(eight, DTYPE_Q8_0_BLOCKS, COUNT, back);
    CHECK(back[0] == 0.5f && back[1] == -0.5f && back[2] == 63.5f && back[3] == -64);
    CHECK(back[4] == 0 && back[32] == 0 && back[63] == -6);
    four[19] = 0x40;
    four[18 + 2 + 15] = 0x7c;
    dtype_load_row(four, RATP_Q4_0, COUNT, back); /* the first scale is -1 */
    CHECK(back[0] == -7 && back[16] == 8 && back[1] == 8 && back[17] == -7);
    CHECK(back[2] == 0 && back[18] == -1 && back[3] == 8 && back[31] == 8);
    CHECK(back[32] == -16 && back[47] == 8 && back[63] == -2);
}

int main(void)
{
    RUN(test_half);
    RUN(test_bfloat);
    RUN(test_overflow);
    RUN(test_rows);
    RUN(test_blocks);
    RUN(test_as_gguf);
    RUN(test_host_blocks);
    return check_result();
}
