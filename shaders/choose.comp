// The best blocks of a query by their scores, in the order of their numbers, and the
// query's own behind them. A workgroup takes a query head of a chooser.
#version 450
#extension GL_GOOGLE_include_directive : require

#include "attend.glsl"
#include "best.glsl"

layout(constant_id = 20) const uint STRIDE = 1; // blocks of a row of scores
layout(constant_id = 21) const uint ROOM = 1;   // blocks of a list

uvec2 list; // the first of `lists`, which are the same
uint lists;

void take(uint at, uint block)
{
    for (uint i = 0; i < lists; i++)
        Words(plus(list, (i * ROOM + at) * 4)).at[0] = block;
}

void main()
{
    Chooser chooser = Choosers(plus(push.plan, push.items)).at[gl_WorkGroupID.y];
    View view = load_view(chooser.view);
    uint head = gl_WorkGroupID.x;
    bool together = view.by_group != 0;
    if (together && head % GROUP != 0)
        return;
    uint t = view.pos0 + chooser.token;
    uint candidates = blocks_at(view, t) - 1, want = min(chosen_at(view, t), ROOM) - 1;
    lists = together ? GROUP : 1;
    list = plus(push.mask, gl_WorkGroupID.y * QUERY_HEADS + head, ROOM * 4);
    uvec2 scores = plus(push.partial, gl_WorkGroupID.y * QUERY_HEADS + head, STRIDE * 4);
    take_best(Rows(scores, lists, STRIDE), candidates, want);
    if (gl_LocalInvocationIndex == 0)
        take(want, candidates);
}
