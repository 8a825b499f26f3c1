#version 460
#extension GL_GOOGLE_include_directive : require
#include "product.glsl"

// For prompts: a workgroup makes TILE x TILE results from lines that it
// shares, a thread 4 x 4 of them.
const uint TILE = 64, STEP = 32, PITCH = TILE + 4;
layout(local_size_x = 16, local_size_y = 16) in;

// Turned, so that the inner loop reads neighbours.
shared float x_tile[STEP * PITCH];
shared float w_tile[STEP * PITCH];

void load_tiles(uint first_row, uint first_n, uint k)
{
    const uint line = gl_LocalInvocationIndex / 4, part = gl_LocalInvocationIndex % 4 * 8;
    vec4 low = vec4(0.0), high = vec4(0.0);
    weights_8 weights = weights_8(vec4(0.0), vec4(0.0));
    if (k + part < inner && first_row + line < rows) {
        const uint index = ((first_row + line) * inner + k + part) / 4;
        low = x.at[index];
        high = x.at[index + 1];
    }
    if (k + part < inner && first_n + line < outer)
        weights = weights_at(w, ((first_n + line) * inner + k + part) / 8);
    for (uint i = 0; i < 4; i++) {
        x_tile[(part + i) * PITCH + line] = low[i];
        x_tile[(part + 4 + i) * PITCH + line] = high[i];
        w_tile[(part + i) * PITCH + line] = weights.low[i];
        w_tile[(part + 4 + i) * PITCH + line] = weights.high[i];
    }
}

void main()
{
    const uint first_n = gl_WorkGroupID.x * TILE, first_row = gl_WorkGroupID.y * TILE;
    const uint my_n = gl_LocalInvocationID.x * 4, my_row = gl_LocalInvocationID.y * 4;

    vec4 sums[4] = vec4[4](vec4(0.0), vec4(0.0), vec4(0.0), vec4(0.0));
    for (uint k = 0; k < inner; k += STEP) {
        load_tiles(first_row, first_n, k);
        barrier();
        for (uint step = 0; step < STEP; step++) {
            const uint at = step * PITCH + my_n;
            const vec4 line = vec4(w_tile[at], w_tile[at + 1], w_tile[at + 2], w_tile[at + 3]);
            for (uint i = 0; i < 4; i++)
                sums[i] += x_tile[step * PITCH + my_row + i] * line;
        }
        barrier();
    }

    for (uint i = 0; i < 4; i++)
        for (uint j = 0; j < 4; j++)
            if (first_row + my_row + i < rows && first_n + my_n + j < outer)
                finish(first_row + my_row + i, first_n + my_n + j, sums[i][j]);
}
