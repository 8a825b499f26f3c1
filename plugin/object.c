#include "object.h"

#include <string.h>

static uint32_t read_kind(const void *handle)
{
    uint32_t kind = OBJECT_DEAD;
    if (handle)
        memcpy(&kind, handle, sizeof kind); /* a wrong pointer may be misaligned */
    return kind;
}

void object_init(struct object *o, enum object_kind kind)
{
    o->kind = kind;
    atomic_init(&o->children, 0);
    lock_init(&o->lock);
    o->error.text[0] = '\0';
}

void object_fini(struct object *o)
{
    o->kind = OBJECT_DEAD;
    lock_fini(&o->lock);
}

static const char *object_name(enum object_kind kind)
{
    switch (kind) {
    case OBJECT_INSTANCE: return "instance";
    case OBJECT_DEVICE: return "device";
    case OBJECT_BUFFER: return "buffer";
    case OBJECT_POLICY: return "policy";
    case OBJECT_CACHE: return "cache";
    case OBJECT_SEQ: return "sequence";
    case OBJECT_STEP: return "step";
    case OBJECT_DEAD: break;
    }
    return "no object";
}

bool object_is(const void *handle, enum object_kind kind)
{
    return kind != OBJECT_DEAD && read_kind(handle) == (uint32_t)kind;
}

bool object_any(const void *handle)
{
    uint32_t kind = read_kind(handle);
    return kind >= OBJECT_INSTANCE && kind <= OBJECT_STEP;
}

ratp_status object_check(const void *handle, enum object_kind kind, const char *what,
                         struct error *err)
{
    if (object_is(handle, kind))
        return RATP_OK;
    if (!handle)
        return fail(err, RATP_INVALID_ARGUMENT, "%s is NULL, wanted: %s", what,
                    object_name(kind));
    if (object_any(handle))
        return fail(err, RATP_INVALID_ARGUMENT, "%s is the handle of a different kind: %s, "
                    "wanted: %s", what, object_name((enum object_kind)read_kind(handle)),
                    object_name(kind));
    return fail(err, RATP_INVALID_ARGUMENT,
                "%s is not a handle of this library, or it was destroyed", what);
}

ratp_status object_childless(struct object *o, const char *children, struct error *err)
{
    uint32_t count = atomic_load(&o->children);
    if (count == 0)
        return RATP_OK;
    return fail(err, RATP_WRONG_STATE, "the %s still has %u %s; destroy them first",
                object_name((enum object_kind)o->kind), count, children);
}

ratp_status object_fail(struct object *o, ratp_status status, const struct error *err)
{
    lock_take(&o->lock);
    o->error = *err;
    lock_give(&o->lock);
    return status;
}

size_t object_message(struct object *o, char *text, size_t size)
{
    lock_take(&o->lock);
    size_t length = strlen(o->error.text);
    if (text && size > 0) {
        size_t copied = length < size - 1 ? length : size - 1;
        memcpy(text, o->error.text, copied);
        text[copied] = '\0';
    }
    lock_give(&o->lock);
    return length;
}
