// What the forms of prefill attention share: which rows and keys a workgroup
// has, and how a row ends.
//
// A workgroup takes a tile, or a part of its rows, for one key/value head and
// HEAD_BLOCK of its query heads. Its rows are tokens x heads, so that all of
// them share every K and V.
// The keys that the tile can see are counted as one run over all segments.
#ifndef PREFILL_GLSL
#define PREFILL_GLSL

#include "attend.glsl"

layout(local_size_x_id = 20) in;
layout(constant_id = 21) const uint ROWS = 32;      // at most, of a workgroup
layout(constant_id = 22) const uint HEAD_BLOCK = 1; // divides GROUP

const uint HEAD_BLOCKS = GROUP / HEAD_BLOCK;

struct Work {
    Tile tile;
    View view;
    uint offset; // of the heads in layered pages
    uint kv_head, head0;
    uint token0; // the first, within the tile
    uint rows;   // 0: nothing to do
    KeyRun run;
    uint begin_key, end_key; // this split's part of the run
#ifdef GATHER
    Wave wave;
    uvec2 list; // of the rows
#endif
};

#ifdef GATHER
#include "gathered.glsl"
#else
Tile load_tile()
{
    // The last tiles of a causal prompt have the most keys: they come first.
    return Tiles(plus(push.plan, push.items)).at[gl_NumWorkGroups.y - 1 - gl_WorkGroupID.y];
}

// For the tile's tokens from number `token0` on, at most `tokens` of them.
Work load_work(uint token0, uint tokens)
{
    Work w;
    w.tile = load_tile();
    w.view = load_view(w.tile.view);
    w.offset = 0;
    w.kv_head = gl_WorkGroupID.x / HEAD_BLOCKS;
    w.head0 = w.kv_head * GROUP + gl_WorkGroupID.x % HEAD_BLOCKS * HEAD_BLOCK;
    w.token0 = token0;
    w.rows = 0;
    if (token0 >= w.tile.tokens)
        return w;
    tokens = min(w.tile.tokens - token0, tokens);
    w.rows = tokens * HEAD_BLOCK;
    w.offset = slab_offset(w.view);
    uint first_t = w.view.pos0 + w.tile.token0 + token0;
    uint last_t = first_t + tokens - 1;
    w.run = KeyRun(uvec4(0), uvec4(0));
    for (uint s = 0; s < min(w.view.segments, PLAN_SEGMENTS); s++) {
        // Tiles of a wave are in one block: their keys begin where it does.
        uvec2 range = w.view.select != 0
                          ? uvec2(block_start(w.view, first_t), last_t + 1)
                          : segment_range(w.view, load_segment(w.tile.view, s), first_t, last_t);
        add_keys(w.run, s, range);
    }
    uint total = w.run.end.w;
    uint part = (total + w.tile.splits - 1) / w.tile.splits;
    w.begin_key = min(w.tile.split * part, total);
    w.end_key = min(w.begin_key + part, total);
    return w;
}

// The rows of this workgroup, where each has as many as ROWS.
Work load_rows()
{
    uint tokens = ROWS / HEAD_BLOCK;
    return load_work(gl_WorkGroupID.z * tokens, tokens);
}

uint row_token(Work w, uint row)
{
    return w.tile.token0 + w.token0 + row / HEAD_BLOCK;
}

uint row_head(Work w, uint row)
{
    return w.head0 + row % HEAD_BLOCK;
}

uint partial_of(Work w, uint row)
{
    return w.tile.partial + w.tile.split * w.tile.tokens + w.token0 + row / HEAD_BLOCK;
}
#endif

// A key of the run: where it lies, and the queries first <= t <= last that
// attend it; none when first > last.
struct Key {
    uvec2 k, v;
    uint first, last;
    uint index; // its position
};

Key load_key(Work w, uint n)
{
    Key key = Key(uvec2(0), uvec2(0), 1, 0, 0);
    if (n >= w.end_key)
        return key;
    uint i = n, s = segment_of(w.run, i);
    Segment segment = load_segment(w.tile.view, s);
    key_rows(w.view, w.offset, segment, i, w.kv_head, key.k, key.v);
    uint pos = key_pos(segment, i);
    key.index = pos;
    key.first = pos;
    key.last = 0xffffffffu;
    if (w.view.causal == 0) {
        key.first = 0;
    } else if (segment.windowed != 0) {
        key.last = pos + min(w.view.window, 0xffffffffu - pos);
        if (!segment_attends(w.view, segment, pos, pos))
            key.last = 0, key.first = 1;
    }
    return key;
}

// What a row begins with, as in attend.glsl.
vec2 start_of(Work w, uint row)
{
#ifdef GATHER
    return vec2(NOTHING, 0); // the tile of the row's own block counts the sink logit
#else
    return row_start(row_head(w, row), w.tile.split == 0);
#endif
}

float slope_of(Work w, uint row)
{
    return mask_slope(w.view, row_head(w, row));
}

// A row's logit with a key; NOTHING where it does not attend it. `slope`: see slope_of.
float row_logit(Work w, uint row, float product, uvec3 seen, float slope)
{
#ifdef GATHER
    // It sees the whole block, and no key past it; there is no mask.
    return seen.x <= seen.y ? logit(product, 0, 0, 0, 0, 1) : NOTHING;
#else
    uint token = row_token(w, row);
    uint t = w.view.pos0 + token;
    float x = logit(product, w.tile.view, token, row_head(w, row), seen.z, slope);
    return t >= seen.x && t <= seen.y ? x : NOTHING;
#endif
}

// The first and the last query of rows from, ..., last. Those of a wave see what all do.
uvec2 queries_of(Work w, uint from, uint last)
{
#ifdef GATHER
    return uvec2(0);
#else
    return w.view.pos0 + uvec2(row_token(w, from), row_token(w, last));
#endif
}

// Whether no row of the workgroup has the key hidden. Where one has, what the key's V holds
// must not reach it, and 0 times what is not finite is NaN.
bool seen_by_all(Work w, Key key)
{
#ifdef GATHER
    return key.first <= key.last;
#else
    uvec2 t = queries_of(w, 0, w.rows - 1);
    return MASK_TYPE == 0 && key.first <= t.x && key.last >= t.y;
#endif
}

// Whether what the workgroup has is not all that its rows attend.
bool is_partial(Work w)
{
    return w.tile.splits > 1 || w.view.select != 0;
}

// Ends a row of this workgroup: writes channels c ... c + 3 of its weighted sum.
void finish_channels(Work w, uint row, uint c, vec4 sum, float maximum, float total)
{
    uint token = row_token(w, row);
    uint head = row_head(w, row);
    if (!is_partial(w)) {
        vec4 y = total > 0 ? sum / total : vec4(0);
        store_out(w.view.row0 + token, head, c, y.xy, maximum);
        store_out(w.view.row0 + token, head, c + 2, y.zw, maximum);
    } else {
        Floats to = Floats(partial_row(partial_of(w, row), head));
        to.at[c] = sum.x;
        to.at[c + 1] = sum.y;
        to.at[c + 2] = sum.z;
        to.at[c + 3] = sum.w;
    }
}

// Once a row.
void finish_row(Work w, uint row, float maximum, float total)
{
    uint token = row_token(w, row);
    uint head = row_head(w, row);
    if (!is_partial(w)) {
        store_lse(w.view.row0 + token, head, maximum, total);
    } else {
        Floats to = Floats(partial_row(partial_of(w, row), head));
        to.at[VALUE_SIZE] = maximum;
        to.at[VALUE_SIZE + 1] = total;
    }
}

#endif
