#include "ranges.h"

#include <stdlib.h>
#include <string.h>

bool ranges_init(struct ranges *r, uint64_t size)
{
    *r = (struct ranges){.room = 8};
    r->list = malloc(r->room * sizeof *r->list);
    if (!r->list)
        return false;
    r->list[r->count++] = (struct range){0, size};
    return true;
}

void ranges_fini(struct ranges *r)
{
    free(r->list);
    *r = (struct ranges){0};
}

static void remove_at(struct ranges *r, uint32_t i)
{
    r->count--;
    memmove(r->list + i, r->list + i + 1, (r->count - i) * sizeof *r->list);
}

bool ranges_take(struct ranges *r, uint64_t size, uint64_t *offset)
{
    /* With n pieces out there are at most n + 1 free ranges. */
    if (r->taken + 2 > r->room) {
        uint32_t room = r->room * 2;
        struct range *list = realloc(r->list, room * sizeof *list);
        if (!list)
            return false;
        r->list = list;
        r->room = room;
    }
    uint32_t best = UINT32_MAX;
    for (uint32_t i = 0; i < r->count; i++) {
        if (r->list[i].size < size)
            continue;
        if (best == UINT32_MAX || r->list[i].size < r->list[best].size)
            best = i;
    }
    if (best == UINT32_MAX)
        return false;
    *offset = r->list[best].offset;
    r->list[best].offset += size;
    r->list[best].size -= size;
    if (!r->list[best].size)
        remove_at(r, best);
    r->taken++;
    return true;
}

void ranges_give(struct ranges *r, uint64_t offset, uint64_t size)
{
    uint32_t lo = 0, hi = r->count;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (r->list[mid].offset < offset)
            lo = mid + 1;
        else
            hi = mid;
    }
    r->taken--;
    bool left = lo > 0 && r->list[lo - 1].offset + r->list[lo - 1].size == offset;
    bool right = lo < r->count && offset + size == r->list[lo].offset;
    if (left) {
        r->list[lo - 1].size += size;
        if (right) {
            r->list[lo - 1].size += r->list[lo].size;
            remove_at(r, lo);
        }
    } else if (right) {
        r->list[lo].offset = offset;
        r->list[lo].size += size;
    } else {
        memmove(r->list + lo + 1, r->list + lo, (r->count - lo) * sizeof *r->list);
        r->list[lo] = (struct range){offset, size};
        r->count++;
    }
}
