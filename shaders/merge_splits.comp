// Joins the partial results of a query's splits. An invocation owns two
// channels of a query head.
#version 450
#extension GL_GOOGLE_include_directive : require

#include "attend.glsl"

layout(local_size_x = 64) in;

void main()
{
    uint head = gl_GlobalInvocationID.x / (VALUE_SIZE / 2);
    uint c = gl_GlobalInvocationID.x % (VALUE_SIZE / 2) * 2;
    if (head >= QUERY_HEADS)
        return;
    Gather gather = Gathers(plus(push.plan, push.items)).at[gl_WorkGroupID.y];
    float maximum = NOTHING, total = 0;
    vec2 sum = vec2(0);
    for (uint i = 0; i < gather.splits; i++) {
        uvec2 part = partial_row(gather.partial + i * gather.step, head);
        vec2 stats = load2(part, F32, VALUE_SIZE); // maximum, sum of exponentials
        float top = max(maximum, stats.x);
        float old_weight = exp(maximum - top), weight = exp(stats.x - top);
        sum = sum * old_weight + load2(part, F32, c) * weight;
        total = total * old_weight + stats.y * weight;
        maximum = top;
    }
    store_out(gather.row, head, c, total > 0 ? sum / total : vec2(0));
    if (c == 0)
        store_lse(gather.row, head, maximum, total);
}
