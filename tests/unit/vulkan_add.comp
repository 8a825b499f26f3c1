#version 460
/* For the test of the Vulkan layer: adds to every word of a buffer. */
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require

layout(local_size_x = 64) in;
layout(constant_id = 0) const uint addend = 1;

layout(buffer_reference, std430, buffer_reference_align = 4) buffer words { uint at[]; };

layout(push_constant) uniform block {
    uvec2 address;
    uint count;
    uint unused;
};

void main()
{
    uint i = gl_GlobalInvocationID.x;
    if (i < count)
        words(address).at[i] += addend;
}
