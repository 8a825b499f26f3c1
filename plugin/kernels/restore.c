/* The memory state after a token that the cache holds. */
#include "items.h"

#include "restore.spv.h"

/* As in shaders/restore.comp. */
struct restore_push {
    uint64_t k, v, state, rope_table;
    uint32_t position;
    uint32_t padding;
};

static const struct vk_shader shader = VK_SHADER(restore, struct restore_push);

enum { GROUP_SIZE = 64 };

ratp_status kernels_restore(struct backend *b, struct stream *s, const struct restore_args *args,
                            struct error *err)
{
    (void)b;
    const struct layer_shape *shape = args->shape;
    const uint32_t constants[] = {
        shape->kv_heads,
        shape->head_size,
        (uint32_t)shape->k_dtype,
        (uint32_t)shape->v_dtype,
        (uint32_t)shape->rope_style,
        shape->rope_size,
        groups_of(shape->max_tokens, ROPE_FINE),
        shape->k_head,
        shape->v_head,
    };
    const struct restore_push push = {
        .k = args->k,
        .v = args->v,
        .state = args->state,
        .rope_table = shape->rope_table,
        .position = args->position,
    };
    if (shape->head_size != shape->value_size)
        return fail(err, RATP_INTERNAL, "memory with head_size %u and value_size %u",
                    shape->head_size, shape->value_size);
    return vk_dispatch(kernel_stream(s), &shader, constants, sizeof constants / sizeof *constants,
                       &push, sizeof push,
                       groups_of(shape->kv_heads * shape->head_size / 2, GROUP_SIZE), 1, 1, err);
}
