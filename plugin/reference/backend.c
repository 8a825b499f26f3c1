/* The device: memory is the host's, and streams run at once. */
#include "reference.h"

#include "../shortage.h"
#include "internal.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ALIGNMENT = 64 };

struct reference {
    struct backend base;
    uint64_t budget; /* 0: none */
    struct lock lock;
    uint64_t allocated;
    atomic_uint_fast64_t submitted;
    bool (*reclaim)(void *user);
    void *reclaim_user;
};

static struct reference *self(struct backend *b)
{
    return (struct reference *)b;
}

static bool destroy(struct backend *b)
{
    if (!b)
        return true;
    lock_fini(&self(b)->lock);
    free(b);
    return true;
}

/* It works in every process, for a child has a copy of all its memory. */
static ratp_status alive(struct backend *b, struct error *err)
{
    (void)b, (void)err;
    return RATP_OK;
}

static void on_shortage(struct backend *b, bool (*reclaim)(void *user), void *user)
{
    self(b)->reclaim = reclaim;
    self(b)->reclaim_user = user;
}

/* No more than a `share`-th of what the budget leaves. */
static ratp_status take(struct reference *r, uint64_t size, uint64_t share, const char *name,
                        struct mem *out, struct error *err)
{
    memset(out, 0, sizeof *out);
    lock_take(&r->lock);
    uint64_t used = r->allocated, budget = r->budget ? r->budget : UINT64_MAX;
    bool fits = size <= (budget - used) / share;
    if (fits)
        r->allocated += size;
    lock_give(&r->lock);
    if (!fits)
        return shortage_of_budget(err, name, size, budget, used);
    void *memory = NULL;
    if (size > SIZE_MAX - ALIGNMENT || posix_memalign(&memory, ALIGNMENT, size ? (size_t)size : 1)) {
        lock_take(&r->lock);
        r->allocated -= size;
        lock_give(&r->lock);
        return shortage_of_device(err, name, size, used, "posix_memalign failed");
    }
    *out = (struct mem){
        .address = (uint64_t)(uintptr_t)memory, .size = size, .host = memory, .handle = memory};
    return RATP_OK;
}

static ratp_status mem_alloc(struct backend *b, uint64_t size, enum mem_kind kind,
                             const char *name, struct mem *out, struct error *err)
{
    (void)kind;
    struct reference *r = self(b);
    ratp_status status = take(r, size, 1, name, out, err);
    /* Once more when there is nothing left: another thread may have been given it. */
    for (bool more = r->reclaim != NULL; status == RATP_OUT_OF_MEMORY && more;) {
        more = r->reclaim(r->reclaim_user);
        status = take(r, size, 1, name, out, err);
    }
    return status;
}

static ratp_status mem_try(struct backend *b, uint64_t size, enum mem_kind kind,
                           const char *name, struct mem *out, struct error *err)
{
    (void)kind;
    return take(self(b), size, 2, name, out, err);
}

static void mem_free(struct backend *b, struct mem *m)
{
    struct reference *r = self(b);
    if (m->handle) { /* imported memory has none */
        lock_take(&r->lock);
        r->allocated -= m->size;
        lock_give(&r->lock);
        free(m->handle);
    }
    memset(m, 0, sizeof *m);
}

static ratp_status mem_import(struct backend *b, void *host, uint64_t size, struct mem *out,
                              struct error *err)
{
    (void)b, (void)err;
    *out = (struct mem){.address = (uint64_t)(uintptr_t)host, .size = size, .host = host};
    return RATP_OK;
}

static ratp_status check_range(const struct mem *m, uint64_t offset, uint64_t size,
                               struct error *err)
{
    if (offset > m->size || size > m->size - offset)
        return fail(err, RATP_INTERNAL, "offset %llu, size %llu: past the end of %llu bytes",
                    (unsigned long long)offset, (unsigned long long)size,
                    (unsigned long long)m->size);
    return RATP_OK;
}

static ratp_status mem_write(struct backend *b, const struct mem *m, uint64_t offset,
                             const void *data, uint64_t size, struct error *err)
{
    (void)b;
    ratp_status status = check_range(m, offset, size, err);
    if (!status && size)
        memcpy(at(m->address + offset), data, (size_t)size);
    return status;
}

static ratp_status mem_read(struct backend *b, const struct mem *m, uint64_t offset, void *data,
                            uint64_t size, struct error *err)
{
    (void)b;
    ratp_status status = check_range(m, offset, size, err);
    if (!status && size)
        memcpy(data, at(m->address + offset), (size_t)size);
    return status;
}

static ratp_status stream_begin(struct backend *b, struct stream **out, struct error *err)
{
    (void)b;
    struct stream *s = malloc(sizeof *s);
    *out = s;
    if (!s)
        return fail(err, RATP_OUT_OF_MEMORY, "stream: no host memory for %zu bytes", sizeof *s);
    return RATP_OK;
}

static ratp_status stream_submit(struct backend *b, struct stream *s, ticket *out,
                                 struct error *err)
{
    (void)err;
    free(s);
    ticket t = atomic_fetch_add(&self(b)->submitted, 1) + 1;
    if (out)
        *out = t;
    return RATP_OK;
}

static void stream_drop(struct backend *b, struct stream *s)
{
    (void)b;
    free(s);
}

static ratp_status wait_ticket(struct backend *b, ticket t, struct error *err)
{
    (void)b, (void)t, (void)err;
    return RATP_OK;
}

static bool settle(struct backend *b)
{
    (void)b;
    return true;
}

static bool passed(struct backend *b, ticket t)
{
    return t <= atomic_load(&self(b)->submitted);
}

static ticket latest(struct backend *b)
{
    return atomic_load(&self(b)->submitted);
}

static ratp_status copy(struct backend *b, struct stream *s, const struct mem *to,
                        uint64_t to_offset, const struct mem *from, uint64_t from_offset,
                        uint64_t size, struct error *err)
{
    (void)b, (void)s;
    ratp_status status = check_range(to, to_offset, size, err);
    if (!status)
        status = check_range(from, from_offset, size, err);
    if (!status && size)
        memmove(at(to->address + to_offset), at(from->address + from_offset), (size_t)size);
    return status;
}

static ratp_status fill_zero(struct backend *b, struct stream *s, const struct mem *m,
                             uint64_t offset, uint64_t size, struct error *err)
{
    (void)b, (void)s;
    ratp_status status = check_range(m, offset, size, err);
    if (!status && size)
        memset(at(m->address + offset), 0, (size_t)size);
    return status;
}

static void limits(struct backend *b, const struct layer_shape *shape, struct work_limits *out)
{
    (void)b;
    *out = (struct work_limits){
        .tile_tokens = 32,
        .chunk_tokens = 1u << 24,
        .split_keys = 1u << 24,
        .target_groups = 1,
        .head_blocks = shape->kv_heads,
    };
}

/* What the system can give without swapping, where it tells; else 0. */
static uint64_t available_memory(void)
{
    unsigned long long kilobytes = 0;
    char line[128];
    FILE *f = fopen("/proc/meminfo", "r");
    while (f && fgets(line, sizeof line, f) &&
           sscanf(line, "MemAvailable: %llu kB", &kilobytes) != 1)
        ;
    if (f)
        fclose(f);
    return kilobytes * 1024;
}

/* Of `memory` bytes that the system has. */
static uint64_t free_memory(struct reference *r, uint64_t memory)
{
    uint64_t available = available_memory();
    lock_take(&r->lock);
    uint64_t taken = r->allocated;
    lock_give(&r->lock);
    uint64_t left = memory > taken ? memory - taken : 0;
    if (available && available < left)
        left = available;
    if (r->budget && r->budget - taken < left)
        left = r->budget - taken;
    return left;
}

static void info(struct backend *b, struct ratp_device_info *out)
{
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    uint64_t memory = pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page : 0;
    *out = (struct ratp_device_info){
        .struct_size = sizeof *out,
        .kind = RATP_DEVICE_REFERENCE,
        .usable = 1,
        .name = "reference",
        .memory_bytes = memory,
        .max_allocation = memory,
        .subgroup_min = 1,
        .subgroup_max = 1,
        .features = RATP_FEATURE_HOST_IMPORT,
        .memory_free = free_memory(self(b), memory),
    };
    snprintf(out->driver, sizeof out->driver, "libratplus %s, plain C", RATP_VERSION);
}

static bool kernel_form(struct backend *b, uint32_t index, struct ratp_kernel_form *out)
{
    static const char *const kernels[] = {"memory", "prefill attention", "decode attention",
                                          "merge", "move", "restore"};
    (void)b;
    if (index >= sizeof kernels / sizeof *kernels)
        return false;
    *out = (struct ratp_kernel_form){
        .struct_size = sizeof *out,
        .kernel = kernels[index],
        .form = "plain C",
        .reason = "the reference device has one form of each",
    };
    return true;
}

static const struct backend_ops operations = {
    .destroy = destroy,
    .alive = alive,
    .on_shortage = on_shortage,
    .mem_alloc = mem_alloc,
    .mem_try = mem_try,
    .mem_free = mem_free,
    .mem_free_spare = mem_free, /* streams run at once */
    .mem_import = mem_import,
    .mem_write = mem_write,
    .mem_read = mem_read,
    .stream_begin = stream_begin,
    .stream_submit = stream_submit,
    .stream_drop = stream_drop,
    .wait = wait_ticket,
    .settle = settle,
    .passed = passed,
    .latest = latest,
    .copy = copy,
    .fill_zero = fill_zero,
    .move = reference_move,
    .memory = reference_memory,
    .restore = reference_restore,
    .summarise = reference_summarise,
    .choose = reference_choose,
    .attend = reference_attend,
    .observe = reference_observe,
    .compress = reference_compress,
    .merge = reference_merge,
    .limits = limits,
    .info = info,
    .kernel_form = kernel_form,
};

ratp_status reference_open(const struct log *log, uint64_t memory_budget, struct backend **out,
                           struct error *err)
{
    *out = NULL;
    struct reference *r = calloc(1, sizeof *r);
    if (!r)
        return fail(err, RATP_OUT_OF_MEMORY, "reference device: no host memory for %zu bytes",
                    sizeof *r);
    lock_init(&r->lock);
    r->base.ops = &operations;
    if (log)
        r->base.log = *log;
    r->budget = memory_budget;
    *out = &r->base;
    return RATP_OK;
}
