// Prefill attention, plain form: shared memory, no subgroup operations.
//
// Keys go through shared memory in blocks of KEYS, their channels in chunks of
// CHUNK. Invocation (group, lane) has 4 rows: first their logits with the
// lane's 4 keys of a block, then their sums over the lane's channels.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "prefill.glsl"

layout(constant_id = 23) const uint CHUNK = 64; // a multiple of 32

const uint LANES = 8;
const uint LANE_KEYS = 4;
const uint KEYS = LANES * LANE_KEYS;
const uint GROUPS = ROWS / 4;
const uint THREADS = GROUPS * LANES;

const uint Q4 = HEAD_SIZE / 4;
const uint V4 = VALUE_SIZE / 4;
const uint CHUNK4 = CHUNK / 4;
const uint K_CHUNKS = (HEAD_SIZE + CHUNK - 1) / CHUNK;
const uint V_CHUNKS = (VALUE_SIZE + CHUNK - 1) / CHUNK;
const uint LANE_VECS = CHUNK4 / LANES; // of a chunk of V
// Odd strides keep the lanes on different banks.
const uint Q_STRIDE = (Q4 > V4 ? Q4 : V4) + 1; // the results lie there in the end
const uint BLOCK_STRIDE = CHUNK4 + 1;
const uint WEIGHT_STRIDE = GROUPS + 1;

shared vec4 query[ROWS * Q_STRIDE];
shared vec4 block[KEYS * BLOCK_STRIDE]; // a chunk of K or of V
shared vec4 weight[KEYS * WEIGHT_STRIDE]; // [key][row / 4]
shared vec4 lane_part[LANES * GROUPS];
shared vec3 row_part[ROWS]; // at first start.xy and slope of a row; in the end maximum and total
shared uvec4 key_rows_at[KEYS]; // k, v
shared uvec3 key_seen[KEYS];    // first, last, index
shared uint odd_chunk; // the last chunk of V with a number that is not finite

void load_queries(Work w)
{
    Rope rope = attend_rope();
    for (uint n = gl_LocalInvocationIndex; n < ROWS * Q4; n += THREADS) {
        uint row = n / Q4;
        uint quad = n % Q4;
        uvec2 c = quad_channels(rope, quad);
        vec4 x = vec4(0);
        if (row < w.rows) {
            uint token = row_token(w, row);
            uvec2 from = query_row(w.view.row0 + token, row_head(w, row));
            x = SCALE * vec4(load2(from, Q_TYPE, c.x), load2(from, Q_TYPE, c.y));
            rope_quad(rope, w.view.pos0 + token, quad, x);
        }
        uint at = row * Q_STRIDE;
        query[at + c.x / 4][c.x % 4] = x.x;
        query[at + c.x / 4][c.x % 4 + 1] = x.y;
        query[at + c.y / 4][c.y % 4] = x.z;
        query[at + c.y / 4][c.y % 4 + 1] = x.w;
    }
}

void load_keys(Work w, uint block0)
{
    for (uint n = gl_LocalInvocationIndex; n < KEYS; n += THREADS) {
        Key key = load_key(w, block0 + n);
        key_rows_at[n] = uvec4(key.k, key.v);
        key_seen[n] = uvec3(key.first, key.last, key.index);
    }
}

// Channels chunk * CHUNK on of the block's K or V; zeros past the last key. Whether one of
// those that the invocation has loaded is not finite.
bool load_block(uint block0, uint end, uint chunk, uint channels, uint type, bool values)
{
    bool odd = false;
    for (uint n = gl_LocalInvocationIndex; n < KEYS * CHUNK4 / 2; n += THREADS) {
        uint key = n / (CHUNK4 / 2);
        uint c4 = n % (CHUNK4 / 2) * 2;
        uint c = chunk * CHUNK + c4 * 4;
        vec4 x = vec4(0), y = vec4(0);
        if (block0 + key < end && c < channels) {
            uvec2 row = values ? key_rows_at[key].zw : key_rows_at[key].xy;
            load_row8(row, type, channels, c, x, y);
            odd = odd || any(is_odd(x)) || any(is_odd(y));
        }
        block[key * BLOCK_STRIDE + c4] = x;
        block[key * BLOCK_STRIDE + c4 + 1] = y;
    }
    return odd;
}

void main()
{
    Work w = load_rows();
    if (w.rows == 0)
        return;
    uint lane = gl_LocalInvocationIndex % LANES;
    uint group = gl_LocalInvocationIndex / LANES;
    uint row0 = group * 4;

    load_queries(w);
    if (gl_LocalInvocationIndex == 0)
        odd_chunk = 0;
    for (uint row = gl_LocalInvocationIndex; row < ROWS; row += THREADS)
        row_part[row] = vec3(start_of(w, min(row, w.rows - 1)), slope_of(w, min(row, w.rows - 1)));
    barrier();
    // Whatever a loop indexes that a driver does not unroll leaves the registers.
    vec3 a = row_part[row0], b = row_part[row0 + 1], c = row_part[row0 + 2], d = row_part[row0 + 3];
    vec4 maximum = vec4(a.x, b.x, c.x, d.x);                         // of the 4 rows
    vec4 total = lane == 0 ? vec4(a.y, b.y, c.y, d.y) : vec4(0);     // of this lane's keys
    vec4 slope = vec4(a.z, b.z, c.z, d.z);
    vec4 sum[V_CHUNKS * LANE_VECS][4];
    [[unroll]] for (uint v = 0; v < V_CHUNKS * LANE_VECS; v++) {
        [[unroll]] for (uint r = 0; r < 4; r++)
            sum[v][r] = vec4(0);
    }

    for (uint block0 = w.begin_key; block0 < w.end_key; block0 += KEYS) {
        barrier();
        load_keys(w, block0);

        float product[LANE_KEYS][4];
        [[unroll]] for (uint j = 0; j < LANE_KEYS; j++) {
            [[unroll]] for (uint r = 0; r < 4; r++)
                product[j][r] = 0;
        }
        for (uint chunk = 0; chunk < K_CHUNKS; chunk++) {
            barrier();
            load_block(block0, w.end_key, chunk, HEAD_SIZE, K_TYPE, false);
            barrier();
            uint chunk_vecs = min(CHUNK4, Q4 - chunk * CHUNK4);
            for (uint c4 = 0; c4 < chunk_vecs; c4++) {
                vec4 q[4];
                [[unroll]] for (uint r = 0; r < 4; r++)
                    q[r] = query[(row0 + r) * Q_STRIDE + chunk * CHUNK4 + c4];
                [[unroll]] for (uint j = 0; j < LANE_KEYS; j++) {
                    vec4 k = block[(lane + j * LANES) * BLOCK_STRIDE + c4];
                    [[unroll]] for (uint r = 0; r < 4; r++)
                        product[j][r] += dot(q[r], k);
                }
            }
        }

        vec4 highest = vec4(NOTHING);
        [[unroll]] for (uint j = 0; j < LANE_KEYS; j++) {
            uvec3 seen = key_seen[lane + j * LANES];
            [[unroll]] for (uint r = 0; r < 4; r++) {
                float x = row_logit(w, min(row0 + r, w.rows - 1), product[j][r], seen, slope[r]);
                product[j][r] = x;
                highest[r] = max(highest[r], x);
            }
        }
        lane_part[lane * GROUPS + group] = highest;
        barrier();
        vec4 before = maximum;
        [[unroll]] for (uint l = 0; l < LANES; l++)
            maximum = max(maximum, lane_part[l * GROUPS + group]);
        vec4 shrink = exp(before - maximum);
        total *= shrink;
        [[unroll]] for (uint j = 0; j < LANE_KEYS; j++) {
            vec4 p;
            [[unroll]] for (uint r = 0; r < 4; r++)
                p[r] = weight_of(product[j][r], maximum[r]);
            total += p;
            weight[(lane + j * LANES) * WEIGHT_STRIDE + group] = p;
        }

        for (uint chunk = 0; chunk < V_CHUNKS; chunk++) {
            barrier();
            uint number = block0 * V_CHUNKS + chunk + 1;
            if (load_block(block0, w.end_key, chunk, VALUE_SIZE, V_TYPE, true))
                odd_chunk = number;
            barrier();
            vec4 part[LANE_VECS][4];
            [[unroll]] for (uint v = 0; v < LANE_VECS; v++) {
                [[unroll]] for (uint r = 0; r < 4; r++)
                    part[v][r] = vec4(0);
            }
            // A row that does not see a key must not take it 0 times where it is not finite.
            bool all_finite = odd_chunk != number;
            for (uint key = 0; key < KEYS && all_finite; key++) {
                vec4 p = weight[key * WEIGHT_STRIDE + group];
                [[unroll]] for (uint v = 0; v < LANE_VECS; v++) {
                    vec4 value = block[key * BLOCK_STRIDE + lane + v * LANES];
                    [[unroll]] for (uint r = 0; r < 4; r++)
                        part[v][r] += p[r] * value;
                }
            }
            [[dont_unroll]] for (uint key = 0; key < KEYS && !all_finite; key++) {
                vec4 p = weight[key * WEIGHT_STRIDE + group];
                [[unroll]] for (uint v = 0; v < LANE_VECS; v++) {
                    vec4 value = block[key * BLOCK_STRIDE + lane + v * LANES];
                    [[unroll]] for (uint r = 0; r < 4; r++)
                        part[v][r] += p[r] == 0 ? vec4(0) : p[r] * value;
                }
            }
            [[unroll]] for (uint v = 0; v < V_CHUNKS * LANE_VECS; v++) {
                if (v / LANE_VECS == chunk)
                    [[unroll]] for (uint r = 0; r < 4; r++)
                        sum[v][r] = sum[v][r] * shrink[r] + part[v % LANE_VECS][r];
            }
        }
    }

    barrier();
    lane_part[lane * GROUPS + group] = total;
    barrier();
    total = vec4(0);
    [[unroll]] for (uint l = 0; l < LANES; l++)
        total += lane_part[l * GROUPS + group];

    if (lane == 0) {
        row_part[row0] = vec3(maximum.x, total.x, 0);
        row_part[row0 + 1] = vec3(maximum.y, total.y, 0);
        row_part[row0 + 2] = vec3(maximum.z, total.z, 0);
        row_part[row0 + 3] = vec3(maximum.w, total.w, 0);
    }
    [[unroll]] for (uint v = 0; v < V_CHUNKS * LANE_VECS; v++) {
        if (lane + v * LANES < V4)
            [[unroll]] for (uint r = 0; r < 4; r++)
                query[(row0 + r) * Q_STRIDE + lane + v * LANES] = sum[v][r];
    }
    barrier();
    for (uint row = gl_LocalInvocationIndex; row < w.rows; row += THREADS)
        finish_row(w, row, row_part[row].x, row_part[row].y);
    for (uint n = gl_LocalInvocationIndex; n < w.rows * V4; n += THREADS)
        finish_channels(w, n / V4, n % V4 * 4, query[n / V4 * Q_STRIDE + n % V4],
                        row_part[n / V4].x, row_part[n / V4].y);
}
