/* What can be recorded on a stream: dispatches, copies, fills. */
#include "internal.h"

ratp_status vk_dispatch(struct vk_stream *s, const struct vk_shader *shader,
                        const uint32_t *constants, uint32_t constant_count, const void *push,
                        uint32_t push_size, uint32_t x, uint32_t y, uint32_t z,
                        struct error *err)
{
    struct vk_device *d = s->device;
    const uint32_t groups[3] = {x, y, z};
    if (!x || !y || !z)
        return RATP_OK;
    for (int i = 0; i < 3; i++)
        if (groups[i] > d->physical.caps.max_groups[i])
            return fail(err, RATP_UNSUPPORTED,
                        "shader \"%s\": %u workgroups along %c, the device's limit is %u",
                        shader->name, groups[i], "xyz"[i], d->physical.caps.max_groups[i]);
    if (push_size != shader->push_bytes || push_size > VK_PUSH_MAX || push_size % 4)
        return fail(err, RATP_INTERNAL,
                    "shader \"%s\": %u bytes of push constants, its block has %u, the limit is %d",
                    shader->name, push_size, shader->push_bytes, VK_PUSH_MAX);
    VkPipeline pipeline;
    VkPipelineLayout layout;
    ratp_status status = vk_stream_ready(s, err);
    if (status == RATP_OK)
        status = vk_pipeline_get(d, shader, constants, constant_count, &pipeline, &layout, err);
    if (status != RATP_OK)
        return status;
    if (s->bound != pipeline) {
        d->vk.vkCmdBindPipeline(s->commands, VK_PIPELINE_BIND_POINT_COMPUTE, pipeline);
        s->bound = pipeline;
    }
    if (push_size)
        d->vk.vkCmdPushConstants(s->commands, layout, VK_SHADER_STAGE_COMPUTE_BIT, 0, push_size,
                                 push);
    d->vk.vkCmdDispatch(s->commands, x, y, z);
    return RATP_OK;
}

static ratp_status check_range(const struct mem *m, const char *what, uint64_t offset,
                               uint64_t size, struct error *err)
{
    if (offset <= m->size && size <= m->size - offset)
        return RATP_OK;
    return fail(err, RATP_INVALID_ARGUMENT, "%s: bytes %llu to %llu of %llu", what,
                (unsigned long long)offset, (unsigned long long)(offset + size),
                (unsigned long long)m->size);
}

ratp_status vk_copy(struct vk_stream *s, const struct mem *to, uint64_t to_offset,
                    const struct mem *from, uint64_t from_offset, uint64_t size,
                    struct error *err)
{
    ratp_status status = check_range(to, "copy, destination", to_offset, size, err);
    if (status == RATP_OK)
        status = check_range(from, "copy, source", from_offset, size, err);
    if (status != RATP_OK || !size)
        return status;
    vk_barrier(s);
    status = vk_stream_ready(s, err);
    if (status != RATP_OK)
        return status;
    VkBufferCopy region = {
        .srcOffset = from->handle_offset + from_offset,
        .dstOffset = to->handle_offset + to_offset,
        .size = size,
    };
    s->device->vk.vkCmdCopyBuffer(s->commands, vk_mem_buffer(from), vk_mem_buffer(to), 1, &region);
    return RATP_OK;
}

ratp_status vk_fill_zero(struct vk_stream *s, const struct mem *m, uint64_t offset, uint64_t size,
                         struct error *err)
{
    ratp_status status = check_range(m, "fill", offset, size, err);
    if (status != RATP_OK || !size)
        return status;
    if (offset % 4 || size % 4)
        return fail(err, RATP_INTERNAL, "fill: offset %llu and size %llu must be multiples of 4",
                    (unsigned long long)offset, (unsigned long long)size);
    vk_barrier(s);
    status = vk_stream_ready(s, err);
    if (status != RATP_OK)
        return status;
    s->device->vk.vkCmdFillBuffer(s->commands, vk_mem_buffer(m), m->handle_offset + offset, size,
                                  0);
    return RATP_OK;
}
