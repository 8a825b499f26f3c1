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
};

/* The keys of one layer. */
struct cache {
    const unsigned char *data;
    struct stream *streams;
    size_t stream_count;
    size_t *written; /* bytes in the cache, of rows that no node has attended yet */
    size_t written_count;
};

/* Cells that were in order when the host read them. */
struct saved {
    uint64_t hash;
    size_t size;
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
static struct cache *add_cache(const void *data)
{
    struct cache *c = find_cache(data);
    if (c)
        return c;
    struct cache *caches = realloc(table.caches, (table.count + 1) * sizeof *caches);
    if (!caches)
        return NULL;
    table.caches = caches;
    caches[table.count] = (struct cache){.data = data};
    return &caches[table.count++];
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
    streams[c->stream_count] = (struct stream){begin, cell, 0};
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
    struct cache *c = add_cache(tensor_root(op)->data);
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
    return (struct saved){hash, size};
}

static bool is_saved(struct saved s)
{
    for (size_t i = 0; i < SAVED; i++)
        if (table.saved[i].hash == s.hash && table.saved[i].size == s.size)
            return true;
    return false;
}

void order_host_read(const struct ggml_tensor *tensor, size_t offset, size_t size)
{
    if (order_layer(tensor) < 0)
        return;
    pthread_mutex_lock(&table.lock);
    struct cache *c = find_cache(tensor_root(tensor)->data);
    const size_t place = c ? place_in(c, tensor->data) + offset : 0;
    for (size_t i = 0; c && i < c->stream_count; i++) {
        const struct stream *s = &c->streams[i];
        if (place != s->begin || size == 0 || size > s->ordered * s->cell)
            continue;
        const struct saved now = fingerprint(c->data + place, size);
        if (!is_saved(now))
            table.saved[table.saved_next++ % SAVED] = now;
    }
    pthread_mutex_unlock(&table.lock);
}

/* The cells from a sequence's first on are again what they were when they were read. */
static void restore(struct cache *c, const struct ggml_tensor *root, size_t place, size_t size)
{
    const size_t cell = root->nb[1], stream = cell * (size_t)root->ne[1];
    if (size == 0 || size % cell != 0 || size > stream || place % stream != 0 ||
        !is_saved(fingerprint(c->data + place, size)))
        return;
    struct stream *s = find_stream(c, place, cell);
    if (s)
        s->ordered = (uint32_t)(size / cell);
}

void order_host_wrote(const struct ggml_tensor *tensor, size_t offset, size_t size)
{
    if (order_layer(tensor) < 0)
        return;
    summaries_wrote((const unsigned char *)tensor->data + offset, size);
    pthread_mutex_lock(&table.lock);
    struct cache *c = add_cache(tensor_root(tensor)->data);
    if (c) {
        const size_t place = place_in(c, tensor->data) + offset;
        for (size_t i = 0; i < c->stream_count; i++)
            if (place + size > c->streams[i].begin)
                cut_at(c, place > c->streams[i].begin ? place : c->streams[i].begin);
        restore(c, tensor_root(tensor), place, size);
    }
    pthread_mutex_unlock(&table.lock);
}

void order_host_runs(const struct ggml_tensor *op)
{
    const struct ggml_tensor *root = tensor_root(op);
    if (op != root && order_layer(op) >= 0)
        summaries_wrote(root->data, ggml_nbytes(root));
}

void order_forget(const void *memory, size_t size)
{
    const unsigned char *begin = memory;
    summaries_forget(memory, size);
    pthread_mutex_lock(&table.lock);
    for (size_t i = table.count; i-- > 0;)
        if (table.caches[i].data >= begin && table.caches[i].data < begin + size) {
            forget_streams(&table.caches[i]);
            table.caches[i] = table.caches[--table.count];
        }
    pthread_mutex_unlock(&table.lock);
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

bool order_holds(const struct ggml_tensor *keys, int64_t sequence, int64_t queries, bool causal,
                 uint32_t first)
{
    bool holds = false;
    pthread_mutex_lock(&table.lock);
    struct cache *c = find_cache(tensor_root(keys)->data);
    struct stream *s = NULL;
    if (c)
        s = find_stream(c, place_in(c, keys->data) + (size_t)sequence * keys->nb[3], keys->nb[1]);
    if (s && causal && s->ordered >= first &&
        wrote(c, s, (size_t)sequence, (size_t)queries, first)) {
        s->ordered = first + (uint32_t)queries;
    } else if (c) {
        const size_t count = (size_t)queries, from = (size_t)sequence * count;
        for (size_t i = from; i < from + count && i < c->written_count; i++)
            cut_at(c, c->written[i]);
    }
    holds = s && causal && s->ordered >= first + (uint32_t)queries;
    if (c && sequence + 1 == keys->ne[3])
        c->written_count = 0;
    pthread_mutex_unlock(&table.lock);
    return holds;
}
