// Attention of one query token: HEADS query heads of a key/value head share
// each read of K and V. A team owns a key: each of its lanes holds blocks of 8
// channels of the queries and of the sums in registers. The teams of a workgroup
// take neighbouring parts of the split's keys and are joined at the end; splits
// are joined by merge_splits.comp.
//
// With CHOOSE some views choose among blocks. A constant would not do: Mesa 26's
// llvmpipe then takes minutes to compile the shader of those that do not.
#version 450
#extension GL_GOOGLE_include_directive : require

#include "team.glsl"

layout(constant_id = 24) const uint V_BLOCKS = 1;
layout(constant_id = 25) const uint KEYS = 4; // keys a team has in flight

const uint HEAD_BLOCKS = (GROUP + HEADS - 1) / HEADS;

vec4 sum[HEADS * V_BLOCKS * 2];
float maximum[HEADS], total[HEADS], slope[HEADS];

shared vec2 team_stats[TEAMS * HEADS];
shared vec4 team_sum[TEAMS > 1 ? TEAMS * LANES * 2 : 1];

// Heads past the last are the last again.
void load_queries(uint row, uint t, uint head0, uint heads, uint lane)
{
    Rope rope = attend_rope();
    [[unroll]] for (uint b = 0; b < K_BLOCKS; b++)
        [[unroll]] for (uint i = 0; i < 2; i++) {
            Turns turns = turns_of(rope, t, b, i, lane);
            [[unroll]] for (uint h = 0; h < HEADS; h++)
                query[(h * K_BLOCKS + b) * 2 + i] =
                    SCALE * load_query4(row, head0 + min(h, heads - 1), turns);
        }
}

// Where a team is among its keys: a run is as many of them as lie in one page.
struct Run {
    uvec2 k, v; // rows of the first key
    uint step;  // slots to the next key's
    uint keys;
    uint pos;
};

Run find_run(View view, uint offset, Segment segment, uvec2 list, uint key, uint end, uint kv_head)
{
    Run run;
    uint place = key, room_in_block = 0xffffffffu;
#ifdef CHOOSE
    if (view.select != 0) {
        room_in_block = view.block - key % view.block;
        place = Words(plus(list, key / view.block * 4)).at[0] * view.block + key % view.block;
    }
#endif
    uint slot = key_slot(segment, place);
    uint until_wrap = segment.slot_ring == 0 ? 0xffffffffu : segment.slot_ring - slot;
    uint page = min(slot / push.page_slots, segment.pages - 1);
    uint within = slot % push.page_slots;
    uint room = min(push.page_slots - within, until_wrap);
    uint step = max(segment.slot_step, 1);
    run.keys = min(min((room - 1) / step + 1, end - key), room_in_block);
    run.pos = key_pos(segment, place);
    Page base = Pages(plus(push.plan, push.pages)).at[segment.page0 + page];
    uint layer = segment.layered != 0 ? offset : 0;
    uvec2 strides = slot_strides(view), heads = head_strides(view);
    run.k = plus(plus(plus(to_uvec2(base.k), layer), within, strides.x), kv_head, heads.x);
    run.v = plus(plus(plus(to_uvec2(base.v), layer), within, strides.y), kv_head, heads.y);
    run.step = segment.slot_step;
    return run;
}

// KEYS keys from number `first` of a run on: those past its end are read as its
// last one and not seen.
void attend_keys(Run run, uint first, View view, Segment segment, uint view_index, uint token,
                 uint head0, uint heads, uint lane)
{
    float score[KEYS * HEADS];
    bool seen[KEYS];
    uint t = view.pos0 + token;
    uvec2 strides = slot_strides(view);
    [[unroll]] for (uint j = 0; j < KEYS; j++) {
        uint n = min(first + j, run.keys - 1);
        uvec2 k = plus(run.k, n * run.step, strides.x);
        seen[j] = first + j < run.keys;
        if (segment.windowed != 0)
            seen[j] = seen[j] && segment_attends(view, segment, t, run.pos + n * segment.pos_step);
        [[unroll]] for (uint h = 0; h < HEADS; h++)
            score[j * HEADS + h] = 0;
        [[unroll]] for (uint b = 0; b < K_BLOCKS; b++) {
            uint c = block_channel(b, lane);
            vec4 x, y;
            load_row8(k, K_TYPE, HEAD_SIZE, c < HEAD_SIZE ? c : 0, x, y);
            [[unroll]] for (uint h = 0; h < HEADS; h++) {
                uint q = (h * K_BLOCKS + b) * 2;
                score[j * HEADS + h] += dot(query[q], x) + dot(query[q + 1], y);
            }
        }
    }
    [[unroll]] for (uint h = 0; h < HEADS; h++) {
        float top = maximum[h];
        [[unroll]] for (uint j = 0; j < KEYS; j++) {
            uint n = min(first + j, run.keys - 1);
            float x = team_add(score[j * HEADS + h], lane);
            x = logit(x, view_index, token, head0 + min(h, heads - 1),
                      run.pos + n * segment.pos_step, slope[h]);
            score[j * HEADS + h] = seen[j] ? x : NOTHING;
            top = max(top, score[j * HEADS + h]);
        }
        float shrink = exp(maximum[h] - top);
        maximum[h] = top;
        total[h] *= shrink;
        [[unroll]] for (uint i = 0; i < V_BLOCKS * 2; i++)
            sum[h * V_BLOCKS * 2 + i] *= shrink;
        [[unroll]] for (uint j = 0; j < KEYS; j++) {
            float weight = weight_of(score[j * HEADS + h], top);
            score[j * HEADS + h] = weight;
            total[h] += weight;
        }
    }
    [[unroll]] for (uint j = 0; j < KEYS; j++) {
        uvec2 v = plus(run.v, min(first + j, run.keys - 1) * run.step, strides.y);
        [[unroll]] for (uint b = 0; b < V_BLOCKS; b++) {
            uint c = block_channel(b, lane);
            vec4 x, y;
            load_row8(v, V_TYPE, VALUE_SIZE, c < VALUE_SIZE ? c : 0, x, y);
            // What a hidden key holds may be no number. A mask hides it from some heads.
            x = seen[j] ? x : vec4(0);
            y = seen[j] ? y : vec4(0);
            [[unroll]] for (uint h = 0; h < HEADS; h++) {
                float weight = score[j * HEADS + h];
                bool hidden = MASK_TYPE != 0 && weight == 0;
                sum[(h * V_BLOCKS + b) * 2] += hidden ? vec4(0) : weight * x;
                sum[(h * V_BLOCKS + b) * 2 + 1] += hidden ? vec4(0) : weight * y;
            }
        }
    }
}

// Joins the teams: afterwards team 0 has everything.
void join_teams(uint team, uint lane)
{
    if (lane == 0)
        [[unroll]] for (uint h = 0; h < HEADS; h++)
            team_stats[team * HEADS + h] = vec2(maximum[h], total[h]);
    barrier();
    [[unroll]] for (uint h = 0; h < HEADS; h++) {
        float top = NOTHING, all = 0;
        for (uint i = 0; i < TEAMS; i++)
            top = max(top, team_stats[i * HEADS + h].x);
        for (uint i = 0; i < TEAMS; i++)
            all += exp(team_stats[i * HEADS + h].x - top) * team_stats[i * HEADS + h].y;
        float shrink = exp(maximum[h] - top);
        maximum[h] = top;
        total[h] = all;
        [[unroll]] for (uint b = 0; b < V_BLOCKS; b++) {
            uint s = (h * V_BLOCKS + b) * 2;
            uint at = (team * LANES + lane) * 2;
            team_sum[at] = sum[s] * shrink;
            team_sum[at + 1] = sum[s + 1] * shrink;
            barrier();
            if (team == 0) {
                vec4 x = vec4(0), y = vec4(0);
                for (uint i = 0; i < TEAMS; i++) {
                    x += team_sum[(i * LANES + lane) * 2];
                    y += team_sum[(i * LANES + lane) * 2 + 1];
                }
                sum[s] = x;
                sum[s + 1] = y;
            }
            barrier();
        }
    }
}

void store_results(Tile tile, uint row, uint head0, uint heads, uint lane)
{
    [[unroll]] for (uint h = 0; h < HEADS; h++) {
        if (h >= heads)
            break;
        uvec2 part = partial_row(tile.partial + tile.split, head0 + h);
        float factor = total[h] > 0 ? 1 / total[h] : 0;
        [[unroll]] for (uint b = 0; b < V_BLOCKS; b++) {
            uint c = block_channel(b, lane);
            if (c >= VALUE_SIZE)
                break;
            [[unroll]] for (uint i = 0; i < 2; i++) {
                vec4 x = sum[(h * V_BLOCKS + b) * 2 + i];
                uint at = c + 4 * i;
                if (tile.splits == 1) {
                    store_out(row, head0 + h, at, x.xy * factor, maximum[h]);
                    store_out(row, head0 + h, at + 2, x.zw * factor, maximum[h]);
                } else {
                    store2(part, F32, at, x.xy);
                    store2(part, F32, at + 2, x.zw);
                }
            }
        }
        if (lane == 0) {
            if (tile.splits == 1)
                store_lse(row, head0 + h, maximum[h], total[h]);
            else
                store2(part, F32, VALUE_SIZE, vec2(maximum[h], total[h]));
        }
    }
}

void main()
{
    uint index = local_index();
    uint lane = index % LANES, team = index / LANES;
    uint kv_head = gl_WorkGroupID.x / HEAD_BLOCKS;
    uint group0 = gl_WorkGroupID.x % HEAD_BLOCKS * HEADS;
    uint head0 = kv_head * GROUP + group0;
    uint heads = min(GROUP - group0, HEADS);

    Tile tile = Tiles(plus(push.plan, push.items)).at[gl_WorkGroupID.y];
    View view = load_view(tile.view);
    uint row = view.row0 + tile.token0;
    uint t = view.pos0 + tile.token0;
    uint segments = min(view.segments, PLAN_SEGMENTS);
    uint offset = slab_offset(view);

    uvec2 list = plus(push.mask, tile.chooser * QUERY_HEADS + head0, push.mask_token * 4);

    load_queries(row, t, head0, heads, lane);
    [[unroll]] for (uint i = 0; i < HEADS * V_BLOCKS * 2; i++)
        sum[i] = vec4(0);
    [[unroll]] for (uint h = 0; h < HEADS; h++) {
        uint head = head0 + min(h, heads - 1);
        vec2 start = row_start(head, tile.split == 0 && team == 0);
        maximum[h] = start.x;
        total[h] = start.y;
        slope[h] = mask_slope(view, head);
    }

    uint keys = 0;
    for (uint s = 0; s < segments; s++) {
        uvec2 range = segment_range(view, load_segment(tile.view, s), t, t);
        keys += range.y - range.x;
    }
    // This split's part of all keys, and this team's part of that: [from, to).
    uint share = (keys + tile.splits - 1) / tile.splits;
    uint from = min(share * tile.split, keys);
    uint to = min(from + share, keys);
    share = (to - from + TEAMS - 1) / TEAMS;
    from = min(from + share * team, to);
    to = min(from + share, to);

    for (uint s = 0; s < segments; s++) {
        Segment segment = load_segment(tile.view, s);
        uvec2 range = segment_range(view, segment, t, t);
        uint length = range.y - range.x;
        uint key = range.x + min(from, length), end = range.x + min(to, length);
        while (key < end) {
            Run run = find_run(view, offset, segment, list, key, end, kv_head);
            for (uint i = 0; i < run.keys; i += KEYS)
                attend_keys(run, i, view, segment, tile.view, tile.token0, head0, heads, lane);
            key += run.keys;
        }
        from -= min(from, length);
        to -= min(to, length);
    }

    if (TEAMS > 1)
        join_teams(team, lane);
    if (team == 0)
        store_results(tile, row, head0, heads, lane);
}
