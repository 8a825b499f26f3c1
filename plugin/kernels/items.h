/* Dispatches over the items of a plan's list: one row of workgroups each. */
#ifndef RATPLUS_ITEMS_H
#define RATPLUS_ITEMS_H

#include "../plan/plan.h"
#include "kernels.h"

/* What a kernel is dispatched with. `items` points into `push`, at the offset
 * of the list's first item: long lists take several dispatches. */
struct items_kernel {
    const struct vk_shader *shader;
    const uint32_t *constants;
    uint32_t constant_count;
    void *push;
    uint32_t push_size;
    uint32_t *items;
};

/* x by z workgroups for every item of `list`; an item has `item_size` bytes
 * and is number gl_WorkGroupID.y from `items` on. */
ratp_status items_dispatch(struct stream *s, const struct items_kernel *kernel,
                           struct plan_list list, uint32_t item_size, uint32_t x, uint32_t z,
                           struct error *err);

static inline uint32_t groups_of(uint32_t invocations, uint32_t group_size)
{
    return (invocations + group_size - 1) / group_size;
}

#endif
