// Copies slots of an old ring to a new one, all heads of a layer: an
// invocation copies one word of every position that falls to its z.
#version 450
#extension GL_GOOGLE_include_directive : require

#include "memory.glsl"

void main()
{
    Move move = Moves(plus(push.plan, push.items)).at[gl_WorkGroupID.y];
    View view = load_view(move.view);
    uint k_words = HEAD_SIZE * element_bytes(K_TYPE) / 4;
    uint v_words = VALUE_SIZE * element_bytes(V_TYPE) / 4;
    uint index = gl_GlobalInvocationID.x;
    bool k = index < KV_HEADS * k_words;
    index -= k ? 0 : KV_HEADS * k_words;
    uint words = k ? k_words : v_words;
    uint head = index / words, word = index % words;
    if (head >= KV_HEADS || move.old_pages == 0 || view.ring_pages == 0)
        return;
    uint slot_stride = k ? K_SLOT : V_SLOT, head_stride = k ? K_HEAD : V_HEAD;
    for (uint i = gl_WorkGroupID.z; i < move.count; i += gl_NumWorkGroups.z) {
        uint p = move.from + i;
        uint old_slot = p % move.old_slots, slot = p % view.ring_slots;
        Page old_page = load_page(page_of(move.old_page0, move.old_pages, push.page_slots, old_slot));
        Page page = load_page(page_of(view.ring_page0, view.ring_pages, push.page_slots, slot));
        uvec2 from = plus(to_uvec2(k ? old_page.k : old_page.v), push.layer_offset);
        uvec2 to = plus(to_uvec2(k ? page.k : page.v), push.layer_offset);
        from = plus(plus(plus(from, old_slot, slot_stride), head, head_stride), word * 4);
        to = plus(plus(plus(to, slot, slot_stride), head, head_stride), word * 4);
        Words(to).at[0] = Words(from).at[0];
    }
}
