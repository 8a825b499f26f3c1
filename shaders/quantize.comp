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

// What ggml's q8_0 has for a float32 block, and dtype.c, bit for bit: the largest size
// over 127 is the scale, float16 in the cache; each number is its channel times the
// inverse of the float32 scale, halves rounded away from 0. GLSL's division may be off
// by some units in the last place, so that both quotients are made of whole numbers.
const uint IMPLICIT = 0x00800000u; // a float32's first bit, which is not stored

// x / 127, rounded to the nearest even, of the bits of a finite x. 0 below the normal
// numbers, where a float16 is 0 anyhow.
uint over_127(uint bits)
{
    uint exponent = bits >> 23;
    uint mantissa = ((bits & (IMPLICIT - 1)) | IMPLICIT) << 8;
    uint quotient = mantissa / 127, rest = mantissa - quotient * 127; // 25 or 26 bits
    uint extra = quotient < (1u << 25) ? 1 : 2;
    uint dropped = quotient & ((1u << extra) - 1), middle = 1u << (extra - 1);
    quotient >>= extra;
    bool up = dropped > middle || (dropped == middle && (rest != 0 || (quotient & 1) != 0));
    uint rounded = quotient - IMPLICIT + (up ? 1 : 0);
    return exponent + extra > 8 ? ((exponent + extra - 8) << 23) + rounded : 0;
}

// 1 / x, rounded to the nearest, of the bits of an x above 2^-100 and below 2^100.
float inverse_of(uint bits)
{
    uint exponent = bits >> 23;
    uint mantissa = (bits & (IMPLICIT - 1)) | IMPLICIT;
    if (mantissa == IMPLICIT)
        return uintBitsToFloat((254 - exponent) << 23);
    // r = 2^47 / mantissa, from some units below on: up as long as r + 1/2 is below it.
    uint r = uint(140737488355328.0 / float(mantissa)) - 6;
    for (int i = 0; i < 12; i++) {
        uint high, low;
        umulExtended(2 * r + 1, mantissa, high, low);
        r += high < 0x10000u ? 1 : 0;
    }
    return uintBitsToFloat(((253 - exponent) << 23) + r - IMPLICIT);
}

uint pack_q8(vec4 x)
{
    ivec4 whole = ivec4(x);
    precise vec4 rest = x - vec4(whole);
    ivec4 q = whole + ivec4(greaterThanEqual(rest, vec4(0.5))) - ivec4(lessThanEqual(rest, vec4(-0.5)));
    q &= 255;
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
        uvec4 top = uvec4(0); // sizes compared as whole numbers do not lose a NaN
        [[unroll]] for (uint i = 0; i < BLOCK / 4; i++) {
            bool there = b * BLOCK + 4 * i < channels_of(part);
            uvec4 bits = Words4(plus(from, there ? (b * BLOCK + 4 * i) * 4 : 0)).at;
            x[i] = uintBitsToFloat(bits);
            top = max(top, bits & 0x7fffffffu);
        }
        if (part.type == Q8_0) {
            uint most = max(max(top.x, top.y), max(top.z, top.w));
            uint size = most < 0x7f800000u ? over_127(most) : 0;
            uint scale = most < 0x7f800000u ? round_f16(uintBitsToFloat(size)) : 0x7e00u;
            bool plain = scale != 0 && scale != 0x7e00u; // else all 0, or all NaN
            float inverse = plain ? inverse_of(size) : 0;
            [[unroll]] for (uint i = 0; i < BLOCK / 4; i++) {
                precise vec4 number = x[i] * inverse;
                words[b * BLOCK / 4 + i] = plain ? pack_q8(number) : 0;
            }
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
