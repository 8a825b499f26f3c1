/* Work lists on their way to the device. */
#include "../plan/build.h"
#include "cache.h"

#include <string.h>

struct gpu_page page_at(const ratp_cache *cache, uint64_t address)
{
    uint64_t v = address + (uint64_t)cache->shape.page_slots * cache->shape.k_slot;
    return (struct gpu_page){{(uint32_t)address, (uint32_t)(address >> 32)},
                             {(uint32_t)v, (uint32_t)(v >> 32)}};
}

/* A frame that nobody holds: one whose work is done, or else the one that is done first. The open
 * step and a call hold one each, so that there always is another. */
static struct frame *take_frame(ratp_cache *cache)
{
    struct backend *b = cache->backend;
    struct frame *frame = NULL;
    lock_take(&cache->memory_lock);
    for (uint32_t i = 0; i < CACHE_FRAMES; i++) {
        struct frame *other = &cache->frames[i];
        if (other->held)
            continue;
        if (!frame || other->busy < frame->busy)
            frame = other;
        if (b->ops->passed(b, other->busy)) {
            frame = other;
            break;
        }
    }
    frame->held = true;
    lock_give(&cache->memory_lock);
    return frame;
}

void frame_give(ratp_cache *cache, struct frame *frame, ticket busy)
{
    lock_take(&cache->memory_lock);
    frame->busy = busy;
    frame->held = false;
    lock_give(&cache->memory_lock);
}

ratp_status frame_upload(ratp_cache *cache, const struct blob *blob, struct plan *plan,
                         struct frame **out, struct error *err)
{
    struct backend *b = cache->backend;
    struct frame *frame = take_frame(cache);
    ratp_status status = b->ops->wait(b, frame->busy, err);
    if (!status && frame->params.size < blob->size) {
        struct mem grown;
        status = cache_alloc_more(cache, blob->size + blob->size / 2, blob->size, MEM_UPLOAD,
                                  "step plan", &grown, err);
        if (!status) {
            b->ops->mem_free(b, &frame->params);
            frame->params = grown;
        }
    }
    if (status) {
        frame_give(cache, frame, frame->busy);
        return status;
    }
    memcpy(frame->params.host, blob->data, blob->size);
    *out = frame;
    plan->params = &frame->params;
    return RATP_OK;
}
