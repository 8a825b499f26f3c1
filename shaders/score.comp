// Scores of blocks of keys, for queries that choose among them: what the largest
// product of the query with a key of the block can be, or the product with the mean.
// A team has neighbouring blocks, and HEADS rows of queries in registers: neighbouring
// tokens of a prompt share what is read of a block, and so do heads of a group that choose
// apart. Where heads choose TOGETHER one score stands for all of them; it is linear in the
// queries' parts above and below zero (in the queries, for the mean), so that their sums
// are what a block is held against.
#version 450
#extension GL_GOOGLE_include_directive : require

#include "team.glsl"
#include "order.glsl"

layout(constant_id = 24) const bool MEAN = false; // else extremes: views that select so
layout(constant_id = 25) const bool TOGETHER = false; // views that select so
layout(constant_id = 27) const bool WHOLE = false; // each block has one entry
layout(constant_id = 28) const uint BLOCKS = 1; // blocks a team has in flight, where WHOLE
layout(constant_id = 29) const uint TOKENS = 1; // that share a workgroup, at most

const uint TOKEN_ROWS = HEADS / TOKENS;
const uint TOKEN_SCORES = TOGETHER ? 1 : TOKEN_ROWS; // of a block
const uint SCORES = TOKENS * TOKEN_SCORES;
const uint PARTS = TOGETHER ? 1 : (GROUP + TOKEN_ROWS - 1) / TOKEN_ROWS; // of a group's heads
const uint ENTRY_TYPE = MEAN ? F32 : K_TYPE > BF16 ? F16 : K_TYPE; // extremes_type, as a constant

// The neighbouring choosers that share the registers: tokens of one view.
struct Run {
    uint first; // its number
    uint count;
    uint row, t; // of the first
    uint head0, heads; // of the scores
    uvec2 scores;      // those of the first, for head0
};

uint row_at(uint row, uint b, uint i)
{
    return (row * K_BLOCKS + b) * 2 + i;
}

// A token's queries, times `factor`: those of its heads, or their sums. Tokens and
// heads past the last are the last again.
void load_token(Run run, uint token, uint b, uint i, uint lane, float factor)
{
    uint n = min(token, run.count - 1), row0 = token * TOKEN_ROWS;
    Turns turns = turns_of(attend_rope(), run.t + n, b, i, lane);
    if (!TOGETHER) {
        [[unroll]] for (uint h = 0; h < TOKEN_ROWS; h++)
            query[row_at(row0 + h, b, i)] =
                factor * load_query4(run.row + n, run.head0 + min(h, run.heads - 1), turns);
        return;
    }
    vec4 above = vec4(0), below = vec4(0);
    for (uint h = 0; h < GROUP; h++) {
        vec4 x = factor * load_query4(run.row + n, run.head0 + h, turns);
        bvec4 odd = is_odd(x); // which max() and min() may lose
        above += MEAN ? x : mix(max(x, vec4(0)), x, odd);
        below += mix(min(x, vec4(0)), x, odd);
    }
    query[row_at(row0, b, i)] = above;
    if (!MEAN)
        query[row_at(row0 + 1, b, i)] = below;
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
            // Where an entry has no extremes, min() and max() might take the other's.
            vec4 lost = vec4(not_a_number());
            low[i] = MEAN ? low[i] + l[i] : mix(min(low[i], l[i]), lost, is_odd(low[i], l[i]));
            high[i] = MEAN ? high[i] : mix(max(high[i], h[i]), lost, is_odd(high[i], h[i]));
        }
    }
}

// A lane's part of score n.
vec4 products(uint n, uint b, uint i, vec4 low, vec4 high)
{
    uint row = n / TOKEN_SCORES * TOKEN_ROWS + n % TOKEN_SCORES;
    vec4 q = query[row_at(row, b, i)];
    if (MEAN)
        return q * low;
    if (TOGETHER)
        return q * high + query[row_at(row + 1, b, i)] * low;
    // The larger product, without asking which of the two may be NaN.
    return q * mix(low, high, greaterThan(q, vec4(0)));
}

// Scores blocks `first` ... of `count` that lie one after the other from `walk` on; the
// first of those is `block`.
void score_blocks(View view, uint head, uint in_page, uint entries, Walk walk, uint block,
                  uint first, uint count, Run run, uint lane)
{
    const uint blocks = WHOLE ? BLOCKS : 1;
    float score[BLOCKS * SCORES];
    [[unroll]] for (uint j = 0; j < blocks; j++) {
        uvec2 at = plus(walk.at, min(first + j, count - 1), view.entry_bytes);
        vec4 part[SCORES];
        [[unroll]] for (uint b = 0; b < K_BLOCKS; b++) {
            vec4 low[2], high[2];
            load_entry(at, b, lane, low, high);
            if (!WHOLE)
                join_entries(view, head, in_page, entries, walk, b, lane, low, high);
            [[unroll]] for (uint n = 0; n < SCORES; n++) {
                vec4 x = products(n, b, 0, low[0], high[0]) + products(n, b, 1, low[1], high[1]);
                part[n] = b == 0 ? x : part[n] + x;
            }
        }
        [[unroll]] for (uint n = 0; n < SCORES; n++) {
            vec4 x = part[n];
            score[j * SCORES + n] = team_add(x.x + x.y + x.z + x.w, lane);
        }
    }
    // Lane i writes score n0 + i.
    [[unroll]] for (uint n0 = 0; n0 < blocks * SCORES; n0 += LANES) {
        float mine = 0;
        [[unroll]] for (uint i = 0; i < min(LANES, blocks * SCORES - n0); i++)
            mine = lane == i ? score[n0 + i] : mine;
        uint n = n0 + lane, j = first + n / SCORES;
        uint token = n % SCORES / TOKEN_SCORES, h = n % TOKEN_SCORES;
        uvec2 row = plus(run.scores, token * QUERY_HEADS + h, push.mask_head);
        if (n < blocks * SCORES && j < count && token < run.count && h < run.heads)
            Words(plus(row, (block + j) * 4)).at[0] = order_of(mine);
    }
}

// The blocks that the run's last token chooses among: its first ones may choose among
// fewer, and nobody reads what is written past those.
void score_run(View view, Run run, uint kv_head, uint team, uint lane)
{
    uint candidates = blocks_at(view, run.t + run.count - 1) - 1;
    uint entries = WHOLE ? 1 : view.block / view.entry_tokens;
    uint in_page = push.page_slots / view.entry_tokens;
    uint head = Words(plus(push.plan, view.summaries)).at[push.slab] +
                kv_head * view.summary_head + view.entry_at;
    uint teams = gl_NumWorkGroups.z * TEAMS, share = (candidates + teams - 1) / teams;
    uint block = min((gl_WorkGroupID.z * TEAMS + team) * share, candidates);
    uint to = min(block + share, candidates);
    if (block == to)
        return;

    float factor = MEAN ? 1 / float(view.block) : 1;
    [[unroll]] for (uint token = 0; token < TOKENS; token++)
        [[unroll]] for (uint b = 0; b < K_BLOCKS; b++)
            [[unroll]] for (uint i = 0; i < 2; i++)
                load_token(run, token, b, i, lane, factor);
    Walk walk = Walk(block * entries / in_page, block * entries % in_page, uvec2(0));
    enter_page(view, head, walk);
    while (block < to) {
        uint count = WHOLE ? min(in_page - walk.in_page, to - block) : 1;
        for (uint i = 0; i < count; i += BLOCKS)
            score_blocks(view, head, in_page, entries, walk, block, i, count, run, lane);
        block += count;
        // These end where their page does, the entries of one block may lie in several.
        if (WHOLE)
            advance(view, head, in_page, count, walk);
        else
            for (uint e = 0; e < entries; e++)
                advance(view, head, in_page, 1, walk);
    }
}

void main()
{
    uint index = local_index();
    uint lane = index % LANES, team = index / LANES;
    uint kv_head = gl_WorkGroupID.x / PARTS, part = gl_WorkGroupID.x % PARTS;
    Choosers choosers = Choosers(plus(push.plan, push.items));
    Run run;
    run.head0 = kv_head * GROUP + part * TOKEN_ROWS;
    run.heads = TOGETHER ? 1 : min(GROUP - part * TOKEN_ROWS, TOKEN_ROWS);
    uint end = min((gl_WorkGroupID.y + 1) * TOKENS, push.mask_token); // of how many there are
    for (run.first = gl_WorkGroupID.y * TOKENS; run.first < end; run.first += run.count) {
        Chooser chooser = choosers.at[run.first];
        run.count = 1;
        while (run.first + run.count < end &&
               choosers.at[run.first + run.count].view == chooser.view)
            run.count++;
        View view = load_view(chooser.view);
        run.row = view.row0 + chooser.token;
        run.t = view.pos0 + chooser.token;
        run.scores = plus(push.partial, run.first * QUERY_HEADS + run.head0, push.mask_head);
        if (view.select == (MEAN ? SELECT_MEAN : SELECT_EXTREMES) &&
            (view.by_group != 0) == TOGETHER)
            score_run(view, run, kv_head, team, lane);
    }
}
