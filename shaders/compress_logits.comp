// Logits of the observed queries. A workgroup takes 64 keys at a time for ROWS rows of
// a head, which share what is read of a key; an invocation has one key.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require

#include "compress.glsl"

layout(local_size_x = 64) in;

const uint ROWS = 8;
const float HIDDEN = -3.4028234e38;

shared vec4 query[ROWS * HEAD_SIZE / 4];

void load_queries(uint head, uint first, uint count)
{
    Rope rope = Rope(ROPE_STYLE, ROPE_SIZE, ROPE_ROWS, push.rope_table);
    uint ring = 2 * push.observe;
    for (uint n = gl_LocalInvocationIndex; n < count * HEAD_SIZE / 4; n += gl_WorkGroupSize.x) {
        uint row = first + n / (HEAD_SIZE / 4), c = n % (HEAD_SIZE / 4) * 4;
        uint at = (push.query_at + query_of(row)) % ring;
        uvec2 from = plus(push.queries, ((push.head0 + head) * ring + at) * GROUP +
                                            (push.row0 + row) % GROUP, HEAD_SIZE * 4);
        uint t = push.tokens - push.observe + query_of(row);
        query[n] = SCALE * vec4(load2_turned(from, F32, c, rope_turn2(rope, t, c)),
                                load2_turned(from, F32, c + 2, rope_turn2(rope, t, c + 2)));
    }
}

void main()
{
    uint head = gl_WorkGroupID.z, first = gl_WorkGroupID.y * ROWS;
    uint count = min(ROWS, push.rows - first);
    load_queries(head, first, count);
    barrier();
    uint step = gl_NumWorkGroups.x * gl_WorkGroupSize.x;
    for (uint key = gl_GlobalInvocationID.x; key < push.held; key += step) {
        uint slot = key;
        Page page = page_at(push.from_page0, push.from_pages, slot);
        uvec2 row = plus(plus(plus(to_uvec2(page.k), push.offset), push.head0 + head, K_HEAD), slot,
                         K_SLOT);
        float sum[ROWS];
        [[unroll]] for (uint r = 0; r < ROWS; r++)
            sum[r] = 0;
        for (uint c = 0; c < HEAD_SIZE; c += 8) {
            vec4 a, b;
            load_row8(row, K_TYPE, HEAD_SIZE, c, a, b);
            [[unroll]] for (uint r = 0; r < ROWS; r++) {
                uint q = min(r, count - 1) * HEAD_SIZE / 4 + c / 4;
                sum[r] += dot(query[q], a) + dot(query[q + 1], b);
            }
        }
        for (uint r = 0; r < count; r++) {
            float x = sum[r];
            if (SOFTCAP != 0)
                x = SOFTCAP - 2 * SOFTCAP / (exp(2 / SOFTCAP * x) + 1); // tanh() may overflow
            Floats(logits_of(head, first + r)).at[key] = key <= own_slot(first + r) ? x : HIDDEN;
        }
    }
}
