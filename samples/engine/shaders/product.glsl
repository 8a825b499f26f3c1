// What the two matrix products share: y[row][n] = finish(sum over k of
// x[row][k] * w[n][k]); inner is a multiple of 8.
#include "weights.glsl"

const uint FINISH_STORE = 0, FINISH_GELU = 1, FINISH_ADD = 2, FINISH_GATED = 3; // enum product_finish
layout(constant_id = 1) const uint FINISH = FINISH_STORE;

layout(push_constant, std430) uniform arguments {
    vec4s x;
    uvec4s w;
    results y;
    uint rows, outer, inner;
};

// x * (1 + erf(x / sqrt(2))) / 2. The complementary error function of |x|/sqrt(2)
// is Abramowitz and Stegun 7.1.26, right to 1.5e-7; taking it of the absolute
// value keeps that accuracy for negative x too.
float gelu(float value)
{
    const float z = abs(value) * 0.70710678;
    const float t = 1.0 / (1.0 + 0.3275911 * z);
    const float series =
        t * (0.254829592 +
             t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
    const float tail = 0.5 * value * series * exp(-z * z);
    return value < 0.0 ? tail : value - tail;
}

void finish(uint row, uint n, float sum)
{
    const uint index = row * outer + n;
    if (FINISH == FINISH_GELU)
        sum = gelu(sum);
    else if (FINISH == FINISH_ADD)
        sum += y.at[index];
    else if (FINISH == FINISH_GATED)
        sum *= y.at[index] / (1.0 + exp(-y.at[index])); // what is there, through SiLU
    y.at[index] = sum;
}
