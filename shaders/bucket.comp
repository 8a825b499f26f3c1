// Sorts the rows of a wave by the blocks that they choose, and cuts each block's rows
// into tiles. One workgroup has a key/value head; the order of a block's rows is left
// to chance. The partials' address is that of the wave's tables.
#version 450
#extension GL_GOOGLE_include_directive : require

#include "attend.glsl"
#include "wave.glsl"

layout(constant_id = 20) const uint LANES = 128;
layout(constant_id = 21) const uint ROWS = 32; // of a tile
layout(local_size_x_id = 20) in;

shared uvec2 before[LANES]; // rows and tiles of the lane's blocks

const uint NO_BLOCK = 0xffffffffu;

uint block_of(Wave wave, View view, uint number)
{
    WaveRow r = wave_row(wave, number);
    // The last that is chosen is the query's own block, which is attended apart.
    if (r.place + 1 >= chosen_at(view, view.pos0 + wave.token0 + r.token))
        return NO_BLOCK;
    uint head = gl_WorkGroupID.x * GROUP + r.head;
    uvec2 list = plus(push.mask, (wave.chooser + r.token) * QUERY_HEADS + head, push.mask_token * 4);
    return min(Words(plus(list, r.place * 4)).at[0], wave.blocks - 1);
}

void meet()
{
    memoryBarrierBuffer();
    barrier();
}

void main()
{
    Wave wave = Waves(plus(push.plan, push.items)).at[0];
    View view = load_view(wave.view);
    uint lane = gl_LocalInvocationIndex, rows = wave_rows(wave, GROUP);
    uvec2 table = wave_table(push.partial, wave, gl_WorkGroupID.x);
    Counts counts = Counts(table_counts(table, wave));
    Words sorted = Words(table_rows(table, wave));

    for (uint b = lane; b < wave.blocks; b += LANES)
        counts.at[b] = 0;
    meet();
    for (uint n = lane; n < rows; n += LANES) {
        uint block = block_of(wave, view, n);
        if (block != NO_BLOCK)
            atomicAdd(counts.at[block], 1);
    }
    meet();

    // Each lane has neighbouring blocks.
    uint share = (wave.blocks + LANES - 1) / LANES;
    uint from = min(lane * share, wave.blocks), to = min(from + share, wave.blocks);
    uvec2 own = uvec2(0);
    for (uint b = from; b < to; b++)
        own += uvec2(counts.at[b], (counts.at[b] + ROWS - 1) / ROWS);
    before[lane] = own;
    barrier();
    uvec2 at = uvec2(0);
    for (uint i = 0; i < lane; i++)
        at += before[i];
    if (lane == LANES - 1)
        Words(table).at[0] = at.y + own.y;
    for (uint b = from; b < to; b++) {
        uint first = at.x, end = first + counts.at[b];
        counts.at[b] = first;
        for (; at.x < end; at = uvec2(min(at.x + ROWS, end), at.y + 1)) {
            Words tile = Words(table_tile(table, at.y));
            tile.at[0] = b;
            tile.at[1] = at.x;
            tile.at[2] = min(ROWS, end - at.x);
        }
    }
    meet();
    for (uint n = lane; n < rows; n += LANES) {
        uint block = block_of(wave, view, n);
        if (block != NO_BLOCK)
            sorted.at[min(atomicAdd(counts.at[block], 1), rows - 1)] = n;
    }
}
