#include "cache.h"

#include <math.h>
#include <stdlib.h>

ratp_status rope_check(const struct ratp_rope *rope, uint32_t head_size, struct error *err)
{
    if (rope->style < RATP_ROPE_NONE || rope->style > RATP_ROPE_INTERLEAVED)
        return fail(err, RATP_INVALID_ARGUMENT, "rope.style is %d, known are 0 to %d",
                    (int)rope->style, RATP_ROPE_INTERLEAVED);
    if (rope->size % 4 || rope->size > head_size)
        return fail(err, RATP_INVALID_ARGUMENT,
                    "rope.size is %u, it must be a multiple of 4 and at most head_size = %u",
                    rope->size, head_size);
    const struct {
        const char *name;
        double value;
    } positive[] = {
        {"theta", rope->theta},
        {"scale", rope->scale},
        {"yarn_factor", rope->yarn_factor},
        {"yarn_beta_fast", rope->yarn_beta_fast},
        {"yarn_beta_slow", rope->yarn_beta_slow},
        {"yarn_attention", rope->yarn_attention},
    };
    for (size_t i = 0; i < sizeof positive / sizeof positive[0]; i++)
        if (!(positive[i].value >= 0 && positive[i].value <= 1e30))
            return fail(err, RATP_INVALID_ARGUMENT,
                        "rope.%s is %g, it must be 0 (the default) or positive and at most 1e30",
                        positive[i].name, positive[i].value);
    if (rope->yarn_factor > 0 && rope->yarn_context == 0)
        return fail(err, RATP_INVALID_ARGUMENT,
                    "rope.yarn_context is 0, with yarn_factor %g it must be the trained context",
                    rope->yarn_factor);
    uint32_t size = rope->size ? rope->size : head_size;
    for (uint32_t i = 0; rope->factors && i < size / 2; i++)
        if (!(rope->factors[i] > 0 && isfinite(rope->factors[i])))
            return fail(err, RATP_INVALID_ARGUMENT, "rope.factors[%u] is %g, it must be positive",
                        i, (double)rope->factors[i]);
    return RATP_OK;
}

static double or_default(double value, double otherwise)
{
    return value > 0 ? value : otherwise;
}

/* What the caller left at 0 filled in, and what has no meaning cleared: equal
 * rotations have equal fields. */
static struct ratp_rope with_defaults(const struct ratp_rope *rope, uint32_t head_size)
{
    struct ratp_rope full = {
        .style = rope->style,
        .size = rope->size ? rope->size : head_size,
        .theta = or_default(rope->theta, 10000),
        .scale = or_default(rope->scale, 1),
    };
    if (rope->yarn_factor > 0) {
        full.yarn_factor = rope->yarn_factor;
        full.yarn_context = rope->yarn_context;
        full.yarn_beta_fast = or_default(rope->yarn_beta_fast, 32);
        full.yarn_beta_slow = or_default(rope->yarn_beta_slow, 1);
        full.yarn_attention =
            or_default(rope->yarn_attention,
                       rope->yarn_factor > 1 ? 0.1 * log(rope->yarn_factor) + 1 : 1);
    }
    return full;
}

static const double PI = 3.14159265358979323846;

/* The channel pair whose angle turns `turns` times over the trained context
 * (arXiv 2309.00071, section 3.2). */
static double pair_of_turns(double turns, uint32_t size, double theta, double context)
{
    return (double)size * log(context / (turns * 2 * PI)) / (2 * log(theta));
}

/* Radians per position of pair i. */
static double frequency(const struct ratp_rope *rope, uint32_t i)
{
    uint32_t size = rope->size;
    double f = pow(rope->theta, -2.0 * i / size) / (double)rope->factors[i] / rope->scale;
    if (rope->yarn_factor <= 0)
        return f;
    double low = floor(pair_of_turns(rope->yarn_beta_fast, size, rope->theta, rope->yarn_context));
    double high = ceil(pair_of_turns(rope->yarn_beta_slow, size, rope->theta, rope->yarn_context));
    low = low < 0 ? 0 : low;
    high = high > size - 1 ? size - 1 : high;
    double ramp = (i - low) / (high - low > 0.001 ? high - low : 0.001);
    ramp = ramp < 0 ? 0 : ramp > 1 ? 1 : ramp;
    /* Fast pairs keep their angle, slow ones are interpolated. */
    return f * (1 - ramp) + f / rope->yarn_factor * ramp;
}

static void fill(float *table, const struct ratp_rope *rope, uint32_t rows, double step,
                 double factor)
{
    uint32_t size = rope->size;
    for (uint32_t i = 0; i < size / 2; i++) {
        double f = frequency(rope, i);
        for (uint32_t r = 0; r < rows; r++) {
            float *pair = table + ((size_t)r * (size / 2) + i) * 2;
            pair[0] = (float)(cos(f * step * r) * factor);
            pair[1] = (float)(sin(f * step * r) * factor);
        }
    }
}

ratp_status rope_open(ratp_cache *cache, const struct ratp_rope *rope, struct error *err)
{
    if (!rope || rope->style == RATP_ROPE_NONE)
        return RATP_OK;
    struct layer_shape *shape = &cache->shape;
    struct ratp_rope *full = &cache->rotation;
    *full = with_defaults(rope, shape->head_size);
    uint32_t size = full->size;
    cache->factors = malloc(size / 2 * sizeof *cache->factors);
    if (!cache->factors)
        return fail(err, RATP_OUT_OF_MEMORY, "no host memory for %u rotary factors", size / 2);
    for (uint32_t i = 0; i < size / 2; i++)
        cache->factors[i] = rope->factors ? rope->factors[i] : 1;
    full->factors = cache->factors;
    uint32_t coarse_rows = (cache->max_tokens - 1) / ROPE_FINE + 1;
    size_t row = (size_t)size * sizeof(float);
    size_t bytes = (coarse_rows + ROPE_FINE) * row;
    float *table = malloc(bytes);
    if (!table)
        return fail(err, RATP_OUT_OF_MEMORY, "no host memory for %zu bytes of rotary tables", bytes);
    double attention = full->yarn_factor > 0 ? full->yarn_attention : 1;
    fill(table, full, coarse_rows, ROPE_FINE, attention);
    fill(table + (size_t)coarse_rows * size, full, ROPE_FINE, 1, 1);

    const struct backend_ops *ops = cache->backend->ops;
    ratp_status status =
        cache_alloc(cache, bytes, MEM_DEVICE, "rotary tables", &cache->rope, err);
    if (!status)
        status = ops->mem_write(cache->backend, &cache->rope, 0, table, bytes, err);
    free(table);
    shape->rope_style = full->style;
    shape->rope_size = size;
    shape->rope_table = cache->rope.address;
    return status;
}
