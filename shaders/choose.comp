// The best blocks of a query by their scores, in the order of their numbers, and the
// query's own behind them. Of equal scores the block with the lower number is better.
// A workgroup takes a query head of a chooser: it finds the score of the last that is
// chosen, two bits at a time, and then writes what is above it, and as many of its
// equals as there is room for.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require

#include "attend.glsl"

layout(constant_id = 20) const uint LANES = 64;
layout(local_size_x_id = 20) in;

shared uvec4 parts[LANES];

// A number that orders as the score does; NaN is the worst.
uint order_of(uint bits)
{
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return 0;
    bits = bits == 0x80000000u ? 0 : bits;
    return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

// Of four neighbouring blocks; those past the last are worse than all others.
uvec4 orders_of(uvec2 scores, uint block, uint count)
{
    uvec4 bits = load_words4(plus(scores, block * 4));
    uvec4 order = uvec4(order_of(bits.x), order_of(bits.y), order_of(bits.z), order_of(bits.w));
    return mix(uvec4(0), order, lessThan(uvec4(block) + uvec4(0, 1, 2, 3), uvec4(count)));
}

uint at_least(uvec4 order, uint limit)
{
    uvec4 there = mix(uvec4(0), uvec4(1), greaterThanEqual(order, uvec4(limit)));
    return there.x + there.y + there.z + there.w;
}

// The sum over all lanes, given to all of them.
uvec4 add_lanes(uvec4 x)
{
    parts[gl_LocalInvocationIndex] = x;
    barrier();
    uvec4 all = uvec4(0);
    for (uint i = 0; i < LANES; i++)
        all += parts[i];
    barrier();
    return all;
}

// A number that fewer than `want` of `count` orders are above, want > 0; with its
// equals they are as many, or more.
uint find_last(uvec2 scores, uint count, uint want)
{
    // The leading bits that all have in common are known at once.
    uvec4 least = uvec4(0xffffffffu), most = uvec4(0);
    for (uint b = gl_LocalInvocationIndex * 4; b < count; b += LANES * 4) {
        uvec4 order = orders_of(scores, b, count);
        most = max(most, order);
        least = min(least, mix(uvec4(0xffffffffu), order, greaterThan(order, uvec4(0))));
    }
    uvec2 ends = uvec2(max(max(most.x, most.y), max(most.z, most.w)),
                       min(min(least.x, least.y), min(least.z, least.w)));
    parts[gl_LocalInvocationIndex] = uvec4(ends, 0, 0);
    barrier();
    for (uint i = 0; i < LANES; i++)
        ends = uvec2(max(ends.x, parts[i].x), min(ends.y, parts[i].y));
    barrier();
    int top = findMSB(ends.x ^ min(ends.x, ends.y));
    uint shift = (uint(top + 1) + 1) / 2 * 2;
    uint last = shift == 32 ? 0 : ends.x >> shift << shift;
    while (shift > 0) {
        shift -= 2;
        uint step = 1u << shift;
        uvec4 seen = uvec4(0);
        for (uint b = gl_LocalInvocationIndex * 4; b < count; b += LANES * 4) {
            uvec4 order = orders_of(scores, b, count);
            seen.x += at_least(order, last + step);
            seen.y += at_least(order, last + 2 * step);
            seen.z += at_least(order, last + 3 * step);
        }
        seen = add_lanes(seen);
        uint digit = seen.z >= want ? 3 : seen.y >= want ? 2 : seen.x >= want ? 1 : 0;
        last += digit * step;
        // Just enough are no worse: those below do not matter.
        if (digit != 0 && seen[digit - 1] == want)
            return last - 1;
    }
    return last;
}

void main()
{
    Chooser chooser = Choosers(plus(push.plan, push.items)).at[gl_WorkGroupID.y];
    View view = load_view(chooser.view);
    uint head = gl_WorkGroupID.x, lane = gl_LocalInvocationIndex;
    bool together = view.by_group != 0;
    if (together && head % GROUP != 0)
        return;
    uint t = view.pos0 + chooser.token, room = push.mask_token;
    uint candidates = blocks_at(view, t) - 1, want = min(chosen_at(view, t), room) - 1;
    uint lists = together ? GROUP : 1;
    uint row = gl_WorkGroupID.y * QUERY_HEADS + head;
    uvec2 list = plus(push.mask, row, room * 4), scores = plus(push.partial, row, push.mask_head);
    bool all = want >= candidates, none = want == 0;
    uint last = all || none ? 0 : find_last(scores, candidates, want);

    // Each lane has neighbouring blocks, in fours, and writes behind those of the lanes
    // before it.
    uint share = (candidates + LANES * 4 - 1) / (LANES * 4) * 4;
    uint from = min(lane * share, candidates), to = min(from + share, candidates);
    uint better = 0, no_worse = 0;
    for (uint b = from; b < to && !all && !none; b += 4) {
        uvec4 order = orders_of(scores, b, to);
        better += last == 0xffffffffu ? 0 : at_least(order, last + 1);
        no_worse += at_least(order, last);
    }
    parts[lane] = uvec4(better, no_worse - better, 0, 0);
    barrier();
    uint before = 0, equals = 0, above = 0;
    for (uint i = 0; i < LANES; i++) {
        before += i < lane ? parts[i].x : 0;
        equals += i < lane ? parts[i].y : 0;
        above += parts[i].x;
    }
    uint left = want - min(above, want); // of the equals
    uint at = all ? from : before + min(equals, left);
    for (uint b = from; b < to && !none; b += 4) {
        uvec4 order = all ? uvec4(1) : orders_of(scores, b, to);
        [[unroll]] for (uint i = 0; i < 4; i++) {
            bool same = !all && order[i] == last;
            bool taken = b + i < to && (all || order[i] > last || (same && equals < left));
            equals += same ? 1 : 0;
            if (!taken || at >= want)
                continue;
            for (uint l = 0; l < lists; l++)
                Words(plus(list, (l * room + at) * 4)).at[0] = b + i;
            at++;
        }
    }
    if (lane == 0)
        for (uint l = 0; l < lists; l++)
            Words(plus(list, (l * room + want) * 4)).at[0] = candidates;
}
