// Quads of channels on their way through the memory. An invocation owns SPAN
// neighbouring quads of HEADS neighbouring key/value heads, of K and of V, and
// walks along tokens: what they have in common is then done once.
#ifndef QUAD_GLSL
#define QUAD_GLSL

#extension GL_EXT_control_flow_attributes : require

#include "memory.glsl"

const uint HEAD_GROUPS = (KV_HEADS + HEADS - 1) / HEADS;
// Groups of SPAN quads in a head.
const uint SPANS = ((HEAD_SIZE > VALUE_SIZE ? HEAD_SIZE : VALUE_SIZE) / 4 + SPAN - 1) / SPAN;
const uint UNITS = HEADS * SPAN; // unit u: head u / SPAN, quad u % SPAN

// The first pair of channels is xy, the second zw.
struct Quad {
    vec4 k, v;
};

struct Place {
    uint n; // the first quad
    uint head0;
    uvec2 k, v; // first channels of the first quad's two pairs
    uint next;  // channels from a quad to the next
    bool in_k, in_v; // a quad may be past the end of the smaller of the two
};

Rope memory_rope()
{
    return Rope(ROPE_STYLE, ROPE_SIZE, ROPE_ROWS, push.rope_table);
}

// False: this invocation has nothing to do.
bool find_place(out Place place)
{
    // Where workgroups divide a head, its neighbour comes first: two workgroups
    // that run at the same time should not write to the same cache lines.
    uint index = gl_GlobalInvocationID.x;
    place.n = index % SPANS * SPAN;
    place.head0 = index / SPANS * HEADS;
    if (SPANS % gl_WorkGroupSize.x == 0) {
        place.n = (gl_WorkGroupID.x / HEAD_GROUPS * gl_WorkGroupSize.x + gl_LocalInvocationID.x) *
                  SPAN;
        place.head0 = gl_WorkGroupID.x % HEAD_GROUPS * HEADS;
    }
    place.k = quad_channels(memory_rope(), place.n);
    // With memory K and V share gates, hence channels.
    place.v = HEAD_SIZE == VALUE_SIZE ? place.k : uvec2(4 * place.n, 4 * place.n + 2);
    place.next = place.k.y - place.k.x == 2 ? 4 : 2;
    place.in_k = HEAD_SIZE == VALUE_SIZE || place.n < HEAD_SIZE / 4;
    place.in_v = HEAD_SIZE == VALUE_SIZE || place.n < VALUE_SIZE / 4;
    return index < SPANS * HEAD_GROUPS;
}

// Heads from the first to unit u's; the last invocation's may be fewer, the
// last of them is then done more than once, with the same result.
uint head_step(Place place, uint u)
{
    return min(place.head0 + u / SPAN, KV_HEADS - 1) - place.head0;
}

// Channels from the first quad to unit u's.
uint channel_step(Place place, uint u)
{
    return u % SPAN * place.next;
}

// An input at the invocation's first head, channel and current token.
struct Input {
    uvec2 at;
    uint between; // bytes from the first pair of channels to the second
};

Input input_at(uvec2 base, uint row, uint token_stride, uint head, uint head_stride,
               uvec2 channels, uint type)
{
    uint bytes = element_bytes(type);
    uvec2 at = plus(plus(base, row, token_stride), head, head_stride);
    return Input(plus(at, channels.x * bytes), (channels.y - channels.x) * bytes);
}

struct Inputs {
    Input k, v, f;
};

Inputs inputs_at(Place place, uint row)
{
    Inputs x;
    x.k = input_at(push.k, row, push.k_token, place.head0, push.k_head,
                   place.in_k ? place.k : uvec2(0), K_IN);
    x.v = input_at(push.v, row, push.v_token, place.head0, push.v_head,
                   place.in_v ? place.v : uvec2(0), V_IN);
    x.f = input_at(push.f, row, push.f_token, place.head0, push.f_head, place.k, F_IN);
    return x;
}

// `on`: not where it is the last token.
void next_token(inout Inputs x, bool on)
{
    x.k.at = plus(x.k.at, on ? push.k_token : 0);
    x.v.at = plus(x.v.at, on ? push.v_token : 0);
    x.f.at = plus(x.f.at, on ? push.f_token : 0);
}

// What two neighbouring quads hold is two runs of four channels: one of each
// pair, or one of each quad.
bool pairs_apart(Place place)
{
    return place.k.y - place.k.x != 2;
}

// All units of an input.
void load_units(out vec4 q[UNITS], Place place, Input x, uint head_stride, uint type)
{
#ifdef WIDE
    bool apart = pairs_apart(place);
    uint between = apart ? x.between : 4 * element_bytes(type);
    [[unroll]] for (uint u = 0; u < UNITS; u += 2) {
        uint offset = head_step(place, u) * head_stride;
        vec4 a = load4(plus(x.at, offset), type), b = load4(plus(x.at, offset + between), type);
        q[u] = apart ? vec4(a.xy, b.xy) : a;
        q[u + 1] = apart ? vec4(a.zw, b.zw) : b;
    }
#else
    [[unroll]] for (uint u = 0; u < UNITS; u++) {
        uint offset = head_step(place, u) * head_stride +
                      channel_step(place, u) * element_bytes(type);
        q[u] = vec4(load2(plus(x.at, offset), type, 0),
                    load2(plus(x.at, offset + x.between), type, 0));
    }
#endif
}

// The same for a row of the cache; `channels` are the first quad's.
void store_units(vec4 q[UNITS], Place place, uvec2 row, uvec2 channels, uint head_stride, uint type)
{
    uint between = (channels.y - channels.x) * element_bytes(type);
#ifdef WIDE
    bool apart = pairs_apart(place);
    between = apart ? between : 4 * element_bytes(type);
    [[unroll]] for (uint u = 0; u < UNITS; u += 2) {
        uint offset = head_step(place, u) * head_stride;
        vec4 a = apart ? vec4(q[u].xy, q[u + 1].xy) : q[u];
        vec4 b = apart ? vec4(q[u].zw, q[u + 1].zw) : q[u + 1];
        store4(plus(row, offset), type, a);
        store4(plus(row, offset + between), type, b);
    }
#else
    [[unroll]] for (uint u = 0; u < UNITS; u++) {
        uint offset = head_step(place, u) * head_stride +
                      channel_step(place, u) * element_bytes(type);
        store2(plus(row, offset), type, 0, q[u].xy);
        store2(plus(row, offset + between), type, 0, q[u].zw);
    }
#endif
}

// What g = sigmoid(f) keeps of the old, and takes of the new: 1 - g, computed
// apart because g may round to 1.
void gate(vec4 f, out vec4 keep, out vec4 take)
{
    vec4 e = exp(-abs(f));
    vec4 large = 1 / (1 + e);
    vec4 small = e * large;
    keep = mix(small, large, greaterThanEqual(f, vec4(0)));
    take = mix(large, small, greaterThanEqual(f, vec4(0)));
}

// Tokens whose inputs are on their way together, 1 or 4: what one of them writes could be what
// the next one reads, for all that a compiler knows, and a GPU would wait for each. No
// constant of the pipeline, because a CPU's drivers compile what they leave out, too.
#ifndef AHEAD
#define AHEAD 1
#endif
vec4 fed_k[AHEAD * UNITS], fed_v[AHEAD * UNITS], fed_f[AHEAD * UNITS];

void feed_token(Place place, Inputs x, uint n)
{
    vec4 k[UNITS], v[UNITS], f[UNITS];
    load_units(k, place, x.k, push.k_head, K_IN);
    load_units(v, place, x.v, push.v_head, V_IN);
    if (F_IN != 0)
        load_units(f, place, x.f, push.f_head, F_IN);
    [[unroll]] for (uint u = 0; u < UNITS; u++) {
        fed_k[n * UNITS + u] = k[u];
        fed_v[n * UNITS + u] = v[u];
        if (F_IN != 0)
            fed_f[n * UNITS + u] = f[u];
    }
}

// The inputs of the next AHEAD tokens; where fewer are left, the last is fed more than once.
// Numbers are constants here, so that what is fed stays in registers, and there is no branch,
// at whose end all loads would have to be there.
void feed(Place place, inout Inputs x, uint left)
{
    feed_token(place, x, 0);
#if AHEAD == 4
    next_token(x, left > 1);
    feed_token(place, x, 1);
    next_token(x, left > 2);
    feed_token(place, x, 2);
    next_token(x, left > 3);
    feed_token(place, x, 3);
#endif
    next_token(x, true);
}

// The n-th that was fed through the memory, or in its place where there is none. `keep` gets
// what the gates keep.
void take_token(inout Quad state[UNITS], uint n, out vec4 keep[UNITS])
{
    [[unroll]] for (uint u = 0; u < UNITS; u++) {
        vec4 k = fed_k[n * UNITS + u], v = fed_v[n * UNITS + u];
        if (F_IN == 0) {
            state[u] = Quad(k, v);
            keep[u] = vec4(0);
            continue;
        }
        vec4 take;
        gate(fed_f[n * UNITS + u], keep[u], take);
        state[u].k = keep[u] * state[u].k + take * k;
        state[u].v = keep[u] * state[u].v + take * v;
    }
}

// Rows of a memory state: K, then V.
Quad load_state(uvec2 k, uvec2 channels)
{
    uvec2 v = plus(k, HEAD_SIZE * 4);
    return Quad(vec4(load2(k, F32, channels.x), load2(k, F32, channels.y)),
                vec4(load2(v, F32, channels.x), load2(v, F32, channels.y)));
}

void store_state(uvec2 k, uvec2 channels, Quad state)
{
    uvec2 v = plus(k, HEAD_SIZE * 4);
    store2(k, F32, channels.x, state.k.xy);
    store2(k, F32, channels.y, state.k.zw);
    store2(v, F32, channels.x, state.v.xy);
    store2(v, F32, channels.y, state.v.zw);
}

// The state of a key/value head in a sequence's state, and in a carry, whose
// rows are the product of the gates, K and V.
uvec2 state_row(Address state, uint head)
{
    return plus(plus(to_uvec2(state), push.state_offset), head, (HEAD_SIZE + VALUE_SIZE) * 4);
}

uvec2 carry_row(uint carry, uint head)
{
    return plus(push.carry, carry * KV_HEADS + head, 3 * HEAD_SIZE * 4);
}

Quad initial_state(View view, uint head, uvec2 channels)
{
    if (present(to_uvec2(view.state_in)))
        return load_state(state_row(view.state_in, head), channels);
    return Quad(vec4(0), vec4(0));
}

#endif
