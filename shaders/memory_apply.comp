// New tokens into the cache: through the memory where there is one, turned,
// and written to every place that the view names. An invocation owns a quad of
// channels of K and V and walks along a chunk's tokens. Without memory tokens
// do not depend on each other: the workgroups of z share a chunk's tokens, and
// K and V have quads of their own because their sizes may differ.
#version 450
#extension GL_GOOGLE_include_directive : require

#include "memory.glsl"

const uint K_QUADS = HEAD_SIZE / 4;
const uint V_QUADS = VALUE_SIZE / 4;

// Runs of pages that a token may be written to.
struct Target {
    uint page0, pages, layer;
};

void write(Target to, uint slot, uint head, uvec2 channels, bool k, bool v, Quad x)
{
    Page base = load_page(page_of(to.page0, to.pages, push.page_slots, slot));
    if (k) {
        uvec2 row = plus(plus(plus(to_uvec2(base.k), to.layer), slot, K_SLOT), head, K_HEAD);
        store2(row, K_TYPE, channels.x, x.ka);
        store2(row, K_TYPE, channels.y, x.kb);
    }
    if (v) {
        uvec2 row = plus(plus(plus(to_uvec2(base.v), to.layer), slot, V_SLOT), head, V_HEAD);
        store2(row, V_TYPE, channels.x, x.va);
        store2(row, V_TYPE, channels.y, x.vb);
    }
}

void write_token(View view, uint p, uint head, uvec2 channels, bool k, bool v, Quad x)
{
    if (view.line_pages != 0 && p >= view.line_pos0)
        write(Target(view.line_page0, view.line_pages,
                     view.line_layered != 0 ? push.layer_offset : 0),
              p - view.line_pos0, head, channels, k, v, x);
    if (view.ring_pages != 0 && p >= view.ring_from)
        write(Target(view.ring_page0, view.ring_pages, push.layer_offset), p % view.ring_slots,
              head, channels, k, v, x);
    if (view.kept_pages != 0 &&
        (p < view.sinks || (view.dilation != 0 && (p + 1) % view.dilation == 0)))
        write(Target(view.kept_page0, view.kept_pages, push.layer_offset),
              kept_index(p, view.sinks, max(view.dilation, 1)), head, channels, k, v, x);
}

void scan_chunk(Chunk chunk, View view, uint index)
{
    uint head = index / K_QUADS, n = index % K_QUADS;
    if (head >= KV_HEADS)
        return;
    Rope rope = memory_rope();
    uvec2 channels = quad_channels(rope, n);
    Quad state = Quad(vec2(0), vec2(0), vec2(0), vec2(0));
    if (chunk.carry != NO_CARRY)
        state = load_state(plus(carry_row(chunk.carry, head), HEAD_SIZE * 4), HEAD_SIZE * 4,
                           channels);
    else if (present(to_uvec2(view.state_in)))
        state = load_state(state_row(view.state_in, head), HEAD_SIZE * 4, channels);

    for (uint i = chunk.token0; i < chunk.token0 + chunk.tokens; i++) {
        vec2 a, b;
        memory_step(state, view.row0 + i, head, channels, a, b);
        Quad turned = state;
        rope_quad(rope, view.pos0 + i, n, turned.ka, turned.kb);
        write_token(view, view.pos0 + i, head, channels, true, true, turned);
    }
    if (chunk.token0 + chunk.tokens == view.rows && present(to_uvec2(view.state_out)))
        store_state(state_row(view.state_out, head), HEAD_SIZE * 4, channels, state);
}

void copy_chunk(Chunk chunk, View view, uint index)
{
    bool k = index < KV_HEADS * K_QUADS;
    uint quads = k ? K_QUADS : V_QUADS;
    index -= k ? 0 : KV_HEADS * K_QUADS;
    uint head = index / quads, n = index % quads;
    if (head >= KV_HEADS)
        return;
    Rope rope = memory_rope();
    uvec2 channels = k ? quad_channels(rope, n) : uvec2(4 * n, 4 * n + 2);
    uint end = chunk.token0 + chunk.tokens;
    for (uint i = chunk.token0 + gl_WorkGroupID.z; i < end; i += gl_NumWorkGroups.z) {
        Quad x = Quad(vec2(0), vec2(0), vec2(0), vec2(0));
        if (k) {
            uvec2 row = input_row(push.k, view.row0 + i, push.k_token, head, push.k_head);
            x.ka = load2(row, K_IN, channels.x);
            x.kb = load2(row, K_IN, channels.y);
            rope_quad(rope, view.pos0 + i, n, x.ka, x.kb);
        } else {
            uvec2 row = input_row(push.v, view.row0 + i, push.v_token, head, push.v_head);
            x.va = load2(row, V_IN, channels.x);
            x.vb = load2(row, V_IN, channels.y);
        }
        write_token(view, view.pos0 + i, head, channels, k, !k, x);
    }
}

void main()
{
    Chunk chunk = Chunks(plus(push.plan, push.items)).at[gl_WorkGroupID.y];
    View view = load_view(chunk.view);
    if (F_IN != 0)
        scan_chunk(chunk, view, gl_GlobalInvocationID.x);
    else
        copy_chunk(chunk, view, gl_GlobalInvocationID.x);
}
