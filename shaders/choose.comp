// The best blocks of a query by their scores, in the order of their numbers, and the
// query's own behind them. A workgroup takes a query head of a chooser.
#version 450
#extension GL_GOOGLE_include_directive : require

#define LANES_ID 20
#define ORDERED
#include "attend.glsl"
#include "best.glsl"

uvec2 list; // the first of `lists`, which are the same
uint lists;

void take(uint at, uint block)
{
    for (uint l = 0; l < lists; l++)
        Words(plus(list, (l * push.mask_token + at) * 4)).at[0] = block;
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
    uint candidates = blocks_at(view, t) - 1, want = min(chosen_at(view, t), push.mask_token) - 1;
    uint row = gl_WorkGroupID.y * QUERY_HEADS + head;
    lists = together ? GROUP : 1;
    list = plus(push.mask, row, push.mask_token * 4);
    take_best(plus(push.partial, row, push.mask_head), candidates, want);
    if (lane_number() == 0)
        take(want, candidates);
}
