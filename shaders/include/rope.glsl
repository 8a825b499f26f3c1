// Rotary position from the two tables of plan.h: the angle is the sum of a
// coarse and a fine one.
#ifndef ROPE_GLSL
#define ROPE_GLSL

#include "io.glsl"

// The values of ratp_rope_style.
const uint ROPE_NONE = 0;
const uint ROPE_HALF = 1;
const uint ROPE_INTERLEAVED = 2;

const uint ROPE_FINE = 1024;

struct Rope {
    uint style;
    uint size; // channels that turn
    uint rows; // of the coarse table; the fine one is behind it
    uvec2 table;
};

vec2 add_angles(vec2 a, vec2 b)
{
    return vec2(a.x * b.x - a.y * b.y, a.y * b.x + a.x * b.y);
}

// Cosine and sine of rotary pair i at position p.
vec2 rope_turn(Rope rope, uint p, uint i)
{
    uint half_size = rope.size / 2;
    uint row = min(p / ROPE_FINE, rope.rows - 1);
    Floats coarse = Floats(plus(rope.table, (row * half_size + i) * 8));
    row = rope.rows + p % ROPE_FINE;
    Floats fine = Floats(plus(rope.table, (row * half_size + i) * 8));
    return add_angles(vec2(coarse.at[0], coarse.at[1]), vec2(fine.at[0], fine.at[1]));
}

// How channels c and c + 1 (c even) of a row turn at one position:
// x' = x * cosine + other * sine, where `other` holds the partners.
struct Turn {
    vec2 cosine, sine;
    uint partner; // first channel of the pair of channels that holds the partners
    bool turns;
};

Turn rope_turn2(Rope rope, uint p, uint c)
{
    Turn turn = Turn(vec2(1), vec2(0), c, false);
    if (rope.style == ROPE_NONE || c >= rope.size)
        return turn;
    turn.turns = true;
    if (rope.style == ROPE_HALF) {
        uint half_size = rope.size / 2;
        bool low = c < half_size;
        uint i = low ? c : c - half_size;
        vec2 first = rope_turn(rope, p, i);
        vec2 second = rope_turn(rope, p, i + 1);
        turn.cosine = vec2(first.x, second.x);
        turn.sine = low ? -vec2(first.y, second.y) : vec2(first.y, second.y);
        turn.partner = low ? c + half_size : i;
    } else {
        vec2 both = rope_turn(rope, p, c / 2);
        turn.cosine = both.xx;
        turn.sine = vec2(-both.y, both.y);
    }
    return turn;
}

vec2 turned(vec2 x, vec2 other, Turn turn)
{
    return x * turn.cosine + other * turn.sine;
}

// Channels c and c + 1 of a row, turned.
vec2 load2_turned(uvec2 row, uint type, uint c, Turn turn)
{
    vec2 x = load2(row, type, c);
    if (!turn.turns)
        return x;
    return turned(x, turn.partner == c ? x.yx : load2(row, type, turn.partner), turn);
}

// A quad is two pairs of channels whose rotary partners are all inside of it:
// quad n of a head begins its pairs at channels x and y.
uvec2 quad_channels(Rope rope, uint n)
{
    uint low = rope.size / 4;
    if (rope.style == ROPE_HALF && n < low)
        return uvec2(2 * n, 2 * n + rope.size / 2);
    return uvec2(4 * n, 4 * n + 2);
}

// Cosines and sines of the rotary pairs of quad n, coarse and fine.
vec4 rope_quad_row(Rope rope, uint row, uint n)
{
    uint pair = 2 * min(n, rope.size / 4 - 1);
    uvec2 from = plus(rope.table, (row * (rope.size / 2) + pair) * 8);
#ifdef WIDE
    return uintBitsToFloat(load_words4(from));
#else
    return uintBitsToFloat(Words4(from).at);
#endif
}

vec4 rope_quad_coarse(Rope rope, uint p, uint n)
{
    return rope_quad_row(rope, min(p / ROPE_FINE, rope.rows - 1), n);
}

vec4 rope_quad_fine(Rope rope, uint p, uint n)
{
    return rope_quad_row(rope, rope.rows + p % ROPE_FINE, n);
}

// Turns quad n, its pairs xy and zw, by its rows of both tables.
void rope_quad(Rope rope, vec4 coarse, vec4 fine, uint n, inout vec4 x)
{
    vec2 s = add_angles(coarse.xy, fine.xy);
    vec2 t = add_angles(coarse.zw, fine.zw);
    vec4 cosine, sine, other;
    if (rope.style == ROPE_HALF && 4 * n < rope.size) {
        cosine = vec4(s.x, t.x, s.x, t.x);
        sine = vec4(-s.y, -t.y, s.y, t.y);
        other = x.zwxy;
    } else {
        cosine = vec4(s.xx, t.xx);
        sine = vec4(-s.y, s.y, -t.y, t.y);
        other = x.yxwz;
    }
    // Where nothing turns a neighbour that is not finite stays where it is.
    x = 4 * n < rope.size ? x * cosine + other * sine : x;
}

// Turns quad n at position p.
void rope_quad(Rope rope, uint p, uint n, inout vec4 x)
{
    if (rope.style == ROPE_NONE)
        return;
    rope_quad(rope, rope_quad_coarse(rope, p, n), rope_quad_fine(rope, p, n), n, x);
}

#endif
