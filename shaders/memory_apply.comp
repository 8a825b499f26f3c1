// New tokens into the cache: through the memory where there is one, turned,
// and written to the places that the view names. Without memory tokens do not
// depend on each other, and the workgroups of z share a chunk's tokens.
//
// The tokens go in runs: what changes at the end of a page or of a row of the
// coarse rotary table is looked up between runs, and a token that is kept ends
// one. Drivers on the CPU run both sides of an if, and lavapipe ends every loop
// of an invocation after 65535 passes in all: a token takes two at most.
#version 450
#extension GL_GOOGLE_include_directive : require

#include "quad.glsl"

// Places that the views of this dispatch write to.
layout(constant_id = 17) const uint TARGETS = 7;
const uint TO_LINE = 1;
const uint TO_RING = 2;
const uint TO_KEPT = 4;
const uint TO_RAW = 8; // to float32 rows alone, from which quantize.comp goes on

// Where tokens are written: the slots of a run of pages, one after the other.
struct Line {
    uint page0, pages, layer;
    uint wrap;  // slots of a ring; 0: none
    uint left;  // slots that follow in the same page
    uvec2 k, v; // the slot's rows at the invocation's head and channel
};

Line line_of(uint page0, uint pages, uint layer, uint wrap)
{
    return Line(page0, pages, layer, wrap, 0, uvec2(0), uvec2(0));
}

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
    vec4 k[UNITS], v[UNITS];
    [[unroll]] for (uint u = 0; u < UNITS; u++) {
        k[u] = x[u].k;
        v[u] = x[u].v;
    }
    if (place.in_k)
        store_units(k, place, line.k, place.k, K_HEAD, K_TYPE);
    if (place.in_v)
        store_units(v, place, line.v, place.v, V_HEAD, V_TYPE);
}

void write_next(inout Line line, Place place, Quad x[UNITS])
{
    write(line, place, x);
    line.k = plus(line.k, K_SLOT);
    line.v = plus(line.v, V_SLOT);
}

// Tokens from p on until `line` starts or stops being written as it is now.
uint line_run(inout Line line, uint p, uint first, Place place, out bool writes)
{
    writes = line.pages != 0 && p >= first;
    if (writes) {
        seek(line, line.wrap == 0 ? p - first : p % line.wrap, place);
        return line.left;
    }
    return line.pages == 0 ? 0xffffffffu : first - p;
}

// Tokens from p to the next one that is kept, itself counted.
uint kept_run(View view, uint p)
{
    if (view.kept_pages == 0)
        return 0xffffffffu;
    if (p < view.sinks)
        return 1;
    return view.dilation == 0 ? 0xffffffffu : view.dilation - p % view.dilation;
}

Line all, ring, raw;
bool to_line, to_ring;
Quad state[UNITS];
Quad row[UNITS]; // of the last token, turned
vec4 coarse[SPAN], fine[AHEAD * SPAN]; // how K turns

// How the n-th of the tokens that were fed turns, at position p.
void turn(Place place, Rope rope, uint p, uint n)
{
    if (ROPE_STYLE != ROPE_NONE)
        [[unroll]] for (uint j = 0; j < SPAN; j++)
            fine[n * SPAN + j] = rope_quad_fine(rope, p, place.n + j);
}

// The n-th of them through the memory, and to its places.
void put(Place place, Rope rope, uint n)
{
    vec4 keep[UNITS];
    take_token(state, n, keep);
    [[unroll]] for (uint u = 0; u < UNITS; u++)
        row[u] = state[u];
    if (ROPE_STYLE != ROPE_NONE)
        [[unroll]] for (uint j = 0; j < SPAN; j++)
            [[unroll]] for (uint h = 0; h < HEADS; h++)
                rope_quad(rope, coarse[j], fine[n * SPAN + j], place.n + j, row[h * SPAN + j].k);
    if (to_line)
        write_next(all, place, row);
    if (to_ring)
        write_next(ring, place, row);
    if ((TARGETS & TO_RAW) != 0)
        write_next(raw, place, row);
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

    uint offset = slab_offset(view);
    all = line_of(view.line_page0, view.line_pages, view.line_layered != 0 ? offset : 0, 0);
    // Where there is a line too, move.comp copies what the ring keeps of it.
    ring = line_of(view.ring_page0, view.line_pages != 0 ? 0 : view.ring_pages, offset,
                   max(view.ring_slots, 1));
    Line kept = line_of(view.kept_page0, view.kept_pages, offset, 0);
    raw = line_of(0, 0, 0, 0);
    if ((TARGETS & TO_RAW) != 0) {
        uvec2 at = plus(plus(push.raw, view.row0 + from, K_SLOT), place.head0 * K_HEAD);
        raw.k = plus(at, place.k.x * 4);
        raw.v = plus(at, (HEAD_SIZE + place.v.x) * 4);
    }
    Inputs x = inputs_at(place, view.row0 + from);
    uint i = from;
    if (from < to)
        do {
            uint p = view.pos0 + i, run = to - i;
            bool to_kept = false;
            to_line = to_ring = false;
            if (ROPE_STYLE != ROPE_NONE) {
                run = min(run, ROPE_FINE - p % ROPE_FINE);
                [[unroll]] for (uint j = 0; j < SPAN; j++)
                    coarse[j] = rope_quad_coarse(rope, p, place.n + j);
            }
            if ((TARGETS & TO_LINE) != 0)
                run = min(run, line_run(all, p, view.line_pos0, place, to_line));
            if ((TARGETS & TO_RING) != 0)
                run = min(run, line_run(ring, p, view.ring_from, place, to_ring));
            if ((TARGETS & TO_KEPT) != 0) {
                uint next = kept_run(view, p);
                to_kept = next <= run;
                run = min(run, next);
            }

            uint end = i + run;
            do {
                uint left = end - i, at = view.pos0 + i;
                feed(place, x, left);
                turn(place, rope, at, 0);
#if AHEAD == 4
                turn(place, rope, at + 1, 1); // past the run they turn nothing
                turn(place, rope, at + 2, 2);
                turn(place, rope, at + 3, 3);
#endif
                put(place, rope, 0);
#if AHEAD == 4
                if (left > 1)
                    put(place, rope, 1);
                if (left > 2)
                    put(place, rope, 2);
                if (left > 3)
                    put(place, rope, 3);
#endif
                i += min(left, AHEAD);
            } while (i < end);

            if (to_kept) {
                seek(kept, kept_index(p + run - 1, view.sinks, max(view.dilation, 1)), place);
                write(kept, place, row);
            }
        } while (i < to);

    if (F_IN != 0 && to == view.rows && present(to_uvec2(view.state_out)))
        [[unroll]] for (uint u = 0; u < UNITS; u++)
            store_state(state_row(view.state_out, place.head0 + head_step(place, u)),
                        place.k + channel_step(place, u), state[u]);
}
