/* A causal row is +0 for the keys that are seen, then -inf to its end: llama.cpp pads
 * keys to 256. Rows are compared with themselves, one element on. */
#include "mask.h"

#include <string.h>

enum { SEEN = 0x0000, HIDDEN = 0xfc00 };

/* All elements of `row` from `from` up to `to` are `value`. */
static bool is_all(const uint16_t *row, int64_t from, int64_t to, uint16_t value)
{
    return from == to || (row[from] == value &&
                          memcmp(row + from, row + from + 1,
                                 (size_t)(to - from - 1) * sizeof *row) == 0);
}

static bool is_causal(const uint16_t *row, int64_t keys, int64_t seen)
{
    return seen > 0 && seen <= keys && is_all(row, 0, seen, SEEN) &&
           is_all(row, seen, keys, HIDDEN);
}

/* How many keys a causal row sees; some number for other rows. */
static int64_t count_seen(const uint16_t *row, int64_t keys)
{
    int64_t seen = 0, end = keys;
    while (seen < end) {
        int64_t middle = seen + (end - seen) / 2;
        if (row[middle] == SEEN)
            seen = middle + 1;
        else
            end = middle;
    }
    return seen;
}

/* Why a row is not what is_causal wants. */
static enum fallback reason_of(const uint16_t *row, int64_t keys)
{
    bool gap = false, behind = false;
    for (int64_t i = 0; i < keys; i++) {
        if (row[i] != SEEN && row[i] != HIDDEN)
            return FALLBACK_MASK_VALUES;
        behind |= gap && row[i] == SEEN;
        gap |= row[i] == HIDDEN;
    }
    return behind || row[0] == HIDDEN ? FALLBACK_MASK_GAPS : FALLBACK_MASK_STEPS;
}

static const uint16_t *row_of(const unsigned char *rows, const struct ggml_tensor *mask,
                              int64_t query)
{
    return (const uint16_t *)(const void *)(rows + (size_t)query * mask->nb[1]);
}

static struct mask_plane read_rows(const unsigned char *rows, const struct ggml_tensor *mask,
                                   int64_t queries)
{
    const int64_t keys = mask->ne[0];
    const int64_t seen = count_seen(row_of(rows, mask, 0), keys);
    for (int64_t i = 0; i < queries; i++)
        if (!is_causal(row_of(rows, mask, i), keys, seen + i))
            return (struct mask_plane){.why = reason_of(row_of(rows, mask, i), keys)};
    return (struct mask_plane){FALLBACK_NONE, (uint32_t)(seen - 1)};
}

struct mask_plane mask_read(struct mask_memory *memory, const struct ggml_tensor *mask,
                            int64_t queries, int64_t sequence)
{
    if (!mask)
        return (struct mask_plane){.why = FALLBACK_NO_MASK};
    if (mask->ne[2] > 1)
        return (struct mask_plane){.why = FALLBACK_MASK_HEADS};
    const int64_t keys = mask->ne[0];
    const size_t plane = mask->ne[3] > 1 ? (size_t)sequence : 0;
    const unsigned char *rows = (const unsigned char *)mask->data + plane * mask->nb[3];
    for (uint32_t i = 0; i < memory->count; i++) {
        const struct mask_plane *found = &memory->known[i].found;
        if (memory->known[i].rows != rows || memory->known[i].keys != keys ||
            memory->known[i].queries != queries)
            continue;
        /* The ends are looked at again, in case that a host reuses the place within a pass. */
        if (found->why || (is_causal(row_of(rows, mask, 0), keys, found->first + 1) &&
                           is_causal(row_of(rows, mask, queries - 1), keys,
                                     found->first + queries)))
            return *found;
    }
    const struct mask_plane found = read_rows(rows, mask, queries);
    if (memory->count < MASK_PLANES) {
        memory->known[memory->count].rows = rows;
        memory->known[memory->count].keys = keys;
        memory->known[memory->count].queries = queries;
        memory->known[memory->count++].found = found;
    }
    return found;
}
