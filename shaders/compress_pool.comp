// Pooled votes: the most, or the average, of a key's and its neighbours'. An average is
// over KERNEL also where there are fewer.
#version 450
#extension GL_GOOGLE_include_directive : require

#include "compress.glsl"

layout(local_size_x = 64) in;

void main()
{
    uint head = gl_WorkGroupID.y, count = candidates();
    Floats votes = Floats(votes_of(head));
    for (uint key = gl_GlobalInvocationID.x; key < count;
         key += gl_NumWorkGroups.x * gl_WorkGroupSize.x) {
        uint first = key - min(key, KERNEL / 2), last = min(key + KERNEL / 2, count - 1);
        float pooled = votes.at[first];
        for (uint i = first + 1; i <= last; i++)
            pooled = AVERAGE != 0 ? pooled + votes.at[i] : max(pooled, votes.at[i]);
        Floats(pooled_of(head)).at[key] = AVERAGE != 0 ? pooled / float(KERNEL) : pooled;
    }
}
