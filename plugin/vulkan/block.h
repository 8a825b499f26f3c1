/* Blocks of device memory, each with one VkBuffer over all of it. */
#ifndef RATPLUS_VULKAN_BLOCK_H
#define RATPLUS_VULKAN_BLOCK_H

#include "internal.h"

enum block_owner {
    BLOCK_POOL,  /* pieces are cut from it */
    BLOCK_ALONE, /* one piece: larger than a block, or imported host memory */
    BLOCK_HOST   /* the host's VkBuffer: nothing of it is ours */
};

struct vk_block {
    struct vk_block *next;
    VkBuffer buffer;
    VkDeviceMemory memory;
    uint64_t size, address;
    void *host;
    bool cached;
    bool counted; /* against the budget */
    enum mem_kind kind;
    enum block_owner owner;
    struct ranges ranges;
};

/* A pool block, or one for a single large piece; it is in d->blocks then. With
 * d->lock held, like all of these. */
ratp_status vk_block_new(struct vk_device *d, uint64_t size, enum mem_kind kind,
                         enum block_owner owner, const char *name, struct vk_block **out,
                         struct error *err);
/* Gives a block (whose size is set) a buffer over the host's memory. */
ratp_status vk_block_import(struct vk_device *d, struct vk_block *b, void *host,
                            struct error *err);
uint64_t vk_block_address(struct vk_device *d, VkBuffer buffer);
/* A block that is in no list. */
void vk_block_free(struct vk_device *d, struct vk_block *b);

#endif
