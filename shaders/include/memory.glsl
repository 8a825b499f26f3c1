// What the kernels that fill the cache share: constants and push constants
// (filled by plugin/kernels/memory.c), and the memory's step.
#ifndef MEMORY_GLSL
#define MEMORY_GLSL

layout(constant_id = 19) const bool SOFTWARE = false; // a device on the CPU
#ifndef WIDE
#define HALF_BY_HAND SOFTWARE
#endif

#include "plan.glsl"
#include "rope.glsl"

layout(constant_id = 0) const uint KV_HEADS = 1;
layout(constant_id = 1) const uint HEAD_SIZE = 128;
layout(constant_id = 2) const uint VALUE_SIZE = 128;
layout(constant_id = 3) const uint K_IN = 1; // types of the new tokens
layout(constant_id = 4) const uint V_IN = 1;
layout(constant_id = 5) const uint F_IN = 0; // 0: no memory
layout(constant_id = 6) const uint K_TYPE = 2; // types in the cache
layout(constant_id = 7) const uint V_TYPE = 2;
layout(constant_id = 8) const uint ROPE_STYLE = 0;
layout(constant_id = 9) const uint ROPE_SIZE = 0;
layout(constant_id = 10) const uint ROPE_ROWS = 1;
layout(constant_id = 11) const uint K_SLOT = 0; // strides in the cache
layout(constant_id = 12) const uint K_HEAD = 0;
layout(constant_id = 13) const uint V_SLOT = 0;
layout(constant_id = 14) const uint V_HEAD = 0;
layout(constant_id = 15) const uint HEADS = 1; // key/value heads of an invocation
layout(constant_id = 16) const uint SPAN = 1; // quads of a head of an invocation
// 17: the kernel's own
layout(local_size_x_id = 18) in;

layout(push_constant, std430) uniform Push {
    uvec2 plan;
    uint pages, views, items; // offsets of lists; items: chunks, scans or moves
    uint page_slots;
    uvec2 k, v, f, carry, rope_table;
    uvec2 raw; // new rows in float32, [row][head][K, V], on their way to q8_0
    uint k_token, k_head, v_token, v_head, f_token, f_head; // strides
    uint slab; // the first head's number in the tables of offsets
    uint state_offset;
} push;

View load_view(uint view)
{
    return Views(plus(push.plan, push.views)).at[view].view;
}

// Where the dispatch's heads begin in the layered pages of a view.
uint slab_offset(View view)
{
    return Words(plus(push.plan, view.offsets)).at[push.slab];
}

Page load_page(uint page)
{
    return Pages(plus(push.plan, push.pages)).at[page];
}

#endif
