/* Attention of single tokens. */
#include "attend.h"

#include <vulkan/vulkan_core.h>

#include "decode_add.spv.h"
#include "decode_add_choose.spv.h"
#include "decode_add_wide.spv.h"
#include "decode_add_wide_choose.spv.h"
#include "decode_block.spv.h"
#include "decode_block_choose.spv.h"
#include "decode_shared.spv.h"
#include "decode_shared_choose.spv.h"

/* [enum team_way][whether some view chooses among blocks] */
static const struct vk_shader shaders[][2] = {
    [TEAM_SHARED] = {VK_SHADER(decode_shared, struct attend_push),
                     VK_SHADER(decode_shared_choose, struct attend_push)},
    [TEAM_ADD] = {VK_SHADER_FULL(decode_add, struct attend_push),
                  VK_SHADER_FULL(decode_add_choose, struct attend_push)},
    [TEAM_ADD_WIDE] = {VK_SHADER_FULL(decode_add_wide, struct attend_push),
                       VK_SHADER_FULL(decode_add_wide_choose, struct attend_push)},
    [TEAM_SHUFFLE] = {VK_SHADER_FULL(decode_block, struct attend_push),
                      VK_SHADER_FULL(decode_block_choose, struct attend_push)},
};

enum {
    MAX_HEADS = 8,    /* query heads that share a read; more would spill registers */
    GROUP_SIZE = 128, /* invocations of a workgroup on a GPU */
    KEYS = 8,         /* keys a team has in flight */
    KEYS_SOFTWARE = 2, /* a CPU has few registers to hold them */
    LANE_FLOATS = 200 /* of queries, sums and V in flight; there is more beside them */
};

static uint32_t power_of_two(uint32_t n)
{
    uint32_t p = 1;
    while (p < n)
        p *= 2;
    return p;
}

uint32_t decode_block_bytes(const struct decode_form *form, uint32_t subgroup)
{
    uint32_t invocations = form->lanes * form->teams, round = form->keys * form->teams;
    uint32_t keys = invocations > round ? invocations : round;
    uint32_t sums = groups_of(invocations, subgroup) * form->heads;
    return keys * 20 + sums * (form->v_blocks * form->lanes * 32 + 8);
}

/* What a lane has in registers, and the workgroup in its memory, must find room there. */
static void fit(struct decode_form *form, const struct vk_caps *caps)
{
    uint32_t rows = form->heads * (form->k_blocks + form->v_blocks);
    while (form->keys > 2 && 8 * (rows + form->keys * form->v_blocks) > LANE_FLOATS)
        form->keys /= 2;
    while (decode_block_bytes(form, caps->subgroup_size) > caps->shared_bytes) {
        if (form->lanes * form->teams > caps->subgroup_size)
            form->teams /= 2;
        else if (form->heads > 1)
            form->heads = groups_of(form->heads, 2);
        else if (form->keys > 1)
            form->keys /= 2;
        else
            break;
    }
}

struct decode_form decode_form(const struct vk_caps *caps, const struct layer_shape *shape)
{
    uint32_t group = shape->query_heads / shape->kv_heads;
    uint32_t size = shape->head_size > shape->value_size ? shape->head_size : shape->value_size;
    uint32_t subgroup = caps->subgroup_size;
    struct decode_form form = {
        .heads = group < MAX_HEADS ? group : MAX_HEADS,
        .lanes = power_of_two(groups_of(size, 8)),
        .teams = 1,
        .keys = caps->software ? KEYS_SOFTWARE : KEYS,
    };
    bool wide = caps->software && caps->int64 && shape->row_bits % 8 == 0;
    uint32_t operations = caps->full_subgroups ? caps->subgroup_operations : 0;
    bool shuffle = operations & VK_SUBGROUP_FEATURE_SHUFFLE_BIT;
    if (form.lanes >= subgroup && (caps->software || !shuffle) &&
        (operations & VK_SUBGROUP_FEATURE_ARITHMETIC_BIT)) {
        form.way = wide ? TEAM_ADD_WIDE : TEAM_ADD;
        form.name = wide ? "a subgroup for each key, 64-bit loads" : "a subgroup for each key";
        form.reason = "";
        form.lanes = subgroup;
    } else if (shuffle) {
        form.way = TEAM_SHUFFLE;
        form.name = "lanes of a subgroup for each key";
        form.reason = "";
        form.lanes = form.lanes < subgroup ? form.lanes : subgroup;
        form.heads = form.heads < form.lanes ? form.heads : form.lanes;
    } else if (operations & VK_SUBGROUP_FEATURE_ARITHMETIC_BIT) {
        form.way = TEAM_ADD;
        form.name = "a subgroup for each key, some lanes idle";
        form.reason = "no subgroup shuffle";
        form.lanes = subgroup;
    } else {
        form.way = TEAM_SHARED;
        form.name = "a workgroup for each key";
        form.reason = caps->full_subgroups ? "no subgroup shuffle or arithmetic"
                                           : "no full subgroups of a known size";
    }
    if (form.way != TEAM_SHARED)
        form.teams = (caps->software ? subgroup : GROUP_SIZE) / form.lanes;
    form.k_blocks = groups_of(shape->head_size, 8 * form.lanes);
    form.v_blocks = groups_of(shape->value_size, 8 * form.lanes);
    if (form.way == TEAM_SHUFFLE)
        fit(&form, caps);
    form.subgroups = groups_of(form.lanes * form.teams, subgroup);
    return form;
}

ratp_status kernels_attend_decode(struct backend *b, struct stream *s,
                                  const struct attend_args *args, struct error *err)
{
    if (args->cls->singles.count == 0)
        return RATP_OK;
    const struct layer_shape *shape = args->shape;
    const struct vk_caps *caps = vk_device_caps(kernel_device(b));
    struct decode_form form = decode_form(caps, shape);
    bool choose = args->cls->choosers.count > 0;
    if (args->cls->heads_choose)
        form.heads = 1; /* no two share a read */
    const uint32_t invocations = form.lanes * form.teams;
    const uint32_t own[] = {form.heads,    form.lanes, form.teams,  form.k_blocks,
                            form.v_blocks, form.keys,  invocations, form.subgroups};
    struct attend_kernel k;
    attend_kernel_init(&k, args, &shaders[form.way][choose], own, sizeof own / sizeof *own);
    if (choose) {
        k.push.mask = args->plan->chosen_address;
        k.push.mask_token = args->cls->most_chosen;
    }
    uint32_t blocks = groups_of(shape->query_heads / shape->kv_heads, form.heads);
    return items_dispatch(s, &k.items, args->cls->singles, sizeof(struct gpu_tile),
                          shape->kv_heads * blocks, 1, err);
}
