#include "shortage.h"

#include <inttypes.h>

void spares_init(struct spares *spares)
{
    lock_init(&spares->lock);
    spares->first = NULL;
}

void spares_fini(struct spares *spares)
{
    lock_fini(&spares->lock);
}

void spares_add(struct spares *spares, struct spare *spare)
{
    lock_take(&spares->lock);
    spare->next = spares->first;
    spare->link = &spares->first;
    if (spare->next)
        spare->next->link = &spare->next;
    spares->first = spare;
    lock_give(&spares->lock);
}

void spares_remove(struct spares *spares, struct spare *spare)
{
    lock_take(&spares->lock);
    *spare->link = spare->next;
    if (spare->next)
        spare->next->link = spare->link;
    lock_give(&spares->lock);
}

static bool give_back(struct spares *spares, bool asks)
{
    for (struct spare *spare = spares->first; spare; spare = spare->next)
        if (atomic_load(&spare->asks) == asks && spare->give_back(spare))
            return true;
    return false;
}

bool spares_give_back(void *user)
{
    struct spares *spares = user;
    lock_take(&spares->lock);
    bool any = give_back(spares, true) || give_back(spares, false);
    lock_give(&spares->lock);
    return any;
}

ratp_status shortage_of_budget(struct error *err, const char *name, uint64_t size,
                               uint64_t budget, uint64_t allocated)
{
    return fail(err, RATP_OUT_OF_MEMORY,
                "memory for %s: %" PRIu64 " bytes are needed, the device's memory_budget is %" PRIu64
                " and %" PRIu64 " of it are allocated; free buffers, sequences or caches, or open "
                "the device with a larger budget",
                name, size, budget, allocated);
}

ratp_status shortage_of_room(struct error *err, const char *name, uint64_t size, uint64_t limit)
{
    return fail(err, RATP_OUT_OF_MEMORY,
                "memory for %s: %" PRIu64 " bytes are needed in one piece, the device's "
                "max_allocation is %" PRIu64 "; ask for less at a time",
                name, size, limit);
}

ratp_status shortage_of_device(struct error *err, const char *name, uint64_t size,
                               uint64_t allocated, const char *why)
{
    return fail(err, RATP_OUT_OF_MEMORY,
                "memory for %s: %" PRIu64 " bytes are needed, and the device has no more (%s); "
                "%" PRIu64 " bytes are allocated through this library; free buffers, sequences or "
                "caches, or what other programs hold, or ask for less",
                name, size, why, allocated);
}
