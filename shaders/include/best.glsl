// The best of a row of scores, in the order of their numbers. Of equal scores the one
// with the lower number is better. A workgroup finds the score of the last that is
// taken, two bits at a time, and then takes what is above it, and as many of its equals
// as there is room for. The row is a multiple of four scores long, at a multiple of 16
// bytes where ALIGNED16 says so.
// ORDERED: the row holds what order_of makes of scores.
// SUBGROUPS: lanes add up by subgroups, which are full.
#ifndef BEST_GLSL
#define BEST_GLSL

#include "order.glsl"

#extension GL_EXT_control_flow_attributes : require
#ifdef SUBGROUPS
#extension GL_KHR_shader_subgroup_arithmetic : require
#endif

layout(constant_id = LANES_ID) const uint LANES = 64;
layout(local_size_x_id = LANES_ID) in;

shared uvec4 parts[LANES];

// The kernel's own: number `at` of those taken is `index`.
void take(uint at, uint index);

// Of four neighbours; those past the last are worse than all others.
uvec4 orders_of(uvec2 scores, uint index, uint count)
{
    uvec4 order = load_words4(plus(scores, index * 4));
#ifndef ORDERED
    vec4 x = uintBitsToFloat(order);
    order = uvec4(order_of(x.x), order_of(x.y), order_of(x.z), order_of(x.w));
#endif
    return mix(uvec4(0), order, lessThan(uvec4(index) + uvec4(0, 1, 2, 3), uvec4(count)));
}

uint at_least(uvec4 order, uint limit)
{
    uvec4 there = mix(uvec4(0), uvec4(1), greaterThanEqual(order, uvec4(limit)));
    return there.x + there.y + there.z + there.w;
}

#ifdef SUBGROUPS
uint lane_number()
{
    return gl_SubgroupID * gl_SubgroupSize + gl_SubgroupInvocationID;
}

// How many parts there are, one of each subgroup's lanes together, and this lane's.
uint part_count()
{
    return gl_NumSubgroups;
}

uint part_number()
{
    return gl_SubgroupID;
}

uvec3 add_near(uvec3 x)
{
    return subgroupAdd(x);
}

uvec2 ends_near(uint most, uint least)
{
    return uvec2(subgroupMax(most), subgroupMin(least));
}

uvec2 before_near(uvec2 x)
{
    return subgroupExclusiveAdd(x);
}
#else
uint lane_number()
{
    return gl_LocalInvocationIndex;
}

// How many parts there are, one of each lane, and this lane's.
uint part_count()
{
    return LANES;
}

uint part_number()
{
    return gl_LocalInvocationIndex;
}

uvec3 add_near(uvec3 x)
{
    return x;
}

uvec2 ends_near(uint most, uint least)
{
    return uvec2(most, least);
}

uvec2 before_near(uvec2 x)
{
    return uvec2(0);
}
#endif

// The sum over all lanes, given to all of them.
uvec3 add_lanes(uvec3 x)
{
    parts[part_number()] = uvec4(add_near(x), 0);
    barrier();
    uvec3 all = uvec3(0);
    for (uint i = 0; i < part_count(); i++)
        all += parts[i].xyz;
    barrier();
    return all;
}

// A number that fewer than `want` of `count` orders are above, want > 0; with its
// equals they are as many, or more.
uint find_last(uvec2 scores, uint count, uint want)
{
    // The leading bits that all have in common are known at once.
    uvec4 least = uvec4(0xffffffffu), most = uvec4(0);
    uint first = lane_number() * 4;
    for (uint i = first; i < count; i += LANES * 4) {
        uvec4 order = orders_of(scores, i, count);
        most = max(most, order);
        least = min(least, mix(uvec4(0xffffffffu), order, greaterThan(order, uvec4(0))));
    }
    uvec2 ends = ends_near(max(max(most.x, most.y), max(most.z, most.w)),
                           min(min(least.x, least.y), min(least.z, least.w)));
    parts[part_number()] = uvec4(ends, 0, 0);
    barrier();
    for (uint i = 0; i < part_count(); i++)
        ends = uvec2(max(ends.x, parts[i].x), min(ends.y, parts[i].y));
    barrier();
    int top = findMSB(ends.x ^ min(ends.x, ends.y));
    uint shift = (uint(top + 1) + 1) / 2 * 2;
    uint last = shift == 32 ? 0 : ends.x >> shift << shift;
    while (shift > 0) {
        shift -= 2;
        uint step = 1u << shift;
        uvec3 seen = uvec3(0);
        for (uint i = first; i < count; i += LANES * 4) {
            uvec4 order = orders_of(scores, i, count);
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

// Takes the `want` best of `count`, or all.
void take_best(uvec2 scores, uint count, uint want)
{
    uint lane = lane_number();
    bool all = want >= count, none = want == 0;
    uint last = all || none ? 0 : find_last(scores, count, want);

    // Each lane has neighbours, in fours, and takes behind the lanes before it.
    uint share = (count + LANES * 4 - 1) / (LANES * 4) * 4;
    uint from = min(lane * share, count), to = min(from + share, count);
    uint better = 0, no_worse = 0;
    for (uint i = from; i < to && !all && !none; i += 4) {
        uvec4 order = orders_of(scores, i, to);
        better += last == 0xffffffffu ? 0 : at_least(order, last + 1);
        no_worse += at_least(order, last);
    }
    uvec2 own = uvec2(better, no_worse - better);
    uvec2 near = before_near(own); // of the lanes before this one; then all of them
    parts[part_number()] = uvec4(add_near(uvec3(own, 0)), 0);
    barrier();
    uint above = 0;
    for (uint i = 0; i < part_count(); i++) {
        near += i < part_number() ? parts[i].xy : uvec2(0);
        above += parts[i].x;
    }
    uint before = near.x, equals = near.y;
    uint left = want - min(above, want); // of the equals
    uint at = all ? from : before + min(equals, left);
    for (uint i = from; i < to && !none; i += 4) {
        uvec4 order = all ? uvec4(1) : orders_of(scores, i, to);
        [[unroll]] for (uint n = 0; n < 4; n++) {
            bool same = !all && order[n] == last;
            bool taken = i + n < to && (all || order[n] > last || (same && equals < left));
            equals += same ? 1 : 0;
            if (taken && at < want)
                take(at++, i + n);
        }
    }
}

#endif
