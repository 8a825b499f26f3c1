/* The kernels on Vulkan: the operations of backend.h, one file each. */
#ifndef RATPLUS_KERNELS_H
#define RATPLUS_KERNELS_H

#include "../vulkan/vulkan.h"

/* What one kernel runs as on this device. */
struct kernel_text {
    char form[160], reason[200];
};

enum { KERNEL_COUNT = 10 };

/* The forms of the prompt kernel. */
enum prefill_way {
    PREFILL_BEST, /* for the device, the shape and the work */
    PREFILL_SHARED,
    PREFILL_EACH,
    PREFILL_ROWS,
    PREFILL_MATRIX,
    PREFILL_WAYS
};

struct kernel_backend {
    struct backend base;
    struct vk_device *vk;
    enum prefill_way wanted_prefill; /* where it can run: for tests */
    struct kernel_text text[KERNEL_COUNT];
};

static inline struct vk_device *kernel_device(struct backend *b)
{
    return ((struct kernel_backend *)b)->vk;
}

/* A stream of this backend is one of the Vulkan layer's. */
static inline struct vk_stream *kernel_stream(struct stream *s)
{
    return (struct vk_stream *)s;
}

/* A backend over an open device, which belongs to it from then on; on failure
 * the device stays the caller's. */
ratp_status kernels_open(struct vk_device *vk, const struct log *log, struct backend **out,
                         struct error *err);

/* The operations. Each is called with all earlier work of the stream made
 * visible, and needs vk_barrier only between its own dispatches. */
ratp_status kernels_move(struct backend *b, struct stream *s, const struct memory_args *args,
                         struct error *err);
ratp_status kernels_memory(struct backend *b, struct stream *s, const struct memory_args *args,
                           struct error *err);
ratp_status kernels_restore(struct backend *b, struct stream *s, const struct restore_args *args,
                            struct error *err);
ratp_status kernels_summarise(struct backend *b, struct stream *s, const struct memory_args *args,
                              struct error *err);
ratp_status kernels_choose(struct backend *b, struct stream *s, const struct attend_args *args,
                           struct error *err);
ratp_status kernels_attend(struct backend *b, struct stream *s, const struct attend_args *args,
                           struct error *err);
ratp_status kernels_observe(struct backend *b, struct stream *s, const struct attend_args *args,
                            struct error *err);
ratp_status kernels_compress(struct backend *b, struct stream *s, const struct compress_args *args,
                             struct error *err);
ratp_status kernels_merge(struct backend *b, struct stream *s, const struct merge_args *args,
                          struct error *err);
void kernels_limits(struct backend *b, const struct layer_shape *shape, struct work_limits *out);
/* Fills k->text. */
void kernels_describe(struct kernel_backend *k);
bool kernels_form(struct backend *b, uint32_t index, struct ratp_kernel_form *out);

#endif
