/* Bytes and operations that each measured call needs. */
#include "bench.h"

uint32_t dtype_size(ratp_dtype dtype)
{
    return dtype == RATP_F32 ? 4 : 2;
}

static const uint32_t usual_page = 16, usual_block = 512, usual_observe = 32;

const struct ratp_variant *prompt_of(const struct ratp_variant *variant)
{
    static const struct ratp_variant dense = {.struct_size = sizeof dense};
    const bool of_decode = variant->kind == RATP_QUEST || variant->kind == RATP_SNAPKV;
    const struct ratp_variant *same = of_decode ? &dense : variant;
    return variant->prompt ? variant->prompt : same;
}

/* Tokens of what the variant chooses by the query; 0: it does not. */
static uint32_t block_of(const struct ratp_variant *variant)
{
    if (variant->kind == RATP_QUEST)
        return variant->page ? variant->page : usual_page;
    return variant->kind != RATP_MOBA ? 0 : variant->block ? variant->block : usual_block;
}

uint64_t attended_keys(const struct ratp_variant *variant, uint64_t position)
{
    const uint64_t past = position + 1, block = block_of(variant);
    if (variant->kind == RATP_DENSE)
        return past;
    if (block) {
        const uint64_t most = variant->kind == RATP_QUEST ? variant->budget / block : variant->topk;
        const uint64_t blocks = position / block + 1;
        return ((blocks < most ? blocks : most) - 1) * block + position % block + 1;
    }
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

/* A scale of two bytes for each 32 channels of q8_0. */
static double cache_size(const struct bench_options *o)
{
    return o->cache_dtype == RATP_Q8_0 ? 34.0 / 32 : dtype_size(o->cache_dtype);
}

static double key_bytes(const struct bench_options *o)
{
    return 2.0 * o->kv_heads * o->head_size * cache_size(o);
}

/* Of a query at `position`: keys that query heads chose apart are read apart, and each
 * block before its own is scored by what is known of it: its extremes, or its sum in
 * float32, for each 64 of its tokens at least. */
static double chosen_bytes(const struct bench_options *o, const struct ratp_variant *variant,
                           uint64_t position)
{
    const double keys = (double)attended_keys(variant, position), block = block_of(variant);
    const bool apart = block > 0 && variant->selection == RATP_SELECT_HEAD;
    const double entry = block < 64 ? block : 64;
    const double entries = block > 0 ? (double)(position / (uint64_t)block) * block / entry : 0;
    const double known = variant->kind == RATP_QUEST ? 2 * cache_size(o) : 4;
    return keys * key_bytes(o) * (apart ? o->query_heads / o->kv_heads : 1) +
           entries * o->kv_heads * o->head_size * known;
}

struct work work_prefill(const struct bench_options *o, const struct ratp_variant *variant,
                         uint32_t tokens, uint32_t batch)
{
    double pairs = 0;
    for (uint32_t t = 0; t < tokens; t++)
        pairs += (double)attended_keys(prompt_of(variant), t);
    const bool thin = variant->kind == RATP_DILATED || variant->kind == RATP_STREAMING;
    const double kept = o->retention == RATP_RETAIN_FULL || !thin || variant->prompt
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
        .bytes = batch * (operand_bytes(o) + chosen_bytes(o, variant, position)),
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

/* The last `observe` queries of each query head, kept in float32, score the keys up to their
 * own: K of T tokens is read once for that, and q . k is a multiplication and an addition.
 * Then K and V of `capacity` tokens are read, now that they are known, and written. The votes
 * need neither: softmax and pooling are not counted, nor the positions that are noted. */
struct work work_compress(const struct bench_options *o, const struct ratp_variant *variant,
                          uint32_t tokens, uint32_t batch)
{
    const double observe = variant->observe ? variant->observe : usual_observe;
    const double pairs = observe * (tokens - observe) + observe * (observe + 1) / 2;
    const double queries = observe * o->query_heads * o->head_size * sizeof(float);
    const double scored = tokens * key_bytes(o) / 2, moved = 2.0 * variant->capacity * key_bytes(o);
    return (struct work){
        .bytes = batch * (queries + scored + moved),
        .flops = batch * attend_flops(o, pairs) / 2,
    };
}

/* k, v, f are read, K and V written; g K + (1 - g) k twice, sigmoid not counted. */
struct work work_scan(const struct bench_options *o, uint32_t tokens, uint32_t batch)
{
    const double channels = (double)batch * tokens * o->kv_heads * o->head_size;
    return (struct work){
        .bytes = channels * (3.0 * dtype_size(o->dtype) + 2.0 * cache_size(o)),
        .flops = channels * 7,
    };
}
