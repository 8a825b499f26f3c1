// Joins results over disjoint sets of keys by their log-sum-exp. An invocation
// owns two channels of a token's head.
#version 450
#extension GL_GOOGLE_include_directive : require

#include "io.glsl"
#include "finite.glsl"

layout(constant_id = 0) const uint VALUE_SIZE = 128;
layout(constant_id = 1) const uint OUT_TYPE = 1;
layout(constant_id = 2) const uint LSE_TYPE = 0; // 0: not wanted

layout(local_size_x = 64) in;

struct Part {
    uint out_lo, out_hi, lse_lo, lse_hi;
    uint out_token, out_head, lse_token, lse_head; // strides
    uint out_type, lse_type;
};

layout(buffer_reference, std430, buffer_reference_align = 4) readonly buffer Parts { Part at[]; };

layout(push_constant, std430) uniform Push {
    uvec2 parts, out_, lse;
    uint part_count, token0, heads;
    uint out_token, out_head, lse_token, lse_head; // strides
} push;

uvec2 row_of(uvec2 base, uint token, uint token_stride, uint head, uint head_stride)
{
    return plus(plus(base, token, token_stride), head, head_stride);
}

// NOTHING where the part has seen no key.
float part_lse(Part part, uint token, uint head)
{
    uvec2 row = row_of(uvec2(part.lse_lo, part.lse_hi), token, part.lse_token, head, part.lse_head);
    float lse = Floats(row).at[0];
    if (floatBitsToUint(lse) == MINUS_INFINITY)
        return NOTHING;
    return is_finite(lse) ? max(lse, LEAST_LOGIT) : NOT_FINITE;
}

void main()
{
    uint head = gl_GlobalInvocationID.x / (VALUE_SIZE / 2);
    uint c = gl_GlobalInvocationID.x % (VALUE_SIZE / 2) * 2;
    uint token = push.token0 + gl_WorkGroupID.y;
    if (head >= push.heads)
        return;
    Parts parts = Parts(push.parts);
    float maximum = NOTHING, total = 0;
    for (uint i = 0; i < push.part_count; i++)
        maximum = max(maximum, part_lse(parts.at[i], token, head));
    for (uint i = 0; i < push.part_count; i++)
        total += weight_of(part_lse(parts.at[i], token, head), maximum);
    // Each part's share is at most 1, so that sums of finite numbers are finite.
    vec2 sum = vec2(0);
    for (uint i = 0; i < push.part_count; i++) {
        Part part = parts.at[i];
        float weight = weight_of(part_lse(part, token, head), maximum);
        uvec2 row = row_of(uvec2(part.out_lo, part.out_hi), token, part.out_token, head,
                           part.out_head);
        // A part that has seen no key may hold anything.
        if (weight > 0)
            sum += weight / total * load2(row, part.out_type, c);
    }
    bool spoilt = maximum == NOT_FINITE;
    bvec2 odd = is_odd(sum);
    store2(row_of(push.out_, token, push.out_token, head, push.out_head), OUT_TYPE, c,
           mix(sum, vec2(not_a_number()), bvec2(spoilt || odd.x, spoilt || odd.y)));
    uint lse = spoilt ? NOT_A_NUMBER_BITS : floatBitsToUint(maximum + log(total));
    if (LSE_TYPE != 0 && c == 0)
        Words(row_of(push.lse, token, push.lse_token, head, push.lse_head)).at[0] =
            total > 0 ? lse : MINUS_INFINITY;
}
