/* Blocks of keys: what is known of them, and which of them queries attend. */
#include "attend.h"
#include "memory.h"

#include "choose.spv.h"
#include "score.spv.h"
#include "summarise.spv.h"

static const struct vk_shader summarise_shader = VK_SHADER(summarise, struct memory_push);
static const struct vk_shader score_shader = VK_SHADER(score, struct attend_push);
static const struct vk_shader choose_shader = VK_SHADER(choose, struct attend_push);

enum {
    MAX_HEADS = 8,    /* query heads that share what is read of a block */
    GROUP_BLOCKS = 64, /* of a workgroup, as in score.comp */
    MAX_GROUPS = 65535,
    MAX_SLICES = 64   /* workgroups that share an item's entries */
};

ratp_status kernels_summarise(struct backend *b, struct stream *s, const struct memory_args *args,
                              struct error *err)
{
    struct memory_form form = memory_form(vk_device_caps(kernel_device(b)), args->shape);
    uint32_t pairs = args->shape->kv_heads * args->shape->head_size / 2;
    struct memory_kernel k;
    memory_kernel_init(&k, args, &summarise_shader, &form, 0);
    return items_dispatch(s, &k.items, args->cls->summaries, sizeof(struct gpu_summary),
                          groups_of(pairs, form.group_size), MAX_SLICES, err);
}

/* Scores, then lists, for the choosers of one batch: `list` is part of the class's,
 * and `first` the number of its first. */
static ratp_status choose_batch(struct stream *s, const struct attend_args *args,
                                struct plan_list list, uint32_t first, struct error *err)
{
    const struct layer_shape *shape = args->shape;
    const struct plan_class *cls = args->cls;
    uint32_t group = shape->query_heads / shape->kv_heads;
    uint32_t heads = group < MAX_HEADS ? group : MAX_HEADS;
    const uint32_t score_own[] = {heads, cls->most_blocks};
    const uint32_t choose_own[] = {cls->most_blocks, cls->most_chosen};
    uint64_t lists = (uint64_t)first * shape->query_heads * cls->most_chosen * sizeof(uint32_t);
    struct attend_kernel score, choose;
    attend_kernel_init(&score, args, &score_shader, score_own, 2);
    attend_kernel_init(&choose, args, &choose_shader, choose_own, 2);
    score.push.partial = choose.push.partial = args->plan->score_address;
    choose.push.mask = args->plan->chosen_address + lists;
    ratp_status status = items_dispatch(s, &score.items, list, sizeof(struct gpu_chooser),
                                        shape->kv_heads * groups_of(group, heads),
                                        groups_of(cls->most_blocks, GROUP_BLOCKS), err);
    if (status)
        return status;
    vk_barrier(kernel_stream(s));
    return items_dispatch(s, &choose.items, list, sizeof(struct gpu_chooser), shape->query_heads, 1,
                          err);
}

ratp_status kernels_choose(struct backend *b, struct stream *s, const struct attend_args *args,
                           struct error *err)
{
    (void)b;
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
        status = choose_batch(s, args, list, first, err);
    }
    return status;
}
