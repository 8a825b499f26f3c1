/* What the kernels that fill the cache are dispatched with. */
#ifndef RATPLUS_KERNELS_MEMORY_H
#define RATPLUS_KERNELS_MEMORY_H

#include "items.h"

enum { MEMORY_CONSTANTS = 20 };

/* As in shaders/include/memory.glsl. */
struct memory_push {
    uint64_t plan;
    uint32_t pages, views, items;
    uint32_t page_slots;
    uint64_t k, v, f, carry, rope_table, raw;
    uint32_t k_token, k_head, v_token, v_head, f_token, f_head;
    uint32_t slab, state_offset;
};

struct memory_kernel {
    struct items_kernel items;
    uint32_t constants[MEMORY_CONSTANTS];
    struct memory_push push;
};

/* How the memory kernels cut their work on a device. */
struct memory_form {
    uint32_t heads;      /* key/value heads of an invocation */
    uint32_t span;       /* quads of each */
    uint32_t group_size; /* invocations of a workgroup */
    uint32_t groups;     /* workgroups of a chunk */
    bool software;
};

struct memory_form memory_form(const struct vk_caps *caps, const struct layer_shape *shape);

/* `own` is the kernel's own constant. `k` points into itself afterwards: it
 * must not be copied. */
void memory_kernel_init(struct memory_kernel *k, const struct memory_args *args,
                        const struct vk_shader *shader, const struct memory_form *form,
                        uint32_t own);

/* Puts the raw rows where the views want them; after a barrier. */
ratp_status memory_quantize(struct backend *b, struct stream *s, const struct memory_args *args,
                            struct error *err);

/* Copies to the rings what they keep of the views' lines; after a barrier. */
ratp_status memory_fill_rings(struct stream *s, const struct memory_args *args,
                              const struct memory_form *form, struct error *err);

#endif
