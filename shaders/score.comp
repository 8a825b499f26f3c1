// Scores of blocks of keys, for queries that choose among them: what the largest
// product of the query with a key of the block can be, or the product with the mean.
// A team has neighbouring blocks, one at a time; HEADS query heads of a key/value head
// share what is read of it. Where the heads of a group choose together, one score
// stands for all of them.
#version 450
#extension GL_GOOGLE_include_directive : require

#include "team.glsl"

layout(constant_id = 24) const bool MEAN = false; // else extremes: views that select so

const uint ENTRY_TYPE = MEAN ? F32 : K_TYPE == Q8_0 ? F16 : K_TYPE; // extremes_type, as a constant

// What is known of a lane's channels of a block, of all its entries together.
vec4 low[2 * K_BLOCKS], high[2 * K_BLOCKS];

void load_entry(uvec2 entry, uint b, uint lane, out vec4 l[2], out vec4 h[2])
{
    uint c = min(block_channel(b, lane), HEAD_SIZE - 8);
    load_row8(entry, ENTRY_TYPE, HEAD_SIZE, c, l[0], l[1]);
    h = l;
    if (!MEAN)
        load_row8(plus(entry, row_bytes(ENTRY_TYPE, HEAD_SIZE)), ENTRY_TYPE, HEAD_SIZE, c, h[0], h[1]);
}

// The block's first entry.
void load_known(uvec2 entry, uint lane)
{
    [[unroll]] for (uint b = 0; b < K_BLOCKS; b++) {
        vec4 l[2], h[2];
        load_entry(entry, b, lane, l, h);
        [[unroll]] for (uint i = 0; i < 2; i++) {
            low[2 * b + i] = l[i];
            high[2 * b + i] = h[i];
        }
    }
}

// A further one.
void add_known(uvec2 entry, uint lane)
{
    [[unroll]] for (uint b = 0; b < K_BLOCKS; b++) {
        vec4 l[2], h[2];
        load_entry(entry, b, lane, l, h);
        [[unroll]] for (uint i = 0; i < 2; i++) {
            low[2 * b + i] = MEAN ? low[2 * b + i] + l[i] : min(low[2 * b + i], l[i]);
            high[2 * b + i] = MEAN ? high[2 * b + i] : max(high[2 * b + i], h[i]);
        }
    }
}

// This lane's part of a head's score.
float part_of(uint h)
{
    vec4 x = vec4(0);
    [[unroll]] for (uint i = 0; i < 2 * K_BLOCKS; i++) {
        vec4 q = query[h * K_BLOCKS * 2 + i];
        // The larger product, without asking which of the two may be NaN.
        x += q * (MEAN ? low[i] : mix(low[i], high[i], greaterThan(q, vec4(0))));
    }
    return x.x + x.y + x.z + x.w;
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

void next_entry(View view, uint head, uint in_page, inout Walk walk)
{
    walk.in_page++;
    walk.at = plus(walk.at, view.entry_bytes);
    if (walk.in_page == in_page) {
        walk.in_page = 0;
        walk.page++;
        enter_page(view, head, walk);
    }
}

uvec2 scores_of(uint head)
{
    return plus(push.partial, gl_WorkGroupID.y * QUERY_HEADS + head, push.mask_head);
}

void main()
{
    uint index = local_index();
    uint lane = index % LANES, team = index / LANES;
    uint kv_head = gl_WorkGroupID.x / HEAD_BLOCKS, part = gl_WorkGroupID.x % HEAD_BLOCKS;
    Chooser chooser = Choosers(plus(push.plan, push.items)).at[gl_WorkGroupID.y];
    View view = load_view(chooser.view);
    if (view.select != (MEAN ? SELECT_MEAN : SELECT_EXTREMES))
        return;
    uint row = view.row0 + chooser.token, t = view.pos0 + chooser.token;
    uint candidates = blocks_at(view, t) - 1;
    bool together = view.by_group != 0;
    if (together && part != 0)
        return;
    uint entries = view.block / view.entry_tokens, in_page = push.page_slots / view.entry_tokens;
    uint head = Words(plus(push.plan, view.summaries)).at[push.slab] +
                kv_head * view.summary_head + view.entry_at;
    uint teams = gl_NumWorkGroups.z * TEAMS, share = (candidates + teams - 1) / teams;
    uint from = min((gl_WorkGroupID.z * TEAMS + team) * share, candidates);
    uint to = min(from + share, candidates);
    for (uint p = part; p < (together ? HEAD_BLOCKS : part + 1); p++) {
        uint head0 = kv_head * GROUP + p * HEADS, heads = min(GROUP - p * HEADS, HEADS);
        load_queries(row, t, head0, heads, lane, MEAN ? 1 / float(view.block) : 1);
        Walk walk = Walk(from * entries / in_page, from * entries % in_page, uvec2(0));
        if (from < to)
            enter_page(view, head, walk);
        uvec2 own = scores_of(head0 + lane);
        for (uint block = from; block < to; block++) {
            load_known(walk.at, lane);
            next_entry(view, head, in_page, walk);
            for (uint e = 1; e < entries; e++) {
                add_known(walk.at, lane);
                next_entry(view, head, in_page, walk);
            }
            float sum = 0;
            [[unroll]] for (uint h0 = 0; h0 < HEADS; h0 += LANES) {
                float mine = 0; // lane i writes the score of head h0 + i
                [[unroll]] for (uint i = 0; i < min(LANES, HEADS - h0); i++) {
                    float score = team_add(part_of(h0 + i), lane);
                    sum += h0 + i < heads ? score : 0;
                    mine = lane == i ? score : mine;
                }
                if (!together && h0 + lane < heads)
                    Floats(plus(own, h0 * push.mask_head + block * 4)).at[0] = mine;
            }
            if (together && lane == 0) {
                Floats all = Floats(plus(scores_of(kv_head * GROUP), block * 4));
                all.at[0] = p == 0 ? sum : all.at[0] + sum;
            }
        }
    }
}
