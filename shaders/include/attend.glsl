// What the attention kernels share: constants and push constants (filled by
// plugin/kernels/attend.c), and where a query, a key and a result lie.
#ifndef ATTEND_GLSL
#define ATTEND_GLSL

// Strides of the cache: those of a model do not change. 0: the view has them, and K_HEAD
// says whether all rows lie at multiples of 16 bytes.
layout(constant_id = 16) const uint K_SLOT = 0;
layout(constant_id = 17) const uint V_SLOT = 0;
layout(constant_id = 18) const uint K_HEAD = 0;
layout(constant_id = 19) const uint V_HEAD = 0;

// Rows of the cache are whole blocks of 8 channels; a host's own may lie anywhere.
#define ALIGNED16 (K_SLOT != 0 || K_HEAD != 0)

#include "plan.glsl"
#include "rope.glsl"
#include "finite.glsl"

layout(constant_id = 0) const uint KV_HEADS = 1;
layout(constant_id = 1) const uint GROUP = 1; // query heads of a key/value head
layout(constant_id = 2) const uint HEAD_SIZE = 128;
layout(constant_id = 3) const uint VALUE_SIZE = 128;
layout(constant_id = 4) const uint Q_TYPE = 1;
layout(constant_id = 5) const uint O_TYPE = 0; // 0: no output gate
layout(constant_id = 6) const uint OUT_TYPE = 1;
layout(constant_id = 7) const uint LSE_TYPE = 0; // 0: not wanted
layout(constant_id = 8) const uint MASK_TYPE = 0; // 0: none
layout(constant_id = 9) const uint K_TYPE = 2;
layout(constant_id = 10) const uint V_TYPE = 2;
layout(constant_id = 11) const uint ROPE_STYLE = 0;
layout(constant_id = 12) const uint ROPE_SIZE = 0;
layout(constant_id = 13) const uint ROPE_ROWS = 1;
layout(constant_id = 14) const float SCALE = 1.0;
layout(constant_id = 15) const float SOFTCAP = 0.0;
// 16 to 19 stand above; from 20 on: the kernel's own.

layout(push_constant, std430) uniform Push {
    uvec2 plan;
    uint pages, views, items; // offsets of lists; items: tiles or gathers
    uint page_slots;
    uvec2 q, o, out_, lse;
    uvec2 partial; // or, before attention, the scores of blocks
    uint q_token, o_token, out_token, lse_token; // strides
    uint q_head, o_head, out_head, lse_head;
    uint slab; // the first head's number in the tables of offsets
    uint mask_view; // stride from view to view; or see sinks_address
    uvec2 rope_table; // or see sinks_address
    uvec2 mask; // or, in a cache, which has none, the lists of chosen blocks
    uint mask_token, mask_head; // strides; or of the lists, in blocks, and of a row of scores
} push;

const uint QUERY_HEADS = KV_HEADS * GROUP;

Rope attend_rope()
{
    return Rope(ROPE_STYLE, ROPE_SIZE, ROPE_ROWS, push.rope_table);
}

Segment load_segment(uint view, uint s)
{
    return Views(plus(push.plan, push.views)).at[view].segment[s];
}

View load_view(uint view)
{
    return Views(plus(push.plan, push.views)).at[view].view;
}

// Where the dispatch's heads begin in the layered pages of a view.
uint slab_offset(View view)
{
    return Words(plus(push.plan, view.offsets)).at[push.slab];
}

// Bytes from a slot to the next, and from a head, of K (x) and of V (y).
uvec2 slot_strides(View view)
{
    return K_SLOT != 0 ? uvec2(K_SLOT, V_SLOT) : uvec2(view.k_slot, view.v_slot);
}

uvec2 head_strides(View view)
{
    return K_SLOT != 0 ? uvec2(K_HEAD, V_HEAD) : uvec2(view.k_head, view.v_head);
}

// The address of a key's row of K, and of V; `offset` is the view's slab_offset.
void key_rows(View view, uint offset, Segment segment, uint key, uint kv_head, out uvec2 k,
              out uvec2 v)
{
    uint slot = key_slot(segment, key);
    uint page = page_of(segment.page0, segment.pages, push.page_slots, slot);
    Page base = Pages(plus(push.plan, push.pages)).at[page];
    uint layer = segment.layered != 0 ? offset : 0;
    uvec2 strides = slot_strides(view), heads = head_strides(view);
    k = plus(plus(plus(to_uvec2(base.k), layer), slot, strides.x), kv_head, heads.x);
    v = plus(plus(plus(to_uvec2(base.v), layer), slot, strides.y), kv_head, heads.y);
}

// Where the sink logits of the query heads are, float32; 0: there are none. What has
// rotated queries has no mask.
uvec2 sinks_address()
{
    return ROPE_STYLE == 0 ? push.rope_table : uvec2(push.mask_view, push.mask_head);
}

// What a row begins with: its maximum, and its sum of exponentials. Of the parts that a
// row's keys are in, the first alone counts the sink logit.
vec2 row_start(uint query_head, bool first)
{
    uvec2 sinks = sinks_address();
    if (!first || !present(sinks))
        return vec2(NOTHING, 0);
    float sink = Floats(plus(sinks, query_head * 4)).at[0];
    if (floatBitsToUint(sink) == MINUS_INFINITY)
        return vec2(NOTHING, 0);
    return vec2(is_finite(sink) ? max(sink, LEAST_LOGIT) : NOT_FINITE, 1);
}

// The factor on a query head's mask.
float mask_slope(View view, uint query_head)
{
    if (MASK_TYPE == 0 || view.slopes == 0)
        return 1;
    return Floats(plus(push.plan, view.slopes + query_head * 4)).at[0];
}

// From the scaled product q . k to a logit: NOTHING where the mask hides the key, NOT_FINITE
// where the product or what it becomes is not finite. `token` counts within the view and
// `index` is the key's number in its sequence, which is its position.
float logit(float product, uint view, uint token, uint query_head, uint index, float slope)
{
    float x = product;
    uint size = floatBitsToUint(product) & INFINITY;
    bool hidden = false;
    if (SOFTCAP != 0)
        x = soft_capped(x, SOFTCAP);
    if (MASK_TYPE != 0) {
        uvec2 row = plus(plus(push.mask, view, push.mask_view), token, push.mask_token);
        float hide = load1(plus(row, query_head, push.mask_head), MASK_TYPE, index);
        hidden = floatBitsToUint(hide) == MINUS_INFINITY;
        x += slope * hide;
        size = max(size, floatBitsToUint(x) & INFINITY);
    }
    // Chosen without branches, of which a row of keys would make very many.
    return mix(mix(max(x, LEAST_LOGIT), NOT_FINITE, size == INFINITY), NOTHING, hidden);
}

uvec2 query_row(uint row, uint query_head)
{
    return plus(plus(push.q, row, push.q_token), query_head, push.q_head);
}

// Writes channels c and c + 1 of a result, through the output gate: NaN where the row's maximum
// says so, and where the result or its gate is not finite (an infinite gate is open or shut).
void store_out(uint row, uint query_head, uint c, vec2 y, float maximum)
{
    bvec2 odd = is_odd(y);
    if (O_TYPE != 0) {
        vec2 o = load2(plus(plus(push.o, row, push.o_token), query_head, push.o_head), O_TYPE, c);
        y /= 1 + exp(-o);
        uvec2 size = floatBitsToUint(o) & 0x7fffffffu;
        odd = bvec2(odd.x || size.x > INFINITY, odd.y || size.y > INFINITY);
    }
    odd = maximum < NOT_FINITE ? odd : bvec2(true);
    y = mix(y, vec2(not_a_number()), odd);
    store2(plus(plus(push.out_, row, push.out_token), query_head, push.out_head), OUT_TYPE, c, y);
}

// lse of a row from its maximum and its sum of exponentials.
void store_lse(uint row, uint query_head, float maximum, float sum)
{
    if (LSE_TYPE == 0)
        return;
    Words to = Words(plus(plus(push.lse, row, push.lse_token), query_head, push.lse_head));
    uint lse = maximum < NOT_FINITE ? floatBitsToUint(maximum + log(sum)) : NOT_A_NUMBER_BITS;
    to.at[0] = sum > 0 ? lse : MINUS_INFINITY;
}

// A row of partials: VALUE_SIZE sums, the maximum, the sum of exponentials.
uvec2 partial_row(uint partial, uint query_head)
{
    uint bytes = (VALUE_SIZE + 2) * 4;
    return plus(plus(push.partial, partial, QUERY_HEADS * bytes), query_head, bytes);
}

#endif
