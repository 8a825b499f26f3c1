/* Free space in a block of memory: offsets and sizes only. */
#ifndef RATPLUS_RANGES_H
#define RATPLUS_RANGES_H

#include <stdbool.h>
#include <stdint.h>

struct range {
    uint64_t offset, size;
};

/* Free ranges in the order of their offsets; neighbours never touch. */
struct ranges {
    struct range *list;
    uint32_t count, room;
    uint32_t taken; /* pieces that are out */
};

/* All of [0, size) is free. False: out of host memory. */
bool ranges_init(struct ranges *r, uint64_t size);
void ranges_fini(struct ranges *r);
/* The smallest range that fits. False: none does, or out of host memory. */
bool ranges_take(struct ranges *r, uint64_t size, uint64_t *offset);
/* Gives a piece back. Cannot fail: room for it was made when it was taken. */
void ranges_give(struct ranges *r, uint64_t offset, uint64_t size);

#endif
