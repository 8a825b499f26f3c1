/* What a cache of q8_0 holds of the rows that it was fed: GGUF's numbers and scales, bit for
 * bit, on every device. */
#include "api_snapshot.h"
#include "../blocks.h"
#include "../random.h"

enum { K_SIZE = 64, V_SIZE = 96, ROWS = 48, STEPS = 40, BLOCK_BYTES = 34 };

struct rows {
    float k[ROWS][KV_HEADS][K_SIZE], v[ROWS][KV_HEADS][V_SIZE];
};

static ratp_cache *open_cache(void)
{
    struct ratp_geometry geometry = {sizeof geometry, 1, QUERY_HEADS, KV_HEADS, K_SIZE,
                                     .value_size = V_SIZE};
    struct ratp_cache_params params = {sizeof params, .geometry = &geometry, .k_dtype = RATP_Q8_0,
                                       .v_dtype = RATP_Q8_0};
    ratp_cache *cache = NULL;
    CHECK_EQUAL(ratp->cache_create(device, &params, &cache), RATP_OK);
    return cache;
}

static void feed(ratp_cache *cache, ratp_seq *seq, struct rows *rows)
{
    static float q[ROWS * QUERY_HEADS * K_SIZE], out[ROWS * QUERY_HEADS * V_SIZE];
    const struct ratp_tensor tensors[] = {{sizeof *tensors, .host = q},
                                          {sizeof *tensors, .host = rows->k},
                                          {sizeof *tensors, .host = rows->v},
                                          {sizeof *tensors, .host = out}};
    struct ratp_attend_io io = {sizeof io, &tensors[0], &tensors[1], &tensors[2],
                                .out = &tensors[3]};
    ratp_step *step = host_step(cache, seq, ROWS);
    CHECK_EQUAL(ratp->step_attend(step, 0, &io), RATP_OK);
    CHECK_EQUAL(ratp->step_commit(&step), RATP_OK);
}

/* A row as the cache has it, against GGUF's blocks of the same channels. */
static void check_row(const unsigned char *row, uint32_t size, const float *values)
{
    unsigned char blocks[V_SIZE / BLOCK_CHANNELS * BLOCK_BYTES];
    blocks_store_row(blocks, DTYPE_Q8_0_BLOCKS, size, values);
    for (uint32_t b = 0; b < size / BLOCK_CHANNELS; b++) {
        const unsigned char *block = blocks + b * BLOCK_BYTES;
        CHECK(memcmp(row + size + 2 * b, block, 2) == 0);
        CHECK(memcmp(row + b * BLOCK_CHANNELS, block + 2, BLOCK_CHANNELS) == 0);
    }
}

static void check_rows(ratp_cache *cache, struct rows *rows)
{
    ratp_seq *seq = host_seq(cache);
    feed(cache, seq, rows);
    struct bytes saved = snapshot_save(seq);
    const size_t k_row = dtype_row_bytes(RATP_Q8_0, K_SIZE), v_row = dtype_row_bytes(RATP_Q8_0, V_SIZE);
    const unsigned char *at = saved.data + saved.size - 4 - ROWS * KV_HEADS * (k_row + v_row);
    for (int head = 0; head < KV_HEADS; head++) {
        for (int t = 0; t < ROWS; t++, at += k_row)
            check_row(at, K_SIZE, rows->k[t][head]);
        for (int t = 0; t < ROWS; t++, at += v_row)
            check_row(at, V_SIZE, rows->v[t][head]);
    }
    free(saved.data);
    CHECK_EQUAL(ratp->seq_destroy(&seq), RATP_OK);
}

/* Of every size that float16 has a scale for. */
static void test_random(void)
{
    static struct rows rows;
    ratp_cache *cache = open_cache();
    struct random r = {3};
    for (int n = 0; n < STEPS; n++) {
        float *values = (float *)&rows;
        for (size_t i = 0; i < sizeof rows / sizeof *values; i++)
            values[i] = ldexpf(random_normal(&r), (int)(i / BLOCK_CHANNELS) % 32 - 14);
        check_rows(cache, &rows);
    }
    snapshot_close(&cache);
}

/* Halves between two numbers, largest sizes of every last bits, and blocks of zeros. */
static void test_halves(void)
{
    static struct rows rows;
    ratp_cache *cache = open_cache();
    float *values = (float *)&rows;
    for (size_t i = 0; i < sizeof rows / sizeof *values; i++) {
        size_t block = i / BLOCK_CHANNELS;
        float scale = block % 3 ? 1 + (float)block * 0x1p-23f : block % 2 ? 1 : 0;
        values[i] = (i % BLOCK_CHANNELS ? (float)((int)(i * 37 % 509) - 254) / 2 : 127) * scale;
    }
    check_rows(cache, &rows);
    snapshot_close(&cache);
}

/* A number that is none makes its whole block NaN; a scale that float16 has not is
 * infinite, or 0 with all of its numbers. */
static void test_limits(void)
{
    static struct rows rows;
    static const float none[] = {INFINITY, -INFINITY, NAN, 9e6f, -1e-7f, 1e-42f};
    ratp_cache *cache = open_cache();
    ratp_seq *seq = host_seq(cache);
    for (int t = 0; t < ROWS; t++)
        for (int c = 0; c < K_SIZE; c++)
            rows.k[t][0][c] = c % 32 == t % 32 ? none[t % 6] : t % 6 > 3 ? 0 : 1;
    feed(cache, seq, &rows);
    struct bytes saved = snapshot_save(seq);
    const size_t k_row = dtype_row_bytes(RATP_Q8_0, K_SIZE), v_row = dtype_row_bytes(RATP_Q8_0, V_SIZE);
    const unsigned char *at = saved.data + saved.size - 4 - ROWS * KV_HEADS * (k_row + v_row);
    for (int t = 0; t < ROWS; t++, at += k_row) {
        float back[K_SIZE];
        dtype_load_row(at, RATP_Q8_0, K_SIZE, back);
        for (int c = 0; c < K_SIZE; c++) {
            bool there = c % 32 == t % 32;
            CHECK(t % 6 < 3 ? isnan(back[c]) : t % 6 == 3 ? !isfinite(back[c]) : back[c] == 0);
            CHECK(t % 6 != 3 || !there || back[c] == INFINITY);
        }
        unsigned char row[K_SIZE * 2];
        dtype_store_row(row, RATP_Q8_0, K_SIZE, rows.k[t][0]);
        CHECK(memcmp(row, at, K_SIZE + K_SIZE / BLOCK_CHANNELS * 2) == 0); /* and a pad */
    }
    free(saved.data);
    CHECK_EQUAL(ratp->seq_destroy(&seq), RATP_OK);
    snapshot_close(&cache);
}

int main(int argc, char **argv)
{
    host_open(argc, argv);
    RUN(test_random);
    RUN(test_halves);
    RUN(test_limits);
    host_close();
    return check_result();
}
