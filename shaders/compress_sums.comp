// The maximum and the sum of exponentials of a row of logits: a workgroup has one.
#version 450
#extension GL_GOOGLE_include_directive : require

#include "compress.glsl"
#include "finite.glsl"

layout(local_size_x = 64) in;

shared float lane_value[64];

void main()
{
    uint lane = gl_LocalInvocationIndex, row = gl_WorkGroupID.x, head = gl_WorkGroupID.y;
    uint keys = own_slot(row) + 1;
    Floats logits = Floats(logits_of(head, row));
    float most = logits.at[0];
    for (uint i = lane; i < keys; i += 64)
        most = max(most, logits.at[i]);
    lane_value[lane] = most;
    barrier();
    for (uint i = 0; i < 64; i++)
        most = max(most, lane_value[i]);
    barrier();
    float sum = 0;
    for (uint i = lane; i < keys; i += 64)
        sum += share_of(logits.at[i], most);
    lane_value[lane] = sum;
    barrier();
    if (lane != 0)
        return;
    for (uint i = 1; i < 64; i++)
        sum += lane_value[i];
    Floats sums = Floats(sums_of(head, row));
    sums.at[0] = most;
    sums.at[1] = sum;
}
