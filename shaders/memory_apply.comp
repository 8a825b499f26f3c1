// New tokens into the cache: through the memory where there is one, turned,
// and written to every place that the view names. Without memory tokens do not
// depend on each other, and the workgroups of z share a chunk's tokens.
//
// What happens now and then stands in loops that run once, not behind ifs:
// drivers on the CPU run both sides of an if.
#version 450
#extension GL_GOOGLE_include_directive : require

#include "quad.glsl"

// Where tokens are written: the slots of a run of pages, one after the other.
struct Line {
    uint page0, pages, layer;
    uint wrap;  // slots of a ring; 0: none
    uint left;  // slots that follow in the same page
    uvec2 k, v; // the slot's rows at the invocation's head and channel
};

void seek(inout Line line, uint slot, Place place)
{
    uint until_wrap = line.wrap == 0 ? 0xffffffffu : line.wrap - slot;
    Page base = load_page(page_of(line.page0, line.pages, push.page_slots, slot));
    line.left = min(push.page_slots - slot, until_wrap);
    line.k = plus(plus(plus(to_uvec2(base.k), line.layer), slot, K_SLOT),
                  place.head0 * K_HEAD + place.k.x * element_bytes(K_TYPE));
    line.v = plus(plus(plus(to_uvec2(base.v), line.layer), slot, V_SLOT),
                  place.head0 * V_HEAD + place.v.x * element_bytes(V_TYPE));
}

void write(Line line, Place place, Quad x[UNITS])
{
    uint k_between = (place.k.y - place.k.x) * element_bytes(K_TYPE);
    uint v_between = (place.v.y - place.v.x) * element_bytes(V_TYPE);
    [[unroll]] for (uint u = 0; u < UNITS; u++) {
        uint step = head_step(place, u);
        uint k = step * K_HEAD + channel_step(place, u) * element_bytes(K_TYPE);
        uint v = step * V_HEAD + channel_step(place, u) * element_bytes(V_TYPE);
        if (place.in_k) {
            store2(plus(line.k, k), K_TYPE, 0, x[u].ka);
            store2(plus(line.k, k + k_between), K_TYPE, 0, x[u].kb);
        }
        if (place.in_v) {
            store2(plus(line.v, v), V_TYPE, 0, x[u].va);
            store2(plus(line.v, v + v_between), V_TYPE, 0, x[u].vb);
        }
    }
}

void write_next(inout Line line, uint slot, Place place, Quad x[UNITS])
{
    while (line.left == 0)
        seek(line, line.wrap == 0 ? slot : slot % line.wrap, place);
    write(line, place, x);
    line.k = plus(line.k, K_SLOT);
    line.v = plus(line.v, V_SLOT);
    line.left--;
}

bool is_kept(View view, uint p)
{
    return p < view.sinks || (view.dilation != 0 && (p + 1) % view.dilation == 0);
}

void main()
{
    Place place;
    if (!find_place(place))
        return;
    Chunk chunk = Chunks(plus(push.plan, push.items)).at[gl_WorkGroupID.y];
    View view = load_view(chunk.view);
    Rope rope = memory_rope();
    uint from = chunk.token0, to = from + chunk.tokens;
    Quad state[UNITS];
    if (F_IN == 0) {
        uint share = (chunk.tokens + gl_NumWorkGroups.z - 1) / gl_NumWorkGroups.z;
        from = min(from + share * gl_WorkGroupID.z, to);
        to = min(from + share, to);
    } else {
        [[unroll]] for (uint u = 0; u < UNITS; u++) {
            uint head = place.head0 + head_step(place, u);
            uvec2 channels = place.k + channel_step(place, u);
            if (chunk.carry == NO_CARRY)
                state[u] = initial_state(view, head, channels);
            else
                state[u] = load_state(plus(carry_row(chunk.carry, head), HEAD_SIZE * 4), channels);
        }
    }

    uvec2 nowhere = uvec2(0);
    Line all = Line(view.line_page0, view.line_pages,
                    view.line_layered != 0 ? push.layer_offset : 0, 0, 0, nowhere, nowhere);
    Line ring = Line(view.ring_page0, view.ring_pages, push.layer_offset, max(view.ring_slots, 1),
                     0, nowhere, nowhere);
    Line kept = Line(view.kept_page0, view.kept_pages, push.layer_offset, 0, 0, nowhere, nowhere);
    Inputs x = inputs_at(place, view.row0 + from);
    vec4 coarse[SPAN];
    bool turned = false;
    for (uint i = from; i < to; i++) {
        uint p = view.pos0 + i;
        Quad row[UNITS];
        [[unroll]] for (uint u = 0; u < UNITS; u++) {
            take_token(state[u], place, x, u);
            row[u] = state[u];
        }
        next_token(x);
        if (ROPE_STYLE != ROPE_NONE) {
            bool stale = !turned || p % ROPE_FINE == 0;
            while (stale) {
                [[unroll]] for (uint j = 0; j < SPAN; j++)
                    coarse[j] = rope_quad_coarse(rope, p, place.n + j);
                stale = false;
            }
            turned = true;
            [[unroll]] for (uint j = 0; j < SPAN; j++) {
                vec4 fine = rope_quad_fine(rope, p, place.n + j);
                [[unroll]] for (uint h = 0; h < HEADS; h++)
                    rope_quad(rope, coarse[j], fine, place.n + j, row[h * SPAN + j].ka,
                              row[h * SPAN + j].kb);
            }
        }
        bool wanted = view.line_pages != 0 && p >= view.line_pos0;
        while (wanted) {
            write_next(all, p - view.line_pos0, place, row);
            wanted = false;
        }
        wanted = view.ring_pages != 0 && p >= view.ring_from;
        while (wanted) {
            write_next(ring, p, place, row);
            wanted = false;
        }
        wanted = view.kept_pages != 0;
        while (wanted && is_kept(view, p)) {
            seek(kept, kept_index(p, view.sinks, max(view.dilation, 1)), place);
            write(kept, place, row);
            wanted = false;
        }
    }

    bool last = F_IN != 0 && to == view.rows && present(to_uvec2(view.state_out));
    while (last) {
        [[unroll]] for (uint u = 0; u < UNITS; u++)
            store_state(state_row(view.state_out, place.head0 + head_step(place, u)),
                        place.k + channel_step(place, u), state[u]);
        last = false;
    }
}
