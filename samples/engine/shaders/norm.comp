#version 460
#extension GL_GOOGLE_include_directive : require
#include "weights.glsl"

// y = x / sqrt(mean(x^2) + eps) * weight; a workgroup takes a row.
const uint THREADS = 128;
layout(local_size_x = 128) in;

layout(push_constant, std430) uniform arguments {
    floats x;
    floats weight;
    results y;
    uint size;
    float eps;
};

shared float partial[THREADS];

void main()
{
    const uint thread = gl_LocalInvocationIndex;
    const uint start = gl_WorkGroupID.x * size;

    float sum = 0.0;
    for (uint i = thread; i < size; i += THREADS)
        sum += x.at[start + i] * x.at[start + i];
    partial[thread] = sum;
    barrier();
    for (uint half_count = THREADS / 2; half_count > 0; half_count /= 2) {
        if (thread < half_count)
            partial[thread] += partial[thread + half_count];
        barrier();
    }
    const float factor = 1.0 / sqrt(partial[0] / float(size) + eps);
    for (uint i = thread; i < size; i += THREADS)
        y.at[start + i] = x.at[start + i] * factor * weight.at[i];
}
