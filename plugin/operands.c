#include "operands.h"

#include "dtype.h"
#include "structs.h"

#include <inttypes.h>
#include <stdio.h>

static ratp_status check_blocks(const struct operand_want *want, ratp_dtype *dtype,
                                struct error *err)
{
    if (!want->blocks_too)
        return fail(err, RATP_INVALID_ARGUMENT,
                    "%s: dtype is %s, which only k and v of attend_external may be; give float32, "
                    "float16 or bfloat16",
                    want->name, dtype_name(*dtype));
    if (want->channels % BLOCK_CHANNELS)
        return fail(err, RATP_UNSUPPORTED,
                    "%s: dtype is %s and a head has %u channels: it needs a multiple of %d",
                    want->name, dtype_name(*dtype), want->channels, BLOCK_CHANNELS);
    if (*dtype == RATP_Q8_0)
        *dtype = DTYPE_Q8_0_BLOCKS;
    return RATP_OK;
}

/* Bytes that strides and addresses are multiples of: a block of q8_0 or q4_0 is no whole
 * number of words. */
static unsigned alignment_of(ratp_dtype dtype)
{
    return dtype_size(dtype) ? 4 : 2;
}

static ratp_status check_dtype(const struct operand_want *want, ratp_dtype *dtype,
                               struct error *err)
{
    ratp_dtype given = *dtype;
    if (given == RATP_DTYPE_DEFAULT)
        *dtype = RATP_F32;
    if (given == RATP_Q8_0 || given == RATP_Q4_0)
        return check_blocks(want, dtype, err);
    if (dtype_size(*dtype) == 0)
        return fail(err, RATP_INVALID_ARGUMENT,
                    "%s: dtype is %" PRId32 ", it must be 0 (default), 1 (float32), 2 (float16)%s",
                    want->name, given,
                    want->blocks_too ? ", 3 (bfloat16), 4 (q8_0) or 5 (q4_0)" : " or 3 (bfloat16)");
    if (want->float32_only && *dtype != RATP_F32)
        return fail(err, RATP_INVALID_ARGUMENT, "%s: dtype is %s, it must be float32", want->name,
                    dtype_name(*dtype));
    if (want->half_too && *dtype == RATP_BF16)
        return fail(err, RATP_INVALID_ARGUMENT,
                    "%s: dtype is bfloat16, it must be float32 or float16", want->name);
    return RATP_OK;
}

static ratp_status check_stride(const struct operand_view *v, const char *field,
                                uint64_t stride, bool in_buffer, struct error *err)
{
    const char *name = v->want.name;
    if (stride % alignment_of(v->dtype) != 0)
        return fail(err, RATP_INVALID_ARGUMENT,
                    "%s: %s is %" PRIu64 " bytes, it must be a multiple of %u", name, field,
                    stride, alignment_of(v->dtype));
    if (stride < v->row_bytes)
        return fail(err, RATP_INVALID_ARGUMENT,
                    "%s: %s is %" PRIu64 " bytes, its channels take %" PRIu64, name, field,
                    stride, v->row_bytes);
    if (in_buffer && stride > UINT32_MAX)
        return fail(err, RATP_INVALID_ARGUMENT,
                    "%s: %s is %" PRIu64 " bytes, at most %" PRIu32 " is allowed in a buffer",
                    name, field, stride, UINT32_MAX);
    return RATP_OK;
}

/* Bytes from `offset` to the end of the last element's word: kernels read whole ones. */
static bool end_of(const struct operand_view *v, uint64_t offset, uint64_t *out)
{
    const struct operand_want *w = &v->want;
    uint64_t batch, token, head;
    return !__builtin_mul_overflow((uint64_t)w->batch - 1, v->batch_stride, &batch) &&
           !__builtin_mul_overflow((uint64_t)w->tokens - 1, v->token_stride, &token) &&
           !__builtin_mul_overflow((uint64_t)w->heads - 1, v->head_stride, &head) &&
           !__builtin_add_overflow(batch, token, out) &&
           !__builtin_add_overflow(*out, head, out) &&
           !__builtin_add_overflow(*out, offset, out) &&
           !__builtin_add_overflow(*out, v->row_bytes + 3, out) && ((*out &= ~(uint64_t)3), true);
}

static void default_strides(struct operand_view *v)
{
    const struct operand_want *w = &v->want;
    bool shared = w->shared_heads && v->head_stride == 0;
    if (shared)
        v->want.heads = 1;
    /* A mask has its heads outside its query tokens. */
    if (v->token_stride == 0)
        v->token_stride = w->shared_heads ? v->row_bytes : w->heads * v->row_bytes;
    if (v->head_stride == 0)
        v->head_stride = v->row_bytes;
    if (v->batch_stride == 0 && (shared || !w->shared_heads))
        __builtin_mul_overflow(w->tokens, v->token_stride, &v->batch_stride);
    else if (v->batch_stride == 0)
        __builtin_mul_overflow(w->heads, v->head_stride, &v->batch_stride);
}

static ratp_status place(const ratp_device *device, const struct ratp_tensor *t,
                         struct operand_view *v, struct error *err)
{
    const char *name = v->want.name;
    uint64_t end;
    unsigned multiple = alignment_of(v->dtype);
    if (!end_of(v, t->offset, &end))
        return fail(err, RATP_INVALID_ARGUMENT,
                    "%s: offset %" PRIu64 " and its strides lead beyond 64 bits", name, t->offset);
    if (!t->buffer) {
        uintptr_t start = (uintptr_t)t->host;
        if (end > PTRDIFF_MAX || start > UINTPTR_MAX - (uintptr_t)end)
            return fail(err, RATP_INVALID_ARGUMENT, "%s: its %" PRIu64 " bytes from host + %" PRIu64
                        " lead beyond the address space", name, end - t->offset, t->offset);
        v->host = (unsigned char *)t->host + t->offset;
        if ((uintptr_t)v->host % multiple != 0)
            return fail(err, RATP_INVALID_ARGUMENT,
                        "%s: host + offset is %p, it must be a multiple of %u", name,
                        (void *)v->host, multiple);
        return RATP_OK;
    }
    if (t->offset % multiple != 0)
        return fail(err, RATP_INVALID_ARGUMENT,
                    "%s: offset is %" PRIu64 ", it must be a multiple of %u", name, t->offset,
                    multiple);
    if (t->buffer->device != device)
        return fail(err, RATP_INVALID_ARGUMENT, "%s: buffer belongs to another device", name);
    if (end > t->buffer->mem.size)
        return fail(err, RATP_INVALID_ARGUMENT,
                    "%s: %" PRIu64 " bytes from offset %" PRIu64 " are needed, the buffer has %"
                    PRIu64, name, end - t->offset, t->offset, t->buffer->mem.size);
    v->address = t->buffer->mem.address + t->offset;
    return RATP_OK;
}

ratp_status operand_read(const ratp_device *device, const struct ratp_tensor *in,
                         const struct operand_want *want, struct operand_view *out,
                         struct error *err)
{
    struct ratp_tensor t;
    *out = (struct operand_view){.want = *want};
    ratp_status status =
        struct_read(&t, sizeof t, in, STRUCT_UPTO(struct ratp_tensor, host), want->name, err);
    if (!status && t.buffer) {
        char what[64];
        snprintf(what, sizeof what, "%s: buffer", want->name);
        status = object_check(t.buffer, OBJECT_BUFFER, what, err);
    }
    if (!status && !t.buffer && !t.host)
        status = fail(err, RATP_INVALID_ARGUMENT, "%s: buffer and host are both NULL", want->name);
    if (!status && t.buffer && t.host)
        status = fail(err, RATP_INVALID_ARGUMENT, "%s: buffer and host are both given",
                      want->name);
    if (!status)
        status = check_dtype(want, &t.dtype, err);
    if (status)
        return status;
    out->dtype = t.dtype;
    out->row_bytes = dtype_row_bytes(t.dtype, want->channels);
    out->token_stride = t.token_stride;
    out->head_stride = t.head_stride;
    out->batch_stride = t.batch_stride;
    default_strides(out);
    bool in_buffer = t.buffer != NULL;
    if (want->tokens > 1 || want->batch > 1)
        status = check_stride(out, "token_stride", out->token_stride, in_buffer, err);
    if (!status && out->want.heads > 1)
        status = check_stride(out, "head_stride", out->head_stride, in_buffer, err);
    if (!status && want->batch > 1)
        status = check_stride(out, "batch_stride", out->batch_stride, false, err);
    return status ? status : place(device, &t, out, err);
}
