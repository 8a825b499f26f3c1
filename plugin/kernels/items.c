#include "items.h"

/* Vulkan promises this many workgroups a dimension. */
enum { MAX_GROUPS = 65535 };

ratp_status items_dispatch(struct stream *s, const struct items_kernel *kernel,
                           struct plan_list list, uint32_t item_size, uint32_t x, uint32_t z,
                           struct error *err)
{
    for (uint32_t first = 0; first < list.count; first += MAX_GROUPS) {
        uint32_t left = list.count - first;
        *kernel->items = list.offset + first * item_size;
        ratp_status status =
            vk_dispatch(kernel_stream(s), kernel->shader, kernel->constants,
                        kernel->constant_count, kernel->push, kernel->push_size, x,
                        left < MAX_GROUPS ? left : MAX_GROUPS, z, err);
        if (status)
            return status;
    }
    return RATP_OK;
}
