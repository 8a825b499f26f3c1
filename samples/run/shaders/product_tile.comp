#version 460
#extension GL_GOOGLE_include_directive : require
#include "product.glsl"

// For prompts: a workgroup makes TILE x TILE results, a thread 4 x 4 of them.
const uint TILE = 64, STEP = 16, PITCH = TILE + 4;
layout(local_size_x = 16, local_size_y = 16) in;

// Turned, so that the inner loop reads neighbours.
shared float x_tile[STEP * PITCH];
shared float w_tile[STEP * PITCH];

void main()
{
    const uint thread = gl_LocalInvocationIndex;
    const uint first_n = gl_WorkGroupID.x * TILE, first_row = gl_WorkGroupID.y * TILE;
    const uint load_line = thread / 4, load_part = thread % 4;
    const uint my_n = gl_LocalInvocationID.x * 4, my_row = gl_LocalInvocationID.y * 4;

    vec4 sums[4] = vec4[4](vec4(0.0), vec4(0.0), vec4(0.0), vec4(0.0));

    for (uint k = 0; k < inner; k += STEP) {
        const uint load_k = k + load_part * 4;
        vec4 xs = vec4(0.0), ws = vec4(0.0);
        if (load_k < inner && first_row + load_line < rows)
            xs = x.at[((first_row + load_line) * inner + load_k) / 4];
        if (load_k < inner && first_n + load_line < outer)
            ws = weights_at(w, ((first_n + load_line) * inner + load_k) / 4);
        for (uint i = 0; i < 4; i++) {
            x_tile[(load_part * 4 + i) * PITCH + load_line] = xs[i];
            w_tile[(load_part * 4 + i) * PITCH + load_line] = ws[i];
        }
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
