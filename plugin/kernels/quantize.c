/* New rows into a cache of 8-bit blocks. */
#include "memory.h"

#include "quantize.spv.h"

static const struct vk_shader shader = VK_SHADER(quantize, struct memory_push);

enum {
    UNIT = 64, /* channels of an invocation, as in shaders/quantize.comp */
    /* Tokens of an invocation at most: its loops must stay below what lavapipe
     * allows. No chunk is longer than the product. */
    TOKENS = 64,
    MOST_SLICES = 512
};

ratp_status memory_quantize(struct backend *b, struct stream *s, const struct memory_args *args,
                            struct error *err)
{
    const struct layer_shape *shape = args->shape;
    const struct plan *plan = args->plan;
    if (plan->chunks.count == 0)
        return RATP_OK;
    struct memory_form form = memory_form(vk_device_caps(kernel_device(b)), shape);
    uint32_t units = groups_of(shape->head_size, UNIT) + groups_of(shape->value_size, UNIT);
    uint32_t longest = plan->rows - (plan->chunks.count - 1); /* where all others have one row */
    uint32_t slices = groups_of(longest, TOKENS);
    struct memory_kernel k;
    memory_kernel_init(&k, args, &shader, &form, 0);
    return items_dispatch(s, &k.items, plan->chunks, sizeof(struct gpu_chunk),
                          groups_of(shape->kv_heads * units, form.group_size),
                          slices < MOST_SLICES ? slices : MOST_SLICES, err);
}
