// Prefill attention on matrix units, of K and V in float16.
//
// Each subgroup has MATRIX_ROWS rows: their queries and their sums stay in its matrices.
// Keys go through shared memory in blocks of KEYS, which all subgroups use. While a block
// is worked on, what comes next is on its way from memory in registers.
//
// Matrix units multiply float16 numbers. A query and a weight is the sum of two such,
// which leaves as much of it as float32 has, and products are summed in float32.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_shader_subgroup_arithmetic : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_shuffle : require
#extension GL_KHR_shader_subgroup_vote : require
#include "prefill.glsl"

layout(constant_id = 23) const uint KEYS = 32; // a multiple of 8, at most 32
layout(constant_id = 24) const uint LANES = 32; // of a subgroup; a multiple of MATRIX_ROWS
// A product of matrices: MATRIX_ROWS x MATRIX_DEPTH by MATRIX_DEPTH x MATRIX_COLUMNS.
layout(constant_id = 25) const uint MATRIX_ROWS = 16;
layout(constant_id = 26) const uint MATRIX_COLUMNS = 16;
layout(constant_id = 27) const uint MATRIX_DEPTH = 16;
// A subgroup's lanes are those of a vector. llvmpipe, where they are, takes a barrier of a
// subgroup for one of the workgroup, where all would have to meet.
layout(constant_id = 28) const bool LOCKSTEP = false;

#define LEFT coopmat<float16_t, gl_ScopeSubgroup, MATRIX_ROWS, MATRIX_DEPTH, gl_MatrixUseA>
#define RIGHT coopmat<float16_t, gl_ScopeSubgroup, MATRIX_DEPTH, MATRIX_COLUMNS, gl_MatrixUseB>
#define SUMS \
    coopmat<float, gl_ScopeSubgroup, MATRIX_ROWS, MATRIX_COLUMNS, gl_MatrixUseAccumulator>
const int BY_ROWS = gl_CooperativeMatrixLayoutRowMajor;
const int BY_COLUMNS = gl_CooperativeMatrixLayoutColumnMajor;

const uint SUBGROUPS = ROWS / MATRIX_ROWS;
const uint THREADS = SUBGROUPS * LANES;
const uint PARTS = LANES / MATRIX_ROWS; // lanes that share a row
const uint Q4 = HEAD_SIZE / 4;
const uint LANE_QUADS = (Q4 + PARTS - 1) / PARTS;
const uint CHUNKS = KEYS / 8; // of a row of logits
const uint LANE_CHUNKS = (CHUNKS + PARTS - 1) / PARTS;
const uint HEAD_TILES = HEAD_SIZE / MATRIX_DEPTH;
const uint VALUE_TILES = VALUE_SIZE / MATRIX_COLUMNS;
const uint KEY_TILES = KEYS / MATRIX_COLUMNS;
const uint WEIGHT_TILES = KEYS / MATRIX_DEPTH;
const uint TILE_QUADS = (MATRIX_COLUMNS / 4 + PARTS - 1) / PARTS; // a lane's, of a row of a tile

// Of a block's keys each is copied by COPIERS neighbours, 8 channels at a time. Where the
// keys are is found for as many blocks at once, by each of the neighbours for one.
const uint COPIERS = THREADS / KEYS; // divides LANES
const uint K8 = HEAD_SIZE / 8;
const uint V8 = VALUE_SIZE / 8;
const uint K_COPIES = (K8 + COPIERS - 1) / COPIERS;
const uint V_COPIES = (V8 + COPIERS - 1) / COPIERS;

// Odd strides, of 16 bytes, keep the rows of a matrix on different banks.
const uint K_STRIDE = K8 + 1;
const uint V_STRIDE = V8 + 1;
const uint LOGIT_STRIDE = KEYS / 4 + 1;
const uint WEIGHT_STRIDE = CHUNKS + 1;
const uint VALUES_AT = KEYS * K_STRIDE;
const uint BLOCK_SIZE = VALUES_AT + KEYS * V_STRIDE;
const uint QUERY_SIZE = ROWS * K_STRIDE;
const uint LOW_AT = ROWS * WEIGHT_STRIDE;

shared uvec4 block[BLOCK_SIZE > QUERY_SIZE ? BLOCK_SIZE : QUERY_SIZE]; // K, V; first queries
shared vec4 logits[ROWS * LOGIT_STRIDE];
shared uvec4 weights[2 * ROWS * WEIGHT_STRIDE]; // upper halves, then lower ones
shared uvec3 key_seen[KEYS];                    // first, last, index
shared uvec4 reach[SUBGROUPS]; // of a subgroup's keys: least and greatest first, then last
shared uint odd_keys[SUBGROUPS]; // of those that it copies, a bit each: V is not all finite

// Weights are this much greater than those of the row's maximum, because the least
// float16 numbers are sparse. The maximum may rise by RISE before the sums follow it:
// weights are below 2^15.
const float BOOST = 9; // a power of two
const float RISE = 4;
const float LOG2E = 1.44269504;

// What float16 holds of numbers, cut off and not rounded: compilers take the difference to a
// rounded one for nothing.
vec2 cut(vec2 x)
{
    return uintBitsToFloat(floatBitsToUint(x) & 0xffffe000u);
}

// The upper halves of two numbers; x becomes what they leave.
uint upper(inout vec2 x)
{
    vec2 high = cut(x);
    x -= high;
    return packHalf2x16(high);
}

uvec4 upper8(inout vec4 a, inout vec4 b)
{
    vec2 x = a.xy, y = a.zw, z = b.xy, w = b.zw;
    uvec4 high = uvec4(upper(x), upper(y), upper(z), upper(w));
    a = vec4(x, y);
    b = vec4(z, w);
    return high;
}

// 2^n, -127 < n < 128.
float power_of_two(int n)
{
    return uintBitsToFloat(uint(n + 127) << 23);
}

// The lanes of a subgroup see what the others wrote.
void meet()
{
    if (LOCKSTEP)
        subgroupMemoryBarrierShared();
    else
        subgroupBarrier();
}

float most_of_row(float x)
{
    [[unroll]] for (uint d = MATRIX_ROWS; d < LANES; d *= 2)
        x = max(x, subgroupShuffleXor(x, d));
    return x;
}

uint most_of_row(uint x)
{
    [[unroll]] for (uint d = MATRIX_ROWS; d < LANES; d *= 2)
        x = max(x, subgroupShuffleXor(x, d));
    return x;
}

uint any_of_row(uint bits)
{
    [[unroll]] for (uint d = MATRIX_ROWS; d < LANES; d *= 2)
        bits |= subgroupShuffleXor(bits, d);
    return bits;
}

float sum_of_row(float x)
{
    [[unroll]] for (uint d = MATRIX_ROWS; d < LANES; d *= 2)
        x += subgroupShuffleXor(x, d);
    return x;
}

vec4 quad[LANE_QUADS]; // of the lane's part of its row's query

// The bits of those float16 numbers in words that are not finite.
uvec4 odd_halves(uvec4 words)
{
    uvec4 low = mix(uvec4(0), uvec4(0xffffu), equal(words & 0x7c00u, uvec4(0x7c00u)));
    uvec4 high = mix(uvec4(0), uvec4(0xffff0000u), equal(words & 0x7c000000u, uvec4(0x7c000000u)));
    return low | high;
}

bool any_odd(uvec4 words)
{
    uvec4 odd = odd_halves(words);
    return (odd.x | odd.y | odd.z | odd.w) != 0;
}

// NaN in those of channels c ... c + 3 in which one of the block's `keys`, a bit each, has a V
// that is not finite, else 0.
vec4 spoilt_by(uint keys, uint c)
{
    uvec4 odd = uvec4(0);
    for (; keys != 0; keys &= keys - 1) {
        uvec4 words = odd_halves(block[VALUES_AT + findLSB(keys) * V_STRIDE + c / 8]);
        uvec2 pairs = c % 8 == 0 ? words.xy : words.zw;
        odd |= uvec4(pairs.x & 0xffffu, pairs.x >> 16, pairs.y & 0xffffu, pairs.y >> 16);
    }
    return mix(vec4(0), vec4(not_a_number()), notEqual(odd, uvec4(0)));
}

// Two channels of a staged query.
void stage(uint row, uint c, uint pair)
{
    block[row * K_STRIDE + c / 8][c / 2 % 4] = pair;
}

// The upper halves of the queries, of which the lower ones are left.
void stage_queries(Rope rope, uint row, uint part)
{
    meet();
    [[unroll]] for (uint i = 0; i < LANE_QUADS; i++) {
        uint n = i * PARTS + part;
        uvec2 c = quad_channels(rope, n);
        vec2 x = quad[i].xy, y = quad[i].zw;
        uvec2 pairs = uvec2(upper(x), upper(y));
        quad[i] = vec4(x, y);
        if (n < Q4) {
            stage(row, c.x, pairs.x);
            stage(row, c.y, pairs.y);
        }
    }
    meet();
}

uint invocation()
{
    return gl_SubgroupID * LANES + gl_SubgroupInvocationID;
}

// The number within a block of the key that an invocation copies: 8 neighbours, which
// write together, have two that lie 4 rows and so half of all banks apart.
uint own_key()
{
    uint n = invocation() / COPIERS;
    return (n & ~7u) | ((n >> 1) & 3) | ((n & 1) << 2);
}

// What this lane's neighbour `copier` has found.
Key found_by(Key found, uint copier)
{
    uint from = gl_SubgroupInvocationID / COPIERS * COPIERS + copier;
    return Key(subgroupShuffle(found.k, from), subgroupShuffle(found.v, from),
               subgroupShuffle(found.first, from), subgroupShuffle(found.last, from),
               subgroupShuffle(found.index, from));
}

void main()
{
    Work w = load_rows();
    if (w.rows == 0)
        return;
    uint lane = gl_SubgroupInvocationID;
    uint row0 = gl_SubgroupID * MATRIX_ROWS; // of the subgroup
    uint row = row0 + lane % MATRIX_ROWS;    // of the lane
    uint part = lane / MATRIX_ROWS;
    uint real_row = min(row, w.rows - 1);

    // Queries, each row times a power of two that makes the most of float16.
    uint most = 0;
    Rope rope = attend_rope();
    [[unroll]] for (uint i = 0; i < LANE_QUADS; i++) {
        uint n = i * PARTS + part;
        quad[i] = vec4(0);
        if (n < Q4 && row < w.rows) {
            uint token = row_token(w, row);
            uvec2 from = query_row(w.view.row0 + token, row_head(w, row));
            uvec2 c = quad_channels(rope, n);
            quad[i] = SCALE * vec4(load2(from, Q_TYPE, c.x), load2(from, Q_TYPE, c.y));
            rope_quad(rope, w.view.pos0 + token, n, quad[i]);
        }
        uvec4 size = floatBitsToUint(quad[i]) & 0x7fffffffu;
        most = max(most, max(max(size.x, size.y), max(size.z, size.w)));
    }
    most = most_of_row(most);
    int exponent = clamp(141 - int(most >> 23), -112, 126);
    float scale = power_of_two(exponent), unscale = power_of_two(-exponent);
    [[unroll]] for (uint i = 0; i < LANE_QUADS; i++)
        quad[i] *= scale;
    // Drivers do not unroll long loops, and a matrix that a loop indexes is not in registers.
    LEFT query[2 * HEAD_TILES]; // upper halves, then lower ones
    uint staged = row0 * K_STRIDE;
    stage_queries(rope, row, part);
    [[unroll]] for (uint c = 0; c < HEAD_TILES; c++)
        coopMatLoad(query[c], block, staged + c * MATRIX_DEPTH / 8, K_STRIDE, BY_ROWS);
    stage_queries(rope, row, part);
    [[unroll]] for (uint c = 0; c < HEAD_TILES; c++)
        coopMatLoad(query[HEAD_TILES + c], block, staged + c * MATRIX_DEPTH / 8, K_STRIDE, BY_ROWS);

    vec2 start = start_of(w, real_row);
    float maximum = start.x;
    float total = part == 0 ? start.y * exp2(BOOST) : 0; // of this lane's keys
    float slope = slope_of(w, real_row);
    SUMS sum[VALUE_TILES];
    [[unroll]] for (uint v = 0; v < VALUE_TILES; v++)
        sum[v] = SUMS(0.0);

    // Queries of the subgroup, and of the workgroup.
    uvec2 near_t = queries_of(w, min(row0, w.rows - 1), min(row0 + MATRIX_ROWS, w.rows) - 1);
    uvec2 all_t = queries_of(w, 0, w.rows - 1);
    uint own = own_key();
    uint copier = invocation() % COPIERS;
    uvec4 k_copy[K_COPIES], v_copy[V_COPIES];
    Key found = load_key(w, w.begin_key + copier * KEYS + own);
    Key key = found_by(found, 0);
    uint number = 0; // of the block
    bool present_key = w.begin_key + own < w.end_key;
    uvec2 from = plus(key.k, copier * 16);
    [[unroll]] for (uint i = 0; i < K_COPIES; i++) {
        k_copy[i] = uvec4(0);
        if (present_key && i * COPIERS + copier < K8)
            k_copy[i] = load_words4(plus(from, i * COPIERS * 16));
    }
    barrier();

    for (uint block0 = w.begin_key; block0 < w.end_key; block0 += KEYS) {
        [[unroll]] for (uint i = 0; i < K_COPIES; i++) {
            if (i * COPIERS + copier < K8)
                block[own * K_STRIDE + i * COPIERS + copier] = k_copy[i];
        }
        uvec2 seen_by = uvec2(key.first, key.last);
#ifdef GATHER
        if (key.first <= key.last)
            seen_by = uvec2(0, 0xffffffffu);
#endif
        if (copier == 0)
            key_seen[own] = uvec3(seen_by, key.index);
        uvec4 bounds = uvec4(subgroupMin(seen_by.x), subgroupMax(seen_by.x),
                             subgroupMin(seen_by.y), subgroupMax(seen_by.y));
        if (subgroupElect())
            reach[gl_SubgroupID] = bounds;
        from = plus(key.v, copier * 16);
        [[unroll]] for (uint i = 0; i < V_COPIES; i++) {
            v_copy[i] = uvec4(0);
            if (present_key && i * COPIERS + copier < V8)
                v_copy[i] = load_words4(plus(from, i * COPIERS * 16));
        }
        number++;
        if (number % COPIERS == 0)
            found = load_key(w, block0 + (1 + copier) * KEYS + own);
        key = found_by(found, number % COPIERS);
        present_key = block0 + KEYS + own < w.end_key;
        barrier();

        bounds = reach[0];
        [[unroll]] for (uint s = 1; s < SUBGROUPS; s++) {
            uvec4 more = reach[s];
            bounds.xz = min(bounds.xz, more.xz);
            bounds.yw = max(bounds.yw, more.yw);
        }
        bool works = row0 < w.rows && bounds.x <= near_t.y && bounds.w >= near_t.x;
        bool all_seen = bounds.y <= near_t.x && bounds.z >= near_t.y && MASK_TYPE == 0;
        // Some row of the workgroup has a key hidden, whose V may hold anything.
        bool some_hidden = bounds.y > all_t.x || bounds.z < all_t.y || MASK_TYPE != 0;
        uint attended = 0; // keys of the lane's row and chunks, where some are hidden
        if (works) {
            // Two sums, because each waits for its last product.
            SUMS high[KEY_TILES], low[KEY_TILES];
            [[unroll]] for (uint n = 0; n < KEY_TILES; n++) {
                high[n] = SUMS(0.0);
                low[n] = SUMS(0.0);
            }
            [[unroll]] for (uint c = 0; c < HEAD_TILES; c++) {
                [[unroll]] for (uint n = 0; n < KEY_TILES; n++) {
                    RIGHT k;
                    coopMatLoad(k, block, n * MATRIX_COLUMNS * K_STRIDE + c * MATRIX_DEPTH / 8,
                                K_STRIDE, BY_COLUMNS);
                    high[n] = coopMatMulAdd(query[c], k, high[n]);
                    low[n] = coopMatMulAdd(query[HEAD_TILES + c], k, low[n]);
                }
            }
            [[unroll]] for (uint n = 0; n < KEY_TILES; n++)
                coopMatStore(high[n] + low[n], logits,
                             row0 * LOGIT_STRIDE + n * MATRIX_COLUMNS / 4, LOGIT_STRIDE, BY_ROWS);
            meet();

            vec4 x[LANE_CHUNKS * 2];
            float highest = NOTHING;
            [[unroll]] for (uint i = 0; i < LANE_CHUNKS * 2; i++) {
                uint at = ((i / 2) * PARTS + part) * 2 + i % 2;
                x[i] = vec4(NOTHING);
                if (at < CHUNKS * 2)
                    x[i] = logits[row * LOGIT_STRIDE + at] * unscale;
                [[unroll]] for (uint j = 0; j < 4; j++) {
                    if (at < CHUNKS * 2 && all_seen)
                        x[i][j] = logit(x[i][j], 0, 0, 0, 0, 1);
                    else if (at < CHUNKS * 2)
                        x[i][j] = row_logit(w, real_row, x[i][j], key_seen[at * 4 + j], slope);
                    highest = max(highest, x[i][j]);
                }
            }
            highest = most_of_row(highest);
            if (subgroupAny(highest > maximum + RISE)) {
                float before = maximum;
                maximum = max(maximum, highest);
                float shrink = exp(before - maximum);
                total *= shrink;
                meet();
                [[unroll]] for (uint i = 0; i < MATRIX_COLUMNS / 4; i += PARTS) {
                    if (i + part < MATRIX_COLUMNS / 4)
                        logits[row * LOGIT_STRIDE + i + part] = vec4(shrink);
                }
                meet();
                SUMS factor;
                coopMatLoad(factor, logits, row0 * LOGIT_STRIDE, LOGIT_STRIDE, BY_ROWS);
                [[unroll]] for (uint v = 0; v < VALUE_TILES; v++)
                    sum[v] = sum[v] * factor;
            }
            [[unroll]] for (uint i = 0; i < LANE_CHUNKS; i++) {
                uint chunk = i * PARTS + part;
                vec4 p[2];
                [[unroll]] for (uint j = 0; j < 2; j++) {
                    vec4 y = x[2 * i + j];
                    vec4 power = exp2(fma(y - maximum, vec4(LOG2E), vec4(BOOST)));
                    p[j] = mix(vec4(0), power, greaterThan(y, vec4(NOTHING)));
                    total += (p[j].x + p[j].y) + (p[j].z + p[j].w);
                    if (some_hidden && chunk < CHUNKS) {
                        uvec4 bits = uvec4(1, 2, 4, 8) << (chunk * 8 + j * 4);
                        bits = mix(uvec4(0), bits, greaterThan(y, vec4(NOTHING)));
                        attended |= bits.x | bits.y | bits.z | bits.w;
                    }
                }
                uvec4 upper_half = upper8(p[0], p[1]), lower_half = upper8(p[0], p[1]);
                if (chunk < CHUNKS) {
                    weights[row * WEIGHT_STRIDE + chunk] = upper_half;
                    weights[LOW_AT + row * WEIGHT_STRIDE + chunk] = lower_half;
                }
            }
        }

        if (some_hidden) {
            bool odd = false;
            [[unroll]] for (uint i = 0; i < V_COPIES; i++)
                odd = odd || any_odd(v_copy[i]);
            uint odd_near = subgroupOr(odd ? 1u << own : 0);
            if (subgroupElect())
                odd_keys[gl_SubgroupID] = odd_near;
        }
        [[unroll]] for (uint i = 0; i < V_COPIES; i++) {
            if (i * COPIERS + copier < V8)
                block[VALUES_AT + own * V_STRIDE + i * COPIERS + copier] = v_copy[i];
        }
        from = plus(key.k, copier * 16);
        [[unroll]] for (uint i = 0; i < K_COPIES; i++) {
            k_copy[i] = uvec4(0);
            if (present_key && i * COPIERS + copier < K8)
                k_copy[i] = load_words4(plus(from, i * COPIERS * 16));
        }
        barrier();

        // Matrix units multiply hidden keys by 0, and 0 times what is not finite is NaN. So a
        // V that is not finite becomes 0 once the sums of those rows are NaN that attend it.
        uint odd_any = 0;
        [[unroll]] for (uint s = 0; s < SUBGROUPS; s++)
            odd_any |= some_hidden ? odd_keys[s] : 0;
        if (odd_any != 0) {
            if (works) {
                uint spoiling = any_of_row(attended & odd_any);
                [[unroll]] for (uint v = 0; v < VALUE_TILES; v++) {
                    meet();
                    for (uint n = part; n < MATRIX_COLUMNS / 4; n += PARTS)
                        logits[row * LOGIT_STRIDE + n] =
                            spoilt_by(spoiling, v * MATRIX_COLUMNS + n * 4);
                    meet();
                    SUMS spoilt;
                    coopMatLoad(spoilt, logits, row0 * LOGIT_STRIDE, LOGIT_STRIDE, BY_ROWS);
                    sum[v] = sum[v] + spoilt;
                }
            }
            barrier();
            [[unroll]] for (uint i = 0; i < V_COPIES; i++) {
                uint at = VALUES_AT + own * V_STRIDE + i * COPIERS + copier;
                if (i * COPIERS + copier < V8)
                    block[at] &= ~odd_halves(block[at]);
            }
            barrier();
        }

        if (works) {
            [[unroll]] for (uint n = 0; n < WEIGHT_TILES; n++) {
                LEFT high, low;
                uint at = row0 * WEIGHT_STRIDE + n * MATRIX_DEPTH / 8;
                coopMatLoad(high, weights, at, WEIGHT_STRIDE, BY_ROWS);
                coopMatLoad(low, weights, LOW_AT + at, WEIGHT_STRIDE, BY_ROWS);
                [[unroll]] for (uint v = 0; v < VALUE_TILES; v++) {
                    RIGHT value;
                    coopMatLoad(value, block,
                                VALUES_AT + n * MATRIX_DEPTH * V_STRIDE + v * MATRIX_COLUMNS / 8,
                                V_STRIDE, BY_ROWS);
                    sum[v] = coopMatMulAdd(high, value, sum[v]);
                    sum[v] = coopMatMulAdd(low, value, sum[v]);
                }
            }
        }
    }

    total = sum_of_row(total) * exp2(-BOOST);
    if (row < w.rows && part == 0)
        finish_row(w, row, maximum, total);
    vec4 result[VALUE_TILES * TILE_QUADS];
    [[unroll]] for (uint v = 0; v < VALUE_TILES; v++) {
        meet();
        coopMatStore(sum[v], logits, row0 * LOGIT_STRIDE, LOGIT_STRIDE, BY_ROWS);
        meet();
        [[unroll]] for (uint i = 0; i < TILE_QUADS; i++)
            result[v * TILE_QUADS + i] =
                logits[row * LOGIT_STRIDE + min(i * PARTS + part, MATRIX_COLUMNS / 4 - 1)];
    }
    if (row >= w.rows)
        return;
    for (uint n = 0; n < VALUE_TILES * TILE_QUADS; n++) {
        uint c = n % TILE_QUADS * PARTS + part;
        if (c < MATRIX_COLUMNS / 4)
            finish_channels(w, row, n / TILE_QUADS * MATRIX_COLUMNS + c * 4,
                            result[n] * exp2(-BOOST), maximum, total);
    }
}
