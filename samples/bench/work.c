#include "bench.h"

#include <stdlib.h>
#include <string.h>

enum { LEAST_REPEATS = 3 };

bool timer_wants(const struct bench_timer *t)
{
    return t->count < LEAST_REPEATS || (t->count < t->wanted && t->spent < t->seconds);
}

void timer_add(struct bench_timer *t, double seconds)
{
    if (t->warm && t->count < BENCH_MAX_REPEATS) {
        t->ms[t->count++] = seconds * 1e3;
        t->spent += seconds;
    }
    t->warm = true;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

struct bench_time timer_result(struct bench_timer *t)
{
    qsort(t->ms, t->count, sizeof *t->ms, compare);
    return (struct bench_time){
        .median = t->ms[t->count / 2], .min = t->ms[0], .max = t->ms[t->count - 1],
        .repeats = t->count};
}

/* Dilated positions below `end`. */
static uint64_t dilated_below(const struct ratp_variant *v, uint64_t end)
{
    return v->kind == RATP_DILATED ? end / v->dilation : 0;
}

uint64_t attended_keys(const struct ratp_variant *v, uint64_t t)
{
    if (v->kind == RATP_DENSE || t < v->sinks)
        return t + 1;
    uint64_t window0 = t > v->window ? t - v->window : 0;
    if (window0 < v->sinks)
        window0 = v->sinks;
    uint64_t dilated = dilated_below(v, t + 1) - dilated_below(v, v->sinks);
    uint64_t both = dilated_below(v, t + 1) - dilated_below(v, window0);
    return v->sinks + dilated + (t + 1 - window0) - both;
}

double attended_pairs(const struct ratp_variant *v, uint64_t first, uint64_t count)
{
    double pairs = 0;
    for (uint64_t t = first; t < first + count; t++)
        pairs += (double)attended_keys(v, t);
    return pairs;
}

uint32_t dtype_bytes(ratp_dtype dtype)
{
    return dtype == RATP_F32 ? 4 : 2;
}

void fill_random(void *data, uint64_t bytes, ratp_dtype dtype, uint64_t seed)
{
    uint32_t *words = data;
    uint32_t keep = dtype == RATP_F32 ? 0x807fffff : dtype == RATP_F16 ? 0x83ff83ff : 0x807f807f;
    uint32_t set = dtype == RATP_F32 ? 0x3e000000 : dtype == RATP_F16 ? 0x30003000 : 0x3e003e00;
    uint64_t x = seed * 0x9e3779b97f4a7c15u + 1;
    for (uint64_t i = 0; i < bytes / 4; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        words[i] = ((uint32_t)(x >> 32) & keep) | set;
    }
}
