/* Random numbers that are the same on every machine. */
#ifndef TESTS_RANDOM_H
#define TESTS_RANDOM_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>

struct random {
    uint64_t state;
};

static inline uint64_t random_bits(struct random *r)
{
    uint64_t z = r->state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* lo to hi, both included. */
static inline uint32_t random_in(struct random *r, uint32_t lo, uint32_t hi)
{
    return lo + (uint32_t)(random_bits(r) % ((uint64_t)hi - lo + 1));
}

static inline bool random_chance(struct random *r, uint32_t percent)
{
    return random_in(r, 0, 99) < percent;
}

/* 0 to 1. */
static inline double random_unit(struct random *r)
{
    return (double)(random_bits(r) >> 11) * 0x1p-53;
}

/* Mean 0, deviation 1. */
static inline float random_normal(struct random *r)
{
    double radius = sqrt(-2 * log(random_unit(r) + 0x1p-60));
    return (float)(radius * cos(6.283185307179586 * random_unit(r)));
}

#endif
