/* The Vulkan backend's table: memory and streams from the Vulkan layer,
 * attention from the kernels beside this file. */
#include "kernels.h"

#include <stdlib.h>

static bool destroy(struct backend *b)
{
    struct kernel_backend *k = (struct kernel_backend *)b;
    bool settled = vk_device_close(&k->vk);
    free(k);
    return settled;
}

static ratp_status alive(struct backend *b, struct error *err)
{
    return vk_alive(kernel_device(b), err);
}

static ratp_status mem_alloc(struct backend *b, uint64_t size, enum mem_kind kind,
                             const char *name, struct mem *out, struct error *err)
{
    return vk_mem_alloc(kernel_device(b), size, kind, name, out, err);
}

static void on_shortage(struct backend *b, bool (*reclaim)(void *user), void *user)
{
    vk_device_on_shortage(kernel_device(b), reclaim, user);
}

static ratp_status mem_try(struct backend *b, uint64_t size, enum mem_kind kind,
                           const char *name, struct mem *out, struct error *err)
{
    return vk_mem_try(kernel_device(b), size, kind, name, out, err);
}

static void mem_free(struct backend *b, struct mem *m)
{
    vk_mem_free(kernel_device(b), m);
}

static void mem_free_spare(struct backend *b, struct mem *m)
{
    vk_mem_free_spare(kernel_device(b), m);
}

static ratp_status mem_import(struct backend *b, void *host, uint64_t size, struct mem *out,
                              struct error *err)
{
    return vk_mem_import(kernel_device(b), host, size, out, err);
}

static ratp_status mem_write(struct backend *b, const struct mem *m, uint64_t offset,
                             const void *data, uint64_t size, struct error *err)
{
    return vk_mem_write(kernel_device(b), m, offset, data, size, err);
}

static ratp_status mem_read(struct backend *b, const struct mem *m, uint64_t offset, void *data,
                            uint64_t size, struct error *err)
{
    return vk_mem_read(kernel_device(b), m, offset, data, size, err);
}

static ratp_status stream_begin(struct backend *b, struct stream **out, struct error *err)
{
    struct vk_stream *s = NULL;
    ratp_status status = vk_stream_begin(kernel_device(b), &s, err);
    *out = (struct stream *)s;
    return status;
}

static ratp_status stream_submit(struct backend *b, struct stream *s, ticket *out,
                                 struct error *err)
{
    (void)b;
    return vk_stream_submit(kernel_stream(s), out, err);
}

static void stream_drop(struct backend *b, struct stream *s)
{
    (void)b;
    vk_stream_drop(kernel_stream(s));
}

static ratp_status wait(struct backend *b, ticket t, struct error *err)
{
    return vk_wait(kernel_device(b), t, err);
}

static bool settle(struct backend *b)
{
    return vk_settle(kernel_device(b));
}

static bool passed(struct backend *b, ticket t)
{
    return vk_passed(kernel_device(b), t);
}

static ticket latest(struct backend *b)
{
    return vk_latest(kernel_device(b));
}

/* Each operation sees the results of those before it. In a host's command
 * buffer it also sees what the host recorded, and the host sees its results. */
static void enter(struct stream *s)
{
    if (vk_stream_attached(kernel_stream(s)))
        vk_stream_section(kernel_stream(s));
    else
        vk_barrier(kernel_stream(s));
}

static ratp_status leave(struct stream *s, ratp_status status)
{
    if (vk_stream_attached(kernel_stream(s)))
        vk_barrier(kernel_stream(s));
    return status;
}

static ratp_status copy(struct backend *b, struct stream *s, const struct mem *to,
                        uint64_t to_offset, const struct mem *from, uint64_t from_offset,
                        uint64_t size, struct error *err)
{
    (void)b;
    enter(s);
    return leave(s, vk_copy(kernel_stream(s), to, to_offset, from, from_offset, size, err));
}

static ratp_status fill_zero(struct backend *b, struct stream *s, const struct mem *m,
                             uint64_t offset, uint64_t size, struct error *err)
{
    (void)b;
    enter(s);
    return leave(s, vk_fill_zero(kernel_stream(s), m, offset, size, err));
}

static ratp_status move(struct backend *b, struct stream *s, const struct memory_args *args,
                        struct error *err)
{
    enter(s);
    return leave(s, kernels_move(b, s, args, err));
}

static ratp_status memory(struct backend *b, struct stream *s, const struct memory_args *args,
                          struct error *err)
{
    enter(s);
    return leave(s, kernels_memory(b, s, args, err));
}

static ratp_status restore(struct backend *b, struct stream *s, const struct restore_args *args,
                           struct error *err)
{
    enter(s);
    return leave(s, kernels_restore(b, s, args, err));
}

static ratp_status summarise(struct backend *b, struct stream *s, const struct memory_args *args,
                             struct error *err)
{
    enter(s);
    return leave(s, kernels_summarise(b, s, args, err));
}

static ratp_status choose(struct backend *b, struct stream *s, const struct attend_args *args,
                          struct error *err)
{
    enter(s);
    return leave(s, kernels_choose(b, s, args, err));
}

static ratp_status attend(struct backend *b, struct stream *s, const struct attend_args *args,
                          struct error *err)
{
    enter(s);
    return leave(s, kernels_attend(b, s, args, err));
}

static ratp_status observe(struct backend *b, struct stream *s, const struct attend_args *args,
                           struct error *err)
{
    if (vk_stream_attached(kernel_stream(s)))
        vk_stream_section(kernel_stream(s));
    return leave(s, kernels_observe(b, s, args, err));
}

static ratp_status compress(struct backend *b, struct stream *s, const struct compress_args *args,
                            struct error *err)
{
    enter(s);
    return leave(s, kernels_compress(b, s, args, err));
}

static ratp_status merge(struct backend *b, struct stream *s, const struct merge_args *args,
                         struct error *err)
{
    enter(s);
    return leave(s, kernels_merge(b, s, args, err));
}

static void info(struct backend *b, struct ratp_device_info *out)
{
    vk_device_info(kernel_device(b), out);
}

static const struct backend_ops ops = {
    .destroy = destroy,
    .alive = alive,
    .on_shortage = on_shortage,
    .mem_alloc = mem_alloc,
    .mem_try = mem_try,
    .mem_free = mem_free,
    .mem_free_spare = mem_free_spare,
    .mem_import = mem_import,
    .mem_write = mem_write,
    .mem_read = mem_read,
    .stream_begin = stream_begin,
    .stream_submit = stream_submit,
    .stream_drop = stream_drop,
    .wait = wait,
    .settle = settle,
    .passed = passed,
    .latest = latest,
    .copy = copy,
    .fill_zero = fill_zero,
    .move = move,
    .memory = memory,
    .restore = restore,
    .summarise = summarise,
    .choose = choose,
    .attend = attend,
    .observe = observe,
    .compress = compress,
    .merge = merge,
    .limits = kernels_limits,
    .info = info,
    .kernel_form = kernels_form,
};

ratp_status kernels_open(struct vk_device *vk, const struct log *log, struct backend **out,
                         struct error *err)
{
    *out = NULL;
    struct kernel_backend *k = calloc(1, sizeof *k);
    if (!k)
        return fail(err, RATP_OUT_OF_MEMORY, "device: out of host memory");
    k->base.ops = &ops;
    k->base.log = *log;
    k->vk = vk;
    kernels_describe(k);
    *out = &k->base;
    return RATP_OK;
}
