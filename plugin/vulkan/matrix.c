/* The products of matrices that a device offers to subgroups. */
#include "internal.h"

#include <stdlib.h>

static bool is_usable(const VkCooperativeMatrixPropertiesKHR *p)
{
    return p->scope == VK_SCOPE_SUBGROUP_KHR && p->AType == VK_COMPONENT_TYPE_FLOAT16_KHR &&
           p->BType == VK_COMPONENT_TYPE_FLOAT16_KHR &&
           p->CType == VK_COMPONENT_TYPE_FLOAT32_KHR &&
           p->ResultType == VK_COMPONENT_TYPE_FLOAT32_KHR;
}

/* Sides of 16 are what most GPUs compute at full speed, of what they list. */
static uint32_t distance(const struct vk_matrix *m)
{
    return (uint32_t)abs((int)m->rows - 16) + (uint32_t)abs((int)m->columns - 16) +
           (uint32_t)abs((int)m->depth - 16);
}

static void choose(struct vk_matrix *best, const VkCooperativeMatrixPropertiesKHR *list,
                   uint32_t count, uint32_t subgroup)
{
    for (uint32_t i = 0; i < count; i++) {
        const VkCooperativeMatrixPropertiesKHR *p = &list[i];
        /* They are parts of 16 or 32 channels or keys, in whole steps of 8; lanes share rows
         * evenly. */
        bool fits = p->MSize && p->MSize % 8 == 0 && subgroup % p->MSize == 0 &&
                    (p->NSize == 8 || p->NSize == 16) && (p->KSize == 8 || p->KSize == 16);
        struct vk_matrix m = {p->MSize, p->NSize, p->KSize};
        if (is_usable(p) && fits && (!best->rows || distance(&m) < distance(best)))
            *best = m;
    }
}

void vk_matrix_query(const struct vk_calls *calls, struct vk_physical *p)
{
    PFN_vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR query =
        calls->GetPhysicalDeviceCooperativeMatrixPropertiesKHR;
    uint32_t count = 0;
    if (!query || query(p->handle, &count, NULL) != VK_SUCCESS || !count)
        return;
    const uint32_t room = count;
    VkCooperativeMatrixPropertiesKHR *list = calloc(room, sizeof *list);
    for (uint32_t i = 0; list && i < room; i++)
        list[i].sType = VK_STRUCTURE_TYPE_COOPERATIVE_MATRIX_PROPERTIES_KHR;
    if (list && query(p->handle, &count, list) >= VK_SUCCESS)
        choose(&p->caps.matrix, list, count < room ? count : room, p->caps.subgroup_size);
    free(list);
}
