// What the kernels share that compress the tokens of a sequence, some heads of a layer
// at a time: constants and push constants (filled by plugin/kernels/compress.c), and
// where they leave things for each other.
#ifndef COMPRESS_GLSL
#define COMPRESS_GLSL

#define ALIGNED16 true

layout(constant_id = 16) const bool SOFTWARE = false; // a device on the CPU
#define HALF_BY_HAND SOFTWARE

#include "plan.glsl"
#include "rope.glsl"

layout(constant_id = 0) const uint GROUP = 1; // query heads of a key/value head
layout(constant_id = 1) const uint HEAD_SIZE = 128;
layout(constant_id = 2) const uint VALUE_SIZE = 128;
layout(constant_id = 3) const uint K_TYPE = 2;
layout(constant_id = 4) const uint V_TYPE = 2;
layout(constant_id = 5) const uint ROPE_STYLE = 0;
layout(constant_id = 6) const uint ROPE_SIZE = 0;
layout(constant_id = 7) const uint ROPE_ROWS = 1;
layout(constant_id = 8) const float SCALE = 1.0;
layout(constant_id = 9) const float SOFTCAP = 0.0;
layout(constant_id = 10) const uint K_SLOT = 0;
layout(constant_id = 11) const uint V_SLOT = 0;
layout(constant_id = 12) const uint K_HEAD = 0;
layout(constant_id = 13) const uint V_HEAD = 0;
layout(constant_id = 14) const uint KERNEL = 1;
layout(constant_id = 15) const uint AVERAGE = 0;

// Slots count the tokens that are held, `held` of the sequence's `tokens`. Rows are
// queries: row r is query r / GROUP of the last `observe`, and query head r % GROUP.
layout(push_constant, std430) uniform Push {
    uvec2 plan;
    uvec2 queries;      // [head][query_ring][query head][channel] float32: a ring
    uvec2 positions_in; // [head][capacity] of the first slots, where tokens are gone
    uvec2 positions;    // [head][capacity]
    uvec2 work, rope_table;
    uint pages, page_slots; // the page list's offset
    uint from_page0, from_pages, to_page0, to_pages;
    uint offset; // bytes of head 0 in a page
    uint held, tokens, capacity, observe;
    uint query_at, query_ring; // the row of the oldest query in the ring, and its rows
    uint head0, heads; // of this dispatch
    uint row0, rows;
} push;

// Work memory, for `heads` heads: votes, pooled votes, the slots that are kept, and of
// `rows` rows the maximum and the sum of their softmax, then the logits.
uvec2 votes_of(uint head)
{
    return plus(push.work, head, (push.held + 3) / 4 * 16);
}

uvec2 pooled_of(uint head)
{
    return votes_of(push.heads + head);
}

uvec2 slots_of(uint head)
{
    return plus(votes_of(2 * push.heads), head, push.capacity * 4);
}

uvec2 sums_of(uint head, uint row)
{
    return plus(slots_of(push.heads), head * push.rows + row, 8);
}

uvec2 logits_of(uint head, uint row)
{
    return plus(sums_of(push.heads, 0), head * push.rows + row, push.held * 4);
}

// The slot of the row's own token, and its position.
uint query_of(uint row)
{
    return (push.row0 + row) / GROUP;
}

uint own_slot(uint row)
{
    return push.held - push.observe + query_of(row);
}

// Tokens that are not of the last `observe`: they are voted on.
uint candidates()
{
    return push.held - push.observe;
}

Page page_at(uint page0, uint pages, inout uint slot)
{
    return Pages(plus(push.plan, push.pages)).at[page_of(page0, pages, push.page_slots, slot)];
}

#endif
