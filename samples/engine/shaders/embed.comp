#version 460
#extension GL_GOOGLE_include_directive : require
#include "weights.glsl"

// y[row] = weights[tokens[row]]; a workgroup takes a row.
const uint THREADS = 64;
layout(local_size_x = 64) in;

layout(push_constant, std430) uniform arguments {
    ints tokens;
    uvec4s weights;
    results y;
    uint size, vocabulary;
};

void main()
{
    const uint row = gl_WorkGroupID.x;
    const uint token = min(uint(tokens.at[row]), vocabulary - 1);
    for (uint i = gl_LocalInvocationIndex; i < size / 8; i += THREADS) {
        const weights_8 values = weights_at(weights, token * (size / 8) + i);
        for (uint j = 0; j < 4; j++) {
            y.at[row * size + 8 * i + j] = values.low[j];
            y.at[row * size + 8 * i + 4 + j] = values.high[j];
        }
    }
}
