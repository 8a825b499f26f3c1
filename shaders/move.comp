// Copies slots of all heads of a dispatch: those of an item, or, where the items
// are views, what a view's ring keeps of its line. An invocation copies UNIT bytes
// of every slot that falls to its z: rows are whole eights of bytes.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require

#include "memory.glsl"

layout(constant_id = 17) const bool FROM_LINE = false;

const uint UNIT = 8;

// A run of slots, and the bytes from a page's begin to the heads.
struct Place {
    Slots slots;
    uint offset;
};

// Two runs and how long they are.
struct Copy {
    Place from, to;
    uint count;
};

Copy line_to_ring(uint index)
{
    View view = load_view(index);
    uint first = max(max(view.pos0, view.ring_from), view.line_pos0);
    uint offset = slab_offset(view);
    uint ring = max(view.ring_slots, 1);
    bool both = view.line_pages != 0 && view.ring_pages != 0;
    return Copy(Place(Slots(index, view.line_page0, view.line_pages, first - view.line_pos0, 1, 0),
                      view.line_layered != 0 ? offset : 0),
                Place(Slots(index, view.ring_page0, view.ring_pages, first % ring, 1, ring), offset),
                both ? view.pos0 + view.rows - first : 0);
}

Copy load_copy()
{
    if (FROM_LINE)
        return line_to_ring(gl_WorkGroupID.y);
    Move move = Moves(plus(push.plan, push.items)).at[gl_WorkGroupID.y];
    bool both = move.from.pages != 0 && move.to.pages != 0;
    return Copy(Place(move.from, slab_offset(load_view(move.from.view))),
                Place(move.to, slab_offset(load_view(move.to.view))), both ? move.count : 0);
}

// The slot `n` of a run, for K or for V.
uvec2 slot_at(Place place, uint n, bool k, uint slot_stride)
{
    Slots s = place.slots;
    uint slot = s.slot0 + n * s.slot_step;
    slot = s.slot_ring == 0 ? slot : slot % s.slot_ring;
    Page page = load_page(page_of(s.page0, s.pages, push.page_slots, slot));
    return plus(plus(to_uvec2(k ? page.k : page.v), place.offset), slot, slot_stride);
}

void main()
{
    uint k_units = row_bytes(K_TYPE, HEAD_SIZE) / UNIT;
    uint v_units = row_bytes(V_TYPE, VALUE_SIZE) / UNIT;
    uint index = gl_GlobalInvocationID.x;
    bool k = index < KV_HEADS * k_units;
    index -= k ? 0 : KV_HEADS * k_units;
    uint units = k ? k_units : v_units;
    uint head = index / units, at = index % units * UNIT;
    if (head >= KV_HEADS)
        return;
    Copy copy = load_copy();
    uint slot_stride = k ? K_SLOT : V_SLOT, head_stride = k ? K_HEAD : V_HEAD;
    for (uint n = gl_WorkGroupID.z; n < copy.count; n += gl_NumWorkGroups.z) {
        uvec2 from = slot_at(copy.from, n, k, slot_stride);
        uvec2 to = slot_at(copy.to, n, k, slot_stride);
        Words source = Words(plus(plus(from, head, head_stride), at));
        Words target = Words(plus(plus(to, head, head_stride), at));
        [[unroll]] for (uint i = 0; i < UNIT / 4; i++)
            target.at[i] = source.at[i];
    }
}
