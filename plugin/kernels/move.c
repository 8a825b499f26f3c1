/* Slots of old rings and of new tokens to rings. */
#include "../dtype.h"
#include "memory.h"

#include "move.spv.h"

static const struct vk_shader shader = VK_SHADER(move, struct memory_push);

enum {
    UNIT = 8,   /* bytes of a slot that an invocation copies, as in shaders/move.comp */
    SLICES = 32 /* workgroups that share an item's positions */
};

static ratp_status copy_slots(struct stream *s, const struct memory_args *args,
                              const struct memory_form *form, bool from_line,
                              struct plan_list list, uint32_t item_size, struct error *err)
{
    const struct layer_shape *shape = args->shape;
    uint32_t units = (uint32_t)(dtype_row_bytes(shape->k_dtype, shape->head_size) +
                                dtype_row_bytes(shape->v_dtype, shape->value_size)) /
                     UNIT;
    struct memory_kernel k;
    memory_kernel_init(&k, args, &shader, form, from_line);
    return items_dispatch(s, &k.items, list, item_size,
                          groups_of(shape->kv_heads * units, form->group_size), SLICES, err);
}

ratp_status kernels_move(struct backend *b, struct stream *s, const struct memory_args *args,
                         struct error *err)
{
    struct memory_form form = memory_form(vk_device_caps(kernel_device(b)), args->shape);
    return copy_slots(s, args, &form, false, args->cls->moves, sizeof(struct gpu_move), err);
}

ratp_status memory_fill_rings(struct stream *s, const struct memory_args *args,
                              const struct memory_form *form, struct error *err)
{
    return copy_slots(s, args, form, true, args->cls->views, sizeof(struct gpu_view), err);
}
