// A chunk's own part of the memory scan: the product of its gates, and the
// state it ends in when it begins with zeros.
#version 450
#extension GL_GOOGLE_include_directive : require

#include "memory.glsl"

void main()
{
    uint head = gl_GlobalInvocationID.x / (HEAD_SIZE / 4);
    uint n = gl_GlobalInvocationID.x % (HEAD_SIZE / 4);
    if (head >= KV_HEADS)
        return;
    Chunk chunk = Chunks(plus(push.plan, push.items)).at[gl_WorkGroupID.y];
    View view = load_view(chunk.view);
    uvec2 channels = quad_channels(memory_rope(), n);
    Quad state = Quad(vec2(0), vec2(0), vec2(0), vec2(0));
    vec2 product_a = vec2(1), product_b = vec2(1);
    for (uint i = chunk.token0; i < chunk.token0 + chunk.tokens; i++) {
        vec2 a, b;
        memory_step(state, view.row0 + i, head, channels, a, b);
        product_a *= a;
        product_b *= b;
    }
    uvec2 row = carry_row(chunk.carry, head);
    store2(row, F32, channels.x, product_a);
    store2(row, F32, channels.y, product_b);
    store_state(plus(row, HEAD_SIZE * 4), HEAD_SIZE * 4, channels, state);
}
