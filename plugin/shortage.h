/* What happens when a device runs short of memory. First those who keep memory for
 * later give it back: empty blocks of pages, work memory between steps, copies of
 * operands. Where that is not enough, the refusal says what was asked, what the limit
 * is, and what can be done. */
#ifndef RATPLUS_SHORTAGE_H
#define RATPLUS_SHORTAGE_H

#include "error.h"
#include "lock.h"

#include <stdatomic.h>
#include <stdbool.h>

/* Memory that somebody keeps, part of their own struct. Locks are taken in this order:
 * the list's, the owner's, the device's. So an owner asks the device for memory with
 * none of its locks held. */
struct spare {
    struct spare *next, **link;
    /* Frees what nothing uses at the moment. False: there was nothing. Called by
     * whichever thread needs memory. */
    bool (*give_back)(struct spare *spare);
    /* The owner is asking for memory itself, so it is the first to give back. */
    atomic_bool asks;
};

struct spares {
    struct lock lock;
    struct spare *first;
};

void spares_init(struct spares *spares);
void spares_fini(struct spares *spares);
void spares_add(struct spares *spares, struct spare *spare);
/* Afterwards `give_back` runs on no thread. */
void spares_remove(struct spares *spares, struct spare *spare);
/* Has one of them give back, the first who can. False: nobody had anything. It is what
 * backends call (backend_ops.on_shortage), and `spares` is a struct spares. */
bool spares_give_back(void *spares);

/* RATP_OUT_OF_MEMORY for `size` bytes of a device, where `name` says what they are for. */
ratp_status shortage_of_budget(struct error *err, const char *name, uint64_t size,
                               uint64_t budget, uint64_t allocated);
/* The most that one allocation may have is `limit`. */
ratp_status shortage_of_room(struct error *err, const char *name, uint64_t size, uint64_t limit);
/* The driver, or the system, refused; `why` is how it said so. */
ratp_status shortage_of_device(struct error *err, const char *name, uint64_t size,
                               uint64_t allocated, const char *why);

#endif
