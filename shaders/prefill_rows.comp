// Prefill attention for processors that run a workgroup as one vector: what an
// invocation keeps in variables is near, every load from memory is dear.
//
// Each invocation has LANE_ROWS rows, whose queries and sums stay in its
// variables. All invocations load the same K and V, eight channels at a time, so
// that a load feeds 8 * LANE_ROWS multiplications in each. Loops are unrolled
// only as far as their variables are reused: such processors compile slowly.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "prefill.glsl"

layout(constant_id = 23) const uint KEYS = 16; // at a time

const uint LANES = gl_WorkGroupSize.x;
const uint LANE_ROWS = ROWS / LANES;

shared uvec4 key_at[KEYS];   // K, V
shared uvec3 key_seen[KEYS]; // first, last, index
shared uint odd_keys[KEYS];  // 1: a row has it hidden, and its V has numbers that are not finite

float query[HEAD_SIZE * LANE_ROWS]; // [channel][row]
float sum[VALUE_SIZE * LANE_ROWS];  // [channel][row]
float weight[KEYS * LANE_ROWS];     // [key][row]: logits, then their exponentials

void load_queries(Work w, uint row0)
{
    Rope rope = attend_rope();
    [[dont_unroll]] for (uint r = 0; r < LANE_ROWS; r++) {
        uint row = min(row0 + r, w.rows - 1);
        uint token = row_token(w, row);
        uvec2 from = query_row(w.view.row0 + token, row_head(w, row));
        [[dont_unroll]] for (uint quad = 0; quad < HEAD_SIZE / 4; quad++) {
            uvec2 c = quad_channels(rope, quad);
            vec4 x = SCALE * vec4(load2(from, Q_TYPE, c.x), load2(from, Q_TYPE, c.y));
            rope_quad(rope, w.view.pos0 + token, quad, x);
            query[c.x * LANE_ROWS + r] = x.x;
            query[(c.x + 1) * LANE_ROWS + r] = x.y;
            query[c.y * LANE_ROWS + r] = x.z;
            query[(c.y + 1) * LANE_ROWS + r] = x.w;
        }
    }
}

// Keys past the last are the last again, unseen.
void load_keys(Work w, uint block0)
{
    for (uint n = gl_LocalInvocationIndex; n < KEYS; n += LANES) {
        Key key = load_key(w, min(block0 + n, w.end_key - 1));
        bool past = block0 + n >= w.end_key;
        key_at[n] = uvec4(key.k, key.v);
        key_seen[n] = uvec3(past ? 1 : key.first, past ? 0 : key.last, key.index);
        bool odd = false;
        [[dont_unroll]] for (uint c = past || !seen_by_all(w, key) ? 0 : VALUE_SIZE;
                             c < VALUE_SIZE; c += 8) {
            vec4 x, y;
            load_row8(key.v, V_TYPE, VALUE_SIZE, c, x, y);
            odd = odd || any(is_odd(x)) || any(is_odd(y));
        }
        odd_keys[n] = odd ? 1 : 0;
    }
}

// Products of this lane's rows with the keys of the block.
void score_keys()
{
    uvec2 at[KEYS];
    float dots[KEYS * LANE_ROWS];
    [[unroll]] for (uint j = 0; j < KEYS; j++) {
        at[j] = key_at[j].xy;
        [[unroll]] for (uint r = 0; r < LANE_ROWS; r++)
            dots[j * LANE_ROWS + r] = 0;
    }
    [[dont_unroll]] for (uint c = 0; c < HEAD_SIZE; c += 2) {
        vec2 q[LANE_ROWS];
        [[unroll]] for (uint r = 0; r < LANE_ROWS; r++)
            q[r] = vec2(query[c * LANE_ROWS + r], query[(c + 1) * LANE_ROWS + r]);
        [[unroll]] for (uint j = 0; j < KEYS; j++) {
            vec2 k = load_row2(at[j], K_TYPE, HEAD_SIZE, c);
            [[unroll]] for (uint r = 0; r < LANE_ROWS; r++) {
                uint n = j * LANE_ROWS + r;
                dots[n] = fma(q[r].y, k.y, fma(q[r].x, k.x, dots[n]));
            }
        }
    }
    [[unroll]] for (uint n = 0; n < KEYS * LANE_ROWS; n++)
        weight[n] = dots[n];
}

// Adds the block's values, weighted, to sums that shrink. Such processors run both sides of an
// if, but no loop that has nothing to do.
void add_values(float shrink[LANE_ROWS])
{
    uvec2 at[KEYS];
    uint odd = 0;
    [[unroll]] for (uint j = 0; j < KEYS; j++) {
        at[j] = key_at[j].zw;
        odd |= odd_keys[j];
    }
    [[dont_unroll]] for (uint c = odd == 0 ? 0 : VALUE_SIZE; c < VALUE_SIZE; c += 2) {
        vec2 y[LANE_ROWS];
        [[unroll]] for (uint r = 0; r < LANE_ROWS; r++)
            y[r] = shrink[r] * vec2(sum[c * LANE_ROWS + r], sum[(c + 1) * LANE_ROWS + r]);
        [[unroll]] for (uint j = 0; j < KEYS; j++) {
            vec2 v = load_row2(at[j], V_TYPE, VALUE_SIZE, c);
            [[unroll]] for (uint r = 0; r < LANE_ROWS; r++) {
                float p = weight[j * LANE_ROWS + r];
                y[r] = vec2(fma(p, v.x, y[r].x), fma(p, v.y, y[r].y));
            }
        }
        [[unroll]] for (uint r = 0; r < LANE_ROWS; r++) {
            sum[c * LANE_ROWS + r] = y[r].x;
            sum[(c + 1) * LANE_ROWS + r] = y[r].y;
        }
    }
    // The same, slowly, without what rows have hidden.
    [[dont_unroll]] for (uint c = odd == 0 ? VALUE_SIZE : 0; c < VALUE_SIZE; c += 2) {
        [[dont_unroll]] for (uint r = 0; r < LANE_ROWS; r++) {
            vec2 y = shrink[r] * vec2(sum[c * LANE_ROWS + r], sum[(c + 1) * LANE_ROWS + r]);
            [[dont_unroll]] for (uint j = 0; j < KEYS; j++) {
                float p = weight[j * LANE_ROWS + r];
                vec2 v = load_row2(key_at[j].zw, V_TYPE, VALUE_SIZE, c);
                y += p == 0 ? vec2(0) : p * v;
            }
            sum[c * LANE_ROWS + r] = y.x;
            sum[(c + 1) * LANE_ROWS + r] = y.y;
        }
    }
}

void main()
{
    Work w = load_rows();
    if (w.rows == 0)
        return;
    uint row0 = gl_LocalInvocationIndex * LANE_ROWS;
    load_queries(w, row0);
    [[dont_unroll]] for (uint c = 0; c < VALUE_SIZE; c++) {
        [[unroll]] for (uint r = 0; r < LANE_ROWS; r++)
            sum[c * LANE_ROWS + r] = 0;
    }

    float maximum[LANE_ROWS];
    float total[LANE_ROWS];
    [[dont_unroll]] for (uint r = 0; r < LANE_ROWS; r++) {
        vec2 start = start_of(w, min(row0 + r, w.rows - 1));
        maximum[r] = start.x;
        total[r] = start.y;
    }

    [[dont_unroll]] for (uint block0 = w.begin_key; block0 < w.end_key; block0 += KEYS) {
        barrier();
        load_keys(w, block0);
        barrier();
        score_keys();

        uvec3 seen[KEYS];
        [[unroll]] for (uint j = 0; j < KEYS; j++)
            seen[j] = key_seen[j];
        float shrink[LANE_ROWS];
        [[dont_unroll]] for (uint r = 0; r < LANE_ROWS; r++) {
            uint row = min(row0 + r, w.rows - 1);
            float highest = maximum[r], slope = slope_of(w, row);
            float x[KEYS];
            [[unroll]] for (uint j = 0; j < KEYS; j++) {
                x[j] = row_logit(w, row, weight[j * LANE_ROWS + r], seen[j], slope);
                highest = max(highest, x[j]);
            }
            shrink[r] = exp(maximum[r] - highest);
            maximum[r] = highest;
            float added = 0;
            [[unroll]] for (uint j = 0; j < KEYS; j++) {
                x[j] = weight_of(x[j], highest);
                weight[j * LANE_ROWS + r] = x[j];
                added += x[j];
            }
            total[r] = total[r] * shrink[r] + added;
        }

        add_values(shrink);
    }

    [[dont_unroll]] for (uint r = 0; r < LANE_ROWS; r++) {
        if (row0 + r < w.rows) {
            finish_row(w, row0 + r, maximum[r], total[r]);
            [[dont_unroll]] for (uint c = 0; c < VALUE_SIZE; c += 4)
                finish_channels(w, row0 + r, c,
                                vec4(sum[c * LANE_ROWS + r], sum[(c + 1) * LANE_ROWS + r],
                                     sum[(c + 2) * LANE_ROWS + r], sum[(c + 3) * LANE_ROWS + r]),
                                maximum[r], total[r]);
        }
    }
}
