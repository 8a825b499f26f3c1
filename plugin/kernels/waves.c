/* Attention of prompts that choose blocks: wave after wave. Rows are sorted by the block
 * that they choose; those that have one in common go over its keys together. */
#include "attend.h"

#include "bucket.spv.h"

static const struct vk_shader bucket_shader = VK_SHADER(bucket, struct attend_push);

enum { BUCKET_LANES = 128, MAX_GROUPS = 65535 };

/* One form for all waves of a class: it takes seconds to compile on a CPU. */
static struct prefill_form form_of(const struct kernel_backend *k,
                                   const struct attend_args *args)
{
    const struct layer_shape *shape = args->shape;
    double rows = 0, keys = 0, blocks = 0;
    for (uint32_t i = 0; i < args->cls->wave_count; i++) {
        const struct plan_wave *wave = &args->cls->waves[i];
        double own = (double)wave_rows(&wave->wave, shape->query_heads / shape->kv_heads);
        rows += own;
        keys += own * wave->block * shape->kv_heads;
        blocks += wave->wave.blocks;
    }
    return prefill_gathered_form(k, shape, blocks > 0 ? rows / blocks : 0, keys);
}

static ratp_status sort_rows(struct stream *s, const struct attend_args *args,
                             const struct plan_wave *wave, const struct prefill_form *form,
                             struct error *err)
{
    const uint32_t own[] = {BUCKET_LANES, form->rows};
    struct attend_kernel k;
    attend_kernel_init(&k, args, &bucket_shader, own, sizeof own / sizeof *own);
    k.push.mask = args->plan->chosen_address;
    k.push.mask_token = args->cls->most_chosen;
    k.push.partial = args->plan->wave_address;
    return items_dispatch(s, &k.items, (struct plan_list){wave->offset, 1},
                          sizeof(struct gpu_wave), args->shape->kv_heads, 1, err);
}

static ratp_status attend_chosen(struct backend *b, struct stream *s,
                                 const struct attend_args *args,
                                 const struct plan_wave *wave, const struct prefill_form *form,
                                 struct error *err)
{
    const struct layer_shape *shape = args->shape;
    uint32_t own[PREFILL_CONSTANTS];
    prefill_constants(vk_device_caps(kernel_device(b)), form, own);
    struct attend_kernel k;
    attend_kernel_init(&k, args, form->shader, own, sizeof own / sizeof *own);
    k.push.mask = args->plan->wave_address;
    k.push.items = wave->offset;
    uint32_t tiles = (uint32_t)wave_tiles(&wave->wave, shape->query_heads / shape->kv_heads,
                                          form->rows);
    uint32_t across = tiles < MAX_GROUPS ? tiles : MAX_GROUPS;
    return vk_dispatch(kernel_stream(s), k.items.shader, k.items.constants,
                       k.items.constant_count, k.items.push, k.items.push_size, shape->kv_heads,
                       across, groups_of(tiles, across), err);
}

ratp_status kernels_attend_waves(struct backend *b, struct stream *s,
                                 const struct attend_args *args, struct error *err)
{
    const struct plan_class *cls = args->cls;
    if (cls->wave_count == 0)
        return RATP_OK;
    struct prefill_form form = form_of((const struct kernel_backend *)b, args);
    ratp_status status = RATP_OK;
    for (uint32_t i = 0; i < cls->wave_count && !status; i++) {
        const struct plan_wave *wave = &cls->waves[i];
        bool chosen = wave->wave.places > 0;
        if (i > 0)
            vk_barrier(kernel_stream(s));
        if (chosen)
            status = sort_rows(s, args, wave, &form, err);
        if (!status)
            status = kernels_attend_prompt(b, s, args, wave->tiles, err);
        vk_barrier(kernel_stream(s));
        if (!status && chosen) {
            status = attend_chosen(b, s, args, wave, &form, err);
            vk_barrier(kernel_stream(s));
        }
        if (!status)
            status = kernels_gather(b, s, args, wave->gathers, err);
    }
    return status;
}
