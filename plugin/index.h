/* An index by hash, for finding equal ones among many without comparing all: numbers of
 * things that lie in an array of their own. */
#ifndef RATPLUS_INDEX_H
#define RATPLUS_INDEX_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { INDEX_NONE = UINT32_MAX };

struct index {
    uint32_t *slot; /* [mask + 1], at least half of them without a number */
    uint32_t mask;
};

/* For at most that many numbers. False without memory. To be freed: slot. */
static inline bool index_open(struct index *index, uint32_t most)
{
    uint64_t slots = 4;
    while (slots < 2 * (uint64_t)most)
        slots *= 2;
    index->mask = (uint32_t)(slots - 1);
    index->slot = malloc((size_t)slots * sizeof *index->slot);
    if (index->slot)
        memset(index->slot, 0xff, (size_t)slots * sizeof *index->slot);
    return index->slot != NULL;
}

/* The slots in which a thing of that hash may be, from the first on, up to one with
 * INDEX_NONE: there it belongs if it was not found. */
static inline uint32_t *index_first(const struct index *index, uint64_t hash)
{
    return &index->slot[(hash ^ hash >> 32) & index->mask];
}

static inline uint32_t *index_next(const struct index *index, uint32_t *slot)
{
    return &index->slot[(uint32_t)(slot - index->slot + 1) & index->mask];
}

/* A hash of what was hashed before and one number more. */
static inline uint64_t hash_add(uint64_t hash, uint64_t number)
{
    hash = hash * 0x9e3779b97f4a7c15u + number + 1;
    hash = (hash ^ hash >> 30) * 0xbf58476d1ce4e5b9u;
    return hash ^ hash >> 31;
}

#endif
