// Keeps a view's last queries as they came, in float32, for the compression of what
// they attend. An invocation takes two channels of a query head, and walks along tokens.
#version 450
#extension GL_GOOGLE_include_directive : require

#include "attend.glsl"

layout(local_size_x = 64) in;

void main()
{
    uint pairs = HEAD_SIZE / 2;
    uint head = gl_GlobalInvocationID.x / pairs, c = gl_GlobalInvocationID.x % pairs * 2;
    if (head >= QUERY_HEADS)
        return;
    Observer o = Observers(plus(push.plan, push.items)).at[gl_WorkGroupID.y];
    View view = load_view(o.view);
    // Heads lie in the ring as they do in the pages of their store.
    uint ring = max(o.ring, 1);
    uvec2 to = plus(to_uvec2(o.queries), slab_offset(view) / K_HEAD + head / GROUP,
                    ring * GROUP * HEAD_SIZE * 4);
    for (uint n = gl_WorkGroupID.z; n < o.tokens; n += gl_NumWorkGroups.z) {
        vec2 q = load2(query_row(view.row0 + o.token0 + n, head), Q_TYPE, c);
        store2(plus(to, (o.at + n) % ring * GROUP + head % GROUP, HEAD_SIZE * 4), F32, c, q);
    }
}
