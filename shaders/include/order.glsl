// Scores as numbers that order as they do.
#ifndef ORDER_GLSL
#define ORDER_GLSL

#include "finite.glsl"

// One that is not finite is the best, so that it is attended and shows; the zeros are equal.
uint order_of(float score)
{
    uint bits = floatBitsToUint(score);
    if (!is_finite(score))
        return 0xffffffffu;
    bits = bits == 0x80000000u ? 0 : bits;
    return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

#endif
