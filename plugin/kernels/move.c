/* Slots of old rings to new ones. */
#include "../dtype.h"
#include "memory.h"

#include "move.spv.h"

static const struct vk_shader shader = VK_SHADER(move, struct memory_push);

/* Workgroups that share a move's positions. */
enum { SLICES = 32 };

ratp_status kernels_move(struct backend *b, struct stream *s, const struct memory_args *args,
                         struct error *err)
{
    const struct layer_shape *shape = args->shape;
    uint32_t words = (uint32_t)(shape->head_size * dtype_size(shape->k_dtype) +
                                shape->value_size * dtype_size(shape->v_dtype)) /
                     4;
    struct memory_form form = memory_form(vk_device_caps(kernel_device(b)), shape);
    struct memory_kernel k;
    memory_kernel_init(&k, args, &shader, &form);
    return items_dispatch(s, &k.items, args->cls->moves, sizeof(struct gpu_move),
                          groups_of(shape->kv_heads * words, form.group_size), SLICES, err);
}
