#include "bench.h"

#include <stdlib.h>

#define LONG_SECONDS 10.0
#define LEAST_RUNS 3

struct stopwatch {
    uint32_t repeat, runs;
    double total;
    double seconds[];
};

bool stopwatch_open(uint32_t repeat, struct stopwatch **out, struct problem *problem)
{
    *out = calloc(1, sizeof **out + repeat * sizeof *(*out)->seconds);
    if (!*out)
        return problem_set(problem, "out of memory");
    (*out)->repeat = repeat;
    return true;
}

bool stopwatch_wants_more(const struct stopwatch *watch)
{
    return watch->runs < watch->repeat &&
           (watch->runs < LEAST_RUNS || watch->total < LONG_SECONDS);
}

void stopwatch_add(struct stopwatch *watch, double seconds)
{
    watch->seconds[watch->runs++] = seconds;
    watch->total += seconds;
}

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

struct timing stopwatch_read(struct stopwatch *watch)
{
    qsort(watch->seconds, watch->runs, sizeof *watch->seconds, compare);
    const uint32_t last = watch->runs - 1;
    return (struct timing){
        .median = (watch->seconds[last / 2] + watch->seconds[(last + 1) / 2]) / 2,
        .min = watch->seconds[0],
        .max = watch->seconds[last],
        .runs = watch->runs,
    };
}

void stopwatch_close(struct stopwatch *watch)
{
    free(watch);
}
