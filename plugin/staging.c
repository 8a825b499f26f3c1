#include "staging.h"

#include "dtype.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 256, GRANULE = 1 << 16 };

/* Bytes from row to row of host memory's copy: whole words, but for rows of blocks, which
 * lie there as the host has them when it packs them. */
static uint64_t row_of(const struct operand_view *v)
{
    return dtype_size(v->dtype) ? (v->row_bytes + 3) / 4 * 4 : v->row_bytes;
}

/* The layout of host memory's copy: packed. */
static ratp_status layout(struct staged *item, uint64_t *size, struct error *err)
{
    const struct operand_view *v = &item->view;
    uint64_t row = row_of(v);
    uint64_t token = row * v->want.heads;
    if (token > UINT32_MAX)
        return fail(err, RATP_UNSUPPORTED,
                    "%s: %llu bytes a token, at most %u can come from host memory", v->want.name,
                    (unsigned long long)token, UINT32_MAX);
    item->operand.head_stride = v->want.heads > 1 ? (uint32_t)row : 0;
    item->operand.token_stride = (uint32_t)token;
    item->batch_stride = token * v->want.tokens;
    *size = item->batch_stride * v->want.batch;
    return RATP_OK;
}

/* One row of heads after the other, between the host's strides and ours. */
static void copy_rows(const struct staged *item, unsigned char *packed, bool to_host)
{
    const struct operand_view *v = &item->view;
    uint64_t row = row_of(v);
    bool whole = v->head_stride == row || v->want.heads == 1;
    uint64_t pieces = whole ? 1 : v->want.heads;
    uint64_t bytes = whole ? row * (v->want.heads - 1) + v->row_bytes : v->row_bytes;
    for (uint32_t b = 0; b < v->want.batch; b++)
        for (uint32_t t = 0; t < v->want.tokens; t++)
            for (uint64_t h = 0; h < pieces; h++) {
                unsigned char *host =
                    v->host + b * v->batch_stride + t * v->token_stride + h * v->head_stride;
                unsigned char *ours = packed + b * item->batch_stride +
                                      (uint64_t)t * item->operand.token_stride + h * row;
                if (to_host)
                    memcpy(host, ours, bytes);
                else
                    memcpy(ours, host, bytes);
            }
}

static bool is_staged(const struct staged *item)
{
    return item->view.want.tokens > 0 && item->view.host;
}

static ratp_status grow(struct backend *b, struct mem *m, uint64_t size, enum mem_kind kind,
                        const char *name, struct error *err)
{
    if (size <= m->size)
        return RATP_OK;
    if (m->size)
        b->ops->mem_free(b, m);
    uint64_t room = (size + size / 4 + GRANULE - 1) / GRANULE * GRANULE;
    ratp_status status = b->ops->mem_try(b, room, kind, name, m, err);
    return status == RATP_OUT_OF_MEMORY ? b->ops->mem_alloc(b, size, kind, name, m, err) : status;
}

static void staging_free(struct backend *b, struct staging *s)
{
    if (s->upload.size)
        b->ops->mem_free(b, &s->upload);
    if (s->readback.size)
        b->ops->mem_free(b, &s->readback);
    free(s);
}

static struct staging *pop(ratp_device *device)
{
    lock_take(&device->staging_lock);
    struct staging *s = device->staging;
    if (s)
        device->staging = s->next;
    lock_give(&device->staging_lock);
    return s ? s : calloc(1, sizeof *s);
}

void staging_give(ratp_device *device, struct staging *s, ratp_status status)
{
    if (!s)
        return;
    if (status) {
        /* Nobody waited for the work, which may be under way: it is not for another call. */
        staging_free(device->backend, s);
        return;
    }
    lock_take(&device->staging_lock);
    s->next = device->staging;
    device->staging = s;
    lock_give(&device->staging_lock);
}

ratp_status staging_take(ratp_device *device, struct staged *items, uint32_t count,
                         struct staging **out, struct error *err)
{
    uint64_t upload = 0, readback = 0;
    *out = NULL;
    for (uint32_t i = 0; i < count; i++) {
        struct staged *item = &items[i];
        const struct operand_view *v = &item->view;
        item->operand = (struct operand){0};
        if (v->want.tokens == 0)
            continue;
        item->operand.dtype = v->dtype;
        if (!is_staged(item)) {
            item->operand.address = v->address;
            item->operand.token_stride = (uint32_t)v->token_stride;
            item->operand.head_stride = v->want.heads > 1 ? (uint32_t)v->head_stride : 0;
            item->batch_stride = v->batch_stride;
            continue;
        }
        uint64_t size = 0, *total = v->want.written ? &readback : &upload;
        ratp_status status = layout(item, &size, err);
        if (status)
            return status;
        item->offset = *total;
        if (size > UINT64_MAX / 8 - *total)
            return fail(err, RATP_OUT_OF_MEMORY, "%s: no memory for %llu bytes", v->want.name,
                        (unsigned long long)size);
        *total += (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    }
    if (upload == 0 && readback == 0)
        return RATP_OK;

    struct backend *b = device->backend;
    ratp_status status = b->ops->alive(b, err);
    if (status)
        return status;
    struct staging *s = pop(device);
    if (!s)
        return fail(err, RATP_OUT_OF_MEMORY, "no host memory for staging");
    status = grow(b, &s->upload, upload, MEM_UPLOAD, "staged operands", err);
    if (!status)
        status = grow(b, &s->readback, readback, MEM_READBACK, "staged results", err);
    if (status) {
        staging_free(b, s);
        return status;
    }
    for (uint32_t i = 0; i < count; i++) {
        struct staged *item = &items[i];
        if (!is_staged(item))
            continue;
        bool written = item->view.want.written;
        item->operand.address = (written ? s->readback : s->upload).address + item->offset;
        if (!written)
            copy_rows(item, (unsigned char *)s->upload.host + item->offset, false);
    }
    *out = s;
    return RATP_OK;
}

void staging_fetch(const struct staging *s, const struct staged *items, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        if (is_staged(&items[i]) && items[i].view.want.written)
            copy_rows(&items[i], (unsigned char *)s->readback.host + items[i].offset, true);
}

/* Frees those that no call uses. A call waits for its results, so nothing that is being
 * recorded uses them either. */
static bool give_back(struct spare *spare)
{
    ratp_device *device = (ratp_device *)((char *)spare - offsetof(ratp_device, staging_spare));
    struct backend *b = device->backend;
    lock_take(&device->staging_lock);
    struct staging *idle = device->staging;
    device->staging = NULL;
    lock_give(&device->staging_lock);
    bool any = idle != NULL;
    while (idle) {
        struct staging *next = idle->next;
        b->ops->mem_free_spare(b, &idle->upload);
        b->ops->mem_free_spare(b, &idle->readback);
        free(idle);
        idle = next;
    }
    return any;
}

void staging_init(ratp_device *device)
{
    lock_init(&device->staging_lock);
    device->staging_spare.give_back = give_back;
    spares_add(&device->spares, &device->staging_spare);
}

void staging_fini(ratp_device *device)
{
    spares_remove(&device->spares, &device->staging_spare);
    give_back(&device->staging_spare);
    lock_fini(&device->staging_lock);
}
