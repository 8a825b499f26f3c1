/* FLASH_ATTN_EXT by the library's attention over a host's own K and V.
 *
 * ggml's shapes, fastest dimension first: q [head size, queries, query heads,
 * sequences], k and v [head or value size, keys, key/value heads, sequences],
 * mask [keys, queries, 1 or query heads, 1 or sequences], sinks [query heads], out
 * [value size, query heads, queries, sequences]. The mask says what is causal. */
#include "adapter.h"

#include <math.h>
#include <string.h>

enum { MASK = 3, SINKS = 4, MAX_HEADS = 1024, MAX_TOKENS = 1 << 24 };

struct numbers {
    float scale, max_bias, softcap;
};

static struct numbers numbers_of(const struct ggml_tensor *op)
{
    struct numbers n;
    memcpy(&n, op->op_params, sizeof n);
    return n;
}

static ratp_dtype dtype_of(enum ggml_type type)
{
    return type == GGML_TYPE_F32    ? RATP_F32
           : type == GGML_TYPE_F16  ? RATP_F16
           : type == GGML_TYPE_BF16 ? RATP_BF16
           : type == GGML_TYPE_Q8_0 ? RATP_Q8_0
           : type == GGML_TYPE_Q4_0 ? RATP_Q4_0
                                    : RATP_DTYPE_DEFAULT;
}

/* Channels are neighbours, strides are whole words below 4 GiB (of blocks: half words), and
 * rows do not overlap. */
static bool is_addressable(const struct ggml_tensor *t)
{
    size_t multiple = ggml_is_quantized(t->type) ? 2 : 4;
    if (dtype_of(t->type) == RATP_DTYPE_DEFAULT || t->nb[0] != ggml_type_size(t->type))
        return false;
    for (int i = 1; i < GGML_MAX_DIMS; i++)
        if (t->ne[i] > 1 &&
            (t->nb[i] % multiple != 0 || t->nb[i] < ggml_row_size(t->type, t->ne[0]) ||
             t->nb[i] > UINT32_MAX))
            return false;
    return t->view_offs % multiple == 0;
}

static bool size_is_known(int64_t size)
{
    return size >= 8 && size <= 256 && size % 8 == 0;
}

static bool mask_is_supported(const struct ggml_tensor *mask, const struct ggml_tensor *q)
{
    return mask->type == GGML_TYPE_F16 && is_addressable(mask) && mask->ne[1] >= q->ne[1] &&
           (mask->ne[2] == 1 || mask->ne[2] == q->ne[2]) &&
           (mask->ne[3] == 1 || mask->ne[3] == q->ne[3]);
}

/* ALiBi's factor on the mask: a geometric series over the heads of the largest power of two,
 * then the odd terms of the one with twice as many. */
static void alibi_slopes(float max_bias, uint32_t heads, float *slopes)
{
    uint32_t half = 1;
    while (half * 2 <= heads)
        half *= 2;
    float first = powf(2, -max_bias / (float)half), second = powf(2, -max_bias / 2 / (float)half);
    for (uint32_t h = 0; h < heads; h++)
        slopes[h] = h < half ? powf(first, (float)(h + 1))
                             : powf(second, (float)(2 * (h - half) + 1));
}

static bool sinks_are_supported(const struct ggml_tensor *sinks, const struct ggml_tensor *q)
{
    return sinks->type == GGML_TYPE_F32 && sinks->nb[0] == sizeof(float) &&
           sinks->ne[0] == q->ne[2] && sinks->view_offs % sizeof(float) == 0;
}

/* What the library has no way to say is refused: other types, head sizes beyond 256. A scale
 * of 0 would be its default. */
bool attention_is_supported(const struct ggml_tensor *op)
{
    const struct ggml_tensor *q = op->src[0], *k = op->src[1], *v = op->src[2];
    const struct ggml_tensor *mask = op->src[MASK];
    struct numbers n = numbers_of(op);
    if (!isfinite(n.max_bias) || n.max_bias < 0 || n.scale == 0 || !isfinite(n.scale) ||
        !isfinite(n.softcap) || n.softcap < 0)
        return false;
    if (q->ne[2] > MAX_HEADS || (op->src[SINKS] && !sinks_are_supported(op->src[SINKS], q)))
        return false;
    if (op->type != GGML_TYPE_F32 || q->type != GGML_TYPE_F32 || !is_addressable(q) ||
        !is_addressable(k) || !is_addressable(v) || !is_addressable(op))
        return false;
    if (!size_is_known(q->ne[0]) || !size_is_known(v->ne[0]) || k->ne[0] != q->ne[0])
        return false;
    if (k->ne[2] > MAX_HEADS || v->ne[2] != k->ne[2] || q->ne[2] % k->ne[2] != 0)
        return false;
    if (q->ne[3] != k->ne[3] || q->ne[3] != v->ne[3] || q->ne[1] > MAX_TOKENS / q->ne[3] ||
        k->ne[1] > MAX_TOKENS)
        return false;
    return !mask || (mask->ne[0] == k->ne[1] && mask_is_supported(mask, q));
}

/* `tensor` from sequence `first` on; `token` and `head` are the dimensions that these are in. */
static struct ratp_tensor operand(const struct ggml_tensor *tensor, int token, int head,
                                  size_t first)
{
    struct ratp_tensor t = {
        .struct_size = sizeof t,
        .dtype = dtype_of(tensor->type),
        .token_stride = tensor->nb[token],
        .head_stride = tensor->ne[head] > 1 ? tensor->nb[head] : 0,
        .batch_stride = tensor->nb[3],
    };
    buffer_place(tensor, &t.buffer, &t.offset);
    t.offset += first * tensor->nb[3];
    return t;
}

ratp_status attention_run(struct adapter_device *device, const struct ggml_tensor *op)
{
    const struct ggml_tensor *q = op->src[0], *k = op->src[1], *v = op->src[2];
    const struct ggml_tensor *mask = op->src[MASK];
    struct numbers n = numbers_of(op);
    const struct ggml_tensor *sinks = op->src[SINKS];
    float slopes[MAX_HEADS];
    bool sloped = mask && n.max_bias > 0;
    if (sloped)
        alibi_slopes(n.max_bias, (uint32_t)q->ne[2], slopes);
    size_t sequences = (size_t)q->ne[3];
    /* A mask that sequences share has no batch stride: then each is a call of its own. */
    size_t together = mask && mask->ne[3] == 1 ? 1 : sequences;
    ratp_status status = RATP_OK;
    for (size_t i = 0; i < sequences && !status; i += together) {
        struct ratp_tensor tq = operand(q, 1, 2, i), tk = operand(k, 1, 2, i);
        struct ratp_tensor tv = operand(v, 1, 2, i), out = operand(op, 2, 1, i);
        struct ratp_tensor tm = {0}, ts = {0};
        if (mask)
            tm = operand(mask, 1, 2, mask->ne[3] == 1 ? 0 : i);
        if (sinks)
            ts = operand(sinks, 1, 2, 0);
        const struct ratp_external call = {
            .struct_size = sizeof call,
            .batch = (uint32_t)together,
            .query_tokens = (uint32_t)q->ne[1],
            .key_tokens = (uint32_t)k->ne[1],
            .query_heads = (uint32_t)q->ne[2],
            .kv_heads = (uint32_t)k->ne[2],
            .head_size = (uint32_t)q->ne[0],
            .value_size = (uint32_t)v->ne[0],
            .scale = n.scale,
            .softcap = n.softcap,
            .q = &tq, .k = &tk, .v = &tv,
            .mask = mask ? &tm : NULL,
            .out = &out,
            .slopes = sloped ? slopes : NULL,
            .sinks = sinks ? &ts : NULL,
        };
        status = device->ratp->attend_external(device->opened, &call);
    }
    return status;
}
