/* What every handle begins with: a tag, so that a wrong pointer is answered
 * with a status, and the message of the last failed call. */
#ifndef RATPLUS_OBJECT_H
#define RATPLUS_OBJECT_H

#include "error.h"
#include "lock.h"

#include <stdatomic.h>
#include <stdbool.h>

enum object_kind {
    OBJECT_DEAD = 0, /* a destroyed object */
    OBJECT_INSTANCE = 0x52410001,
    OBJECT_DEVICE,
    OBJECT_BUFFER,
    OBJECT_POLICY,
    OBJECT_CACHE,
    OBJECT_SEQ,
    OBJECT_STEP
};

struct object {
    uint32_t kind; /* enum object_kind */
    atomic_uint children; /* objects that must be destroyed first */
    struct lock lock; /* of `error` */
    struct error error;
};

void object_init(struct object *o, enum object_kind kind);
void object_fini(struct object *o); /* marks it dead */
/* Whether `handle` is an object of that kind; any non-NULL pointer to 4
 * readable bytes will do. */
bool object_is(const void *handle, enum object_kind kind);
/* Whether `handle` is an object of any kind. */
bool object_any(const void *handle);
/* The same as object_is, with a message that names the argument `what`. */
ratp_status object_check(const void *handle, enum object_kind kind, const char *what,
                         struct error *err);
/* RATP_WRONG_STATE while there are children; `children` names them: "caches or buffers". */
ratp_status object_childless(struct object *o, const char *children, struct error *err);
/* Stores the message and returns `status`. */
ratp_status object_fail(struct object *o, ratp_status status, const struct error *err);
/* Copies the message, cut to `size`; returns its full length. */
size_t object_message(struct object *o, char *text, size_t size);

#endif
