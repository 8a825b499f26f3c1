// Attention of one query token where lanes can exchange values: HEADS query heads of a
// key/value head share each read of K and V.
//
// The workgroup finds where a block of keys lies, one to an invocation. Then each team takes
// KEYS of them at a time; its lanes hold blocks of 8 channels of the queries and of the
// sums in registers. A team has KEYS x HEADS products to add up over its lanes: each step
// halves what a lane has of them, so that a lane ends with its share of them, and
// takes the exponential of no other's. The teams are joined at the end; splits are
// joined by merge_splits.comp.
#version 450
#extension GL_GOOGLE_include_directive : require

#define REDUCE 2
#include "team.glsl"

layout(constant_id = 24) const uint V_BLOCKS = 1;
layout(constant_id = 25) const uint KEYS = 4; // keys a team has in flight, a power of two
layout(constant_id = 27) const uint SUBGROUPS = 1;

const uint HEAD_BLOCKS = (GROUP + HEADS - 1) / HEADS;
const uint INVOCATIONS = LANES * TEAMS;
const uint ROUND = KEYS * TEAMS;
const uint BLOCK = INVOCATIONS > ROUND ? INVOCATIONS : ROUND;

// Products of a team, [head][key]; HEADS <= LANES.
const uint HEAD_ROWS = HEADS > 4 ? 8 : HEADS > 2 ? 4 : HEADS;
const uint PRODUCTS = KEYS * HEAD_ROWS;
const uint OWN = PRODUCTS > LANES ? PRODUCTS / LANES : 1;    // a lane's share of them
const uint ALIKE = PRODUCTS > LANES ? 1 : LANES / PRODUCTS;  // lanes that share one
const uint HEAD_LANES = LANES / HEAD_ROWS;                   // lanes that have one head's

const uint UNSEEN = 0xffffffffu;

shared uvec4 key_row[BLOCK]; // K, V
shared uint key_pos_of[BLOCK]; // its position; UNSEEN: not attended

vec4 sum[HEADS * V_BLOCKS * 2];

const uint ROW4 = V_BLOCKS * LANES * 2; // vec4 of a row of sums
shared vec4 joined[SUBGROUPS * HEADS * ROW4];
shared vec2 joined_stats[SUBGROUPS * HEADS]; // maximum, sum of exponentials

// What all invocations know of their work.
struct Work {
    Tile tile;
    View view;
    uint kv_head, head0, heads;
    uint t, offset;
    KeyRun run;
    uint from, to; // this split's part of the run
    uvec2 list;    // of the blocks that the query has chosen
};

Work load_work()
{
    Work w;
    w.tile = Tiles(plus(push.plan, push.items)).at[gl_WorkGroupID.y];
    w.view = load_view(w.tile.view);
    w.kv_head = gl_WorkGroupID.x / HEAD_BLOCKS;
    uint group0 = gl_WorkGroupID.x % HEAD_BLOCKS * HEADS;
    w.head0 = w.kv_head * GROUP + group0;
    w.heads = min(GROUP - group0, HEADS);
    w.t = w.view.pos0 + w.tile.token0;
    w.offset = slab_offset(w.view);
    w.list = plus(push.mask, w.tile.chooser * QUERY_HEADS + w.head0, push.mask_token * 4);
    w.run = KeyRun(uvec4(0), uvec4(0));
    for (uint s = 0; s < min(w.view.segments, PLAN_SEGMENTS); s++)
        add_keys(w.run, s, segment_range(w.view, load_segment(w.tile.view, s), w.t, w.t));
    uint keys = w.run.end.w;
    uint share = (keys + w.tile.splits - 1) / w.tile.splits;
    w.from = min(share * w.tile.split, keys);
    w.to = min(w.from + share, keys);
    return w;
}

// Where key `n` of the run lies, as entry `at` of the block. Keys past the last are the last
// again, unseen.
void find_key(Work w, uint n, uint at)
{
    bool there = n < w.to;
    uint key = min(n, w.to - 1);
    uint s = segment_of(w.run, key);
#ifdef CHOOSE
    if (w.view.select != 0)
        key = Words(plus(w.list, key / w.view.block * 4)).at[0] * w.view.block +
              key % w.view.block;
#endif
    Segment segment = load_segment(w.tile.view, s);
    uvec2 k, v;
    key_rows(w.view, w.offset, segment, key, w.kv_head, k, v);
    uint pos = key_pos(segment, key);
    if (segment.windowed != 0)
        there = there && segment_attends(w.view, segment, w.t, pos);
    key_row[at] = uvec4(k, v);
    key_pos_of[at] = there ? pos : UNSEEN;
}

// A step of the sum over a team's lanes: those of one half of `lanes` give the upper half of
// their `count` products for the lower half of the others'.
#define ADD_STEP(lanes, count)                                                         \
    if (LANES > lanes) {                                                               \
        if (count > 1) {                                                               \
            bool upper = (lane & lanes) != 0;                                          \
            [[unroll]] for (uint i = 0; i < count / 2; i++) {                          \
                float own = upper ? x[i + count / 2] : x[i];                           \
                float other = upper ? x[i] : x[i + count / 2];                         \
                x[i] = own + subgroupShuffleXor(other, lanes);                         \
            }                                                                          \
        } else {                                                                       \
            x[0] += subgroupShuffleXor(x[0], lanes);                                   \
        }                                                                              \
    }

// Products that a lane has before the step over so many lanes.
const uint BEFORE_64 = PRODUCTS;
const uint BEFORE_32 = LANES > 64 && BEFORE_64 > 1 ? BEFORE_64 / 2 : BEFORE_64;
const uint BEFORE_16 = LANES > 32 && BEFORE_32 > 1 ? BEFORE_32 / 2 : BEFORE_32;
const uint BEFORE_8 = LANES > 16 && BEFORE_16 > 1 ? BEFORE_16 / 2 : BEFORE_16;
const uint BEFORE_4 = LANES > 8 && BEFORE_8 > 1 ? BEFORE_8 / 2 : BEFORE_8;
const uint BEFORE_2 = LANES > 4 && BEFORE_4 > 1 ? BEFORE_4 / 2 : BEFORE_4;
const uint BEFORE_1 = LANES > 2 && BEFORE_2 > 1 ? BEFORE_2 / 2 : BEFORE_2;

// What a lane keeps of its head, between blocks.
struct Row {
    float maximum, total, slope;
};

// KEYS keys of the block from entry `first` on.
void attend_keys(Work w, inout Row row, uint first, uint lane, uint team_lane0)
{
    vec4 v[KEYS * V_BLOCKS * 2];
    float x[PRODUCTS];
    [[unroll]] for (uint i = 0; i < PRODUCTS; i++)
        x[i] = 0;
    [[unroll]] for (uint j = 0; j < KEYS; j++) {
        uvec2 k_row = key_row[first + j].xy;
        [[unroll]] for (uint b = 0; b < K_BLOCKS; b++) {
            uint c = block_channel(b, lane);
            vec4 k0, k1;
            load_row8(k_row, K_TYPE, HEAD_SIZE, c < HEAD_SIZE ? c : 0, k0, k1);
            [[unroll]] for (uint h = 0; h < HEADS; h++) {
                uint q = (h * K_BLOCKS + b) * 2;
                x[h * KEYS + j] += dot(query[q], k0) + dot(query[q + 1], k1);
            }
        }
    }
    [[unroll]] for (uint j = 0; j < KEYS; j++) {
        uvec2 v_row = key_row[first + j].zw;
        bool there = key_pos_of[first + j] != UNSEEN;
        [[unroll]] for (uint b = 0; b < V_BLOCKS; b++) {
            uint c = block_channel(b, lane), i = (j * V_BLOCKS + b) * 2;
            load_row8(v_row, V_TYPE, VALUE_SIZE, c < VALUE_SIZE ? c : 0, v[i], v[i + 1]);
            // What a hidden key holds may be no number. A mask hides it from some heads.
            v[i] = there ? v[i] : vec4(0);
            v[i + 1] = there ? v[i + 1] : vec4(0);
        }
    }
    ADD_STEP(32, BEFORE_32)
    ADD_STEP(16, BEFORE_16)
    ADD_STEP(8, BEFORE_8)
    ADD_STEP(4, BEFORE_4)
    ADD_STEP(2, BEFORE_2)
    ADD_STEP(1, BEFORE_1)

    uint head = w.head0 + min(lane / HEAD_LANES, w.heads - 1);
    float top = row.maximum;
    [[unroll]] for (uint i = 0; i < OWN; i++) {
        uint pos = key_pos_of[first + (lane / ALIKE * OWN + i) % KEYS];
        bool seen = pos != UNSEEN;
        x[i] = logit(x[i], w.tile.view, w.tile.token0, head, seen ? pos : 0, row.slope);
        x[i] = seen ? x[i] : NOTHING;
        top = max(top, x[i]);
    }
    [[unroll]] for (uint other = HEAD_LANES / 2; other > 0; other /= 2)
        top = max(top, subgroupShuffleXor(top, other));
    float shrink = exp(row.maximum - top);
    row.maximum = top;
    row.total *= shrink;
    [[unroll]] for (uint i = 0; i < OWN; i++) {
        x[i] = weight_of(x[i], top);
        row.total += x[i];
    }

    [[unroll]] for (uint h = 0; h < HEADS; h++) {
        float shrink_h = subgroupShuffle(shrink, team_lane0 + h * HEAD_LANES);
        [[unroll]] for (uint i = 0; i < V_BLOCKS * 2; i++)
            sum[h * V_BLOCKS * 2 + i] *= shrink_h;
        [[unroll]] for (uint j = 0; j < KEYS; j++) {
            uint product = h * KEYS + j;
            float weight = subgroupShuffle(x[product % OWN], team_lane0 + product / OWN * ALIKE);
            bool hidden = MASK_TYPE != 0 && weight == 0;
            [[unroll]] for (uint i = 0; i < V_BLOCKS * 2; i++)
                sum[h * V_BLOCKS * 2 + i] += hidden ? vec4(0) : weight * v[j * V_BLOCKS * 2 + i];
        }
    }
}

// The sums of all teams, as far as they share a subgroup; then into shared memory.
void join_teams(Row row, uint lane, uint team_lane0)
{
    // Of lanes that share a product one counts.
    float total = lane % ALIKE == 0 ? row.total : 0;
    [[unroll]] for (uint other = HEAD_LANES / 2; other > 0; other /= 2)
        total += subgroupShuffleXor(total, other);
    float top = row.maximum;
    for (uint other = LANES; other < gl_SubgroupSize; other *= 2)
        top = max(top, subgroupShuffleXor(top, other));
    float shrink = exp(row.maximum - top);
    total *= shrink;
    for (uint other = LANES; other < gl_SubgroupSize; other *= 2)
        total += subgroupShuffleXor(total, other);
    [[unroll]] for (uint h = 0; h < HEADS; h++) {
        uint from = team_lane0 + h * HEAD_LANES, at = gl_SubgroupID * HEADS + h;
        float shrink_h = subgroupShuffle(shrink, from);
        vec2 stats = vec2(subgroupShuffle(top, from), subgroupShuffle(total, from));
        [[unroll]] for (uint i = 0; i < V_BLOCKS * 2; i++) {
            vec4 part = sum[h * V_BLOCKS * 2 + i] * shrink_h;
            for (uint other = LANES; other < gl_SubgroupSize; other *= 2)
                part += subgroupShuffleXor(part, other);
            if (team_lane0 == 0)
                joined[at * ROW4 + (i / 2 * LANES + lane) * 2 + i % 2] = part;
        }
        if (gl_SubgroupInvocationID == 0)
            joined_stats[at] = stats;
    }
}

// Four channels of a head from all subgroups; afterwards the head's maximum and total.
vec4 join_subgroups(uint h, uint at, out vec2 stats)
{
    stats = vec2(NOTHING, 0);
    for (uint i = 0; i < SUBGROUPS; i++)
        stats.x = max(stats.x, joined_stats[i * HEADS + h].x);
    vec4 all = vec4(0);
    for (uint i = 0; i < SUBGROUPS; i++) {
        vec2 other = joined_stats[i * HEADS + h];
        float shrink = exp(other.x - stats.x);
        stats.y += shrink * other.y;
        all += shrink * joined[(i * HEADS + h) * ROW4 + at];
    }
    return all;
}

void store_results(Work w, uint index)
{
    uint row = w.view.row0 + w.tile.token0;
    for (uint n = index; n < w.heads * ROW4; n += INVOCATIONS) {
        uint h = n / ROW4, c = n % ROW4 * 4;
        if (c >= VALUE_SIZE)
            continue;
        vec2 stats;
        vec4 x = join_subgroups(h, n % ROW4, stats);
        if (w.tile.splits == 1) {
            x *= stats.y > 0 ? 1 / stats.y : 0;
            store_out(row, w.head0 + h, c, x.xy, stats.x);
            store_out(row, w.head0 + h, c + 2, x.zw, stats.x);
            if (c == 0)
                store_lse(row, w.head0 + h, stats.x, stats.y);
            continue;
        }
        uvec2 part = partial_row(w.tile.partial + w.tile.split, w.head0 + h);
        store2(part, F32, c, x.xy);
        store2(part, F32, c + 2, x.zw);
        if (c == 0)
            store2(part, F32, VALUE_SIZE, stats);
    }
}

void main()
{
    uint index = local_index();
    uint lane = index % LANES, team = index / LANES;
    uint team_lane0 = gl_SubgroupInvocationID / LANES * LANES;
    Work w = load_work();

    Rope rope = attend_rope();
    [[unroll]] for (uint b = 0; b < K_BLOCKS; b++)
        [[unroll]] for (uint i = 0; i < 2; i++) {
            Turns turns = turns_of(rope, w.t, b, i, lane);
            [[unroll]] for (uint h = 0; h < HEADS; h++)
                query[(h * K_BLOCKS + b) * 2 + i] =
                    SCALE * load_query4(w.view.row0 + w.tile.token0,
                                        w.head0 + min(h, w.heads - 1), turns);
        }
    [[unroll]] for (uint i = 0; i < HEADS * V_BLOCKS * 2; i++)
        sum[i] = vec4(0);
    uint head = w.head0 + min(lane / HEAD_LANES, w.heads - 1);
    vec2 start = row_start(head, w.tile.split == 0 && team == 0);
    Row row = Row(start.x, lane % HEAD_LANES == 0 ? start.y : 0, mask_slope(w.view, head));

    for (uint first = w.from; first < w.to; first += BLOCK) {
        barrier();
        for (uint at = index; at < BLOCK; at += INVOCATIONS)
            find_key(w, first + at, at);
        barrier();
        uint keys = min(w.to - first, BLOCK);
        for (uint at = 0; at < keys; at += ROUND)
            attend_keys(w, row, at + team * KEYS, lane, team_lane0);
    }

    join_teams(row, lane, team_lane0);
    barrier();
    store_results(w, index);
}
