// The table of a wave, of one key/value head: see wave_words in plugin/plan/plan.h.
#ifndef WAVE_GLSL
#define WAVE_GLSL

// Invocations of a workgroup add to it, and read what others have written.
layout(buffer_reference, std430, buffer_reference_align = 4) coherent buffer Counts { uint at[]; };

uvec2 wave_table(uvec2 tables, Wave wave, uint kv_head)
{
    return plus(tables, kv_head, wave_words(wave, GROUP) * 4);
}

uvec2 table_tile(uvec2 table, uint tile)
{
    return plus(table, 4 + tile * 12);
}

uvec2 table_rows(uvec2 table, Wave wave)
{
    return table_tile(table, wave_tiles(wave, GROUP, WAVE_TILE_ROWS));
}

uvec2 table_counts(uvec2 table, Wave wave)
{
    return plus(table_rows(table, wave), wave_rows(wave, GROUP) * 4);
}

// What a row is, by its number: a query token of the wave, a query head of the group
// and a place in the list of their blocks.
struct WaveRow {
    uint token, head, place;
};

WaveRow wave_row(Wave wave, uint number)
{
    uint pair = number / max(wave.places, 1);
    return WaveRow(pair / GROUP, pair % GROUP, number - pair * wave.places);
}

#endif
