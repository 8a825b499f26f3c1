/* attend_external and merge: wrong arguments, and results against a plain loop
 * over the definition, from host memory and from buffers with gaps. */
#include "api_host.h"

#include "../blocks.h"

#include <math.h>
#include <stdlib.h>

enum { BATCH = 3, QUERIES = 5, KEYS = 23, HEADS = 4, GROUP = 2, KV = HEADS / GROUP, SIZE = 32 };

struct arrays {
    float q[BATCH][QUERIES][HEADS][SIZE];
    float k[BATCH][KEYS][KV][SIZE];
    float v[BATCH][KEYS][KV][SIZE];
    float o[BATCH][QUERIES][HEADS][SIZE];
    float mask[BATCH][HEADS][QUERIES][KEYS];
    float slopes[HEADS], sinks[HEADS];
    float out[BATCH][QUERIES][HEADS][SIZE];
    float lse[BATCH][QUERIES][HEADS];
    float wanted[BATCH][QUERIES][HEADS][SIZE];
    float wanted_lse[BATCH][QUERIES][HEADS];
};

static struct arrays a;
static uint32_t random_state = 1;

static float random_float(void)
{
    random_state = random_state * 1664525u + 1013904223u;
    return (float)(random_state >> 8) / (float)(1 << 23) - 1;
}

static void fill(float *values, size_t bytes)
{
    for (size_t i = 0; i < bytes / sizeof *values; i++)
        values[i] = random_float();
}

/* What a call asks for, for the plain loop. */
struct setting {
    bool causal, mask, own_masks, gate, slopes, sinks;
    ratp_dtype k_dtype, v_dtype; /* of blocks: RATP_Q8_0, RATP_Q4_0 */
    uint32_t first_position;
    struct ratp_variant variant;
    float softcap;
};

static bool attends(const struct setting *s, uint32_t query, uint32_t key)
{
    uint32_t t = s->first_position + query;
    if (!s->causal)
        return true;
    if (key > t)
        return false;
    return s->variant.kind == RATP_DENSE || t - key <= s->variant.window ||
           key < s->variant.sinks ||
           (s->variant.kind == RATP_DILATED && (key + 1) % s->variant.dilation == 0);
}

static void attend_plainly(const struct setting *s)
{
    for (uint32_t b = 0; b < BATCH; b++)
        for (uint32_t i = 0; i < QUERIES; i++)
            for (uint32_t h = 0; h < HEADS; h++) {
                double sum[SIZE] = {0}, total = s->sinks ? exp((double)a.sinks[h]) : 0;
                for (uint32_t j = 0; j < KEYS; j++) {
                    if (!attends(s, i, j))
                        continue;
                    double logit = 0;
                    for (int c = 0; c < SIZE; c++)
                        logit += (double)(a.q[b][i][h][c] * a.k[b][j][h / GROUP][c]) / sqrt(SIZE);
                    if (s->softcap > 0)
                        logit = (double)s->softcap * tanh(logit / (double)s->softcap);
                    double hide = s->mask ? (double)a.mask[b][s->own_masks ? h : 0][i][j] : 0;
                    logit += s->slopes && !isinf(hide) ? (double)a.slopes[h] * hide : hide;
                    double weight = exp(logit);
                    total += weight;
                    for (int c = 0; c < SIZE; c++)
                        sum[c] += weight * (double)a.v[b][j][h / GROUP][c];
                }
                a.wanted_lse[b][i][h] = (float)log(total);
                for (int c = 0; c < SIZE; c++) {
                    double y = total > 0 ? sum[c] / total : 0;
                    if (s->gate)
                        y /= 1 + exp(-(double)a.o[b][i][h][c]);
                    a.wanted[b][i][h][c] = (float)y;
                }
            }
}

static double difference(const float *got, const float *wanted, size_t bytes)
{
    double error = 0, norm = 0;
    for (size_t i = 0; i < bytes / sizeof *got; i++) {
        if (isinf(wanted[i]) && got[i] == wanted[i])
            continue;
        error += (double)(got[i] - wanted[i]) * (double)(got[i] - wanted[i]);
        norm += (double)wanted[i] * (double)wanted[i];
    }
    return sqrt(error / norm);
}

static struct ratp_tensor host_tensor(void *host)
{
    return (struct ratp_tensor){sizeof(struct ratp_tensor), .host = host};
}

/* K or V in blocks, in rows that begin at odd multiples of 2 as often as at even ones;
 * `values` becomes what they hold. */
static struct ratp_tensor blocks_tensor(float (*values)[KV][SIZE], ratp_dtype dtype)
{
    static unsigned char bytes[2][2 + BATCH * KEYS * KV * (SIZE / 32 * 34 + 2)];
    unsigned char *at = bytes[dtype == RATP_Q4_0] + 2;
    ratp_dtype known = dtype == RATP_Q8_0 ? DTYPE_Q8_0_BLOCKS : dtype;
    size_t row = dtype_row_bytes(known, SIZE), gap = dtype == RATP_Q8_0 ? 2 : 0;
    for (int token = 0; token < BATCH * KEYS; token++)
        for (int h = 0; h < KV; h++, at += row) {
            blocks_store_row(at, known, SIZE, values[token][h]);
            dtype_load_row(at, known, SIZE, values[token][h]);
            at += h == KV - 1 ? gap : 0;
        }
    return (struct ratp_tensor){.struct_size = sizeof(struct ratp_tensor),
                                .host = bytes[dtype == RATP_Q4_0], .offset = 2, .dtype = dtype,
                                .token_stride = gap ? KV * row + gap : 0};
}

static void run(const struct setting *s)
{
    struct ratp_tensor q = host_tensor(a.q), k = host_tensor(a.k), v = host_tensor(a.v);
    struct ratp_tensor o = host_tensor(a.o), out = host_tensor(a.out), lse = host_tensor(a.lse);
    struct ratp_tensor mask = host_tensor(a.mask);
    struct ratp_tensor sinks = host_tensor(a.sinks);
    if (s->k_dtype)
        k = blocks_tensor(a.k[0], s->k_dtype);
    if (s->v_dtype)
        v = blocks_tensor(a.v[0], s->v_dtype);
    if (s->own_masks)
        mask.head_stride = sizeof a.mask[0][0];
    else
        mask.batch_stride = sizeof a.mask[0];
    struct ratp_external p = {
        sizeof p, BATCH, QUERIES, KEYS, HEADS, KV, SIZE, .softcap = s->softcap,
        .causal = s->causal, .first_position = s->first_position, .variant = &s->variant,
        .q = &q, .k = &k, .v = &v, .o = s->gate ? &o : NULL, .mask = s->mask ? &mask : NULL,
        .out = &out, .lse = &lse, .slopes = s->slopes ? a.slopes : NULL,
        .sinks = s->sinks ? &sinks : NULL};
    memset(a.out, 0x7f, sizeof a.out);
    attend_plainly(s);
    if (!CHECK_EQUAL(ratp->attend_external(device, &p), RATP_OK))
        fprintf(stderr, "    %s\n", host_message(device));
    CHECK(difference(&a.out[0][0][0][0], &a.wanted[0][0][0][0], sizeof a.out) < 2e-5);
    CHECK(difference(&a.lse[0][0][0], &a.wanted_lse[0][0][0], sizeof a.lse) < 2e-5);
}

static void test_results(void)
{
    const struct ratp_variant dense = {.struct_size = sizeof dense};
    const struct ratp_variant dilated = {sizeof dense, RATP_DILATED, .dilation = 4, .window = 3,
                                         .sinks = 2};
    const struct ratp_variant stream = {sizeof dense, RATP_STREAMING, .window = 6, .sinks = 1};
    fill(&a.mask[0][0][0][0], sizeof a.mask);
    for (int j = 0; j < KEYS; j++)
        a.mask[1][0][2][j] = -INFINITY; /* a query that sees no key */
    a.mask[2][3][1][7] = -INFINITY;
    run(&(struct setting){.variant = dense});
    run(&(struct setting){.variant = dense, .causal = true, .first_position = KEYS - QUERIES});
    run(&(struct setting){.variant = dilated, .causal = true, .first_position = KEYS - QUERIES});
    run(&(struct setting){.variant = stream, .causal = true, .first_position = 3, .gate = true});
    run(&(struct setting){.variant = dense, .causal = true, .first_position = 100});
    run(&(struct setting){.variant = dense, .mask = true, .softcap = 2});
    run(&(struct setting){.variant = dense, .mask = true, .own_masks = true, .gate = true});
    run(&(struct setting){.variant = dilated, .causal = true, .mask = true,
                          .first_position = KEYS - QUERIES});
    run(&(struct setting){.variant = dense, .sinks = true});
    run(&(struct setting){.variant = stream, .causal = true, .first_position = 3, .sinks = true,
                          .gate = true, .softcap = 2});
    run(&(struct setting){.variant = dense, .mask = true, .slopes = true});
    run(&(struct setting){.variant = dense, .mask = true, .own_masks = true, .slopes = true,
                          .sinks = true});
    run(&(struct setting){.variant = dense, .k_dtype = RATP_Q8_0});
    run(&(struct setting){.variant = dense, .mask = true, .k_dtype = RATP_Q4_0,
                          .v_dtype = RATP_Q8_0, .sinks = true});
    run(&(struct setting){.variant = dilated, .causal = true, .first_position = KEYS - QUERIES,
                          .k_dtype = RATP_Q8_0, .v_dtype = RATP_Q4_0});
}

static ratp_buffer *upload(const void *data, size_t rows, size_t row, size_t stride)
{
    ratp_buffer *buffer = NULL;
    struct ratp_buffer_params size = {sizeof size, .size = rows * stride};
    CHECK_EQUAL(ratp->buffer_create(device, &size, &buffer), RATP_OK);
    for (size_t i = 0; i < rows && buffer; i++)
        CHECK_EQUAL(ratp->buffer_write(buffer, i * stride, (const char *)data + i * row, row),
                    RATP_OK);
    return buffer;
}

/* Blocks in a buffer are read where they are, at an address that is no multiple of 4; of the
 * word at the buffer's end, there must be all. */
static void test_blocks_in_place(void)
{
    enum { ROW = 34, PLACES = 3 };
    const uint8_t one[ROW] = {0, 0x3c, 1, 2, 3}; /* scale 1, numbers 1, 2, 3, 0, ... */
    uint8_t bytes[2 + PLACES * ROW + 2] = {0};
    float q[SIZE] = {0}, out[SIZE];
    for (int i = 0; i < PLACES; i++) {
        memcpy(bytes + 2 + i * ROW, one, ROW);
        bytes[2 + i * ROW + 2] = (uint8_t)(10 * (i + 1));
    }
    struct ratp_tensor tq = host_tensor(q), to = host_tensor(out);
    struct ratp_tensor kv = {sizeof kv, .offset = 2, .dtype = RATP_Q8_0};
    const struct ratp_external p = {.struct_size = sizeof p, .query_tokens = 1,
                                    .key_tokens = PLACES, .query_heads = 1, .kv_heads = 1,
                                    .head_size = SIZE, .q = &tq, .k = &kv, .v = &kv, .out = &to};
    kv.buffer = upload(bytes, 1, sizeof bytes - 2, sizeof bytes - 2);
    CHECK_EQUAL(ratp->attend_external(device, &p), RATP_OK);
    CHECK(fabsf(out[0] - 20) < 1e-4f && fabsf(out[1] - 2) < 1e-5f && out[31] == 0);
    kv.offset = 4;
    REFUSE(device, ratp->attend_external(device, &p), RATP_INVALID_ARGUMENT,
           "params->k: 104 bytes from offset 4 are needed, the buffer has 104");
    kv.offset = 3;
    REFUSE(device, ratp->attend_external(device, &p), RATP_INVALID_ARGUMENT,
           "params->k: offset is 3, it must be a multiple of 2");
    CHECK_EQUAL(ratp->buffer_destroy(&kv.buffer), RATP_OK);
}

/* Sequences of the batch lie apart: the kernels' rows are not one run. */
static void test_gaps(void)
{
    enum { GAP = 64 };
    const struct setting s = {.causal = true, .first_position = KEYS - QUERIES,
                              .variant = {sizeof s.variant, RATP_DILATED, 4, 3, 2}};
    struct ratp_tensor q = {sizeof q, .batch_stride = sizeof a.q[0] + GAP};
    struct ratp_tensor k = {sizeof k, .batch_stride = sizeof a.k[0] + GAP};
    struct ratp_tensor v = {sizeof v, .batch_stride = 0};
    struct ratp_tensor out = {sizeof out, .batch_stride = sizeof a.out[0] + 2 * GAP};
    q.buffer = upload(a.q, BATCH, sizeof a.q[0], sizeof a.q[0] + GAP);
    k.buffer = upload(a.k, BATCH, sizeof a.k[0], sizeof a.k[0] + GAP);
    v.buffer = upload(a.v, BATCH, sizeof a.v[0], sizeof a.v[0]);
    out.buffer = upload(a.out, BATCH, sizeof a.out[0], sizeof a.out[0] + 2 * GAP);
    struct ratp_external p = {
        sizeof p, BATCH, QUERIES, KEYS, HEADS, KV, SIZE, .causal = 1,
        .first_position = s.first_position, .variant = &s.variant,
        .q = &q, .k = &k, .v = &v, .out = &out};
    CHECK_EQUAL(ratp->attend_external(device, &p), RATP_OK);
    attend_plainly(&s);
    for (uint32_t b = 0; b < BATCH; b++)
        CHECK_EQUAL(ratp->buffer_read(out.buffer, b * out.batch_stride, a.out[b], sizeof a.out[b]),
                    RATP_OK);
    CHECK(difference(&a.out[0][0][0][0], &a.wanted[0][0][0][0], sizeof a.out) < 2e-5);
    CHECK_EQUAL(ratp->buffer_destroy(&q.buffer), RATP_OK);
    CHECK_EQUAL(ratp->buffer_destroy(&k.buffer), RATP_OK);
    CHECK_EQUAL(ratp->buffer_destroy(&v.buffer), RATP_OK);
    CHECK_EQUAL(ratp->buffer_destroy(&out.buffer), RATP_OK);
}

/* A host's mask ends with its last key, be that in the middle of a word. The
 * rest of the word, which a sanitizer would tell, is not read. */
static void test_mask_end(void)
{
    enum { MASKS = 2, ODD_KEYS = 3, STRIDE = 8 };
    uint16_t *mask = calloc(1, (MASKS - 1) * STRIDE + ODD_KEYS * sizeof *mask);
    float q[MASKS][8] = {{0}}, k[ODD_KEYS][8] = {{0}}, v[ODD_KEYS][8] = {{1}, {2}, {4}};
    float out[MASKS][8] = {{0}};
    if (!CHECK(mask))
        return;
    mask[STRIDE / sizeof *mask + 2] = 0xfc00; /* -inf */
    const struct ratp_tensor tq = host_tensor(q), tk = host_tensor(k), tv = host_tensor(v),
                             to = host_tensor(out),
                             tm = {.struct_size = sizeof tm, .host = mask, .dtype = RATP_F16,
                                   .head_stride = STRIDE};
    struct ratp_external p = {.struct_size = sizeof p, .query_tokens = 1, .key_tokens = ODD_KEYS,
                              .query_heads = MASKS, .kv_heads = 1, .head_size = 8,
                              .q = &tq, .k = &tk, .v = &tv, .mask = &tm, .out = &to};
    CHECK_EQUAL(ratp->attend_external(device, &p), RATP_OK);
    CHECK(fabsf(out[0][0] - 7.0f / 3) < 1e-5f && fabsf(out[1][0] - 1.5f) < 1e-5f);
    free(mask);
}

static void test_refused(void)
{
    struct ratp_tensor t = host_tensor(a.k), bf16 = t, half_row = t;
    bf16.dtype = RATP_BF16;
    half_row.dtype = RATP_F16;
    struct ratp_tensor eight = t, four = t, odd = t;
    eight.dtype = odd.dtype = RATP_Q8_0;
    four.dtype = RATP_Q4_0;
    odd.token_stride = 71;
    const float slopes[HEADS] = {1, 0.5f, NAN, 1};
    const struct ratp_variant wrong = {.struct_size = sizeof wrong, .kind = 6};
    const struct ratp_external good = {sizeof good, BATCH, QUERIES, KEYS, HEADS, KV, SIZE,
                                       .q = &t, .k = &t, .v = &t, .out = &t};
    struct ratp_external p;
    CHECK_EQUAL(ratp->attend_external(NULL, &good), RATP_INVALID_ARGUMENT);
    REFUSE(instance, ratp->attend_external((ratp_device *)instance, &good), RATP_INVALID_ARGUMENT,
           "device is the handle of a different kind");
    REFUSE(device, ratp->attend_external(device, NULL), RATP_INVALID_ARGUMENT, "params is NULL");
#define WRONG(field, value, part)                                                             \
    do {                                                                                      \
        p = good;                                                                             \
        p.field = (value);                                                                    \
        REFUSE(device, ratp->attend_external(device, &p), RATP_INVALID_ARGUMENT, part);       \
    } while (0)
    WRONG(struct_size, 64, "params->struct_size is 64");
    WRONG(batch, 65537, "params->batch is 65537");
    WRONG(batch, 1 << 23, "params->batch is 8388608");
    WRONG(query_tokens, 0, "params->query_tokens is 0");
    WRONG(query_tokens, UINT32_MAX, "params->query_tokens is 4294967295");
    WRONG(query_tokens, 1 << 23, "params->batch 3 times query_tokens 8388608");
    WRONG(key_tokens, 0, "params->key_tokens is 0");
    WRONG(key_tokens, (1 << 24) + 1, "params->key_tokens is 16777217");
    WRONG(kv_heads, 0, "params->kv_heads is 0");
    WRONG(kv_heads, 3, "params->query_heads is 4");
    WRONG(query_heads, UINT32_MAX - 1, "params->query_heads is 4294967294");
    WRONG(head_size, 4, "params->head_size is 4");
    WRONG(value_size, 264, "params->value_size is 264");
    WRONG(scale, NAN, "params->scale is nan");
    WRONG(softcap, -1, "params->softcap is -1");
    WRONG(q, NULL, "params->q is NULL");
    WRONG(k, NULL, "params->k is NULL");
    WRONG(v, NULL, "params->v is NULL");
    WRONG(out, NULL, "params->out is NULL");
    WRONG(mask, &bf16, "params->mask: dtype is bfloat16");
    WRONG(mask, &half_row, "params->mask: token_stride is 46 bytes, it must be a multiple of 4");
    WRONG(lse, &half_row, "params->lse: dtype is float16");
    WRONG(slopes, slopes, "params->slopes is given and params->mask is NULL");
    WRONG(sinks, &half_row, "params->sinks: dtype is float16, it must be float32");
    WRONG(q, &eight, "params->q: dtype is q8_0, which only k and v of attend_external may be");
    WRONG(o, &four, "params->o: dtype is q4_0, which only k and v of attend_external may be");
    WRONG(out, &four, "params->out: dtype is q4_0");
    WRONG(mask, &eight, "params->mask: dtype is q8_0");
    WRONG(lse, &eight, "params->lse: dtype is q8_0");
    WRONG(sinks, &four, "params->sinks: dtype is q4_0");
    WRONG(k, &odd, "params->k: token_stride is 71 bytes, it must be a multiple of 2");
    odd.token_stride = 32;
    WRONG(v, &odd, "params->v: token_stride is 32 bytes, its channels take 34");
    odd.token_stride = 0;
    odd.dtype = 6;
    WRONG(k, &odd, "params->k: dtype is 6, it must be 0 (default), 1 (float32), 2 (float16), "
                   "3 (bfloat16), 4 (q8_0) or 5 (q4_0)");
    WRONG(q, &odd, "params->q: dtype is 6, it must be 0 (default), 1 (float32), 2 (float16) or 3 "
                   "(bfloat16)");
    p = good;
    p.mask = &t;
    p.slopes = slopes;
    REFUSE(device, ratp->attend_external(device, &p), RATP_INVALID_ARGUMENT,
           "params->slopes[2] is nan, it must be finite");
    p = good;
    p.head_size = 40;
    p.k = &eight;
    REFUSE(device, ratp->attend_external(device, &p), RATP_UNSUPPORTED,
           "params->k: dtype is q8_0 and a head has 40 channels: it needs a multiple of 32");
    p = good;
    p.causal = 1;
    p.variant = &wrong;
    REFUSE(device, ratp->attend_external(device, &p), RATP_INVALID_ARGUMENT,
           "params->variant.kind is 6");
    const struct ratp_variant snapkv = {sizeof snapkv, RATP_SNAPKV, .capacity = 64};
    const struct ratp_variant own = {.struct_size = sizeof own};
    const struct ratp_variant apart = {.struct_size = sizeof apart, .prompt = &own};
    p.variant = &snapkv;
    REFUSE(device, ratp->attend_external(device, &p), RATP_UNSUPPORTED,
           "params->variant.kind is 5 (snapkv), which needs a cache; give dense, dilated,");
    p.variant = &apart;
    REFUSE(device, ratp->attend_external(device, &p), RATP_UNSUPPORTED,
           "params->variant.prompt is for policies");
    p.variant = NULL;
    p.first_position = UINT32_MAX;
    REFUSE(device, ratp->attend_external(device, &p), RATP_INVALID_ARGUMENT,
           "params->first_position is 4294967295");
#undef WRONG
}

/* Two halves of the keys, merged, are all of the keys. */
static void test_merge(void)
{
    enum { ROWS = BATCH * QUERIES };
    static float part_out[2][ROWS][HEADS][SIZE], part_lse[2][ROWS][HEADS];
    static float out[ROWS][HEADS][SIZE], lse[ROWS][HEADS];
    struct ratp_tensor outs[2], lses[2], all = host_tensor(out), all_lse = host_tensor(lse);
    for (int part = 0; part < 2; part++) {
        enum { HALF = KEYS / 2 };
        outs[part] = host_tensor(part_out[part]);
        lses[part] = host_tensor(part_lse[part]);
        struct ratp_tensor q = host_tensor(a.q), k = host_tensor(a.k), v = host_tensor(a.v);
        k.offset = v.offset = part ? HALF * sizeof a.k[0][0] : 0;
        k.batch_stride = v.batch_stride = sizeof a.k[0];
        struct ratp_external p = {sizeof p, BATCH, QUERIES, part ? KEYS - HALF : HALF, HEADS, KV,
                                  SIZE, .q = &q, .k = &k, .v = &v, .out = &outs[part],
                                  .lse = &lses[part]};
        CHECK_EQUAL(ratp->attend_external(device, &p), RATP_OK);
    }
    const struct ratp_tensor *out_list[2] = {&outs[0], &outs[1]};
    const struct ratp_tensor *lse_list[2] = {&lses[0], &lses[1]};
    struct ratp_merge m = {sizeof m, 2, ROWS, HEADS, SIZE, out_list, lse_list, &all, &all_lse};
    CHECK_EQUAL(ratp->merge(device, &m), RATP_OK);
    attend_plainly(&(struct setting){.causal = false});
    CHECK(difference(&out[0][0][0], &a.wanted[0][0][0][0], sizeof out) < 2e-5);
    CHECK(difference(&lse[0][0], &a.wanted_lse[0][0][0], sizeof lse) < 2e-5);

    const struct ratp_merge good = m;
    CHECK_EQUAL(ratp->merge(NULL, &m), RATP_INVALID_ARGUMENT);
    REFUSE(device, ratp->merge(device, NULL), RATP_INVALID_ARGUMENT, "params is NULL");
#define WRONG(field, value, part)                                                   \
    do {                                                                            \
        m = good;                                                                   \
        m.field = (value);                                                          \
        REFUSE(device, ratp->merge(device, &m), RATP_INVALID_ARGUMENT, part);       \
    } while (0)
    WRONG(struct_size, 8, "params->struct_size is 8");
    WRONG(parts, 0, "params->parts is 0");
    WRONG(parts, 65, "params->parts is 65");
    WRONG(tokens, 0, "params->tokens is 0");
    WRONG(tokens, UINT32_MAX, "params->tokens is 4294967295");
    WRONG(heads, 0, "params->heads is 0");
    WRONG(heads, UINT32_MAX, "params->heads is 4294967295");
    WRONG(value_size, 12, "params->value_size is 12");
    WRONG(part_out, NULL, "params->part_out is NULL");
    WRONG(part_lse, NULL, "params->part_lse is NULL");
    WRONG(out, NULL, "params->out is NULL");
    out_list[1] = NULL;
    WRONG(parts, 2, "params->part_out[1] is NULL");
    out_list[1] = &outs[1];
    lses[1].dtype = RATP_F16;
    WRONG(parts, 2, "params->part_lse[1]: dtype is float16");
#undef WRONG
}

int main(int argc, char **argv)
{
    host_open(argc, argv);
    fill(&a.q[0][0][0][0], sizeof a.q);
    fill(&a.k[0][0][0][0], sizeof a.k);
    fill(&a.v[0][0][0][0], sizeof a.v);
    fill(&a.o[0][0][0][0], sizeof a.o);
    fill(a.slopes, sizeof a.slopes);
    fill(a.sinks, sizeof a.sinks);
    RUN(test_results);
    RUN(test_blocks_in_place);
    RUN(test_gaps);
    RUN(test_mask_end);
    RUN(test_refused);
    RUN(test_merge);
    host_close();
    return check_result();
}
