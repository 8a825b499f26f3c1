/* Host reads and writes of device memory: through the mapped address, or in
 * pieces through staging memory. */
#include "internal.h"

#include <string.h>

static ratp_status check(const struct mem *m, uint64_t offset, uint64_t size, struct error *err)
{
    if (offset <= m->size && size <= m->size - offset)
        return RATP_OK;
    return fail(err, RATP_INVALID_ARGUMENT, "offset is %llu and size %llu, the buffer has %llu bytes",
                (unsigned long long)offset, (unsigned long long)size,
                (unsigned long long)m->size);
}

static ratp_status staging(struct vk_device *d, struct mem *m, enum mem_kind kind,
                           struct error *err)
{
    if (m->handle)
        return RATP_OK;
    return vk_mem_alloc(d, VK_STAGING_BYTES, kind, "staging", m, err);
}

static uint64_t at_most(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static ratp_status submit_copy(struct vk_device *d, const struct mem *to, uint64_t to_offset,
                               const struct mem *from, uint64_t from_offset, uint64_t size,
                               ticket *out, struct error *err)
{
    struct vk_stream *s = NULL;
    ratp_status status = vk_stream_begin(d, &s, err);
    if (status != RATP_OK)
        return status;
    status = vk_copy(s, to, to_offset, from, from_offset, size, err);
    if (status != RATP_OK) {
        vk_stream_drop(s);
        return status;
    }
    return vk_stream_submit(s, out, err);
}

/* Two halves take turns: one is filled while the device empties the other. */
static ratp_status write_staged(struct vk_device *d, const struct mem *m, uint64_t offset,
                                const uint8_t *data, uint64_t size, struct error *err)
{
    const uint64_t half = VK_STAGING_BYTES / 2;
    ticket *used = d->staging_used; /* kept from call to call: a wait may have failed */
    ratp_status status = staging(d, &d->staging_up, MEM_UPLOAD, err);
    for (unsigned turn = 0; status == RATP_OK && size; turn ^= 1) {
        uint64_t part = at_most(size, half);
        status = vk_wait(d, used[turn], err);
        if (status != RATP_OK)
            break;
        memcpy((uint8_t *)d->staging_up.host + turn * half, data, part);
        status = submit_copy(d, m, offset, &d->staging_up, turn * half, part, &used[turn], err);
        data += part;
        offset += part;
        size -= part;
    }
    ticket last = used[0] > used[1] ? used[0] : used[1];
    ratp_status waited = vk_wait(d, last, status == RATP_OK ? err : NULL);
    return status == RATP_OK ? waited : status;
}

static ratp_status read_staged(struct vk_device *d, const struct mem *m, uint64_t offset,
                               uint8_t *data, uint64_t size, struct error *err)
{
    ratp_status status = staging(d, &d->staging_down, MEM_READBACK, err);
    while (status == RATP_OK && size) {
        uint64_t part = at_most(size, VK_STAGING_BYTES);
        ticket t = 0;
        status = submit_copy(d, &d->staging_down, 0, m, offset, part, &t, err);
        if (status == RATP_OK)
            status = vk_wait(d, t, err);
        if (status != RATP_OK)
            break;
        memcpy(data, d->staging_down.host, part);
        data += part;
        offset += part;
        size -= part;
    }
    return status;
}

ratp_status vk_mem_write(struct vk_device *d, const struct mem *m, uint64_t offset,
                         const void *data, uint64_t size, struct error *err)
{
    ratp_status status = vk_alive(d, err);
    if (status == RATP_OK)
        status = check(m, offset, size, err);
    if (status != RATP_OK || !size)
        return status;
    if (m->host) {
        status = vk_wait(d, vk_latest(d), err);
        if (status == RATP_OK)
            memcpy((uint8_t *)m->host + offset, data, size);
        return status;
    }
    pthread_mutex_lock(&d->transfer_lock);
    status = write_staged(d, m, offset, data, size, err);
    pthread_mutex_unlock(&d->transfer_lock);
    return status;
}

ratp_status vk_mem_read(struct vk_device *d, const struct mem *m, uint64_t offset, void *data,
                        uint64_t size, struct error *err)
{
    ratp_status status = vk_alive(d, err);
    if (status == RATP_OK)
        status = check(m, offset, size, err);
    if (status != RATP_OK || !size)
        return status;
    if (m->host && vk_mem_cached(m)) {
        status = vk_wait(d, vk_latest(d), err);
        if (status == RATP_OK)
            memcpy(data, (const uint8_t *)m->host + offset, size);
        return status;
    }
    pthread_mutex_lock(&d->transfer_lock);
    status = read_staged(d, m, offset, data, size, err);
    pthread_mutex_unlock(&d->transfer_lock);
    return status;
}

void vk_transfer_fini(struct vk_device *d)
{
    vk_mem_free(d, &d->staging_up);
    vk_mem_free(d, &d->staging_down);
}
