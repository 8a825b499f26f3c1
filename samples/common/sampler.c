#include "sampler.h"

#include <math.h>
#include <stdlib.h>

struct sampler_entry {
    double weight;
    int32_t token;
};

bool sampler_open(struct sampler *sampler, const struct sampler_options *options, uint32_t count,
                  struct problem *problem)
{
    *sampler = (struct sampler){.options = *options, .state = options->seed, .count = count};
    sampler->entries = malloc(count * sizeof *sampler->entries);
    if (!sampler->entries)
        return problem_set(problem, "out of memory for a sampler of %u tokens", count);
    return true;
}

void sampler_close(struct sampler *sampler)
{
    free(sampler->entries);
    *sampler = (struct sampler){0};
}

/* SplitMix64: short, and the same on every machine. */
static double next_uniform(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    z ^= z >> 31;
    return (double)(z >> 11) * 0x1p-53;
}

static int32_t likeliest(const float *logits, uint32_t count)
{
    int32_t best = -1;
    for (uint32_t i = 0; i < count; i++)
        if (isfinite(logits[i]) && (best < 0 || logits[i] > logits[best]))
            best = (int32_t)i;
    return best;
}

static int by_weight(const void *a, const void *b)
{
    const struct sampler_entry *x = a, *y = b;
    if (x->weight != y->weight)
        return x->weight < y->weight ? 1 : -1;
    return x->token < y->token ? -1 : 1; /* each token is there once */
}

int32_t sampler_pick(struct sampler *sampler, const float *logits)
{
    const struct sampler_options *options = &sampler->options;
    struct sampler_entry *entries = sampler->entries;
    const int32_t best = likeliest(logits, sampler->count);
    if (best < 0 || options->temperature <= 0)
        return best;

    double total = 0;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < sampler->count; i++) {
        if (!isfinite(logits[i]))
            continue;
        const double weight =
            exp(((double)logits[i] - (double)logits[best]) / options->temperature);
        entries[kept++] = (struct sampler_entry){weight, (int32_t)i};
        total += weight;
    }
    if (options->top_k > 0 || options->top_p < 1)
        qsort(entries, kept, sizeof *entries, by_weight);
    if (options->top_k > 0 && options->top_k < kept) {
        kept = options->top_k;
        total = 0;
        for (uint32_t i = 0; i < kept; i++)
            total += entries[i].weight;
    }
    if (options->top_p < 1) {
        const double wanted = options->top_p * total;
        uint32_t n = 0;
        total = 0;
        do
            total += entries[n++].weight;
        while (n < kept && total < wanted);
        kept = n;
    }

    double point = next_uniform(&sampler->state) * total;
    uint32_t pick = 0;
    while (pick + 1 < kept && point >= entries[pick].weight)
        point -= entries[pick++].weight;
    return entries[pick].token;
}
