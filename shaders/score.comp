// Scores of blocks of keys, for queries that choose among them: what the largest
// product of the query with a key of the block can be, or the product with the mean.
// A team has neighbouring blocks, and HEADS rows of queries in registers: heads of a
// group that choose apart share what is read of a block. Where they choose TOGETHER
// one score stands for all of them; it is linear in the queries' parts above and below
// zero (in the queries, for the mean), so that their sums are what a block is held against.
#version 450
#extension GL_GOOGLE_include_directive : require

#include "team.glsl"
#include "order.glsl"

layout(constant_id = 24) const bool MEAN = false; // else extremes: views that select so
layout(constant_id = 25) const bool TOGETHER = false; // views that select so
layout(constant_id = 27) const bool WHOLE = false; // each block has one entry
layout(constant_id = 28) const uint BLOCKS = 1; // blocks a team has in flight, where WHOLE

const uint SCORES = TOGETHER ? 1 : HEADS; // of a block
const uint ENTRY_TYPE = MEAN ? F32 : K_TYPE == Q8_0 ? F16 : K_TYPE; // extremes_type, as a constant

// The sums of a group's queries in the place of its heads.
void load_group(uint row, uint t, uint head0, uint lane, float factor)
{
    Rope rope = attend_rope();
    [[unroll]] for (uint b = 0; b < K_BLOCKS; b++)
        [[unroll]] for (uint i = 0; i < 2; i++) {
            Turns turns = turns_of(rope, t, b, i, lane);
            vec4 above = vec4(0), below = vec4(0);
            for (uint h = 0; h < GROUP; h++) {
                vec4 x = factor * load_query4(row, head0 + h, turns);
                above += MEAN ? x : max(x, vec4(0));
                below += min(x, vec4(0));
            }
            query[2 * b + i] = above;
            if (!MEAN)
                query[(K_BLOCKS + b) * 2 + i] = below;
        }
}

// Where a team is among the entries of a head: they follow each other in a page.
struct Walk {
    uint page, in_page; // page of the view, entry of the page
    uvec2 at;
};

void enter_page(View view, uint head, inout Walk walk)
{
    Page base = Pages(plus(push.plan, push.pages))
                    .at[view.entry_page0 + min(walk.page, view.entry_pages - 1)];
    walk.at = plus(plus(to_uvec2(base.k), head), walk.in_page, view.entry_bytes);
}

// `entries` further, which do not lead past the page's end.
void advance(View view, uint head, uint in_page, uint entries, inout Walk walk)
{
    walk.in_page += entries;
    walk.at = plus(walk.at, entries, view.entry_bytes);
    if (walk.in_page == in_page) {
        walk.in_page = 0;
        walk.page++;
        enter_page(view, head, walk);
    }
}

void load_entry(uvec2 entry, uint b, uint lane, out vec4 low[2], out vec4 high[2])
{
    uint c = min(block_channel(b, lane), HEAD_SIZE - 8);
    load_row8(entry, ENTRY_TYPE, HEAD_SIZE, c, low[0], low[1]);
    high = low;
    if (!MEAN)
        load_row8(plus(entry, row_bytes(ENTRY_TYPE, HEAD_SIZE)), ENTRY_TYPE, HEAD_SIZE, c, high[0],
                  high[1]);
}

// What the `entries` of a block have together.
void join_entries(View view, uint head, uint in_page, uint entries, Walk walk, uint b, uint lane,
                  inout vec4 low[2], inout vec4 high[2])
{
    for (uint e = 1; e < entries; e++) {
        vec4 l[2], h[2];
        advance(view, head, in_page, 1, walk);
        load_entry(walk.at, b, lane, l, h);
        [[unroll]] for (uint i = 0; i < 2; i++) {
            low[i] = MEAN ? low[i] + l[i] : min(low[i], l[i]);
            high[i] = MEAN ? high[i] : max(high[i], h[i]);
        }
    }
}

// A lane's part of a score: channels of row h of the queries.
vec4 products(uint h, uint b, uint i, vec4 low, vec4 high)
{
    vec4 q = query[(h * K_BLOCKS + b) * 2 + i];
    if (MEAN)
        return q * low;
    if (TOGETHER)
        return q * high + query[(K_BLOCKS + b) * 2 + i] * low;
    // The larger product, without asking which of the two may be NaN.
    return q * mix(low, high, greaterThan(q, vec4(0)));
}

// Scores blocks `first` ... of a run of `count`, which begins at `walk`.
void score_blocks(View view, uint head, uint in_page, uint entries, Walk walk, uint first,
                  uint count, uint heads, uint lane, uvec2 row)
{
    const uint blocks = WHOLE ? BLOCKS : 1;
    float score[BLOCKS * HEADS];
    [[unroll]] for (uint j = 0; j < blocks; j++) {
        uvec2 at = plus(walk.at, min(first + j, count - 1), view.entry_bytes);
        vec4 part[HEADS];
        [[unroll]] for (uint b = 0; b < K_BLOCKS; b++) {
            vec4 low[2], high[2];
            load_entry(at, b, lane, low, high);
            if (!WHOLE)
                join_entries(view, head, in_page, entries, walk, b, lane, low, high);
            [[unroll]] for (uint h = 0; h < SCORES; h++) {
                vec4 x = products(h, b, 0, low[0], high[0]) + products(h, b, 1, low[1], high[1]);
                part[h] = b == 0 ? x : part[h] + x;
            }
        }
        [[unroll]] for (uint h = 0; h < SCORES; h++) {
            vec4 x = part[h];
            score[j * SCORES + h] = team_add(x.x + x.y + x.z + x.w, lane);
        }
    }
    // Lane i writes score n0 + i.
    [[unroll]] for (uint n0 = 0; n0 < blocks * SCORES; n0 += LANES) {
        float mine = 0;
        [[unroll]] for (uint i = 0; i < min(LANES, blocks * SCORES - n0); i++)
            mine = lane == i ? score[n0 + i] : mine;
        uint n = n0 + lane, h = n % SCORES, block = first + n / SCORES;
        if (n < blocks * SCORES && block < count && h < heads)
            Words(plus(plus(row, block * 4), h, push.mask_head)).at[0] = order_of(mine);
    }
}

void main()
{
    uint index = local_index();
    uint lane = index % LANES, team = index / LANES;
    const uint parts = TOGETHER ? 1 : HEAD_BLOCKS;
    uint kv_head = gl_WorkGroupID.x / parts, part = gl_WorkGroupID.x % parts;
    Chooser chooser = Choosers(plus(push.plan, push.items)).at[gl_WorkGroupID.y];
    View view = load_view(chooser.view);
    if (view.select != (MEAN ? SELECT_MEAN : SELECT_EXTREMES) || (view.by_group != 0) != TOGETHER)
        return;
    uint row = view.row0 + chooser.token, t = view.pos0 + chooser.token;
    uint candidates = blocks_at(view, t) - 1;
    uint entries = WHOLE ? 1 : view.block / view.entry_tokens;
    uint in_page = push.page_slots / view.entry_tokens;
    uint head = Words(plus(push.plan, view.summaries)).at[push.slab] +
                kv_head * view.summary_head + view.entry_at;
    uint teams = gl_NumWorkGroups.z * TEAMS, share = (candidates + teams - 1) / teams;
    uint block = min((gl_WorkGroupID.z * TEAMS + team) * share, candidates);
    uint to = min(block + share, candidates);
    if (block == to)
        return;

    uint head0 = kv_head * GROUP + part * HEADS;
    uint heads = TOGETHER ? 1 : min(GROUP - part * HEADS, HEADS);
    float factor = MEAN ? 1 / float(view.block) : 1;
    if (TOGETHER)
        load_group(row, t, head0, lane, factor);
    else
        load_queries(row, t, head0, heads, lane, factor);
    uvec2 scores = plus(push.partial, gl_WorkGroupID.y * QUERY_HEADS + head0, push.mask_head);
    Walk walk = Walk(block * entries / in_page, block * entries % in_page, uvec2(0));
    enter_page(view, head, walk);
    while (block < to) {
        uint run = WHOLE ? min(in_page - walk.in_page, to - block) : 1;
        for (uint i = 0; i < run; i += BLOCKS)
            score_blocks(view, head, in_page, entries, walk, i, run, heads, lane,
                         plus(scores, block * 4));
        block += run;
        // A run ends where its page does, the entries of one block may lie in several.
        if (WHOLE)
            advance(view, head, in_page, run, walk);
        else
            for (uint e = 0; e < entries; e++)
                advance(view, head, in_page, 1, walk);
    }
}
