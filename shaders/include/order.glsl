// Scores as numbers that order as they do.
#ifndef ORDER_GLSL
#define ORDER_GLSL

// NaN is the worst, and the zeros are equal.
uint order_of(float score)
{
    uint bits = floatBitsToUint(score);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return 0;
    bits = bits == 0x80000000u ? 0 : bits;
    return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

#endif
