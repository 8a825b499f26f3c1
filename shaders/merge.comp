// Joins results over disjoint sets of keys by their log-sum-exp. An invocation
// owns two channels of a token's head.
#version 450
#extension GL_GOOGLE_include_directive : require

#include "io.glsl"

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

float part_lse(Part part, uint token, uint head)
{
    uvec2 row = row_of(uvec2(part.lse_lo, part.lse_hi), token, part.lse_token, head, part.lse_head);
    return Floats(row).at[0];
}

void main()
{
    uint head = gl_GlobalInvocationID.x / (VALUE_SIZE / 2);
    uint c = gl_GlobalInvocationID.x % (VALUE_SIZE / 2) * 2;
    uint token = push.token0 + gl_WorkGroupID.y;
    if (head >= push.heads)
        return;
    Parts parts = Parts(push.parts);
    float maximum = -3.4028234e38;
    for (uint i = 0; i < push.part_count; i++)
        maximum = max(maximum, part_lse(parts.at[i], token, head));
    vec2 sum = vec2(0);
    float total = 0;
    for (uint i = 0; i < push.part_count; i++) {
        Part part = parts.at[i];
        float x = part_lse(part, token, head);
        // A part that has seen no key may hold anything.
        if (floatBitsToUint(x) == 0xff800000u)
            continue;
        float weight = exp(x - maximum);
        uvec2 row = row_of(uvec2(part.out_lo, part.out_hi), token, part.out_token, head,
                           part.out_head);
        sum += weight * load2(row, part.out_type, c);
        total += weight;
    }
    store2(row_of(push.out_, token, push.out_token, head, push.out_head), OUT_TYPE, c,
           total > 0 ? sum / total : vec2(0));
    if (LSE_TYPE != 0 && c == 0)
        Words(row_of(push.lse, token, push.lse_token, head, push.lse_head)).at[0] =
            total > 0 ? floatBitsToUint(maximum + log(total)) : 0xff800000u;
}
