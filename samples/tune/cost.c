#include "cost.h"

static uint64_t smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* Of token t: its sinks are [0, sinks), its window [window, t], and between them
 * every dilation-th position. */
static uint64_t attended_by(const struct ratp_variant *variant, uint64_t t)
{
    if (variant->kind == RATP_DENSE)
        return t + 1;
    const uint64_t sinks = smaller(variant->sinks, t + 1);
    uint64_t window = t - smaller(variant->window, t);
    window = window > sinks ? window : sinks;
    const uint64_t between = variant->kind == RATP_DILATED
                                 ? window / variant->dilation - sinks / variant->dilation
                                 : 0;
    return sinks + between + (t + 1 - window);
}

double attended_keys(const struct ratp_variant *variant, uint32_t length)
{
    double sum = 0;
    for (uint32_t t = 0; t < length; t++)
        sum += (double)attended_by(variant, t);
    return length ? sum / length : 0;
}
