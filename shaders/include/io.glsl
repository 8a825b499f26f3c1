// Addresses, and channels of the three element types. 16-bit data is read and
// written as 32-bit words, so that no device feature is needed; an address
// must be a multiple of 4 and a channel index even.
#ifndef IO_GLSL
#define IO_GLSL

#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#ifdef WIDE
#define HALF_BY_HAND true
#extension GL_EXT_shader_explicit_arithmetic_types_int64 : require
#endif

// The values of ratp_dtype; 0 stands for an absent operand.
const uint F32 = 1;
const uint F16 = 2;
const uint BF16 = 3;
const uint Q8_0 = 4; // only in a cache
// Only K and V of a host, in GGUF's blocks of 32 channels.
const uint Q4_0 = 5;
const uint Q8_0_BLOCKS = 6; // DTYPE_Q8_0_BLOCKS

layout(buffer_reference, std430, buffer_reference_align = 4) buffer Words { uint at[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) buffer Floats { float at[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) readonly buffer Words4 { uvec4 at; };
layout(buffer_reference, std430, buffer_reference_align = 8) readonly buffer Words2 { uvec2 at; };

uvec2 plus(uvec2 address, uint bytes)
{
    uint carry;
    uint low = uaddCarry(address.x, bytes, carry);
    return uvec2(low, address.y + carry);
}

// address + n * stride, without overflow at 32 bits.
uvec2 plus(uvec2 address, uint n, uint stride)
{
    uint high, low;
    umulExtended(n, stride, high, low);
    uvec2 moved = plus(address, low);
    return uvec2(moved.x, moved.y + high);
}

bool present(uvec2 address)
{
    return (address.x | address.y) != 0;
}

uint element_bytes(uint type)
{
    return type == F32 ? 4 : 2;
}

vec2 unpack_bf16(uint word)
{
    return vec2(uintBitsToFloat(word << 16), uintBitsToFloat(word & 0xffff0000u));
}

// Rounds to the nearest even; a NaN stays one.
uint round_bf16(float x)
{
    uint bits = floatBitsToUint(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return (bits >> 16) | 0x40u;
    return (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
}

uint pack_bf16(vec2 x)
{
    return round_bf16(x.x) | (round_bf16(x.y) << 16);
}

// packHalf2x16 may round either way, and is slow on the CPU. This rounds to the
// nearest even; a NaN stays one.
uint round_f16(float x)
{
    uint bits = floatBitsToUint(x);
    uint size = bits & 0x7fffffffu;
    uint normal = (size - 0x38000000u + 0xfffu + ((size >> 13) & 1u)) >> 13;
    // Below the normal numbers the sum's last place is that of the result.
    uint small = floatBitsToUint(uintBitsToFloat(size) + 0.5) - 0x3f000000u;
    uint finite = size < 0x38800000u ? small : normal;
    uint other = size > 0x7f800000u ? 0x7e00u : 0x7c00u;
    return (size < 0x47800000u ? finite : other) | ((bits >> 16) & 0x8000u);
}

uint pack_f16(vec2 x)
{
    return round_f16(x.x) | (round_f16(x.y) << 16);
}

// lavapipe's unpackHalf2x16 takes one number at a time: kernels that run there
// set this to a constant that says so.
#ifndef HALF_BY_HAND
#define HALF_BY_HAND false
#endif

vec2 unpack_f16(uint word)
{
    if (!HALF_BY_HAND)
        return unpackHalf2x16(word);
    uvec2 half_bits = uvec2(word, word >> 16);
    uvec2 size = (half_bits & 0x7fffu) << 13;
    vec2 normal = uintBitsToFloat(size + 0x38000000u);
    // Subnormal: 2^-14 (m / 1024), read above as 2^-15 (1 + m / 1024).
    vec2 x = mix(normal, 2 * normal - 6.103515625e-05, lessThan(size, uvec2(0x00800000u)));
    uvec2 infinite = mix(uvec2(0), uvec2(0x7f800000u), greaterThanEqual(size, uvec2(0x0f800000u)));
    return uintBitsToFloat(floatBitsToUint(x) | infinite | ((half_bits & 0x8000u) << 16));
}

vec2 unpack16(uint word, uint type)
{
    return type == F16 ? unpack_f16(word) : unpack_bf16(word);
}

uint pack16(vec2 x, uint type)
{
    return type == F16 ? pack_f16(x) : pack_bf16(x);
}

// Channels c and c + 1 of a row.
vec2 load2(uvec2 row, uint type, uint c)
{
    if (type == F32) {
        Floats from = Floats(plus(row, c * 4));
        return vec2(from.at[0], from.at[1]);
    }
    return unpack16(Words(plus(row, c * 2)).at[0], type);
}

void store2(uvec2 row, uint type, uint c, vec2 x)
{
    if (type == F32) {
        Floats to = Floats(plus(row, c * 4));
        to.at[0] = x.x;
        to.at[1] = x.y;
    } else {
        Words(plus(row, c * 2)).at[0] = pack16(x, type);
    }
}

// A row of `size` channels in q8_0: as many bytes, then a float16 scale for each
// 32 of them, in whole words; its length is a multiple of 8.
uint row_bytes(uint type, uint size)
{
    return type == Q8_0 ? (size + (size + 63) / 64 * 4 + 7) & ~7u : size * element_bytes(type);
}

float load_scale(uvec2 row, uint size, uint c)
{
    vec2 both = unpack_f16(Words(plus(row, size + (c >> 6) * 4)).at[0]);
    return (c & 32) == 0 ? both.x : both.y;
}

vec4 unpack_q8(uint word)
{
    return vec4(ivec4(int(word << 24), int(word << 16), int(word << 8), int(word)) >> 24);
}

// The type of the least and greatest K of some tokens, which are values of K; of types whose
// channels share a scale, rounded to float16.
uint extremes_type(uint type)
{
    return type > BF16 ? F16 : type;
}

bool in_blocks(uint type)
{
    return type == Q4_0 || type == Q8_0_BLOCKS;
}

// 32 bits at an address that is a multiple of 2. No word without any of them is read.
uint load_word(uvec2 address)
{
    Words from = Words(uvec2(address.x & ~3u, address.y));
    uint odd = (address.x >> 1) & 1;
    uint low = from.at[0], high = from.at[odd];
    return odd == 0 ? low : (low >> 16) | (high << 16);
}

// The block that has channel c: its scale, then its numbers.
uvec2 block_of(uvec2 row, uint type, uint c)
{
    return plus(row, (c >> 5) * (type == Q4_0 ? 18 : 34));
}

float block_scale(uvec2 block)
{
    uint word = Words(uvec2(block.x & ~3u, block.y)).at[0];
    return unpack_f16(word >> ((block.x & 2) * 8)).x;
}

// Four numbers of a block from channel c of it on; of the word that begins with theirs.
vec4 unpack_block(uint word, uint type, uint c)
{
    if (type == Q8_0_BLOCKS)
        return unpack_q8(word);
    uint x = word >> ((c & 16) >> 2); // those of the second half are in the high half bytes
    return vec4(uvec4(x, x >> 8, x >> 16, x >> 24) & 15) - 8;
}

// Where they begin.
uvec2 block_numbers(uvec2 block, uint type, uint c)
{
    return plus(block, 2 + (c & (type == Q4_0 ? 15 : 31)));
}

// Channels c and c + 1 of a row of blocks, in the upper half of a word or in the lower.
vec2 load_blocks2(uvec2 row, uint type, uint c)
{
    uvec2 block = block_of(row, type, c);
    uvec2 at = block_numbers(block, type, c);
    uint word = Words(uvec2(at.x & ~3u, at.y)).at[0] >> ((at.x & 2) * 8);
    return block_scale(block) * unpack_block(word, type, c).xy;
}

// Channels c ... c + 7, c a multiple of 8.
void load_blocks8(uvec2 row, uint type, uint c, out vec4 a, out vec4 b)
{
    uvec2 block = block_of(row, type, c);
    uvec2 at = block_numbers(block, type, c);
    float scale = block_scale(block);
    a = scale * unpack_block(load_word(at), type, c);
    b = scale * unpack_block(load_word(plus(at, 4)), type, c);
}

// Channels c and c + 1 of a row of the cache, or of a host's K or V.
vec2 load_row2(uvec2 row, uint type, uint size, uint c)
{
    if (in_blocks(type))
        return load_blocks2(row, type, c);
    if (type != Q8_0)
        return load2(row, type, c);
    vec4 x = unpack_q8(Words(plus(row, c & ~3u)).at[0]);
    return load_scale(row, size, c) * ((c & 2) == 0 ? x.xy : x.zw);
}

#ifdef WIDE
// A CPU loads and stores 64 bits of an invocation as fast as 32. The address must
// be a multiple of 8.
layout(buffer_reference, std430, buffer_reference_align = 8) buffer Long { uint64_t at; };
layout(buffer_reference, std430, buffer_reference_align = 8) buffer Longs { u64vec2 at; };

uvec4 load_words4(uvec2 address)
{
    u64vec2 pair = Longs(address).at;
    return uvec4(unpackUint2x32(pair.x), unpackUint2x32(pair.y));
}

uvec2 load_words2(uvec2 address)
{
    return unpackUint2x32(Long(address).at);
}

// The first four channels of a row.
vec4 load4(uvec2 row, uint type)
{
    if (type == F32)
        return uintBitsToFloat(load_words4(row));
    uvec2 w = unpackUint2x32(Long(row).at);
    return vec4(unpack16(w.x, type), unpack16(w.y, type));
}

void store4(uvec2 row, uint type, vec4 x)
{
    if (type == F32) {
        uvec4 w = floatBitsToUint(x);
        Longs(row).at = u64vec2(packUint2x32(w.xy), packUint2x32(w.zw));
    } else {
        Long(row).at = packUint2x32(uvec2(pack16(x.xy, type), pack16(x.zw, type)));
    }
}
#else
// Kernels whose load_row8 addresses are multiples of 16 set this to a constant that
// says so: NVIDIA's GPUs load 16 bytes at once only then.
#ifndef ALIGNED16
#define ALIGNED16 false
#endif

layout(buffer_reference, std430, buffer_reference_align = 16) readonly buffer Words4Aligned { uvec4 at; };

uvec4 load_words4(uvec2 address)
{
    if (ALIGNED16)
        return Words4Aligned(address).at;
    return Words4(address).at;
}

uvec2 load_words2(uvec2 address)
{
    return Words2(address).at;
}
#endif

// Channels c ... c + 7 of a row of the cache, or of a host's K or V, c a multiple of 8.
void load_row8(uvec2 row, uint type, uint size, uint c, out vec4 a, out vec4 b)
{
    if (in_blocks(type)) {
        load_blocks8(row, type, c, a, b);
    } else if (type == Q8_0) {
        uvec2 w = load_words2(plus(row, c));
        float scale = load_scale(row, size, c);
        a = scale * unpack_q8(w.x);
        b = scale * unpack_q8(w.y);
    } else if (type == F32) {
        uvec2 from = plus(row, c * 4);
        a = uintBitsToFloat(load_words4(from));
        b = uintBitsToFloat(load_words4(plus(from, 16)));
    } else {
        uvec4 w = load_words4(plus(row, c * 2));
        a = vec4(unpack16(w.x, type), unpack16(w.y, type));
        b = vec4(unpack16(w.z, type), unpack16(w.w, type));
    }
}

// Any one element.
float load1(uvec2 row, uint type, uint i)
{
    if (type == F32)
        return Floats(plus(row, i * 4)).at[0];
    vec2 both = unpack16(Words(plus(row, (i >> 1) * 4)).at[0], type);
    return (i & 1) == 0 ? both.x : both.y;
}

#endif
