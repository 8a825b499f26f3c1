// What becomes of numbers that are not finite: see "Values that are not finite" in
// abi/rules.md.
//
// Whether a key is attended never follows from its logit, and a logit that is not finite must
// not get lost on its way through maxima, sums and merges, of which drivers may assume that
// they see no NaN. So the state of a row stays finite: a hidden key has the logit NOTHING, an
// attended one a greater one, and one that is not finite has the greatest of all, NOT_FINITE.
// A row with that maximum becomes NaN where it is written. Tests look at bits, because a
// comparison may be compiled as if there were no NaN.
#ifndef FINITE_GLSL
#define FINITE_GLSL

const float NOTHING = -3.4028234e38;      // also the maximum of a row that has attended no key
const float LEAST_LOGIT = -3.4028232e38;  // of a key that is attended
const float NOT_FINITE = 3.4028234e38;

// The least weight of a key that is attended: above zero, however far its logit is below the
// maximum, so that 0 means hidden.
const float LEAST_WEIGHT = 1e-37;

// Bits of floats.
const uint INFINITY = 0x7f800000u;
const uint MINUS_INFINITY = 0xff800000u;
const uint NOT_A_NUMBER_BITS = 0x7fc00000u;

float not_a_number()
{
    return uintBitsToFloat(NOT_A_NUMBER_BITS);
}

bool is_finite(float x)
{
    return (floatBitsToUint(x) & INFINITY) != INFINITY;
}

// Which of them are not finite.
bvec2 is_odd(vec2 x)
{
    return equal(floatBitsToUint(x) & INFINITY, uvec2(INFINITY));
}

bvec4 is_odd(vec4 x)
{
    return equal(floatBitsToUint(x) & INFINITY, uvec4(INFINITY));
}

// Of two neighbours.
bvec4 is_odd(vec4 x, vec4 y)
{
    return equal(max(floatBitsToUint(x) & INFINITY, floatBitsToUint(y) & INFINITY),
                 uvec4(INFINITY));
}

// An attended key's weight beside the row's maximum; 0 for a hidden one.
float weight_of(float x, float maximum)
{
    return x > NOTHING ? max(exp(x - maximum), LEAST_WEIGHT) : 0;
}

// The same where nothing is hidden and a weight may be 0: what is not finite takes all, exactly,
// for exp() of so large a difference may be any small number.
float share_of(float x, float maximum)
{
    return maximum < NOT_FINITE ? exp(x - maximum) : float(x == NOT_FINITE);
}

// tanh() may overflow.
float soft_capped(float x, float cap)
{
    return cap - 2 * cap / (exp(2 / cap * x) + 1);
}

#endif
