// Prefill attention, one row to an invocation: for few keys, and where little
// work is not worth the compilation of another form.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "prefill.glsl"

layout(constant_id = 23) const uint KEYS = 4; // at a time

float query[HEAD_SIZE];
float sum[VALUE_SIZE];

void load_query(Work w, uint row)
{
    Rope rope = attend_rope();
    uint token = row_token(w, row);
    uvec2 from = query_row(w.view.row0 + token, row_head(w, row));
    [[dont_unroll]] for (uint quad = 0; quad < HEAD_SIZE / 4; quad++) {
        uvec2 c = quad_channels(rope, quad);
        vec4 x = SCALE * vec4(load2(from, Q_TYPE, c.x), load2(from, Q_TYPE, c.y));
        rope_quad(rope, w.view.pos0 + token, quad, x);
        query[c.x] = x.x;
        query[c.x + 1] = x.y;
        query[c.y] = x.z;
        query[c.y + 1] = x.w;
    }
}

void main()
{
    uint row = gl_WorkGroupID.z * gl_WorkGroupSize.x + gl_LocalInvocationIndex;
    Work w = load_work(row / HEAD_BLOCK, 1);
    if (w.rows == 0)
        return;
    row %= HEAD_BLOCK;
    load_query(w, row);
    [[dont_unroll]] for (uint c = 0; c < VALUE_SIZE; c++)
        sum[c] = 0;

    vec2 start = start_of(w, row);
    float maximum = start.x;
    float total = start.y;
    float slope = slope_of(w, row);
    [[dont_unroll]] for (uint n = w.begin_key; n < w.end_key; n += KEYS) {
        Key key[KEYS];
        float p[KEYS];
        [[unroll]] for (uint j = 0; j < KEYS; j++) {
            key[j] = load_key(w, min(n + j, w.end_key - 1));
            p[j] = 0;
        }
        [[dont_unroll]] for (uint c = 0; c < HEAD_SIZE; c += 8) {
            [[unroll]] for (uint i = 0; i < 8; i += 2) {
                vec2 q = vec2(query[c + i], query[c + i + 1]);
                [[unroll]] for (uint j = 0; j < KEYS; j++)
                    p[j] += dot(q, load_row2(key[j].k, K_TYPE, HEAD_SIZE, c + i));
            }
        }
        float before = maximum;
        [[unroll]] for (uint j = 0; j < KEYS; j++) {
            uvec3 seen = uvec3(key[j].first, key[j].last, key[j].index);
            p[j] = n + j < w.end_key ? row_logit(w, row, p[j], seen, slope) : NOTHING;
            maximum = max(maximum, p[j]);
        }
        float shrink = exp(before - maximum);
        total *= shrink;
        [[unroll]] for (uint j = 0; j < KEYS; j++) {
            p[j] = weight_of(p[j], maximum);
            total += p[j];
        }
        [[dont_unroll]] for (uint c = 0; c < VALUE_SIZE; c += 8) {
            [[unroll]] for (uint i = 0; i < 8; i += 2) {
                vec2 y = shrink * vec2(sum[c + i], sum[c + i + 1]);
                [[unroll]] for (uint j = 0; j < KEYS; j++) {
                    vec2 v = load_row2(key[j].v, V_TYPE, VALUE_SIZE, c + i);
                    y += p[j] == 0 ? vec2(0) : p[j] * v; // a hidden V may be no number
                }
                sum[c + i] = y.x;
                sum[c + i + 1] = y.y;
            }
        }
    }

    finish_row(w, row, maximum, total);
    [[dont_unroll]] for (uint c = 0; c < VALUE_SIZE; c += 4)
        finish_channels(w, row, c, vec4(sum[c], sum[c + 1], sum[c + 2], sum[c + 3]), maximum,
                        total);
}
