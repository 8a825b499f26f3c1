// The memory state after one token, from its K and V in the cache: K is turned
// back. An invocation does two channels of a key/value head.
#version 450
#extension GL_GOOGLE_include_directive : require

#include "rope.glsl"

layout(local_size_x = 64) in;

layout(constant_id = 0) const uint KV_HEADS = 1;
layout(constant_id = 1) const uint HEAD_SIZE = 128; // of K and of V
layout(constant_id = 2) const uint K_TYPE = 2;
layout(constant_id = 3) const uint V_TYPE = 2;
layout(constant_id = 4) const uint ROPE_STYLE = 0;
layout(constant_id = 5) const uint ROPE_SIZE = 0;
layout(constant_id = 6) const uint ROPE_ROWS = 1;
layout(constant_id = 7) const uint K_HEAD = 0; // strides in the cache
layout(constant_id = 8) const uint V_HEAD = 0;

layout(push_constant, std430) uniform Push {
    uvec2 k, v, state, rope_table;
    uint position;
} push;

void main()
{
    uint pairs = HEAD_SIZE / 2;
    uint head = gl_GlobalInvocationID.x / pairs, c = gl_GlobalInvocationID.x % pairs * 2;
    if (head >= KV_HEADS)
        return;
    Turn turn = rope_turn2(Rope(ROPE_STYLE, ROPE_SIZE, ROPE_ROWS, push.rope_table), push.position, c);
    // The inverse of a turn, and of the factor that YaRN puts on it.
    vec2 size = turn.cosine * turn.cosine + turn.sine * turn.sine;
    turn.cosine /= size;
    turn.sine /= -size;
    uvec2 row = plus(push.k, head, K_HEAD);
    vec2 k = load_row2(row, K_TYPE, HEAD_SIZE, c);
    if (turn.turns)
        k = turned(k, turn.partner == c ? k.yx : load_row2(row, K_TYPE, HEAD_SIZE, turn.partner), turn);
    vec2 v = load_row2(plus(push.v, head, V_HEAD), V_TYPE, HEAD_SIZE, c);
    uvec2 state = plus(push.state, head, 2 * HEAD_SIZE * 4);
    store2(state, F32, c, k);
    store2(plus(state, HEAD_SIZE * 4), F32, c, v);
}
