/* What a device can do for attention: the one interface between the cache and
 * the planner above, and the Vulkan kernels or the plain C reference below.
 *
 * Memory is named by address. On a Vulkan device an address is a buffer device
 * address, on the reference device it is a pointer; the plan that the kernels
 * read is the same bytes on both.
 *
 * Work is recorded on a stream, in order; each operation sees the results of
 * those before it. Submitting a stream gives a ticket; the device passes
 * tickets in order.
 *
 * Every operation may be called from any thread; one stream is used by one
 * thread at a time. */
#ifndef RATPLUS_BACKEND_H
#define RATPLUS_BACKEND_H

#include "error.h"
#include "log.h"

#include <stdbool.h>

struct plan;
struct plan_class;
struct layer_shape;

enum mem_kind {
    MEM_DEVICE,   /* fastest for kernels; host pointer may be NULL */
    MEM_UPLOAD,   /* mapped: written by the host, read by kernels */
    MEM_READBACK, /* mapped and cached: written by kernels, read by the host */
    MEM_SHARED    /* mapped: read often by kernels, so as near to them as can be */
};
enum { MEM_KINDS = MEM_SHARED + 1 };

/* A piece of device memory. Zeroed by free. */
struct mem {
    uint64_t address;
    uint64_t size;
    void *host;   /* mapped address, or NULL */
    void *handle; /* the backend's own */
    uint64_t handle_offset;
};

typedef uint64_t ticket; /* 0: long passed */

/* An operand of a kernel: [token][head][channel], strides in bytes. */
struct operand {
    uint64_t address; /* 0: absent */
    uint32_t token_stride;
    uint32_t head_stride;
    ratp_dtype dtype;
};

/* New tokens of a run of heads of one layer, through memory and rotation into
 * the cache. `shape` has the run's heads, and the operands begin with them. */
struct memory_args {
    const struct plan *plan;
    const struct plan_class *cls; /* the attention class of the heads */
    const struct layer_shape *shape;
    uint32_t slab;         /* number of the first head in the views' tables of offsets */
    uint32_t state_offset; /* bytes of the first head in every state */
    struct operand k, v, f;
};

/* Attention of a run of heads of one layer over what the plan's views describe. */
struct attend_args {
    const struct plan *plan;
    const struct plan_class *cls;
    const struct layer_shape *shape;
    uint32_t slab;
    struct operand q, o, out, lse;
    struct operand mask; /* attend_external only: token_stride per query token */
    uint32_t mask_view_stride; /* bytes from one view's mask to the next */
    uint64_t sinks; /* address of the query heads' sink logits, float32; 0: none */
};

/* The memory state after one token, from its K and V in the cache: a run of heads
 * of one layer. The geometry has memory. */
struct restore_args {
    const struct layer_shape *shape;
    uint64_t k, v;     /* addresses of the token's rows of head 0 */
    uint32_t position; /* which K is turned by */
    uint64_t state;    /* where the heads' state goes */
};

/* The compression (snapkv) of a run of heads of one layer of one sequence, which holds
 * `held` tokens, in slots 0 ... held - 1, of `length`: those that the last `observe`
 * queries attend most, and their own tokens, go to slots 0 ... capacity - 1 of other pages. */
struct compress_args {
    const struct plan *plan; /* its pages alone */
    const struct layer_shape *shape;
    uint32_t from_page0, from_pages, to_page0, to_pages; /* in the list of pages */
    uint32_t offset; /* bytes from a page's begin to the first head */
    uint32_t held, length;
    uint32_t capacity, observe, kernel; /* observe < capacity < held; kernel odd */
    bool average;
    uint64_t queries;    /* [head][query_ring][query head of it][channel] float32: a ring */
    uint32_t query_at;   /* its row of the oldest of the last `observe` */
    uint32_t query_ring; /* its rows, at least `observe` */
    /* Positions of the first slots, [head][capacity]: of those that are held, where tokens
     * are gone (held < length), and of those that are kept. */
    uint64_t positions_in, positions;
    uint64_t work, work_bytes; /* see compress_head_bytes in plan.h */
};

struct merge_args {
    uint32_t parts, tokens, heads, value_size;
    const struct operand *part_out, *part_lse; /* [parts] */
    struct operand out, lse;
};

/* How the backend likes its work cut; read by the planner. */
struct work_limits {
    uint32_t tile_tokens;   /* query tokens of a prompt tile, at least 1 */
    uint32_t most_keys;     /* of a part of a tile; 0: no bound */
    uint32_t chunk_tokens;  /* tokens of a memory-scan chunk */
    uint32_t split_keys;    /* the fewest keys worth a split of their own */
    uint32_t target_groups; /* workgroups that fill the device */
    uint32_t head_blocks;   /* workgroups a tile takes: kv heads * blocks of query heads */
    uint32_t wave_partials; /* partial rows that a wave may take; 0: there are no waves */
};

struct backend;
struct stream;

struct backend_ops {
    /* Waits for all work, then frees the device. False where that waits in vain: the driver
     * keeps for good what it may still use. */
    bool (*destroy)(struct backend *b);
    /* RATP_DEVICE_LOST when the device is lost, or another process's. Every operation that
     * can fail asks this itself; so must whoever takes a lock or touches mapped memory. */
    ratp_status (*alive)(struct backend *b, struct error *err);

    /* From now on, before memory is refused, `reclaim` is called as long as it says that
     * something was freed. None of the backend's locks are held then, and it may free. */
    void (*on_shortage)(struct backend *b, bool (*reclaim)(void *user), void *user);
    /* `name` says what the memory is for, in messages. */
    ratp_status (*mem_alloc)(struct backend *b, uint64_t size, enum mem_kind kind,
                             const char *name, struct mem *out, struct error *err);
    /* For more than is needed: RATP_OUT_OF_MEMORY where it would take most of what is
     * left, or where anybody would have to give something back or to wait. */
    ratp_status (*mem_try)(struct backend *b, uint64_t size, enum mem_kind kind,
                           const char *name, struct mem *out, struct error *err);
    /* The memory is freed once all work submitted or recorded so far is done. */
    void (*mem_free)(struct backend *b, struct mem *m);
    /* For memory that nothing uses which is only recorded: freed once all work submitted
     * so far is done, whoever else is recording. */
    void (*mem_free_spare)(struct backend *b, struct mem *m);
    /* Host memory as device memory, in place. */
    ratp_status (*mem_import)(struct backend *b, void *host, uint64_t size, struct mem *out,
                              struct error *err);
    /* Ordered after all submitted work; returns when `data` may be reused. */
    ratp_status (*mem_write)(struct backend *b, const struct mem *m, uint64_t offset,
                             const void *data, uint64_t size, struct error *err);
    /* Waits for all submitted work, then copies out. */
    ratp_status (*mem_read)(struct backend *b, const struct mem *m, uint64_t offset, void *data,
                            uint64_t size, struct error *err);

    ratp_status (*stream_begin)(struct backend *b, struct stream **out, struct error *err);
    /* Submits the stream and gives it back. On failure it is given back too. */
    ratp_status (*stream_submit)(struct backend *b, struct stream *s, ticket *out,
                                 struct error *err);
    /* Forgets what was recorded. */
    void (*stream_drop)(struct backend *b, struct stream *s);
    ratp_status (*wait)(struct backend *b, ticket t, struct error *err);
    /* Waits until nothing that was submitted is in use any more, even when the device is
     * lost. False: it may be in use for ever. */
    bool (*settle)(struct backend *b);
    bool (*passed)(struct backend *b, ticket t);
    /* The ticket of the newest submission. */
    ticket (*latest)(struct backend *b);

    ratp_status (*copy)(struct backend *b, struct stream *s, const struct mem *to,
                        uint64_t to_offset, const struct mem *from, uint64_t from_offset,
                        uint64_t size, struct error *err);
    ratp_status (*fill_zero)(struct backend *b, struct stream *s, const struct mem *m,
                             uint64_t offset, uint64_t size, struct error *err);
    /* Copies slots from one place in the cache to another: the class's `moves`. */
    ratp_status (*move)(struct backend *b, struct stream *s, const struct memory_args *args,
                        struct error *err);
    ratp_status (*memory)(struct backend *b, struct stream *s, const struct memory_args *args,
                          struct error *err);
    /* Makes the class's `summaries` from the rows in the cache; of args it needs no operand. */
    ratp_status (*summarise)(struct backend *b, struct stream *s, const struct memory_args *args,
                             struct error *err);
    ratp_status (*restore)(struct backend *b, struct stream *s, const struct restore_args *args,
                           struct error *err);
    /* Fills the lists of chosen blocks of the class's `choosers`, for `attend`. */
    ratp_status (*choose)(struct backend *b, struct stream *s, const struct attend_args *args,
                          struct error *err);
    ratp_status (*attend)(struct backend *b, struct stream *s, const struct attend_args *args,
                          struct error *err);
    /* Keeps the queries of the class's `observers`; of args it needs q alone. May run
     * beside the operation before it. */
    ratp_status (*observe)(struct backend *b, struct stream *s, const struct attend_args *args,
                           struct error *err);
    ratp_status (*compress)(struct backend *b, struct stream *s, const struct compress_args *args,
                            struct error *err);
    ratp_status (*merge)(struct backend *b, struct stream *s, const struct merge_args *args,
                         struct error *err);

    void (*limits)(struct backend *b, const struct layer_shape *shape, struct work_limits *out);
    void (*info)(struct backend *b, struct ratp_device_info *out); /* fills a full struct */
    /* False past the last kernel. */
    bool (*kernel_form)(struct backend *b, uint32_t index, struct ratp_kernel_form *out);
};

/* The first member of every backend. */
struct backend {
    const struct backend_ops *ops;
    struct log log;
};

#endif
