// New rows into a cache of which K or V is q8_0, from the float32 rows that
// memory_apply.comp left: a scale belongs to 32 channels, more than one of its
// invocations has. An invocation takes 64 channels of K or of V of a head, whose
// two scales share a word, and writes them wherever the view wants the token.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require

#include "memory.glsl"

const uint UNIT = 64;
const uint BLOCK = 32;

// What an invocation writes of every token.
struct Part {
    bool k;
    uint head, first; // channel
    uint type, size;  // of the row
    uint slot_stride, head_offset;
};

bool find_part(out Part part)
{
    uint k_units = (HEAD_SIZE + UNIT - 1) / UNIT, v_units = (VALUE_SIZE + UNIT - 1) / UNIT;
    uint index = gl_GlobalInvocationID.x;
    part.k = index < KV_HEADS * k_units;
    index -= part.k ? 0 : KV_HEADS * k_units;
    uint units = part.k ? k_units : v_units;
    part.head = index / units;
    part.first = index % units * UNIT;
    part.type = part.k ? K_TYPE : V_TYPE;
    part.size = part.k ? HEAD_SIZE : VALUE_SIZE;
    part.slot_stride = part.k ? K_SLOT : V_SLOT;
    part.head_offset = part.head * (part.k ? K_HEAD : V_HEAD);
    return part.head < KV_HEADS;
}

uvec2 raw_row(Part part, uint row)
{
    uint head_bytes = (HEAD_SIZE + VALUE_SIZE) * 4;
    uvec2 at = plus(plus(push.raw, row, KV_HEADS * head_bytes), part.head, head_bytes);
    return plus(at, (part.k ? 0 : HEAD_SIZE * 4) + part.first * 4);
}

uint pack_q8(vec4 x)
{
    ivec4 q = ivec4(clamp(roundEven(x), vec4(-127), vec4(127))) & 255;
    return uint(q.x | q.y << 8 | q.z << 16 | q.w << 24);
}

// Channels that a row has from `first` on, of a unit.
uint channels_of(Part part)
{
    return min(part.size - part.first, UNIT);
}

// A unit as the cache holds it: its words, and the word of its scales.
void encode(Part part, uvec2 from, out uint words[UNIT / 2], out uint scales)
{
    scales = 0;
    [[unroll]] for (uint b = 0; b < UNIT / BLOCK; b++) {
        if (b * BLOCK >= channels_of(part))
            break;
        vec4 x[BLOCK / 4];
        uvec4 top = uvec4(0); // bits, of which the greatest are those that are not finite
        [[unroll]] for (uint i = 0; i < BLOCK / 4; i++) {
            bool there = b * BLOCK + 4 * i < channels_of(part);
            x[i] = uintBitsToFloat(Words4(plus(from, there ? (b * BLOCK + 4 * i) * 4 : 0)).at);
            top = max(top, floatBitsToUint(x[i]) & 0x7fffffffu);
        }
        if (part.type == Q8_0) {
            uint most = max(max(top.x, top.y), max(top.z, top.w));
            uint scale = most < 0x7f800000u ? round_f16(uintBitsToFloat(most) / 127) : 0x7e00u;
            float size = unpack_f16(scale).x;
            float inverse = size > 0 ? 1 / size : 0;
            [[unroll]] for (uint i = 0; i < BLOCK / 4; i++)
                words[b * BLOCK / 4 + i] = inverse > 0 ? pack_q8(x[i] * inverse) : 0;
            scales |= scale << (16 * b);
        } else {
            [[unroll]] for (uint i = 0; i < BLOCK / 4; i++) {
                words[b * BLOCK / 2 + 2 * i] = pack16(x[i].xy, part.type);
                words[b * BLOCK / 2 + 2 * i + 1] = pack16(x[i].zw, part.type);
            }
        }
    }
}

void write(Part part, uint page0, uint pages, uint slot, uint layer, uvec2 from,
           uint words[UNIT / 2], uint scales)
{
    Page page = load_page(page_of(page0, pages, push.page_slots, slot));
    uvec2 row = plus(plus(to_uvec2(part.k ? page.k : page.v), layer), slot, part.slot_stride);
    row = plus(row, part.head_offset);
    uint channels = channels_of(part);
    if (part.type == Q8_0) {
        for (uint i = 0; i < channels / 4; i++)
            Words(plus(row, part.first + 4 * i)).at[0] = words[i];
        Words(plus(row, part.size + part.first / UNIT * 4)).at[0] = scales;
    } else if (part.type == F32) {
        for (uint i = 0; i < channels; i++)
            Words(plus(row, (part.first + i) * 4)).at[0] = Words(plus(from, 4 * i)).at[0];
    } else {
        for (uint i = 0; i < channels / 2; i++)
            Words(plus(row, part.first * 2 + 4 * i)).at[0] = words[i];
    }
}

void main()
{
    Part part;
    if (!find_part(part))
        return;
    Chunk chunk = Chunks(plus(push.plan, push.items)).at[gl_WorkGroupID.y];
    View view = load_view(chunk.view);
    uint offset = slab_offset(view);
    for (uint n = gl_WorkGroupID.z; n < chunk.tokens; n += gl_NumWorkGroups.z) {
        uint p = view.pos0 + chunk.token0 + n;
        uvec2 from = raw_row(part, view.row0 + chunk.token0 + n);
        uint words[UNIT / 2], scales;
        encode(part, from, words, scales);
        if (view.line_pages != 0 && p >= view.line_pos0)
            write(part, view.line_page0, view.line_pages, p - view.line_pos0,
                  view.line_layered != 0 ? offset : 0, from, words, scales);
        if (view.ring_pages != 0 && p >= view.ring_from)
            write(part, view.ring_page0, view.ring_pages, p % max(view.ring_slots, 1), offset, from,
                  words, scales);
        bool kept = p < view.sinks || (view.dilation != 0 && (p + 1) % view.dilation == 0);
        if (view.kept_pages != 0 && kept)
            write(part, view.kept_page0, view.kept_pages,
                  kept_index(p, view.sinks, max(view.dilation, 1)), offset, from, words, scales);
    }
}
