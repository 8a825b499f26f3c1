// The best blocks of a query by their scores, in the order of their numbers, and the
// query's own behind them. Of equal scores the block with the lower number is better.
// A workgroup takes a query head of a chooser: it finds the score of the last that is
// chosen, eight bits at a time, and then writes what is above it, and as many of its
// equals as there is room for.
#version 450
#extension GL_GOOGLE_include_directive : require

#include "attend.glsl"

layout(local_size_x = 64) in;

layout(constant_id = 20) const uint STRIDE = 1; // blocks of a row of scores
layout(constant_id = 21) const uint ROOM = 1;   // blocks of a list

const uint LANES = 64;
const uint DIGITS = 256;

shared uint histogram[DIGITS];
shared uint prefix, left; // what the last one's score begins with; how many are to come from there
shared uint above[LANES], equal[LANES];

// The heads whose scores count together.
struct Rows {
    uvec2 first;
    uint count;
};

// A number that orders as the score does; NaN is the worst.
uint order_of(Rows rows, uint block)
{
    float score = 0;
    for (uint i = 0; i < rows.count; i++)
        score += Floats(plus(rows.first, (i * STRIDE + block) * 4)).at[0];
    uint bits = floatBitsToUint(score + 0.0);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return 0;
    return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

// Sets prefix and left: the `want`-th best of `count`, want > 0.
void find_last(Rows rows, uint count, uint want)
{
    uint lane = gl_LocalInvocationIndex;
    if (lane == 0) {
        prefix = 0;
        left = want;
    }
    for (uint shift = 32; shift > 0;) {
        for (uint i = lane; i < DIGITS; i += LANES)
            histogram[i] = 0;
        barrier();
        uint begun = prefix;
        for (uint b = lane; b < count; b += LANES) {
            uint order = order_of(rows, b);
            if (shift == 32 || order >> shift == begun)
                atomicAdd(histogram[order >> (shift - 8) & 255], 1);
        }
        barrier();
        if (lane == 0) {
            uint digit = DIGITS - 1, wanted = left;
            while (digit > 0 && histogram[digit] < wanted)
                wanted -= histogram[digit--];
            left = wanted;
            prefix = begun << 8 | digit;
        }
        barrier();
        shift -= 8;
    }
}

void main()
{
    Chooser chooser = Choosers(plus(push.plan, push.items)).at[gl_WorkGroupID.y];
    View view = load_view(chooser.view);
    uint head = gl_WorkGroupID.x, lane = gl_LocalInvocationIndex;
    bool together = view.by_group != 0;
    if (together && head % GROUP != 0)
        return;
    uint t = view.pos0 + chooser.token;
    uint candidates = blocks_at(view, t) - 1, want = min(chosen_at(view, t), ROOM) - 1;
    uint lists = together ? GROUP : 1;
    uvec2 list = plus(push.mask, gl_WorkGroupID.y * QUERY_HEADS + head, ROOM * 4);
    Rows rows = Rows(plus(push.partial, gl_WorkGroupID.y * QUERY_HEADS + head, STRIDE * 4), lists);
    bool all = want >= candidates;
    if (!all && want > 0)
        find_last(rows, candidates, want);

    // Each lane has neighbouring blocks, and writes behind those of the lanes before it.
    uint share = (candidates + LANES - 1) / LANES;
    uint from = min(lane * share, candidates), to = min(from + share, candidates);
    uint better = 0, same = 0;
    for (uint b = from; b < to && !all && want > 0; b++) {
        uint order = order_of(rows, b);
        better += order > prefix ? 1 : 0;
        same += order == prefix ? 1 : 0;
    }
    above[lane] = better;
    equal[lane] = same;
    barrier();
    uint at = 0, equals = 0;
    for (uint i = 0; i < lane; i++) {
        at += above[i];
        equals += equal[i];
    }
    at = all ? from : at + min(equals, left);
    for (uint b = from; b < to && (all || want > 0); b++) {
        uint order = all ? 0 : order_of(rows, b);
        bool taken = all || order > prefix || (order == prefix && equals < left);
        equals += !all && order == prefix ? 1 : 0;
        if (!taken || at >= want)
            continue;
        for (uint i = 0; i < lists; i++)
            Words(plus(list, (i * ROOM + at) * 4)).at[0] = b;
        at++;
    }
    if (lane == 0)
        for (uint i = 0; i < lists; i++)
            Words(plus(list, (i * ROOM + want) * 4)).at[0] = candidates;
}
