// A chunk's own part of the memory scan: the product of its gates, and the
// state it ends in when it begins with zeros.
#version 450
#extension GL_GOOGLE_include_directive : require

#include "quad.glsl"

Quad state[UNITS];
vec4 product[UNITS];

void take(uint n)
{
    vec4 keep[UNITS];
    take_token(state, n, keep);
    [[unroll]] for (uint u = 0; u < UNITS; u++)
        product[u] *= keep[u];
}

void main()
{
    Place place;
    if (!find_place(place))
        return;
    Chunk chunk = Chunks(plus(push.plan, push.items)).at[gl_WorkGroupID.y];
    View view = load_view(chunk.view);
    [[unroll]] for (uint u = 0; u < UNITS; u++) {
        state[u] = Quad(vec4(0), vec4(0));
        product[u] = vec4(1);
    }
    Inputs x = inputs_at(place, view.row0 + chunk.token0);
    for (uint i = 0; i < chunk.tokens; i += AHEAD) {
        uint left = chunk.tokens - i;
        feed(place, x, left);
        take(0);
#if AHEAD == 4
        if (left > 1)
            take(1);
        if (left > 2)
            take(2);
        if (left > 3)
            take(3);
#endif
    }
    [[unroll]] for (uint u = 0; u < UNITS; u++) {
        uvec2 row = carry_row(chunk.carry, place.head0 + head_step(place, u));
        uvec2 channels = place.k + channel_step(place, u);
        store2(row, F32, channels.x, product[u].xy);
        store2(row, F32, channels.y, product[u].zw);
        store_state(plus(row, HEAD_SIZE * 4), channels, state[u]);
    }
}
