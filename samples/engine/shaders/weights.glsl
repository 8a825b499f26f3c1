// Weights as they lie in the file: float32, float16 or bfloat16, always read
// as 32-bit words, so that no device needs 16-bit storage.
#extension GL_EXT_buffer_reference : require

layout(buffer_reference, std430, buffer_reference_align = 4) readonly buffer floats { float at[]; };
layout(buffer_reference, std430, buffer_reference_align = 16) readonly buffer vec4s { vec4 at[]; };
layout(buffer_reference, std430, buffer_reference_align = 16) readonly buffer uvec4s { uvec4 at[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) readonly buffer ints { int at[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) buffer results { float at[]; };

const uint TYPE_F32 = 0, TYPE_F16 = 1, TYPE_BF16 = 2; // enum st_dtype
layout(constant_id = 0) const uint WEIGHT_TYPE = TYPE_F32;

vec2 unpack_pair(uint word)
{
    if (WEIGHT_TYPE == TYPE_F16)
        return unpackHalf2x16(word);
    return vec2(uintBitsToFloat(word << 16), uintBitsToFloat(word & 0xffff0000u));
}

// Weights 8 * index to 8 * index + 7, in as few loads as there can be.
struct weights_8 {
    vec4 low, high;
};

weights_8 weights_at(uvec4s weights, uint index)
{
    if (WEIGHT_TYPE == TYPE_F32)
        return weights_8(uintBitsToFloat(weights.at[2 * index]),
                         uintBitsToFloat(weights.at[2 * index + 1]));
    const uvec4 words = weights.at[index];
    return weights_8(vec4(unpack_pair(words.x), unpack_pair(words.y)),
                     vec4(unpack_pair(words.z), unpack_pair(words.w)));
}
