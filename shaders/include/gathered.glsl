// Work of prefill attention in a wave: rows that have chosen the same block. The mask's
// address is that of the wave's tables.
#ifndef GATHERED_GLSL
#define GATHERED_GLSL

#include "wave.glsl"

Work load_rows()
{
    Work w;
    w.wave = Waves(plus(push.plan, push.items)).at[0];
    w.kv_head = gl_WorkGroupID.x;
    w.head0 = w.kv_head * GROUP;
    w.token0 = 0;
    w.rows = 0;
    uvec2 table = wave_table(push.mask, w.wave, w.kv_head);
    uint number = gl_WorkGroupID.z * gl_NumWorkGroups.y + gl_WorkGroupID.y;
    uint tiles = wave_tiles(w.wave, GROUP, ROWS);
    if (number >= min(Words(table).at[0], tiles))
        return w;
    w.tile = Tile(w.wave.view, 0, 0, 0, 1, 0, 0);
    w.view = load_view(w.wave.view);
    w.offset = slab_offset(w.view);
    Words tile = Words(table_tile(table, number));
    uint all = wave_rows(w.wave, GROUP), first = min(tile.at[1], all);
    w.rows = min(min(tile.at[2], ROWS), all - first);
    w.list = plus(table_rows(table, w.wave), first * 4);
    // Its view has one segment, in which a key's number is its position.
    w.run = KeyRun(uvec4(min(tile.at[0], w.wave.blocks) * w.view.block), uvec4(w.view.block));
    w.begin_key = 0;
    w.end_key = w.view.block;
    return w;
}

WaveRow row_of(Work w, uint row)
{
    uint all = wave_rows(w.wave, GROUP);
    return wave_row(w.wave, min(Words(w.list).at[row], all - 1));
}

uint row_token(Work w, uint row)
{
    return w.wave.token0 + row_of(w, row).token;
}

uint row_head(Work w, uint row)
{
    return w.head0 + row_of(w, row).head;
}

uint partial_of(Work w, uint row)
{
    WaveRow r = row_of(w, row);
    return w.wave.partial + (r.place + 1) * w.wave.tokens + r.token;
}

#endif
