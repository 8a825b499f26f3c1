/* Blocks of keys: what is known of them, and which of them queries attend. */
#include "attend.h"
#include "memory.h"

#include <vulkan/vulkan_core.h>

#include "choose.spv.h"
#include "choose_subgroups.spv.h"
#include "choose_wide.spv.h"
#include "score_add.spv.h"
#include "score_add_wide.spv.h"
#include "score_shared.spv.h"
#include "score_shuffle.spv.h"
#include "summarise.spv.h"

static const struct vk_shader summarise_shader = VK_SHADER(summarise, struct memory_push);
/* [enum team_way] */
static const struct vk_shader score_shaders[] = {
    [TEAM_SHARED] = VK_SHADER(score_shared, struct attend_push),
    [TEAM_ADD] = VK_SHADER_FULL(score_add, struct attend_push),
    [TEAM_ADD_WIDE] = VK_SHADER_FULL(score_add_wide, struct attend_push),
    [TEAM_SHUFFLE] = VK_SHADER_FULL(score_shuffle, struct attend_push),
};
static const struct vk_shader choose_shader = VK_SHADER(choose, struct attend_push);
/* On a CPU, which loads 64 bits as fast as 32. */
static const struct vk_shader choose_wide_shader = VK_SHADER(choose_wide, struct attend_push);
static const struct vk_shader choose_subgroups_shader =
    VK_SHADER_FULL(choose_subgroups, struct attend_push);

enum {
    TEAM_BLOCKS = 16,   /* about as many blocks are worth a team ... */
    TEAM_BLOCKS_SOFTWARE = 256, /* where what a workgroup does once is dear */
    BLOCKS_IN_FLIGHT = 4, /* of a team: what lies in a page of the usual size */
    BLOCKS_IN_FLIGHT_SOFTWARE = 2,
    SCORE_ROWS = 8, /* of queries in a team's registers, where there are so many */
    CHOOSE_LANES = 64,  /* of a workgroup on a GPU ... */
    CHOOSE_LANES_MOST = 256, /* where they add up by subgroups */
    MAX_GROUPS = 65535,
    MAX_SLICES = 64     /* workgroups that share an item's entries */
};

ratp_status kernels_summarise(struct backend *b, struct stream *s, const struct memory_args *args,
                              struct error *err)
{
    struct memory_form form = memory_form(vk_device_caps(kernel_device(b)), args->shape);
    uint32_t slices = args->cls->most_entries < MAX_SLICES ? args->cls->most_entries : MAX_SLICES;
    if (slices == 0)
        return RATP_OK;
    uint32_t pairs = args->shape->kv_heads * args->shape->head_size / 2;
    struct memory_kernel k;
    memory_kernel_init(&k, args, &summarise_shader, &form, 0);
    return items_dispatch(s, &k.items, args->cls->summaries, sizeof(struct gpu_summary),
                          groups_of(pairs, form.group_size), slices, err);
}

/* Tokens that share a team's registers: in prompts those next to each other. */
static uint32_t score_tokens(const struct plan_class *cls, uint32_t token_rows)
{
    uint32_t tokens = SCORE_ROWS > token_rows ? SCORE_ROWS / token_rows : 1;
    return cls->choosers.count / tokens >= cls->views.count ? tokens : 1;
}

/* Blocks that a workgroup scores. */
static uint32_t score_blocks(const struct vk_caps *caps, const struct decode_form *form,
                             uint32_t entries, uint32_t tokens)
{
    if (!caps->software)
        return form->teams * TEAM_BLOCKS;
    /* Passes through loops: a few a block, and where its entries are several each is
     * walked past, and joined once for each block of a lane's channels. A single block
     * passes the limit only with some 20000 entries. */
    uint32_t passes = tokens * (2 + (entries > 1 ? entries * (form->k_blocks + 1) : 0));
    uint32_t blocks = LLVMPIPE_LOOPS / passes;
    blocks = blocks < TEAM_BLOCKS_SOFTWARE ? blocks : TEAM_BLOCKS_SOFTWARE;
    return form->teams * (blocks > 0 ? blocks : 1);
}

/* What the choosers of a class's views that select so, together or apart, score with. */
static ratp_status score(struct backend *b, struct stream *s, const struct attend_args *args,
                         struct plan_list choosers, uint32_t select, uint32_t together,
                         struct error *err)
{
    const struct layer_shape *shape = args->shape;
    const struct plan_class *cls = args->cls;
    const struct vk_caps *caps = vk_device_caps(kernel_device(b));
    struct decode_form form = decode_form(caps, shape);
    bool mean = select == SELECT_MEAN;
    if (together)
        form.heads = mean ? 1 : 2; /* rows: the sum, or what of it is above zero and below */
    uint32_t parts = together ? 1 : groups_of(shape->query_heads / shape->kv_heads, form.heads);
    uint32_t tokens = score_tokens(cls, form.heads), entries = cls->block_entries[select][together];
    uint32_t blocks = score_blocks(caps, &form, entries, tokens);
    const uint32_t own[] = {form.heads * tokens, form.lanes, form.teams, form.k_blocks, mean,
                            together, form.lanes * form.teams, entries == 1,
                            caps->software ? BLOCKS_IN_FLIGHT_SOFTWARE : BLOCKS_IN_FLIGHT, tokens};
    struct attend_kernel k;
    attend_kernel_init(&k, args, &score_shaders[form.way], own, sizeof own / sizeof *own);
    k.push.partial = args->plan->score_address;
    k.push.mask_head = cls->most_blocks * (uint32_t)sizeof(uint32_t);
    k.push.mask_token = choosers.count;
    choosers.count = groups_of(choosers.count, tokens);
    return items_dispatch(s, &k.items, choosers, sizeof(struct gpu_chooser),
                          shape->kv_heads * parts, groups_of(cls->most_blocks, blocks), err);
}

/* For so many blocks at most: a lane walks past eight of them or so. */
static const struct vk_shader *choose_form(const struct vk_caps *caps, uint32_t blocks,
                                           uint32_t *lanes)
{
    *lanes = caps->software ? caps->subgroup_size : CHOOSE_LANES;
    if (caps->software)
        return caps->int64 ? &choose_wide_shader : &choose_shader;
    if (!caps->full_subgroups ||
        !(caps->subgroup_operations & VK_SUBGROUP_FEATURE_ARITHMETIC_BIT))
        return &choose_shader;
    *lanes = caps->subgroup_size;
    while (*lanes < CHOOSE_LANES_MOST && *lanes * 2 <= caps->max_invocations &&
           *lanes * 8 < blocks)
        *lanes *= 2;
    return &choose_subgroups_shader;
}

/* Scores, then lists, for the choosers of one batch: `list` is part of the class's,
 * and `first` the number of its first. */
static ratp_status choose_batch(struct backend *b, struct stream *s,
                                const struct attend_args *args, struct plan_list list,
                                uint32_t first, struct error *err)
{
    const struct layer_shape *shape = args->shape;
    const struct plan_class *cls = args->cls;
    const struct vk_caps *caps = vk_device_caps(kernel_device(b));
    uint32_t lanes;
    const struct vk_shader *shader = choose_form(caps, cls->most_blocks, &lanes);
    uint64_t lists = (uint64_t)first * shape->query_heads * cls->most_chosen * sizeof(uint32_t);
    ratp_status status = RATP_OK;
    for (uint32_t select = SELECT_EXTREMES; select <= SELECT_MEAN; select++)
        for (uint32_t together = 0; together < 2 && !status; together++)
            if (cls->block_entries[select][together])
                status = score(b, s, args, list, select, together, err);
    if (status)
        return status;
    vk_barrier(kernel_stream(s));
    struct attend_kernel k;
    attend_kernel_init(&k, args, shader, &lanes, 1);
    k.push.partial = args->plan->score_address;
    k.push.mask_head = cls->most_blocks * (uint32_t)sizeof(uint32_t);
    k.push.mask = args->plan->chosen_address + lists;
    k.push.mask_token = cls->most_chosen;
    return items_dispatch(s, &k.items, list, sizeof(struct gpu_chooser), shape->query_heads, 1, err);
}

ratp_status kernels_choose(struct backend *b, struct stream *s, const struct attend_args *args,
                           struct error *err)
{
    const struct plan_class *cls = args->cls;
    uint64_t one = (uint64_t)args->shape->query_heads * cls->most_blocks * sizeof(float);
    uint64_t batch = args->plan->score_bytes / one;
    batch = batch < MAX_GROUPS ? batch : MAX_GROUPS;
    ratp_status status = RATP_OK;
    for (uint32_t first = 0; first < cls->choosers.count && !status; first += (uint32_t)batch) {
        uint32_t left = cls->choosers.count - first;
        struct plan_list list = {
            cls->choosers.offset + first * (uint32_t)sizeof(struct gpu_chooser),
            left < batch ? left : (uint32_t)batch};
        if (first)
            vk_barrier(kernel_stream(s));
        status = choose_batch(b, s, args, list, first, err);
    }
    return status;
}
