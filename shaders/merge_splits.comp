// Joins the partial results of a query's splits: a workgroup has a query head. Its
// invocations are SLICES rows of LANES: a lane owns two channels at a time, a slice
// every SLICES-th split, so that many loads are in flight.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require

#include "attend.glsl"

const uint LANES = 64;
const uint BATCH = 4; // splits whose loads are in flight together

layout(local_size_x = LANES) in;
layout(local_size_y_id = 20) in;
const uint SLICES = gl_WorkGroupSize.y;

// A sum: two channels of weighted values, the maximum of the logits, and the sum of their
// exponentials.
const vec4 EMPTY = vec4(0, 0, NOTHING, 0);

shared vec4 slice_sum[SLICES * LANES];

// Scales what was summed before a maximum that is now `top`.
void raise(inout vec4 sum, float top)
{
    sum.xyw *= exp(sum.z - top);
    sum.z = top;
}

// From `split` on, every SLICES-th: those past the last weigh nothing.
void add_batch(inout vec4 sum, Gather gather, uint split, uint head, uint c)
{
    vec2 value[BATCH], stats[BATCH];
    float top = sum.z;
    [[unroll]] for (uint i = 0; i < BATCH; i++) {
        uint n = split + i * SLICES;
        uvec2 part = partial_row(gather.partial + min(n, gather.splits - 1) * gather.step, head);
        value[i] = load2(part, F32, c);
        stats[i] = load2(part, F32, VALUE_SIZE); // maximum, sum of exponentials
        if (n >= gather.splits)
            stats[i] = vec2(NOTHING, 0);
        top = max(top, stats[i].x);
    }
    raise(sum, top);
    [[unroll]] for (uint i = 0; i < BATCH; i++) {
        // A split with no key has no sum either, and one past the last is not there.
        float weight = stats[i].x > NOTHING ? exp(stats[i].x - top) : 0;
        sum.xy += stats[i].x > NOTHING ? weight * value[i] : vec2(0);
        sum.w += weight * stats[i].y;
    }
}

void join_slices(inout vec4 sum, uint lane, uint slice)
{
    slice_sum[slice * LANES + lane] = sum;
    barrier();
    if (slice == 0) {
        for (uint i = 1; i < SLICES; i++) {
            vec4 other = slice_sum[i * LANES + lane];
            raise(sum, max(sum.z, other.z));
            raise(other, sum.z);
            sum.xyw += other.xyw;
        }
    }
    barrier();
}

void main()
{
    uint head = gl_WorkGroupID.x, lane = gl_LocalInvocationID.x, slice = gl_LocalInvocationID.y;
    Gather gather = Gathers(plus(push.plan, push.items)).at[gl_WorkGroupID.y];
    for (uint c0 = 0; c0 < VALUE_SIZE; c0 += 2 * LANES) {
        uint c = c0 + 2 * lane;
        vec4 sum = EMPTY;
        for (uint split = slice; split < gather.splits; split += SLICES * BATCH)
            add_batch(sum, gather, split, head, min(c, VALUE_SIZE - 2));
        if (SLICES > 1)
            join_slices(sum, lane, slice);
        if (slice != 0 || c >= VALUE_SIZE)
            continue;
        store_out(gather.row, head, c, sum.w > 0 ? sum.xy / sum.w : vec2(0), sum.z);
        if (c == 0)
            store_lse(gather.row, head, sum.z, sum.w);
    }
}
