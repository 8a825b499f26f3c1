// Teams of lanes that share rows of channels: LANES neighbouring invocations have
// one row in common, each of them blocks of 8 of its channels, and HEADS rows of queries
// in registers.
//
// REDUCE says how the lanes of a team add up: 0 through shared memory (a
// workgroup is one team then), 1 a subgroup is one team, 2 teams are parts
// of a subgroup, or all of it.
#ifndef TEAM_GLSL
#define TEAM_GLSL

#extension GL_EXT_control_flow_attributes : require
#if REDUCE > 0
#extension GL_KHR_shader_subgroup_basic : require
#endif
#if REDUCE == 1
#extension GL_KHR_shader_subgroup_arithmetic : require
#endif
#if REDUCE == 2
#extension GL_KHR_shader_subgroup_shuffle : require
#endif

#include "attend.glsl"

layout(constant_id = 20) const uint HEADS = 1;
layout(constant_id = 21) const uint LANES = 16;
layout(constant_id = 22) const uint TEAMS = 1;
layout(constant_id = 23) const uint K_BLOCKS = 1; // blocks of 8 channels a lane holds
layout(local_size_x_id = 26) in; // LANES * TEAMS

vec4 query[HEADS * K_BLOCKS * 2];

#if REDUCE == 0
shared float lane_part[LANES];
#endif

uint local_index()
{
#if REDUCE > 0
    return gl_SubgroupID * gl_SubgroupSize + gl_SubgroupInvocationID;
#else
    return gl_LocalInvocationIndex;
#endif
}

// The sum over a team's lanes, given to all of them.
float team_add(float x, uint lane)
{
#if REDUCE == 2
    [[unroll]] for (uint other = LANES / 2; other > 0; other /= 2)
        x += subgroupShuffleXor(x, other);
    return x;
#elif REDUCE == 1
    return subgroupAdd(x);
#else
    lane_part[lane] = x;
    barrier();
    float all = 0;
    for (uint i = 0; i < LANES; i++)
        all += lane_part[i];
    barrier();
    return all;
#endif
}

uint block_channel(uint block, uint lane)
{
    return (block * LANES + lane) * 8;
}

// How a lane's channels of a query turn: those of half a block.
struct Turns {
    uint at; // the first channel, 0 past the head's end
    bool there;
    Turn first, second;
};

Turns turns_of(Rope rope, uint t, uint block, uint half_block, uint lane)
{
    uint c = block_channel(block, lane);
    bool there = c < HEAD_SIZE;
    uint at = there ? c + half_block * 4 : 0;
    return Turns(at, there, rope_turn2(rope, t, at), rope_turn2(rope, t, at + 2));
}

vec4 load_query4(uint row, uint head, Turns turns)
{
    uvec2 from = query_row(row, head);
    vec4 x = vec4(load2_turned(from, Q_TYPE, turns.at, turns.first),
                  load2_turned(from, Q_TYPE, turns.at + 2, turns.second));
    return turns.there ? x : vec4(0);
}

#endif
