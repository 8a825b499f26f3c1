/* SET_ROWS, with which llama.cpp writes its cache: rows of float32 go to the
 * places that the indices name, in the cache's type. Few rows at a time, so it
 * is done on the host. */
#include "adapter.h"

#include <string.h>

/* The operand's second and third dimension repeat over the rows'. */
static bool repeats(const struct ggml_tensor *index, const struct ggml_tensor *rows)
{
    return index->ne[0] == rows->ne[1] && rows->ne[2] % index->ne[1] == 0 &&
           rows->ne[3] % index->ne[2] == 0;
}

bool rows_type_is_known(enum ggml_type type)
{
    return type == GGML_TYPE_F32 || type == GGML_TYPE_F16 || type == GGML_TYPE_BF16 ||
           type == GGML_TYPE_Q8_0 || type == GGML_TYPE_Q4_0;
}

bool rows_are_supported(const struct ggml_tensor *op)
{
    const struct ggml_tensor *rows = op->src[0], *index = op->src[1];
    return rows_type_is_known(op->type) && rows && index && rows->type == GGML_TYPE_F32 &&
           rows->nb[0] == sizeof(float) &&
           (index->type == GGML_TYPE_I64 || index->type == GGML_TYPE_I32) &&
           op->nb[0] == ggml_type_size(op->type) && rows->ne[0] == op->ne[0] &&
           repeats(index, rows);
}

static int64_t read_index(const unsigned char *at, enum ggml_type type)
{
    int64_t wide;
    int32_t narrow;
    if (type == GGML_TYPE_I64) {
        memcpy(&wide, at, sizeof wide);
        return wide;
    }
    memcpy(&narrow, at, sizeof narrow);
    return narrow;
}

static void write_row(void *to, enum ggml_type type, const void *from, int64_t channels)
{
    if (type == GGML_TYPE_F32)
        memcpy(to, from, (size_t)channels * sizeof(float));
    else if (type == GGML_TYPE_F16)
        ggml_fp32_to_fp16_row(from, to, channels);
    else if (type == GGML_TYPE_BF16)
        ggml_fp32_to_bf16_row(from, to, channels);
    else
        ggml_quantize_chunk(type, from, to, 0, 1, channels, NULL);
}

unsigned char *rows_place(const struct ggml_tensor *op, size_t i, size_t i2, size_t i3)
{
    const struct ggml_tensor *index = op->src[1];
    const unsigned char *at = index->data;
    at += i * index->nb[0] + i2 % (size_t)index->ne[1] * index->nb[1] +
          i3 % (size_t)index->ne[2] * index->nb[2];
    int64_t row = read_index(at, index->type);
    if (row < 0 || row >= op->ne[1]) {
        complain("node %s: index %lld of row %zu is outside of the %lld rows", op->name,
                 (long long)row, i, (long long)op->ne[1]);
        return NULL;
    }
    return (unsigned char *)op->data + (size_t)row * op->nb[1] + i2 * op->nb[2] + i3 * op->nb[3];
}

static bool write_plane(const struct ggml_tensor *op, size_t i2, size_t i3)
{
    const struct ggml_tensor *rows = op->src[0];
    const unsigned char *from = rows->data;
    from += i2 * rows->nb[2] + i3 * rows->nb[3];
    for (size_t i = 0; i < (size_t)rows->ne[1]; i++) {
        unsigned char *to = rows_place(op, i, i2, i3);
        if (!to)
            return false;
        write_row(to, op->type, from + i * rows->nb[1], op->ne[0]);
    }
    return true;
}

bool rows_run(const struct ggml_tensor *op)
{
    const struct ggml_tensor *rows = op->src[0];
    for (size_t i3 = 0; i3 < (size_t)rows->ne[3]; i3++)
        for (size_t i2 = 0; i2 < (size_t)rows->ne[2]; i2++)
            if (!write_plane(op, i2, i3))
                return false;
    return true;
}
