/* From ratp_tensor to the operands that kernels take: sizes and strides are
 * checked here, once. */
#ifndef RATPLUS_OPERANDS_H
#define RATPLUS_OPERANDS_H

#include "device.h"

/* What a tensor must be: its name in messages and its shape. */
struct operand_want {
    const char *name; /* "io->q" */
    uint32_t batch, tokens, heads, channels;
    bool float32_only; /* log-sum-exp */
    bool half_too;     /* masks: float32 or float16, not bfloat16 */
    bool written;
    bool blocks_too;   /* K and V of a host: q8_0 and q4_0 as well */
    bool shared_heads; /* masks: head_stride 0 means one for all heads, not packed */
};

/* A checked tensor. */
struct operand_view {
    struct operand_want want;
    unsigned char *host; /* its first element in host memory; NULL: in a buffer */
    uint64_t address;    /* in a buffer */
    ratp_dtype dtype;    /* of q8_0: DTYPE_Q8_0_BLOCKS */
    uint64_t batch_stride, token_stride, head_stride; /* bytes */
    uint64_t row_bytes;                               /* of the channels of one head */
};

/* `in` NULL is refused; the caller knows which tensors are optional. */
ratp_status operand_read(const ratp_device *device, const struct ratp_tensor *in,
                         const struct operand_want *want, struct operand_view *out,
                         struct error *err);

#endif
