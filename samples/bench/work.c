/* Bytes and operations that each measured call needs. */
#include "bench.h"

uint32_t dtype_size(ratp_dtype dtype)
{
    return dtype == RATP_F32 ? 4 : 2;
}

uint64_t attended_keys(const struct ratp_variant *variant, uint64_t position)
{
    const uint64_t past = position + 1;
    if (variant->kind == RATP_DENSE)
        return past;
    const uint64_t in_window = variant->window < position ? variant->window + 1u : past;
    const uint64_t before = past - in_window;
    const uint64_t sinks = variant->sinks < before ? variant->sinks : before;
    if (variant->kind == RATP_STREAMING)
        return in_window + sinks;
    return in_window + sinks + before / variant->dilation - sinks / variant->dilation;
}

/* q . k and p * v, a multiplication and an addition each. */
static double attend_flops(const struct bench_options *o, double keys)
{
    return 4.0 * o->head_size * o->query_heads * keys;
}

/* q, o, out of the query heads; k, v, f of the key/value heads. */
static double operand_bytes(const struct bench_options *o)
{
    return 3.0 * (o->query_heads + o->kv_heads) * o->head_size * dtype_size(o->dtype);
}

static double key_bytes(const struct bench_options *o)
{
    return 2.0 * o->kv_heads * o->head_size * dtype_size(o->cache_dtype);
}

struct work work_prefill(const struct bench_options *o, const struct ratp_variant *variant,
                         uint32_t tokens, uint32_t batch)
{
    double pairs = 0;
    for (uint32_t t = 0; t < tokens; t++)
        pairs += (double)attended_keys(variant, t);
    const double kept = o->retention == RATP_RETAIN_FULL
                            ? tokens
                            : (double)attended_keys(variant, tokens - 1);
    return (struct work){
        .bytes = batch * (tokens * operand_bytes(o) + kept * key_bytes(o)),
        .flops = batch * attend_flops(o, pairs),
    };
}

struct work work_decode(const struct bench_options *o, const struct ratp_variant *variant,
                        uint64_t position, uint32_t batch)
{
    const double keys = (double)attended_keys(variant, position);
    return (struct work){
        .bytes = batch * (operand_bytes(o) + keys * key_bytes(o)),
        .flops = batch * attend_flops(o, keys),
    };
}

struct work work_external(const struct bench_options *o, const struct ratp_variant *variant,
                          uint32_t tokens, uint32_t batch)
{
    const double keys = (double)attended_keys(variant, tokens - 1);
    const double rows = 2.0 * o->query_heads * o->head_size * dtype_size(o->dtype);
    return (struct work){
        .bytes = batch * (rows + keys * key_bytes(o)),
        .flops = batch * attend_flops(o, keys),
    };
}

/* k, v, f are read, K and V written; g K + (1 - g) k twice, sigmoid not counted. */
struct work work_scan(const struct bench_options *o, uint32_t tokens, uint32_t batch)
{
    const double channels = (double)batch * tokens * o->kv_heads * o->head_size;
    return (struct work){
        .bytes = channels * (3.0 * dtype_size(o->dtype) + 2.0 * dtype_size(o->cache_dtype)),
        .flops = channels * 7,
    };
}
