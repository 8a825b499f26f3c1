#include "api_external_select.h"

#include <stdlib.h>

enum { BLOCK = 32 }; /* channels of q8_0 and q4_0 that share a scale */

static bool in_blocks(ratp_dtype dtype)
{
    return dtype == RATP_Q8_0 || dtype == RATP_Q4_0;
}

/* Bytes of so many channels; of q8_0 and q4_0, of whole blocks. */
static size_t bytes_of(ratp_dtype dtype, size_t channels)
{
    if (in_blocks(dtype))
        return channels / BLOCK * (dtype == RATP_Q8_0 ? 34 : 18);
    return channels * (dtype == RATP_F32 ? 4 : 2);
}

/* ---- Types ---- */

static uint32_t bits_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static float float_of(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* The scale of a channel's block: a power of two, unlike its neighbours', so that float16
 * has the block's numbers too. */
static float scale_of(ratp_dtype dtype, size_t channel)
{
    return (dtype == RATP_Q8_0 ? 0x1p-5f : 0x1p-1f) / (float)(1 << channel / BLOCK % 2);
}

/* Cuts the numbers to what the type has: nothing that follows rounds them again. `channel`
 * is the number's place in its row. */
static float cut(float x, ratp_dtype dtype, size_t channel)
{
    if (in_blocks(dtype)) {
        float scale = scale_of(dtype, channel), most = dtype == RATP_Q8_0 ? 127 : 7;
        return fmaxf(-most, fminf(roundf(x / scale), most)) * scale;
    }
    uint32_t drop = dtype == RATP_BF16 ? 16 : dtype == RATP_F16 ? 13 : 0;
    if (dtype == RATP_F16 && fabsf(x) < 1e-4f)
        return 0; /* float16 has them, as numbers without a leading 1 */
    return float_of(bits_of(x) >> drop << drop);
}

static void store(unsigned char *to, float x, ratp_dtype dtype)
{
    uint32_t bits = bits_of(x);
    uint16_t half = (uint16_t)(bits >> 16);
    if (dtype == RATP_F32) {
        memcpy(to, &x, sizeof x);
        return;
    }
    if (dtype == RATP_F16) {
        uint32_t exponent = bits >> 23 & 0xff;
        half = (uint16_t)(bits >> 16 & 0x8000);
        if (exponent == 0xff)
            half |= 0x7e00;
        else if (exponent)
            half |= (uint16_t)((exponent - 112) << 10 | (bits >> 13 & 0x3ff));
    }
    memcpy(to, &half, sizeof half);
}

/* Channel c of a row of blocks; its scale with the first of them. */
static void store_in_block(unsigned char *row, float x, ratp_dtype dtype, size_t c)
{
    unsigned char *block = row + bytes_of(dtype, c / BLOCK * BLOCK);
    const size_t n = c % BLOCK;
    const float scale = isnan(x) ? NAN : scale_of(dtype, c);
    const int number = isnan(x) ? 0 : (int)(x / scale);
    if (n == 0)
        store(block, scale, RATP_F16);
    if (dtype == RATP_Q8_0)
        block[2 + n] = (unsigned char)number;
    else if (n < BLOCK / 2)
        block[2 + n] = (unsigned char)(number + 8);
    else
        block[2 + n - BLOCK / 2] |= (unsigned char)((number + 8) << 4);
}

static void store_row(unsigned char *row, const float *from, ratp_dtype dtype, size_t channels)
{
    for (size_t c = 0; c < channels; c++)
        if (in_blocks(dtype))
            store_in_block(row, from[c], dtype, c);
        else
            store(row + bytes_of(dtype, c), from[c], dtype);
}

/* ---- Buffers ---- */

static ratp_buffer *make(uint64_t size)
{
    const struct ratp_buffer_params params = {.struct_size = sizeof params,
                                              .size = (size + 3) / 4 * 4}; /* whole words */
    ratp_buffer *buffer = NULL;
    if (!CHECK_EQUAL(ratp->buffer_create(device, &params, &buffer), RATP_OK))
        exit(1);
    return buffer;
}

static uint64_t sequence_bytes(const struct keys *keys, uint32_t channels)
{
    return (uint64_t)keys->capacity * keys->kv_heads * bytes_of(keys->k_dtype, channels) + keys->gap;
}

static struct ratp_tensor tensor_of(const struct keys *keys, ratp_buffer *buffer,
                                    uint32_t channels)
{
    uint64_t row = bytes_of(keys->k_dtype, channels);
    bool outside = keys->heads_outside;
    return (struct ratp_tensor){.struct_size = sizeof(struct ratp_tensor), .buffer = buffer,
                                .dtype = keys->k_dtype,
                                .token_stride = outside ? row : keys->kv_heads * row,
                                .head_stride = outside ? keys->capacity * row : row,
                                .batch_stride = sequence_bytes(keys, channels)};
}

static void write_rows(const struct keys *keys, ratp_buffer *buffer, const float *rows,
                       uint32_t channels)
{
    const struct ratp_tensor t = tensor_of(keys, buffer, channels);
    uint64_t size = keys->batch * t.batch_stride;
    unsigned char *bytes = calloc(size, 1);
    if (!CHECK(bytes))
        exit(1);
    for (uint32_t b = 0; b < keys->batch; b++)
        for (uint32_t i = 0; i < keys->capacity; i++)
            for (uint32_t h = 0; h < keys->kv_heads; h++) {
                store_row(bytes + b * t.batch_stride + i * t.token_stride + h * t.head_stride, rows,
                          keys->k_dtype, channels);
                rows += channels;
            }
    CHECK_EQUAL(ratp->buffer_write(buffer, 0, bytes, size), RATP_OK);
    free(bytes);
}

void keys_write(struct keys *keys)
{
    write_rows(keys, keys->k_buffer, keys->k, keys->head_size);
    write_rows(keys, keys->v_buffer, keys->v, keys->value_size);
}

static void change(struct keys *keys, uint32_t from, struct random *r)
{
    for (uint32_t b = 0; b < keys->batch; b++)
        for (int v = 0; v < 2; v++) {
            const size_t channels = v ? keys->value_size : keys->head_size;
            size_t token = keys->kv_heads * channels;
            float *rows = (v ? keys->v : keys->k) + b * keys->capacity * token;
            for (size_t i = from * token; i < keys->capacity * token; i++)
                rows[i] = r ? cut(random_normal(r), keys->k_dtype, i % channels) : NAN;
        }
    keys_write(keys);
}

void keys_rewrite(struct keys *keys, uint32_t from, struct random *r)
{
    change(keys, from, r);
}

void keys_spoil(struct keys *keys, uint32_t from)
{
    change(keys, from, NULL);
}

static float *rows_of(const struct keys *keys, uint64_t channels)
{
    float *rows = calloc(keys->batch * keys->capacity * channels, sizeof *rows);
    if (!CHECK(rows))
        exit(1);
    return rows;
}

void keys_open(struct keys *keys, struct random *r)
{
    enum { OFFSET = 48 };
    uint32_t heads = keys->kv_heads * keys->group;
    for (size_t h = 0; h < sizeof keys->sinks / sizeof *keys->sinks; h++)
        keys->sinks[h] = random_normal(r);
    keys->q = rows_of(keys, heads * keys->head_size);
    keys->k = rows_of(keys, keys->kv_heads * keys->head_size);
    keys->v = rows_of(keys, keys->kv_heads * keys->value_size);
    keys->out = rows_of(keys, heads * keys->value_size);
    keys->lse = rows_of(keys, heads);
    for (size_t i = 0; i < (size_t)keys->batch * keys->capacity * heads * keys->head_size; i++)
        keys->q[i] = random_normal(r);
    keys->k_buffer = make(keys->batch * sequence_bytes(keys, keys->head_size));
    keys->v_buffer = make(keys->batch * sequence_bytes(keys, keys->value_size));
    keys->offset = OFFSET;
    keys->summaries = make(OFFSET + keys_bytes(keys, keys->capacity));
    keys_rewrite(keys, 0, r);
}

void keys_close(struct keys *keys)
{
    CHECK_EQUAL(ratp->buffer_destroy(&keys->k_buffer), RATP_OK);
    CHECK_EQUAL(ratp->buffer_destroy(&keys->v_buffer), RATP_OK);
    CHECK_EQUAL(ratp->buffer_destroy(&keys->summaries), RATP_OK);
    free(keys->q);
    free(keys->k);
    free(keys->v);
    free(keys->out);
    free(keys->lse);
}

/* ---- Calls ---- */

uint64_t keys_bytes(const struct keys *keys, uint32_t tokens)
{
    const struct ratp_tensor k = {.struct_size = sizeof k, .dtype = keys->k_dtype};
    const struct ratp_external params = {
        .struct_size = sizeof params, .batch = keys->batch, .key_tokens = tokens ? tokens : 1,
        .kv_heads = keys->kv_heads, .head_size = keys->head_size, .causal = 1,
        .variant = &keys->variant, .k = &k};
    uint64_t bytes = UINT64_MAX;
    CHECK_EQUAL(ratp->external_summary_bytes(device, &params, &bytes), RATP_OK);
    return bytes;
}

/* `rows` packed, from a buffer that has `gap` bytes between sequences, if there is one. */
static void read_gapped(const struct keys *keys, ratp_buffer *buffer, float *rows, size_t bytes)
{
    for (uint32_t b = 0; b < keys->batch; b++)
        CHECK_EQUAL(ratp->buffer_read(buffer, b * (bytes + keys->gap), (char *)rows + b * bytes,
                                      bytes),
                    RATP_OK);
}

ratp_status keys_attend(struct keys *keys, const struct asked *asked)
{
    size_t heads = keys->kv_heads * keys->group;
    size_t q_token = heads * keys->head_size * sizeof(float);
    size_t out_bytes = asked->queries * heads * keys->value_size * sizeof(float);
    const struct ratp_tensor k = tensor_of(keys, keys->k_buffer, keys->head_size),
                             v = tensor_of(keys, keys->v_buffer, keys->value_size);
    const struct ratp_tensor q = {.struct_size = sizeof q, .host = keys->q,
                                  .offset = asked->first * q_token,
                                  .batch_stride = keys->capacity * q_token};
    const struct ratp_tensor out = {.struct_size = sizeof out,
                                    .buffer = make(keys->batch * (out_bytes + keys->gap)),
                                    .batch_stride = out_bytes + keys->gap};
    const struct ratp_tensor lse = {.struct_size = sizeof lse, .host = keys->lse};
    const struct ratp_tensor sinks = {.struct_size = sizeof sinks, .host = keys->sinks};
    const struct ratp_external params = {
        .struct_size = sizeof params, .batch = keys->batch, .query_tokens = asked->queries,
        .key_tokens = asked->keys, .query_heads = (uint32_t)heads, .kv_heads = keys->kv_heads,
        .head_size = keys->head_size, .value_size = keys->value_size, .causal = 1,
        .first_position = asked->first, .variant = &keys->variant, .q = &q, .k = &k, .v = &v,
        .out = &out, .lse = &lse, .sinks = keys->sunk ? &sinks : NULL,
        .summaries = asked->summaries,
        .summaries_offset = asked->summaries ? asked->offset : 0,
        .summarised = asked->summarised};
    ratp_status status = ratp->attend_external(device, &params);
    if (status)
        fprintf(stderr, "    %s\n", host_message(device));
    ratp_buffer *buffer = out.buffer;
    read_gapped(keys, buffer, keys->out, out_bytes);
    CHECK_EQUAL(ratp->buffer_destroy(&buffer), RATP_OK);
    return status;
}
