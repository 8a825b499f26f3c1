// What is kept: the best by their pooled votes, and the observing tokens behind them.
// A workgroup has a head.
#version 450
#extension GL_GOOGLE_include_directive : require

#define LANES_ID 17
#include "compress.glsl"
#include "best.glsl"

void take(uint at, uint slot)
{
    uint head = gl_WorkGroupID.x, dropped = push.tokens - push.held;
    Words(plus(slots_of(head), at * 4)).at[0] = slot;
    uint row = (push.head0 + head) * push.capacity;
    uint position = slot + dropped;
    if (dropped != 0 && slot < push.capacity)
        position = Words(plus(push.positions_in, row + slot, 4)).at[0];
    Words(plus(push.positions, row + at, 4)).at[0] = position;
}

void main()
{
    uint want = push.capacity - push.observe;
    take_best(pooled_of(gl_WorkGroupID.x), candidates(), want);
    for (uint i = gl_LocalInvocationIndex; i < push.observe; i += gl_WorkGroupSize.x)
        take(want + i, candidates() + i);
}
