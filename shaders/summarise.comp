// What is known of blocks of keys, from the rows in the cache or in a host's tensor: the
// least and the greatest K of each channel, or their sum. An invocation takes two channels of a
// head, and walks along the tokens of an entry.
#version 450
#extension GL_GOOGLE_include_directive : require

#include "memory.glsl"
#include "finite.glsl"

void main()
{
    uint pairs = HEAD_SIZE / 2;
    uint head = gl_GlobalInvocationID.x / pairs, c = gl_GlobalInvocationID.x % pairs * 2;
    if (head >= KV_HEADS)
        return;
    Summary summary = Summaries(plus(push.plan, push.items)).at[gl_WorkGroupID.y];
    View view = load_view(summary.view);
    uint offset = slab_offset(view);
    // A host's strides change from call to call: the view has them.
    uvec2 strides = K_SLOT != 0 ? uvec2(K_SLOT, K_HEAD) : uvec2(view.k_slot, view.k_head);
    uint entries = Words(plus(push.plan, view.summaries)).at[push.slab] + head * view.summary_head +
                   summary.entry_at;
    uint in_page = push.page_slots / summary.entry_tokens;
    for (uint n = gl_WorkGroupID.z; n < summary.count; n += gl_NumWorkGroups.z) {
        uint entry = summary.first + n;
        uint slot = entry * summary.entry_tokens;
        Page page = load_page(page_of(view.line_page0, view.line_pages, push.page_slots, slot));
        uvec2 row = plus(plus(plus(to_uvec2(page.k), offset), head, strides.y), slot, strides.x);
        vec2 least = load_row2(row, K_TYPE, HEAD_SIZE, c), greatest = least, sum = least;
        bvec2 odd = is_odd(least);
        for (uint i = 1; i < summary.entry_tokens; i++) {
            row = plus(row, strides.x);
            vec2 k = load_row2(row, K_TYPE, HEAD_SIZE, c);
            least = min(least, k);
            greatest = max(greatest, k);
            sum += k;
            odd = bvec2(uvec2(odd) | uvec2(is_odd(k)));
        }
        // A block with a K that is not finite has no extremes, and is chosen first.
        least = mix(least, vec2(not_a_number()), odd);
        greatest = mix(greatest, vec2(not_a_number()), odd);
        page = load_page(page_of(view.entry_page0, view.entry_pages, in_page, entry));
        uvec2 to = plus(plus(to_uvec2(page.k), entries), entry, summary.entry_bytes);
        if (summary.select == SELECT_MEAN) {
            store2(to, F32, c, sum);
        } else {
            uint type = extremes_type(K_TYPE);
            store2(to, type, c, least);
            store2(plus(to, row_bytes(type, HEAD_SIZE)), type, c, greatest);
        }
    }
}
