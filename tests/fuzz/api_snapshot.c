/* Sequences saved, and loaded into the same cache or another. */
#include "api_calls.h"
#include "folder.h"

static char folder[FOLDER_ROOM], path[FOLDER_ROOM + 8];

void snapshot_start(void)
{
    folder_make(folder);
    snprintf(path, sizeof path, "%s/seq", folder);
}

void snapshot_end(void)
{
    unlink(path);
    REQUIRE(rmdir(folder) == 0); /* nothing else was left there */
}

static const char *path_of(struct world *w)
{
    static const char *const wrong[] = {NULL, "", "/", "/dev/null/none"};
    return fault(w) ? wrong[take(w, 0, sizeof wrong / sizeof *wrong - 1)] : path;
}

/* In memory of its exact size; NULL when a call was refused. */
static uint8_t *save(struct world *w, const struct slot *slot, uint64_t *size)
{
    uint64_t needed = 0;
    ratp_seq *seq = handle_of(w, slot);
    if (called(w, "seq_save", ratp->seq_save(seq, NULL, 0, fault(w) ? NULL : &needed), seq))
        return NULL;
    uint8_t *data = allocate(w, needed);
    *size = fault(w) ? take(w, 0, (uint32_t)needed - 1) : needed;
    uint8_t *to = fault(w) ? NULL : data;
    /* NULL and 0 is a right call, but writes nothing. */
    bool written = to || *size;
    return !called(w, "seq_save", ratp->seq_save(seq, to, *size, &needed), seq) && written ? data
                                                                                          : NULL;
}

static bool save_file(struct world *w, const struct slot *slot)
{
    const char *to = path_of(w);
    ratp_seq *seq = handle_of(w, slot);
    return !called(w, "seq_save_file", ratp->seq_save_file(seq, to), seq);
}

/* A bit that is wrong, or bytes that are missing. */
static bool damage(struct world *w, uint8_t *data, uint64_t *size)
{
    if (!fault(w))
        return false;
    uint32_t at = take(w, 0, (uint32_t)*size - 1);
    if (chance(w, 50))
        *size = at;
    else
        data[at] ^= (uint8_t)(1 << take(w, 0, 7));
    return true;
}

void call_snapshot(struct world *w)
{
    struct slot *from = any_slot(w, SEQ), *slot = free_slot(w, SEQ);
    if (!from)
        return;
    struct slot *cache = chance(w, 30) ? any_slot(w, CACHE) : from->parent;
    bool file = chance(w, 30), damaged = false;
    uint8_t *data = NULL;
    uint64_t size = 0;
    w->may = from->step ? 1u << RATP_WRONG_STATE : 0;
    if (file ? !save_file(w, from) : !(data = save(w, from, &size)))
        return;
    w->may = cache != from->parent ? 1u << RATP_INVALID_ARGUMENT : 0;
    w->may |= cache->limited ? 1u << RATP_OUT_OF_MEMORY | 1u << RATP_CACHE_FULL : 0;
    if (!slot)
        return;
    if (!file)
        damaged = damage(w, data, &size);
    const char *at = path_of(w);
    ratp_cache *first = handle_of(w, cache);
    ratp_seq *seq = (ratp_seq *)w, **out = fault(w) ? NULL : &seq;
    data = fault(w) ? NULL : data;
    ratp_status status =
        file ? called(w, "seq_load_file", ratp->seq_load_file(first, at, out), first)
             : called(w, "seq_load", ratp->seq_load(first, data, size, out), first);
    REQUIRE(!damaged || status);
    REQUIRE(!status || !out || !seq);
    if (!status)
        *slot = (struct slot){.handle = seq, .parent = cache, .length = from->length,
                              .max_tokens = cache->geometry.max_tokens};
}
