// Copies the rows of what is kept to the first slots of other pages. An invocation
// copies one word of every slot that falls to its z.
#version 450
#extension GL_GOOGLE_include_directive : require

#include "compress.glsl"

layout(local_size_x = 64) in;

void main()
{
    uint k_words = row_bytes(K_TYPE, HEAD_SIZE) / 4;
    uint v_words = row_bytes(V_TYPE, VALUE_SIZE) / 4;
    uint index = gl_GlobalInvocationID.x;
    bool k = index < push.heads * k_words;
    index -= k ? 0 : push.heads * k_words;
    uint words = k ? k_words : v_words;
    uint head = index / words, word = index % words;
    if (head >= push.heads)
        return;
    uint slot_stride = k ? K_SLOT : V_SLOT;
    uvec2 slots = slots_of(head);
    uint within = push.offset + (push.head0 + head) * (k ? K_HEAD : V_HEAD) + word * 4;
    for (uint n = gl_WorkGroupID.z; n < push.capacity; n += gl_NumWorkGroups.z) {
        uint from = Words(plus(slots, n * 4)).at[0], to = n;
        Page old = page_at(push.from_page0, push.from_pages, from);
        Page made = page_at(push.to_page0, push.to_pages, to);
        uvec2 source = plus(plus(to_uvec2(k ? old.k : old.v), within), from, slot_stride);
        uvec2 target = plus(plus(to_uvec2(k ? made.k : made.v), within), to, slot_stride);
        Words(target).at[0] = Words(source).at[0];
    }
}
