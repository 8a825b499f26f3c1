// Votes: what the softmax of all rows gives a key. An invocation has one key at a time;
// the first rows set its votes, those of later dispatches add to them.
#version 450
#extension GL_GOOGLE_include_directive : require

#include "compress.glsl"
#include "finite.glsl"

layout(local_size_x = 64) in;

void main()
{
    uint head = gl_WorkGroupID.y, count = candidates();
    for (uint key = gl_GlobalInvocationID.x; key < count;
         key += gl_NumWorkGroups.x * gl_WorkGroupSize.x) {
        Floats votes = Floats(votes_of(head));
        float sum = push.row0 == 0 ? 0 : votes.at[key];
        for (uint row = 0; row < push.rows; row++) {
            Floats sums = Floats(sums_of(head, row));
            sum += share_of(Floats(logits_of(head, row)).at[key], sums.at[0]) / sums.at[1];
        }
        votes.at[key] = sum;
    }
}
