#include "summaries.h"
#include "adapter.h"

#include <pthread.h>
#include <stdlib.h>

/* Of one stream's K, for neighbouring heads. */
struct summary {
    const unsigned char *begin; /* of the stream's cells */
    size_t cell;                /* bytes of one */
    uint32_t cells;
    uint32_t first_head, heads;
    ratp_variant_kind kind;
    uint32_t block;
    uint64_t policy; /* the last that had use for it; 0: not looked at yet */
    const struct ratp_api *ratp;
    ratp_device *device;
    ratp_buffer *buffer;
    uint64_t bytes;
    uint32_t known; /* first cells that it tells of */
};

static struct {
    pthread_mutex_t lock;
    struct summary *list;
    size_t count;
    bool refused; /* there was no memory for the last that was wanted */
} all = {.lock = PTHREAD_MUTEX_INITIALIZER};

bool variant_chooses(const struct ratp_variant *v, uint32_t *block, uint32_t *most)
{
    const bool quest = v->kind == RATP_QUEST;
    if (!quest && v->kind != RATP_MOBA)
        return false;
    if (block)
        *block = quest ? v->page : v->block;
    if (most)
        *most = quest ? v->budget / v->page : v->topk;
    return true;
}

static void drop(size_t i)
{
    all.list[i].ratp->buffer_destroy(&all.list[i].buffer);
    all.list[i] = all.list[--all.count];
}

/* ---- Policies ---- */

static bool is_of(const struct summary *s, const struct head_run *run)
{
    uint32_t block = 0;
    return variant_chooses(&run->variant, &block, NULL) && s->kind == run->variant.kind &&
           s->block == block && s->first_head == run->first && s->heads == run->count;
}

/* Those of the tensor's streams that a policy before this one had use for. */
static bool is_older(const struct summary *s, const struct ggml_tensor *root, uint64_t policy)
{
    const unsigned char *data = root->data;
    return s->policy != policy && s->begin >= data && s->begin < data + ggml_nbytes(root);
}

void summaries_follow(const struct ggml_tensor *keys, int layer, struct adapter_policy *policy,
                      struct head_run *runs)
{
    static const ratp_part_kind parts[] = {RATP_PART_PROMPT, RATP_PART_DECODE};
    const struct ggml_tensor *root = tensor_root(keys);
    const uint64_t number = policy_number(policy);
    bool older = false;
    pthread_mutex_lock(&all.lock);
    for (size_t i = 0; i < all.count; i++)
        older |= is_older(&all.list[i], root, number);
    for (int part = 0; part < 2 && older; part++) {
        const uint32_t count = policy_runs(policy, layer, (uint32_t)keys->ne[2], parts[part], runs);
        for (size_t i = 0; i < all.count; i++)
            for (uint32_t run = 0; run < count && is_older(&all.list[i], root, number); run++)
                if (is_of(&all.list[i], &runs[run]))
                    all.list[i].policy = number;
    }
    for (size_t i = all.count; i-- > 0 && older;)
        if (is_older(&all.list[i], root, number))
            drop(i);
    pthread_mutex_unlock(&all.lock);
}

/* ---- Calls ---- */

static bool bytes_for(const struct ratp_api *ratp, ratp_device *device,
                      const struct ratp_external *by, uint32_t keys, uint64_t *bytes)
{
    struct ratp_external call = *by;
    call.struct_size = sizeof call;
    call.key_tokens = keys;
    return ratp->external_summary_bytes(device, &call, bytes) == RATP_OK;
}

static struct summary *find(const struct summary *like)
{
    for (size_t i = 0; i < all.count; i++) {
        struct summary *s = &all.list[i];
        if (s->begin == like->begin && s->cell == like->cell && s->cells == like->cells &&
            s->first_head == like->first_head && s->heads == like->heads &&
            s->kind == like->kind && s->block == like->block)
            return s;
    }
    return NULL;
}

/* NULL without memory; the first time a line says so. */
static struct summary *add(const struct summary *like, ratp_device *device, uint64_t bytes)
{
    char why[256];
    const struct ratp_buffer_params params = {
        .struct_size = sizeof params, .size = bytes, .kind = RATP_MEMORY_DEVICE};
    struct summary *list = realloc(all.list, (all.count + 1) * sizeof *list);
    if (!list)
        return NULL;
    all.list = list;
    list[all.count] = *like;
    list[all.count].bytes = bytes;
    if (like->ratp->buffer_create(device, &params, &list[all.count].buffer)) {
        like->ratp->last_error(device, why, sizeof why);
        if (!all.refused)
            complain("no buffer of %llu bytes for summaries of K, which quest and moba choose by: "
                     "%s; a smaller context (-c) or larger pages and blocks need less",
                     (unsigned long long)bytes, why);
        all.refused = true;
        return NULL;
    }
    all.refused = false;
    return &list[all.count++];
}

enum fallback summaries_take(const struct ratp_api *ratp, ratp_device *device,
                             const struct ggml_tensor *keys, uint32_t sequence,
                             const struct head_run *run, struct ratp_external *by)
{
    const uint32_t total = by->first_position + by->query_tokens;
    uint32_t most = 0;
    uint64_t bytes = 0;
    struct summary like = {
        .begin = (const unsigned char *)keys->data + sequence * keys->nb[3],
        .cell = keys->nb[1],
        .cells = (uint32_t)tensor_root(keys)->ne[1],
        .first_head = run->first,
        .heads = run->count,
        .kind = by->variant->kind,
        .ratp = ratp,
        .device = device,
    };
    variant_chooses(by->variant, &like.block, &most);
    if (!bytes_for(ratp, device, by, like.cells, &bytes) || total > like.cells)
        return FALLBACK_SUMMARY_FORM;
    if ((total - 1) / like.block < most)
        return FALLBACK_NONE;
    pthread_mutex_lock(&all.lock);
    struct summary *s = find(&like);
    if (!s)
        s = add(&like, device, bytes);
    if (s) {
        by->summaries = s->buffer;
        by->summarised = s->known < by->first_position ? s->known : by->first_position;
        s->known = total;
    }
    pthread_mutex_unlock(&all.lock);
    return s ? FALLBACK_NONE : FALLBACK_SUMMARIES;
}

uint64_t summaries_read(const struct ratp_api *ratp, ratp_device *device,
                        const struct ratp_external *by)
{
    const uint32_t last = by->first_position + by->query_tokens - 1;
    uint32_t block = 0;
    uint64_t bytes = 0;
    if (!by->summaries || !variant_chooses(by->variant, &block, NULL) || last < block ||
        !bytes_for(ratp, device, by, last / block * block, &bytes))
        return 0;
    return bytes;
}

uint64_t summaries_held(void)
{
    uint64_t bytes = 0;
    pthread_mutex_lock(&all.lock);
    for (size_t i = 0; i < all.count; i++)
        bytes += all.list[i].bytes;
    pthread_mutex_unlock(&all.lock);
    return bytes;
}

/* ---- Writes ---- */

void summaries_wrote(const void *memory, size_t size)
{
    const unsigned char *from = memory;
    pthread_mutex_lock(&all.lock);
    for (size_t i = 0; i < all.count; i++) {
        struct summary *s = &all.list[i];
        if (from + size <= s->begin || from >= s->begin + s->cells * s->cell)
            continue;
        const size_t cell = from > s->begin ? (size_t)(from - s->begin) / s->cell : 0;
        if (cell < s->known)
            s->known = (uint32_t)cell;
    }
    pthread_mutex_unlock(&all.lock);
}

/* By way of the host, for the library copies no buffers. */
static bool copy_bytes(const struct summary *from, const struct summary *to)
{
    void *bytes = from->bytes == to->bytes ? malloc(from->bytes) : NULL;
    const bool good = bytes && !from->ratp->buffer_read(from->buffer, 0, bytes, from->bytes) &&
                      !to->ratp->buffer_write(to->buffer, 0, bytes, to->bytes);
    free(bytes);
    return good;
}

void summaries_copied(const void *from, const void *to, size_t size)
{
    const unsigned char *begin = from, *place = to;
    pthread_mutex_lock(&all.lock);
    for (size_t i = 0; i < all.count; i++) {
        struct summary like = all.list[i];
        if (like.begin < begin || like.begin >= begin + size || like.known == 0)
            continue;
        const size_t cells = (size_t)(begin + size - like.begin) / like.cell;
        const uint32_t known = like.known < cells ? like.known : (uint32_t)cells;
        like.begin = place + (like.begin - begin);
        like.known = 0;
        like.buffer = NULL;
        struct summary *copy = find(&like);
        if (!copy)
            copy = add(&like, like.device, like.bytes);
        /* Without memory they are made from K. */
        if (copy && copy_bytes(&all.list[i], copy))
            copy->known = known;
    }
    pthread_mutex_unlock(&all.lock);
}

void summaries_spoil(void)
{
    pthread_mutex_lock(&all.lock);
    for (size_t i = 0; i < all.count; i++)
        all.list[i].known = 0;
    pthread_mutex_unlock(&all.lock);
}

void summaries_forget(const void *memory, size_t size)
{
    const unsigned char *begin = memory;
    pthread_mutex_lock(&all.lock);
    for (size_t i = all.count; i-- > 0;)
        if (all.list[i].begin >= begin && all.list[i].begin < begin + size)
            drop(i);
    pthread_mutex_unlock(&all.lock);
}
