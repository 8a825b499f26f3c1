// Joins the chunks of one sequence: walks along their local results and leaves
// in each the state that the chunk after it begins with.
#version 450
#extension GL_GOOGLE_include_directive : require

#include "memory.glsl"

void main()
{
    uint head = gl_GlobalInvocationID.x / (HEAD_SIZE / 4);
    uint n = gl_GlobalInvocationID.x % (HEAD_SIZE / 4);
    if (head >= KV_HEADS)
        return;
    Scan scan = Scans(plus(push.plan, push.items)).at[gl_WorkGroupID.y];
    View view = load_view(scan.view);
    uvec2 channels = uvec2(4 * n, 4 * n + 2);
    Quad state = Quad(vec2(0), vec2(0), vec2(0), vec2(0));
    if (present(to_uvec2(view.state_in)))
        state = load_state(state_row(view.state_in, head), HEAD_SIZE * 4, channels);
    for (uint i = 0; i < scan.carries; i++) {
        uvec2 row = carry_row(scan.carry0 + i, head);
        vec2 a = load2(row, F32, channels.x);
        vec2 b = load2(row, F32, channels.y);
        row = plus(row, HEAD_SIZE * 4);
        Quad local = load_state(row, HEAD_SIZE * 4, channels);
        state = Quad(a * state.ka + local.ka, b * state.kb + local.kb, a * state.va + local.va,
                     b * state.vb + local.vb);
        store_state(row, HEAD_SIZE * 4, channels, state);
    }
}
