#version 460
#extension GL_GOOGLE_include_directive : require
#include "product.glsl"

// For decoding: a workgroup makes OUTPUTS results of one row; its threads share
// the inner dimension.
const uint THREADS = 64, OUTPUTS = 4;
layout(local_size_x = 64) in;

shared vec4 partial[THREADS];

void main()
{
    const uint thread = gl_LocalInvocationIndex;
    const uint first_n = gl_WorkGroupID.x * OUTPUTS, row = gl_WorkGroupID.y;

    vec4 sum = vec4(0.0);
    for (uint k = thread * 8; k < inner; k += THREADS * 8) {
        const uint x_index = (row * inner + k) / 4;
        const vec4 low = x.at[x_index], high = x.at[x_index + 1];
        for (uint i = 0; i < OUTPUTS; i++) {
            // A row past the end is read as the last one, and not written.
            const uint n = min(first_n + i, outer - 1);
            const weights_8 line = weights_at(w, (n * inner + k) / 8);
            sum[i] += dot(low, line.low) + dot(high, line.high);
        }
    }
    partial[thread] = sum;
    barrier();
    for (uint half_count = THREADS / 2; half_count > 0; half_count /= 2) {
        if (thread < half_count)
            partial[thread] += partial[thread + half_count];
        barrier();
    }
    if (thread < OUTPUTS && first_n + thread < outer)
        finish(row, first_n + thread, partial[0][thread]);
}
