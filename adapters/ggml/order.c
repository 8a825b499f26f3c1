#include "order.h"
#include "adapter.h"

#include "summaries.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* A sequence's cells in a cache: those before `ordered` are in order. */
struct stream {
    size_t begin; /* bytes in the cache */
    size_t cell;  /* bytes of a cell */
    uint32_t ordered;
    struct sequence_end end;
};

/* The keys of one layer. */
struct cache {
    const unsigned char *data;
    size_t size;
    /* Tokens of the largest pass that the host has planned, and the sequences among which it
     * shared them out: it rounds their number up to a multiple. */
    uint64_t most_tokens, most_sequences;
    uint64_t passes;
    struct stream *streams;
    size_t stream_count;
    size_t *written; /* bytes in the cache, of rows that no node has attended yet */
    size_t written_count;
};

/* Cells that were in order when the host read them. */
struct saved {
    uint64_t hash;
    size_t size;
    struct sequence_end end; /* known if they were all of the sequence */
};

enum { SAVED = 8192 };

static struct {
    pthread_mutex_t lock;
    struct cache *caches;
    size_t count;
    struct saved saved[SAVED]; /* the newest, over the oldest */
    size_t saved_next;
} table = {.lock = PTHREAD_MUTEX_INITIALIZER};

int order_layer(const struct ggml_tensor *tensor)
{
    static const char prefix[] = "cache_k_l";
    const char *name = tensor_root(tensor)->name;
    char *end = NULL;
    if (strncmp(name, prefix, sizeof prefix - 1) != 0)
        return -1;
    name += sizeof prefix - 1;
    long layer = strtol(name, &end, 10);
    return end > name && *end == '\0' && layer >= 0 && layer <= UINT16_MAX ? (int)layer : -1;
}

static size_t place_in(const struct cache *c, const void *data)
{
    return (size_t)((const unsigned char *)data - c->data);
}

static struct cache *find_cache(const void *data)
{
    for (size_t i = 0; i < table.count; i++)
        if (table.caches[i].data == data)
            return &table.caches[i];
    return NULL;
}

/* NULL without memory: then nothing of that cache is known to be in order. */
static struct cache *add_cache(const struct ggml_tensor *tensor)
{
    const struct ggml_tensor *root = tensor_root(tensor);
    struct cache *c = find_cache(root->data);
    if (c)
        return c;
    struct cache *caches = realloc(table.caches, (table.count + 1) * sizeof *caches);
    if (!caches)
        return NULL;
    table.caches = caches;
    caches[table.count] = (struct cache){.data = root->data, .size = ggml_nbytes(root)};
    return &caches[table.count++];
}

/* The cache that all of these bytes lie in. */
static struct cache *holder_of(const unsigned char *data, size_t size)
{
    for (size_t i = 0; i < table.count; i++) {
        struct cache *c = &table.caches[i];
        if (data >= c->data && data < c->data + c->size && size <= c->size - place_in(c, data))
            return c;
    }
    return NULL;
}

static struct stream *find_stream(struct cache *c, size_t begin, size_t cell)
{
    for (size_t i = 0; i < c->stream_count; i++)
        if (c->streams[i].begin == begin && c->streams[i].cell == cell)
            return &c->streams[i];
    struct stream *streams = realloc(c->streams, (c->stream_count + 1) * sizeof *streams);
    if (!streams)
        return NULL;
    c->streams = streams;
    streams[c->stream_count] = (struct stream){.begin = begin, .cell = cell};
    return &streams[c->stream_count++];
}

/* From the byte `place` on nothing is in order, in the streams that hold it. */
static void cut_at(struct cache *c, size_t place)
{
    for (size_t i = 0; i < c->stream_count; i++) {
        struct stream *s = &c->streams[i];
        if (place >= s->begin && place < s->begin + s->ordered * s->cell)
            s->ordered = (uint32_t)((place - s->begin) / s->cell);
    }
}

static void drop_written(struct cache *c)
{
    for (size_t i = 0; i < c->written_count; i++)
        cut_at(c, c->written[i]);
    c->written_count = 0;
}

static void forget_streams(struct cache *c)
{
    free(c->streams);
    free(c->written);
    c->streams = NULL;
    c->written = NULL;
    c->stream_count = c->written_count = 0;
}

static size_t row_at(const struct ggml_tensor *index, size_t i)
{
    const unsigned char *at = (const unsigned char *)index->data + i * index->nb[0];
    int64_t wide = 0;
    int32_t narrow = 0;
    if (index->type == GGML_TYPE_I64) {
        memcpy(&wide, at, sizeof wide);
        return (size_t)wide;
    }
    memcpy(&narrow, at, sizeof narrow);
    return (size_t)narrow;
}

static void spoil_summaries(const struct ggml_tensor *op)
{
    const struct ggml_tensor *index = op->src[1], *root = tensor_root(op);
    if (op->ne[2] > 1 || op->ne[3] > 1)
        summaries_wrote(root->data, ggml_nbytes(root));
    else
        for (size_t i = 0; i < (size_t)index->ne[0]; i++)
            summaries_wrote((const unsigned char *)op->data + row_at(index, i) * op->nb[1],
                            op->nb[1]);
}

void order_set_rows(const struct ggml_tensor *op)
{
    const struct ggml_tensor *index = op->src[1];
    if (order_layer(op) < 0)
        return;
    spoil_summaries(op);
    pthread_mutex_lock(&table.lock);
    struct cache *c = add_cache(op);
    if (c) {
        const size_t count = (size_t)index->ne[0];
        drop_written(c);
        size_t *written = realloc(c->written, count * sizeof *written);
        c->written = written ? written : c->written;
        if (!written || op->ne[2] > 1 || op->ne[3] > 1) {
            forget_streams(c);
        } else {
            c->written_count = count;
            for (size_t i = 0; i < count; i++)
                written[i] = place_in(c, op->data) + row_at(index, i) * op->nb[1];
        }
    }
    pthread_mutex_unlock(&table.lock);
}

static struct saved fingerprint(const unsigned char *bytes, size_t size)
{
    uint64_t hash = size, word = 0;
    for (size_t i = 0; i < size; i += sizeof word) {
        memcpy(&word, bytes + i, size - i < sizeof word ? size - i : sizeof word);
        hash = (hash ^ word) * UINT64_C(0x9e3779b97f4a7c15);
        hash ^= hash >> 32;
    }
    return (struct saved){.hash = hash, .size = size};
}

static const struct saved *find_saved(const struct saved *like)
{
    for (size_t i = 0; i < SAVED; i++)
        if (table.saved[i].hash == like->hash && table.saved[i].size == like->size)
            return &table.saved[i];
    return NULL;
}

/* Remembers the cells from a sequence's first on, when they are read in order. */
static void remember(const struct cache *c, size_t place, size_t size)
{
    for (size_t i = 0; i < c->stream_count; i++) {
        const struct stream *s = &c->streams[i];
        if (place != s->begin || size == 0 || size > s->ordered * s->cell)
            continue;
        struct saved now = fingerprint(c->data + place, size);
        if (s->end.tokens == size / s->cell)
            now.end = s->end;
        if (!find_saved(&now))
            table.saved[table.saved_next++ % SAVED] = now;
    }
}

void order_host_read(const struct ggml_tensor *tensor, size_t offset, size_t size)
{
    if (order_layer(tensor) < 0)
        return;
    pthread_mutex_lock(&table.lock);
    const struct cache *c = find_cache(tensor_root(tensor)->data);
    if (c)
        remember(c, place_in(c, tensor->data) + offset, size);
    pthread_mutex_unlock(&table.lock);
}

/* The cells from a sequence's first on are again what they were when they were read. */
static void restore(struct cache *c, const struct ggml_tensor *root, size_t place, size_t size)
{
    const size_t cell = root->nb[1], stream = cell * (size_t)root->ne[1];
    if (size == 0 || size % cell != 0 || size > stream || place % stream != 0)
        return;
    const struct saved now = fingerprint(c->data + place, size);
    const struct saved *before = find_saved(&now);
    struct stream *s = before ? find_stream(c, place, cell) : NULL;
    if (s) {
        s->ordered = (uint32_t)(size / cell);
        s->end = before->end;
    }
}

/* Whole sequences that lie in the `size` bytes of `source` from `from` on were copied to the
 * byte `place` of `c`, which may be the same cache. */
static void carry(struct cache *c, size_t place, struct cache *source, size_t from, size_t size)
{
    const size_t count = source->stream_count;
    for (size_t i = 0; i < count; i++) {
        const struct stream moved = source->streams[i];
        if (moved.begin < from || moved.begin >= from + size)
            continue;
        const size_t cells = (from + size - moved.begin) / moved.cell;
        struct stream *s = find_stream(c, moved.begin - from + place, moved.cell);
        if (!s)
            continue;
        s->ordered = moved.ordered < cells ? moved.ordered : (uint32_t)cells;
        /* Of a part of a sequence nobody knows which tokens were decoded. */
        s->end = moved.end.tokens <= cells ? moved.end : (struct sequence_end){0};
    }
}

static void host_wrote(const struct ggml_tensor *tensor, size_t offset, size_t size,
                       struct cache *source, const unsigned char *from)
{
    struct cache *c = find_cache(tensor_root(tensor)->data);
    const size_t place = place_in(c, tensor->data) + offset;
    for (size_t i = 0; i < c->stream_count; i++) {
        struct stream *s = &c->streams[i];
        if (place + size <= s->begin)
            continue;
        cut_at(c, place > s->begin ? place : s->begin);
        if (place < s->begin + s->end.tokens * s->cell)
            s->end = (struct sequence_end){0};
    }
    if (source)
        carry(c, place, source, place_in(source, from), size);
    else
        restore(c, tensor_root(tensor), place, size);
}

void order_host_wrote(const struct ggml_tensor *tensor, size_t offset, size_t size,
                      const void *from)
{
    const bool keys = order_layer(tensor) >= 0;
    if (keys) {
        unsigned char *const to = (unsigned char *)tensor->data + offset;
        summaries_wrote(to, size);
        if (from)
            summaries_copied(from, to, size);
    }
    pthread_mutex_lock(&table.lock);
    /* Adding one moves the others, so it comes first. */
    const bool known = keys && add_cache(tensor);
    struct cache *source = from ? holder_of(from, size) : NULL;
    if (known)
        host_wrote(tensor, offset, size, source, from);
    else if (source)
        remember(source, place_in(source, from), size);
    pthread_mutex_unlock(&table.lock);
}

void order_planned(const struct ggml_tensor *op)
{
    const struct ggml_tensor *q = op->src[0], *k = op->src[1];
    if (order_layer(k) < 0 || !tensor_root(k)->data)
        return;
    pthread_mutex_lock(&table.lock);
    struct cache *c = add_cache(k);
    const uint64_t sequences = (uint64_t)q->ne[3], tokens = (uint64_t)q->ne[1] * sequences;
    if (c && tokens > c->most_tokens) {
        c->most_tokens = tokens;
        c->most_sequences = sequences;
    }
    pthread_mutex_unlock(&table.lock);
}

void order_host_runs(const struct ggml_tensor *op)
{
    const struct ggml_tensor *root = tensor_root(op);
    if (op != root && order_layer(op) >= 0)
        summaries_wrote(root->data, ggml_nbytes(root));
}

static void forget(const void *memory, size_t size, bool freed)
{
    const unsigned char *begin = memory;
    summaries_forget(memory, size);
    pthread_mutex_lock(&table.lock);
    for (size_t i = table.count; i-- > 0;) {
        struct cache *c = &table.caches[i];
        if (c->data < begin || c->data >= begin + size)
            continue;
        forget_streams(c);
        if (freed)
            *c = table.caches[--table.count];
    }
    pthread_mutex_unlock(&table.lock);
}

void order_cleared(const void *memory, size_t size)
{
    forget(memory, size, false);
}

void order_freed(const void *memory, size_t size)
{
    forget(memory, size, true);
}

/* The sequence's rows are those of the tokens that were written for it: they are in the
 * order of the node's queries, sequence after sequence. */
static bool wrote(const struct cache *c, const struct stream *s, size_t sequence, size_t queries,
                  uint32_t first)
{
    if (c->written_count < (sequence + 1) * queries)
        return false;
    for (size_t i = 0; i < queries; i++)
        if (c->written[sequence * queries + i] != s->begin + (first + i) * s->cell)
            return false;
    return true;
}

/* Whether the host's pass has no room for another token of each sequence. */
static bool is_full(const struct cache *c, const struct ggml_tensor *keys, int64_t queries)
{
    const uint64_t sequences = (uint64_t)keys->ne[3];
    return ((uint64_t)queries + 1) * sequences + c->most_sequences > c->most_tokens;
}

static bool is_in_order(struct cache *c, struct stream *s, const struct order_pass *pass)
{
    const size_t count = (size_t)pass->queries, from = (size_t)pass->sequence * count;
    const uint32_t end = pass->first + (uint32_t)count;
    if (pass->causal && s->ordered >= pass->first &&
        wrote(c, s, (size_t)pass->sequence, count, pass->first)) {
        s->ordered = end;
        return true;
    }
    for (size_t i = from; i < from + count && i < c->written_count; i++)
        cut_at(c, c->written[i]);
    return pass->causal && s->ordered >= end;
}

struct order_found order_follow(const struct ggml_tensor *keys, const struct order_pass *pass)
{
    struct sequence_end unknown = {0};
    struct part_pass part = {
        .sequences = (uint32_t)keys->ne[3],
        .tokens = (uint32_t)pass->queries,
        .causal = pass->causal,
        .first = pass->first,
    };
    struct order_found found = {.ordered = false};
    struct stream *s = NULL;
    pthread_mutex_lock(&table.lock);
    struct cache *c = order_layer(keys) >= 0 ? find_cache(tensor_root(keys)->data) : NULL;
    if (c) {
        c->passes += pass->sequence == 0;
        part.number = c->passes;
        part.full = is_full(c, keys, pass->queries);
        s = find_stream(c, place_in(c, keys->data) + (size_t)pass->sequence * keys->nb[3],
                        keys->nb[1]);
    }
    if (s)
        found.ordered = is_in_order(c, s, pass);
    else if (c)
        drop_written(c);
    found.part = part_of(s ? &s->end : &unknown, &part);
    if (c && pass->sequence + 1 == keys->ne[3])
        c->written_count = 0;
    pthread_mutex_unlock(&table.lock);
    return found;
}
