// Scores of blocks of keys, for queries that choose among them: what the largest
// product of the query with a key of the block can be, or the product with the mean.
// A workgroup takes 64 blocks for HEADS query heads of a key/value head, which share
// what is read of a block; an invocation has one block.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require

#include "attend.glsl"

layout(local_size_x = 64) in;

layout(constant_id = 20) const uint HEADS = 1;
layout(constant_id = 21) const uint STRIDE = 1; // blocks of a row of scores

const uint HEAD_BLOCKS = (GROUP + HEADS - 1) / HEADS;

shared vec4 query[HEADS * HEAD_SIZE / 4];

void load_queries(uint row, uint t, uint head0, uint heads)
{
    Rope rope = attend_rope();
    for (uint n = gl_LocalInvocationIndex; n < heads * HEAD_SIZE / 4; n += gl_WorkGroupSize.x) {
        uint head = n / (HEAD_SIZE / 4), c = n % (HEAD_SIZE / 4) * 4;
        uvec2 from = query_row(row, head0 + head);
        query[n] = vec4(load2_turned(from, Q_TYPE, c, rope_turn2(rope, t, c)),
                        load2_turned(from, Q_TYPE, c + 2, rope_turn2(rope, t, c + 2)));
    }
}

// Where entry `entry` of the head lies.
uvec2 entry_at(View view, uint kv_head, uint entry)
{
    uint in_page = push.page_slots / max(view.entry_tokens, 1);
    uint page = min(entry / in_page, view.line_pages - 1);
    Page base = Pages(plus(push.plan, push.pages)).at[view.line_page0 + page];
    uint head = Words(plus(push.plan, view.summaries)).at[push.slab] + kv_head * view.summary_head;
    return plus(to_uvec2(base.k), head + view.entry_at + entry % in_page * view.entry_bytes);
}

void main()
{
    uint kv_head = gl_WorkGroupID.x / HEAD_BLOCKS;
    uint group0 = gl_WorkGroupID.x % HEAD_BLOCKS * HEADS;
    uint head0 = kv_head * GROUP + group0, heads = min(GROUP - group0, HEADS);
    Chooser chooser = Choosers(plus(push.plan, push.items)).at[gl_WorkGroupID.y];
    View view = load_view(chooser.view);
    uint t = view.pos0 + chooser.token;
    uint candidates = blocks_at(view, t) - 1;
    if (gl_WorkGroupID.z * gl_WorkGroupSize.x >= candidates)
        return;
    load_queries(view.row0 + chooser.token, t, head0, heads);
    barrier();
    uint block = gl_WorkGroupID.z * gl_WorkGroupSize.x + gl_LocalInvocationIndex;
    if (block >= candidates)
        return;
    float score[HEADS];
    [[unroll]] for (uint h = 0; h < HEADS; h++)
        score[h] = 0;
    uint entries = view.block / max(view.entry_tokens, 1);
    uint type = extremes_type(K_TYPE);
    for (uint c = 0; c < HEAD_SIZE; c += 8) {
        vec4 low[2], high[2];
        for (uint e = 0; e < entries; e++) {
            uvec2 entry = entry_at(view, kv_head, block * entries + e);
            vec4 x, y;
            if (view.select == SELECT_MEAN) {
                load_row8(entry, F32, HEAD_SIZE, c, x, y);
                low[0] = e == 0 ? x : low[0] + x;
                low[1] = e == 0 ? y : low[1] + y;
                continue;
            }
            load_row8(entry, type, HEAD_SIZE, c, x, y);
            low[0] = e == 0 ? x : min(low[0], x);
            low[1] = e == 0 ? y : min(low[1], y);
            load_row8(plus(entry, row_bytes(type, HEAD_SIZE)), type, HEAD_SIZE, c, x, y);
            high[0] = e == 0 ? x : max(high[0], x);
            high[1] = e == 0 ? y : max(high[1], y);
        }
        [[unroll]] for (uint h = 0; h < HEADS; h++) {
            vec4 q = query[min(h, heads - 1) * HEAD_SIZE / 4 + c / 4];
            vec4 r = query[min(h, heads - 1) * HEAD_SIZE / 4 + c / 4 + 1];
            if (view.select == SELECT_MEAN)
                score[h] += dot(q, low[0]) + dot(r, low[1]);
            else
                score[h] += dot(max(q * low[0], q * high[0]), vec4(1)) +
                            dot(max(r * low[1], r * high[1]), vec4(1));
        }
    }
    float scale = view.select == SELECT_MEAN ? 1 / float(view.block) : 1;
    for (uint h = 0; h < heads; h++) {
        Floats row = Floats(plus(push.partial, gl_WorkGroupID.y * QUERY_HEADS + head0 + h, STRIDE * 4));
        row.at[block] = score[h] * scale;
    }
}
