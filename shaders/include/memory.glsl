// What the kernels that fill the cache share: constants and push constants
// (filled by plugin/kernels/memory.c), and the memory's step.
#ifndef MEMORY_GLSL
#define MEMORY_GLSL

#include "plan.glsl"
#include "rope.glsl"

layout(constant_id = 0) const uint KV_HEADS = 1;
layout(constant_id = 1) const uint HEAD_SIZE = 128;
layout(constant_id = 2) const uint VALUE_SIZE = 128;
layout(constant_id = 3) const uint K_IN = 1; // types of the new tokens
layout(constant_id = 4) const uint V_IN = 1;
layout(constant_id = 5) const uint F_IN = 0; // 0: no memory
layout(constant_id = 6) const uint K_TYPE = 2; // types in the cache
layout(constant_id = 7) const uint V_TYPE = 2;
layout(constant_id = 8) const uint ROPE_STYLE = 0;
layout(constant_id = 9) const uint ROPE_SIZE = 0;
layout(constant_id = 10) const uint ROPE_ROWS = 1;
layout(constant_id = 11) const uint K_SLOT = 0; // strides in the cache
layout(constant_id = 12) const uint K_HEAD = 0;
layout(constant_id = 13) const uint V_SLOT = 0;
layout(constant_id = 14) const uint V_HEAD = 0;

layout(local_size_x = 64) in;

layout(push_constant, std430) uniform Push {
    uvec2 plan;
    uint pages, views, items; // offsets of lists; items: chunks, scans or moves
    uint page_slots;
    uvec2 k, v, f, carry, rope_table;
    uint k_token, k_head, v_token, v_head, f_token, f_head; // strides
    uint layer_offset, state_offset;
} push;

// Two pairs of channels of K and of V: what one invocation carries along.
struct Quad {
    vec2 ka, kb, va, vb;
};

Rope memory_rope()
{
    return Rope(ROPE_STYLE, ROPE_SIZE, ROPE_ROWS, push.rope_table);
}

View load_view(uint view)
{
    return Views(plus(push.plan, push.views)).at[view].view;
}

Page load_page(uint page)
{
    return Pages(plus(push.plan, push.pages)).at[page];
}

uvec2 input_row(uvec2 base, uint row, uint token_stride, uint head, uint head_stride)
{
    return plus(plus(base, row, token_stride), head, head_stride);
}

// What g = sigmoid(f) keeps of the old, and takes of the new: 1 - g, computed
// apart because g may round to 1.
void gate(vec2 f, out vec2 keep, out vec2 take)
{
    vec2 e = exp(-abs(f));
    vec2 large = 1 / (1 + e);
    vec2 small = e * large;
    keep = mix(small, large, greaterThanEqual(f, vec2(0)));
    take = mix(large, small, greaterThanEqual(f, vec2(0)));
}

// One token through the memory. `a` and `b` are what the gates keep.
void memory_step(inout Quad state, uint row, uint head, uvec2 channels, out vec2 a, out vec2 b)
{
    uvec2 k = input_row(push.k, row, push.k_token, head, push.k_head);
    uvec2 v = input_row(push.v, row, push.v_token, head, push.v_head);
    uvec2 f = input_row(push.f, row, push.f_token, head, push.f_head);
    vec2 take;
    gate(load2(f, F_IN, channels.x), a, take);
    state.ka = a * state.ka + take * load2(k, K_IN, channels.x);
    state.va = a * state.va + take * load2(v, V_IN, channels.x);
    gate(load2(f, F_IN, channels.y), b, take);
    state.kb = b * state.kb + take * load2(k, K_IN, channels.y);
    state.vb = b * state.vb + take * load2(v, V_IN, channels.y);
}

// Rows of a memory state: K, then V after `v_offset` bytes.
Quad load_state(uvec2 k, uint v_offset, uvec2 channels)
{
    uvec2 v = plus(k, v_offset);
    return Quad(load2(k, F32, channels.x), load2(k, F32, channels.y),
                load2(v, F32, channels.x), load2(v, F32, channels.y));
}

void store_state(uvec2 k, uint v_offset, uvec2 channels, Quad state)
{
    uvec2 v = plus(k, v_offset);
    store2(k, F32, channels.x, state.ka);
    store2(k, F32, channels.y, state.kb);
    store2(v, F32, channels.x, state.va);
    store2(v, F32, channels.y, state.vb);
}

// The state of a key/value head in a sequence's state, and in a carry, whose
// rows are the product of the gates, K and V.
uvec2 state_row(Address state, uint head)
{
    return plus(plus(to_uvec2(state), push.state_offset), head, (HEAD_SIZE + VALUE_SIZE) * 4);
}

uvec2 carry_row(uint carry, uint head)
{
    return plus(push.carry, carry * KV_HEADS + head, 3 * HEAD_SIZE * 4);
}

#endif
