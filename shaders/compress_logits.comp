// Logits of the observed queries. An invocation has KEYS keys at a time, for ROWS rows of
// a head: the rows share what is read of a key, and the keys what is read of a row.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require

#include "compress.glsl"
#include "finite.glsl"

layout(local_size_x = 64) in;

const uint ROWS = 8;
const uint KEYS = 4;

shared vec4 query[ROWS * HEAD_SIZE / 4];

void load_queries(uint head, uint first, uint count)
{
    Rope rope = Rope(ROPE_STYLE, ROPE_SIZE, ROPE_ROWS, push.rope_table);
    for (uint n = gl_LocalInvocationIndex; n < count * HEAD_SIZE / 4; n += gl_WorkGroupSize.x) {
        uint row = first + n / (HEAD_SIZE / 4), c = n % (HEAD_SIZE / 4) * 4;
        uint at = (push.query_at + query_of(row)) % push.query_ring;
        uvec2 from = plus(push.queries, ((push.head0 + head) * push.query_ring + at) * GROUP +
                                            (push.row0 + row) % GROUP, HEAD_SIZE * 4);
        uint t = push.tokens - push.observe + query_of(row);
        query[n] = SCALE * vec4(load2_turned(from, F32, c, rope_turn2(rope, t, c)),
                                load2_turned(from, F32, c + 2, rope_turn2(rope, t, c + 2)));
    }
}

// One that is not finite takes all votes of its row: so its key is kept, and shows.
float logit(float product)
{
    float x = SOFTCAP != 0 ? soft_capped(product, SOFTCAP) : product;
    return is_finite(product) ? max(x, LEAST_LOGIT) : NOT_FINITE;
}

void main()
{
    uint head = gl_WorkGroupID.z, first = gl_WorkGroupID.y * ROWS;
    uint count = min(ROWS, push.rows - first);
    load_queries(head, first, count);
    barrier();
    uint kv_head = push.head0 + head;
    for (uint key0 = gl_WorkGroupID.x * 64 * KEYS; key0 < push.held;
         key0 += gl_NumWorkGroups.x * 64 * KEYS) {
        uvec2 row[KEYS];
        float sum[KEYS][ROWS];
        [[unroll]] for (uint k = 0; k < KEYS; k++) {
            uint slot = min(key0 + k * 64 + gl_LocalInvocationIndex, push.held - 1);
            Page page = page_at(push.from_page0, push.from_pages, slot);
            row[k] = plus(plus(plus(to_uvec2(page.k), push.offset), kv_head, K_HEAD), slot, K_SLOT);
            [[unroll]] for (uint r = 0; r < ROWS; r++)
                sum[k][r] = 0;
        }
        for (uint c = 0; c < HEAD_SIZE; c += 8) {
            vec4 a[KEYS], b[KEYS];
            [[unroll]] for (uint k = 0; k < KEYS; k++)
                load_row8(row[k], K_TYPE, HEAD_SIZE, c, a[k], b[k]);
            [[unroll]] for (uint r = 0; r < ROWS; r++) {
                uint at = min(r, count - 1) * HEAD_SIZE / 4 + c / 4;
                vec4 q = query[at], p = query[at + 1];
                [[unroll]] for (uint k = 0; k < KEYS; k++)
                    sum[k][r] += dot(q, a[k]) + dot(p, b[k]);
            }
        }
        [[unroll]] for (uint k = 0; k < KEYS; k++) {
            uint key = key0 + k * 64 + gl_LocalInvocationIndex;
            for (uint r = 0; r < count && key < push.held; r++)
                Floats(logits_of(head, first + r)).at[key] =
                    key <= own_slot(first + r) ? logit(sum[k][r]) : NOTHING;
        }
    }
}
