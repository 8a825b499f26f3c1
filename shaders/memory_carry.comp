// Joins the chunks of one sequence: walks along their local results and leaves
// in each the state that the chunk after it begins with.
#version 450
#extension GL_GOOGLE_include_directive : require

#include "quad.glsl"

void main()
{
    Place place;
    if (!find_place(place))
        return;
    Scan scan = Scans(plus(push.plan, push.items)).at[gl_WorkGroupID.y];
    View view = load_view(scan.view);
    [[unroll]] for (uint u = 0; u < UNITS; u++) {
        uint head = place.head0 + head_step(place, u);
        uvec2 channels = place.k + channel_step(place, u);
        Quad state = initial_state(view, head, channels);
        for (uint i = 0; i < scan.carries; i += AHEAD) {
            // What is loaded does not wait for what is written.
            vec4 keep[AHEAD];
            Quad local[AHEAD];
            [[unroll]] for (uint n = 0; n < AHEAD; n++) {
                uvec2 row = carry_row(scan.carry0 + min(i + n, scan.carries - 1), head);
                keep[n] = vec4(load2(row, F32, channels.x), load2(row, F32, channels.y));
                local[n] = load_state(plus(row, HEAD_SIZE * 4), channels);
            }
            [[unroll]] for (uint n = 0; n < AHEAD; n++) {
                if (i + n < scan.carries) {
                    state = Quad(keep[n] * state.k + local[n].k, keep[n] * state.v + local[n].v);
                    uvec2 row = carry_row(scan.carry0 + i + n, head);
                    store_state(plus(row, HEAD_SIZE * 4), channels, state);
                }
            }
        }
    }
}
