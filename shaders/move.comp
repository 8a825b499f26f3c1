// Copies slots to a view's ring, all heads of a layer: from an old ring, where
// an item is a move, or from the line of its new tokens, where an item is the
// view. An invocation copies one word of every position that falls to its z.
#version 450
#extension GL_GOOGLE_include_directive : require

#include "memory.glsl"

layout(constant_id = 17) const bool FROM_LINE = false;

// Slots that hold positions [from, to), at (p - base) % slots.
struct Source {
    uint from, to;
    uint page0, pages, slots, base, layer;
};

Source find_source(out View view)
{
    if (FROM_LINE) {
        view = load_view(gl_WorkGroupID.y);
        bool both = view.line_pages != 0 && view.ring_pages != 0;
        uint from = max(max(view.pos0, view.ring_from), view.line_pos0);
        return Source(from, both ? view.pos0 + view.rows : 0, view.line_page0, view.line_pages,
                      0xffffffffu, view.line_pos0,
                      view.line_layered != 0 ? push.layer_offset : 0);
    }
    Move move = Moves(plus(push.plan, push.items)).at[gl_WorkGroupID.y];
    view = load_view(move.view);
    bool both = move.old_pages != 0 && view.ring_pages != 0;
    return Source(move.from, both ? move.from + move.count : 0, move.old_page0, move.old_pages,
                  move.old_slots, 0, push.layer_offset);
}

void main()
{
    uint k_words = HEAD_SIZE * element_bytes(K_TYPE) / 4;
    uint v_words = VALUE_SIZE * element_bytes(V_TYPE) / 4;
    uint index = gl_GlobalInvocationID.x;
    bool k = index < KV_HEADS * k_words;
    index -= k ? 0 : KV_HEADS * k_words;
    uint words = k ? k_words : v_words;
    uint head = index / words, word = index % words;
    if (head >= KV_HEADS)
        return;
    View view;
    Source source = find_source(view);
    uint slot_stride = k ? K_SLOT : V_SLOT, head_stride = k ? K_HEAD : V_HEAD;
    for (uint p = source.from + gl_WorkGroupID.z; p < source.to; p += gl_NumWorkGroups.z) {
        uint old_slot = (p - source.base) % source.slots, slot = p % view.ring_slots;
        Page old_page = load_page(page_of(source.page0, source.pages, push.page_slots, old_slot));
        Page page = load_page(page_of(view.ring_page0, view.ring_pages, push.page_slots, slot));
        uvec2 from = plus(to_uvec2(k ? old_page.k : old_page.v), source.layer);
        uvec2 to = plus(to_uvec2(k ? page.k : page.v), push.layer_offset);
        from = plus(plus(plus(from, old_slot, slot_stride), head, head_stride), word * 4);
        to = plus(plus(plus(to, slot, slot_stride), head, head_stride), word * 4);
        Words(to).at[0] = Words(from).at[0];
    }
}
