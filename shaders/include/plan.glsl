// The plan as plugin/plan/plan.h describes it, word for word.
#ifndef PLAN_GLSL
#define PLAN_GLSL

#include "io.glsl"

const uint NO_CARRY = 0xffffffffu;

struct Address {
    uint lo, hi;
};

struct Page {
    Address k, v;
};

struct Segment {
    uint page0, pages;
    uint pos0, pos_step;
    uint slot0, slot_step, slot_ring;
    uint keys;
    uint windowed;
    uint layered;
};

// A gpu_view up to its segments: those are indexed in memory, a copy of the
// whole array would be slow.
struct View {
    uint row0, rows;
    uint pos0;
    uint sinks, dilation, window;
    uint causal;
    uint segments;
    Address state_in, state_out;
    uint kept_page0, kept_pages;
    uint ring_page0, ring_pages;
    uint ring_slots, ring_from;
    uint line_page0, line_pages;
    uint line_pos0, line_layered;
    uint k_slot, k_head, v_slot, v_head;
    uint offsets;
    uint select, block, choose, by_group;
    uint summaries, summary_head, entry_at, entry_tokens, entry_bytes;
    uint entry_page0, entry_pages;
    uint slopes;
};

const uint SELECT_EXTREMES = 1;
const uint SELECT_MEAN = 2;

struct Summary {
    uint view, select;
    uint entry_at, entry_tokens, entry_bytes;
    uint first, count;
};

struct Chooser {
    uint view, token;
};

struct Observer {
    uint view, token0, tokens;
    uint at, ring;
    Address queries;
};

const uint PLAN_SEGMENTS = 4;

struct ViewRecord {
    View view;
    Segment segment[PLAN_SEGMENTS];
};

struct Tile {
    uint view, token0, tokens;
    uint split, splits;
    uint partial;
    uint chooser;
};

struct Wave {
    uint view, token0, tokens;
    uint chooser;
    uint places;
    uint blocks;
    uint partial;
};

struct Gather {
    uint row, partial, step, splits;
};

struct Chunk {
    uint view, token0, tokens, carry;
};

struct Scan {
    uint view, carry0, carries, unused;
};

struct Slots {
    uint view;
    uint page0, pages;
    uint slot0, slot_step, slot_ring;
};

struct Move {
    Slots from, to;
    uint count;
};

layout(buffer_reference, std430, buffer_reference_align = 4) readonly buffer Pages { Page at[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) readonly buffer Views { ViewRecord at[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) readonly buffer Tiles { Tile at[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) readonly buffer Waves { Wave at[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) readonly buffer Gathers { Gather at[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) readonly buffer Chunks { Chunk at[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) readonly buffer Scans { Scan at[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) readonly buffer Moves { Move at[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) readonly buffer Summaries { Summary at[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) readonly buffer Choosers { Chooser at[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) readonly buffer Observers { Observer at[]; };

uvec2 to_uvec2(Address a)
{
    return uvec2(a.lo, a.hi);
}

uint blocks_at(View view, uint t)
{
    return t / max(view.block, 1) + 1;
}

uint chosen_at(View view, uint t)
{
    return min(blocks_at(view, t), view.choose);
}

uint chosen_keys(View view, uint t)
{
    return (chosen_at(view, t) - 1) * view.block + t % max(view.block, 1) + 1;
}

uint block_start(View view, uint t)
{
    return t / max(view.block, 1) * view.block;
}

const uint WAVE_TILE_ROWS = 4;

uint wave_rows(Wave wave, uint group)
{
    return wave.tokens * wave.places * group;
}

uint wave_tiles(Wave wave, uint group, uint tile_rows)
{
    return wave.blocks + wave_rows(wave, group) / tile_rows;
}

uint wave_words(Wave wave, uint group)
{
    return 1 + 3 * wave_tiles(wave, group, WAVE_TILE_ROWS) + wave_rows(wave, group) + wave.blocks;
}

// The keys [range.x, range.y) of a segment that queries at positions
// first_t ... last_t can see.
uvec2 segment_range(View view, Segment segment, uint first_t, uint last_t)
{
    uvec2 range = uvec2(0, segment.pages == 0 ? 0 : segment.keys);
    if (view.causal == 0 || range.y == 0)
        return range;
    if (last_t < segment.pos0)
        return uvec2(0);
    if (view.select != 0)
        return uvec2(0, chosen_keys(view, last_t));
    range.y = min(range.y, (last_t - segment.pos0) / segment.pos_step + 1);
    if (segment.windowed != 0 && view.window < first_t && first_t - view.window > segment.pos0) {
        uint before = first_t - view.window - segment.pos0;
        range.x = min((before + segment.pos_step - 1) / segment.pos_step, range.y);
    }
    return range;
}

// Keys of all segments, counted as one run: no array, which a loop that indexes it would
// move out of the registers.
struct KeyRun {
    uvec4 lo;  // first key of each segment
    uvec4 end; // where the segment ends in the run; at last, how many there are
};

const uvec4 SEGMENT_NUMBERS = uvec4(0, 1, 2, 3);

// Keys [range.x, range.y) of segment s, which comes after those that were added.
void add_keys(inout KeyRun run, uint s, uvec2 range)
{
    uvec4 number = SEGMENT_NUMBERS, end = uvec4(run.end.w + range.y - range.x);
    run.lo = mix(run.lo, uvec4(range.x), equal(number, uvec4(s)));
    run.end = mix(run.end, end, greaterThanEqual(number, uvec4(s)));
}

// The segment of key n of the run; n becomes its number there.
uint segment_of(KeyRun run, inout uint n)
{
    uvec3 passed = uvec3(greaterThanEqual(uvec3(n), run.end.xyz));
    uint s = passed.x + passed.y + passed.z;
    n += s == 0 ? run.lo.x : s == 1 ? run.lo.y : s == 2 ? run.lo.z : run.lo.w;
    n -= s == 0 ? 0 : s == 1 ? run.end.x : s == 2 ? run.end.y : run.end.z;
    return s;
}

bool segment_attends(View view, Segment segment, uint t, uint pos)
{
    if (view.causal == 0)
        return true;
    if (pos > t)
        return false;
    if (segment.windowed == 0)
        return true;
    return t - pos <= view.window && pos >= view.sinks &&
           (view.dilation == 0 || (pos + 1) % view.dilation != 0);
}

uint kept_index(uint p, uint sinks, uint dilation)
{
    return p < sinks ? p : sinks + (p + 1) / dilation - 1 - sinks / dilation;
}

uint key_pos(Segment segment, uint key)
{
    return segment.pos0 + key * segment.pos_step;
}

uint key_slot(Segment segment, uint key)
{
    uint slot = segment.slot0 + key * segment.slot_step;
    return segment.slot_ring == 0 ? slot : slot % segment.slot_ring;
}

// Page `slot / page_slots` of the run [page0, page0 + pages), pages > 0, as an
// index of the page list; slot becomes the slot inside of it.
uint page_of(uint page0, uint pages, uint page_slots, inout uint slot)
{
    uint page = slot / page_slots;
    slot -= page * page_slots;
    return page0 + min(page, pages - 1);
}

#endif
