// The best of a row of scores, in the order of their numbers. Of equal scores the one
// with the lower number is better. A workgroup finds the score of the last that is
// taken, eight bits at a time, and then takes what is above it, and as many of its
// equals as there is room for.
#ifndef BEST_GLSL
#define BEST_GLSL

layout(local_size_x = 64) in;

const uint LANES = 64;
const uint DIGITS = 256;

shared uint histogram[DIGITS];
shared uint prefix, left; // what the last one's score begins with; how many are to come from there
shared uint above[LANES], equal[LANES];

// Rows whose scores count together.
struct Rows {
    uvec2 first;
    uint count;
    uint stride; // scores from a row to the next
};

// The kernel's own: number `at` of those taken is `index`.
void take(uint at, uint index);

// A number that orders as the score does; NaN is the worst.
uint order_of(Rows rows, uint index)
{
    float score = 0;
    for (uint i = 0; i < rows.count; i++)
        score += Floats(plus(rows.first, (i * rows.stride + index) * 4)).at[0];
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
        for (uint i = lane; i < count; i += LANES) {
            uint order = order_of(rows, i);
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

// Takes the `want` best of `count`, or all.
void take_best(Rows rows, uint count, uint want)
{
    uint lane = gl_LocalInvocationIndex;
    bool all = want >= count;
    if (!all && want > 0)
        find_last(rows, count, want);

    // Each lane has neighbours, and takes behind the lanes before it.
    uint share = (count + LANES - 1) / LANES;
    uint from = min(lane * share, count), to = min(from + share, count);
    uint better = 0, same = 0;
    for (uint i = from; i < to && !all && want > 0; i++) {
        uint order = order_of(rows, i);
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
    for (uint i = from; i < to && (all || want > 0); i++) {
        uint order = all ? 0 : order_of(rows, i);
        bool taken = all || order > prefix || (order == prefix && equals < left);
        equals += !all && order == prefix ? 1 : 0;
        if (taken && at < want)
            take(at++, i);
    }
}

#endif
