#include "gpu.h"

#include <string.h>

bool gpu_check(VkResult result, const char *call, struct problem *problem)
{
    static const struct {
        VkResult result;
        const char *meaning;
    } meanings[] = {
        {VK_ERROR_OUT_OF_HOST_MEMORY, "out of host memory"},
        {VK_ERROR_OUT_OF_DEVICE_MEMORY, "out of device memory"},
        {VK_ERROR_DEVICE_LOST, "the device is lost"},
        {VK_ERROR_INCOMPATIBLE_DRIVER, "no compatible driver"},
        {VK_ERROR_INITIALIZATION_FAILED, "initialisation failed"},
    };
    if (result == VK_SUCCESS)
        return true;
    for (size_t i = 0; i < sizeof meanings / sizeof *meanings; i++)
        if (meanings[i].result == result)
            return problem_set(problem, "%s: %s", call, meanings[i].meaning);
    return problem_set(problem, "%s: VkResult %d", call, (int)result);
}

/* The memory type with all of `need`, preferably with `like`; -1: none. */
static int memory_type(const struct gpu *gpu, uint32_t allowed, VkMemoryPropertyFlags need,
                       VkMemoryPropertyFlags like)
{
    int found = -1;
    for (uint32_t i = 0; i < gpu->memory.memoryTypeCount; i++) {
        const VkMemoryPropertyFlags flags = gpu->memory.memoryTypes[i].propertyFlags;
        if (!(allowed >> i & 1) || (flags & need) != need)
            continue;
        if ((flags & like) == like)
            return (int)i;
        if (found < 0)
            found = (int)i;
    }
    return found;
}

bool gpu_buffer_create(struct gpu *gpu, uint64_t size, enum gpu_memory memory,
                       struct gpu_buffer *out, struct problem *problem)
{
    static const struct {
        VkMemoryPropertyFlags need, like;
    } kinds[] = {
        [GPU_DEVICE] = {0, VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT},
        [GPU_UPLOAD] = {VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT,
                        0},
        [GPU_READBACK] = {VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT |
                              VK_MEMORY_PROPERTY_HOST_COHERENT_BIT,
                          VK_MEMORY_PROPERTY_HOST_CACHED_BIT},
    };
    *out = (struct gpu_buffer){.size = size};
    const VkBufferCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
        .size = size,
        .usage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT | VK_BUFFER_USAGE_SHADER_DEVICE_ADDRESS_BIT |
                 VK_BUFFER_USAGE_TRANSFER_SRC_BIT | VK_BUFFER_USAGE_TRANSFER_DST_BIT,
    };
    if (!gpu_check(gpu->vk.vkCreateBuffer(gpu->device, &info, NULL, &out->buffer),
                   "vkCreateBuffer", problem))
        goto error;

    VkMemoryRequirements needs;
    gpu->vk.vkGetBufferMemoryRequirements(gpu->device, out->buffer, &needs);
    const int type =
        memory_type(gpu, needs.memoryTypeBits, kinds[memory].need, kinds[memory].like);
    if (type < 0) {
        problem_set(problem, "%s has no memory of the kind wanted", gpu->properties.deviceName);
        goto error;
    }
    const VkMemoryAllocateFlagsInfo flags = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_FLAGS_INFO,
        .flags = VK_MEMORY_ALLOCATE_DEVICE_ADDRESS_BIT,
    };
    const VkMemoryAllocateInfo allocate = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
        .pNext = &flags,
        .allocationSize = needs.size,
        .memoryTypeIndex = (uint32_t)type,
    };
    if (!gpu_check(gpu->vk.vkAllocateMemory(gpu->device, &allocate, NULL, &out->memory),
                   "vkAllocateMemory", problem) ||
        !gpu_check(gpu->vk.vkBindBufferMemory(gpu->device, out->buffer, out->memory, 0),
                   "vkBindBufferMemory", problem))
        goto error;
    if (memory != GPU_DEVICE &&
        !gpu_check(gpu->vk.vkMapMemory(gpu->device, out->memory, 0, VK_WHOLE_SIZE, 0, &out->map),
                   "vkMapMemory", problem))
        goto error;
    const VkBufferDeviceAddressInfo address = {
        .sType = VK_STRUCTURE_TYPE_BUFFER_DEVICE_ADDRESS_INFO, .buffer = out->buffer};
    out->address = gpu->vk.vkGetBufferDeviceAddress(gpu->device, &address);
    return true;

error:
    gpu_buffer_destroy(gpu, out);
    return false;
}

void gpu_buffer_destroy(struct gpu *gpu, struct gpu_buffer *buffer)
{
    if (gpu->device) {
        gpu->vk.vkDestroyBuffer(gpu->device, buffer->buffer, NULL);
        gpu->vk.vkFreeMemory(gpu->device, buffer->memory, NULL);
    }
    *buffer = (struct gpu_buffer){0};
}

bool gpu_upload(struct gpu *gpu, struct gpu_buffer *to, uint64_t offset, uint64_t size,
                const struct gpu_buffer *staging, struct problem *problem)
{
    const VkMemoryBarrier barrier = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER,
        .srcAccessMask = VK_ACCESS_TRANSFER_WRITE_BIT,
        .dstAccessMask = VK_ACCESS_SHADER_READ_BIT,
    };
    const VkBufferCopy copy = {.dstOffset = offset, .size = size};
    if (!gpu_begin(gpu, problem))
        return false;
    gpu->vk.vkCmdCopyBuffer(gpu->commands, staging->buffer, to->buffer, 1, &copy);
    gpu->vk.vkCmdPipelineBarrier(gpu->commands, VK_PIPELINE_STAGE_TRANSFER_BIT,
                                 VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT, 0, 1, &barrier, 0, NULL,
                                 0, NULL);
    return gpu_submit(gpu, problem) && gpu_wait(gpu, problem);
}

bool gpu_pipeline_create(struct gpu *gpu, const struct gpu_shader *shader,
                         const uint32_t *constants, uint32_t constant_count, VkPipeline *out,
                         struct problem *problem)
{
    VkSpecializationMapEntry entries[4];
    for (uint32_t i = 0; i < constant_count; i++)
        entries[i] = (VkSpecializationMapEntry){i, i * 4, 4};
    const VkSpecializationInfo specialization = {constant_count, entries, constant_count * 4,
                                                 constants};
    const VkShaderModuleCreateInfo module_info = {
        .sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO,
        .codeSize = shader->size,
        .pCode = shader->code,
    };
    VkShaderModule module;
    if (!gpu_check(gpu->vk.vkCreateShaderModule(gpu->device, &module_info, NULL, &module),
                   shader->name, problem))
        return false;
    const VkComputePipelineCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO,
        .stage = {.sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO,
                  .stage = VK_SHADER_STAGE_COMPUTE_BIT,
                  .module = module,
                  .pName = "main",
                  .pSpecializationInfo = &specialization},
        .layout = gpu->layout,
    };
    const VkResult result =
        gpu->vk.vkCreateComputePipelines(gpu->device, VK_NULL_HANDLE, 1, &info, NULL, out);
    gpu->vk.vkDestroyShaderModule(gpu->device, module, NULL);
    return gpu_check(result, shader->name, problem);
}

bool gpu_begin(struct gpu *gpu, struct problem *problem)
{
    const VkCommandBufferBeginInfo info = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO,
        .flags = VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT,
    };
    return gpu_check(gpu->vk.vkResetCommandPool(gpu->device, gpu->pool, 0), "vkResetCommandPool",
                     problem) &&
           gpu_check(gpu->vk.vkBeginCommandBuffer(gpu->commands, &info), "vkBeginCommandBuffer",
                     problem);
}

bool gpu_submit(struct gpu *gpu, struct problem *problem)
{
    const uint64_t next = gpu->point + 1;
    const VkTimelineSemaphoreSubmitInfo timeline = {
        .sType = VK_STRUCTURE_TYPE_TIMELINE_SEMAPHORE_SUBMIT_INFO,
        .signalSemaphoreValueCount = 1,
        .pSignalSemaphoreValues = &next,
    };
    const VkSubmitInfo submit = {
        .sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
        .pNext = &timeline,
        .commandBufferCount = 1,
        .pCommandBuffers = &gpu->commands,
        .signalSemaphoreCount = 1,
        .pSignalSemaphores = &gpu->timeline,
    };
    if (!gpu_check(gpu->vk.vkEndCommandBuffer(gpu->commands), "vkEndCommandBuffer", problem) ||
        !gpu_check(gpu->vk.vkQueueSubmit(gpu->queue, 1, &submit, VK_NULL_HANDLE), "vkQueueSubmit",
                   problem))
        return false;
    gpu->point = next;
    return true;
}

bool gpu_wait(struct gpu *gpu, struct problem *problem)
{
    const VkSemaphoreWaitInfo info = {
        .sType = VK_STRUCTURE_TYPE_SEMAPHORE_WAIT_INFO,
        .semaphoreCount = 1,
        .pSemaphores = &gpu->timeline,
        .pValues = &gpu->point,
    };
    return gpu_check(gpu->vk.vkWaitSemaphores(gpu->device, &info, UINT64_MAX), "vkWaitSemaphores",
                     problem);
}

void gpu_dispatch(struct gpu *gpu, VkPipeline pipeline, const void *push, uint32_t push_size,
                  uint32_t x, uint32_t y)
{
    gpu->vk.vkCmdBindPipeline(gpu->commands, VK_PIPELINE_BIND_POINT_COMPUTE, pipeline);
    gpu->vk.vkCmdPushConstants(gpu->commands, gpu->layout, VK_SHADER_STAGE_COMPUTE_BIT, 0,
                               push_size, push);
    gpu->vk.vkCmdDispatch(gpu->commands, x, y, 1);
}

void gpu_barrier(struct gpu *gpu)
{
    const VkMemoryBarrier barrier = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER,
        .srcAccessMask = VK_ACCESS_SHADER_WRITE_BIT,
        .dstAccessMask =
            VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_SHADER_WRITE_BIT | VK_ACCESS_HOST_READ_BIT,
    };
    gpu->vk.vkCmdPipelineBarrier(gpu->commands, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT,
                                 VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_HOST_BIT,
                                 0, 1, &barrier, 0, NULL, 0, NULL);
}
