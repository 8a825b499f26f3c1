/* libratplus: RAT+ attention for inference engines, on Vulkan compute.
 *
 * This header is the whole public surface; ratplus_vulkan.h adds what a host
 * with its own Vulkan device needs. rules.md tells the rules that hold for
 * every function: struct sizes, ownership, threads, errors.
 *
 * A host loads the library, asks for the function table, and calls through it:
 *
 *     char why[256];
 *     const struct ratp_api *ratp = ratp_get_api(RATP_ABI_MAJOR, why, sizeof why);
 *
 * Thread tags: [any thread] may be called from any thread at any time;
 * [one thread per X] calls on one X, and on what was made from it, must not
 * overlap in time, calls on different X may.
 *
 * What is computed: RAT+ (arXiv 2602.18196). Per token t, key/value head and
 * channel, with g = sigmoid(f):
 *
 *     K_t = g_t K_{t-1} + (1 - g_t) k_t        V_t = g_t V_{t-1} + (1 - g_t) v_t
 *     y_t = sum over j in A(t) of softmax_j(scale * rot(q_t) . rot(K_j)) V_j
 *     out_t = y_t * sigmoid(o_t)
 *
 * where A(t), the attended set, is the variant's (enum ratp_variant_kind).
 */
#ifndef RATPLUS_H
#define RATPLUS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The library's version lives here and nowhere else. ABI_MAJOR changes when a
 * host must be recompiled, ABI_MINOR when something was added. */
#define RATP_VERSION "0.1.0"
#define RATP_ABI_MAJOR 1
#define RATP_ABI_MINOR 1

#if defined(_WIN32)
#define RATP_EXPORT __declspec(dllexport)
#elif defined(__GNUC__)
#define RATP_EXPORT __attribute__((visibility("default")))
#else
#define RATP_EXPORT
#endif

/* ---- Status codes -------------------------------------------------------- */

/* Every function that can fail returns one of these. last_error() has the
 * sentence that belongs to it. Codes are never renumbered. */
typedef int32_t ratp_status;
enum {
    RATP_OK = 0,
    RATP_INVALID_ARGUMENT = 1, /* null, out of range, wrong size, foreign or freed handle */
    RATP_WRONG_STATE = 2,      /* a call out of order, or an object still in use */
    RATP_OUT_OF_MEMORY = 3,    /* host or device memory, or the device's budget */
    RATP_CACHE_FULL = 4,       /* the cache's budget; nothing changed */
    RATP_NOT_RETAINED = 5,     /* the cache no longer holds what this needs; nothing changed */
    RATP_UNSUPPORTED = 6,      /* well-formed, but not on this device or in this version */
    RATP_NOT_FOUND = 7,        /* no such device, extension or file */
    RATP_PARSE_ERROR = 8,      /* a text or a file is malformed; the message says where */
    RATP_DEVICE_LOST = 9,      /* the GPU is gone: every call on its device fails from now on */
    RATP_INTERNAL = 10         /* a driver failed in a way that it should not */
};

typedef int32_t ratp_log_level;
enum { RATP_LOG_ERROR = 0, RATP_LOG_WARNING = 1, RATP_LOG_INFO = 2, RATP_LOG_DEBUG = 3 };

/* ---- Objects -------------------------------------------------------------
 * All are opaque. Each belongs to its parent, in this order:
 * instance > device > buffer, cache; cache > seq, step; instance > policy.
 * A parent that still has children is not destroyed: its destroy function
 * returns RATP_WRONG_STATE and says how many there are. */
typedef struct ratp_instance ratp_instance; /* the loaded library; lists devices */
typedef struct ratp_device ratp_device;     /* a queue, memory and pipelines */
typedef struct ratp_buffer ratp_buffer;     /* device memory for tensors */
typedef struct ratp_policy ratp_policy;     /* (layer, key/value head) -> variant */
typedef struct ratp_cache ratp_cache;       /* a pool of KV pages for one model */
typedef struct ratp_seq ratp_seq;           /* one sequence in a cache */
typedef struct ratp_step ratp_step;         /* one forward pass: a transaction */

/* ---- Instance ------------------------------------------------------------ */

struct ratp_instance_params {
    size_t struct_size;
    /* Called with one line of text, without newline, from any thread that is
     * inside a call of the library. NULL: silent. It must not call back. */
    void (*log)(void *user, ratp_log_level level, const char *message);
    void *log_user;
    ratp_log_level log_level; /* messages above this level are not made; 0: errors only */
    /* Nonzero: do not look for Vulkan at all; only the reference device is listed. */
    uint32_t no_vulkan;
    /* Nonzero: turn on the Khronos validation layer with synchronisation
     * checks; its messages arrive as RATP_LOG_ERROR with the prefix
     * "validation: ". instance_create fails with RATP_NOT_FOUND when the layer
     * is not installed. For tests. */
    uint32_t validation;
};

/* ---- Devices ------------------------------------------------------------- */

typedef int32_t ratp_device_kind;
enum {
    RATP_DEVICE_DISCRETE = 0,
    RATP_DEVICE_INTEGRATED = 1,
    RATP_DEVICE_OTHER = 2,    /* virtual GPUs and what Vulkan calls "other" */
    RATP_DEVICE_SOFTWARE = 3, /* Vulkan on the CPU: lavapipe, SwiftShader */
    RATP_DEVICE_REFERENCE = 4 /* plain C, no Vulkan; always the last in the list */
};

#define RATP_NAME_SIZE 256

struct ratp_device_info {
    size_t struct_size; /* set by the caller */
    ratp_device_kind kind;
    uint32_t usable;             /* 0: lacks a required feature, see `why_not` */
    char name[RATP_NAME_SIZE];   /* as the driver says it, or "reference" */
    char driver[RATP_NAME_SIZE]; /* driver name and version */
    char why_not[RATP_NAME_SIZE];
    uint64_t memory_bytes;     /* size of the largest device-local heap */
    uint64_t max_allocation;   /* bytes in one allocation */
    uint32_t api_version;      /* as Vulkan encodes it; 0 for the reference */
    uint32_t subgroup_min;     /* invocations in a subgroup */
    uint32_t subgroup_max;
    uint32_t shared_bytes;     /* workgroup memory */
    uint32_t vendor_id;
    uint32_t device_id;
    uint32_t features; /* RATP_FEATURE_* that the device offers */
};

/* What a device offers beyond the baseline. */
enum {
    RATP_FEATURE_STORAGE_16BIT = 1u << 0,
    RATP_FEATURE_FLOAT16 = 1u << 1,
    RATP_FEATURE_SUBGROUP_SIZE_CONTROL = 1u << 2,
    RATP_FEATURE_INTEGER_DOT_PRODUCT = 1u << 3,
    RATP_FEATURE_COOPERATIVE_MATRIX = 1u << 4,
    RATP_FEATURE_HOST_IMPORT = 1u << 5, /* buffers over host memory without a copy */
    RATP_FEATURE_MEMORY_BUDGET = 1u << 6
};

struct ratp_device_params {
    size_t struct_size;
    /* Part of a device's name, without regard to case, or its index as a
     * decimal number ("0"), or "reference", or "software" for a Vulkan device
     * on the CPU. NULL or "": the first usable one of the kinds discrete,
     * integrated, other, software, reference. Copied. */
    const char *name;
    /* The most device memory the library may allocate on this device, in
     * bytes; 0: no limit but the device's own. */
    uint64_t memory_budget;
};

/* One line about one kernel: which form this device would run, and why not a
 * faster one. All strings live as long as the device. */
struct ratp_kernel_form {
    size_t struct_size; /* set by the caller */
    const char *kernel; /* "prefill attention" */
    const char *form;   /* "plain, float32, subgroups of 8" */
    const char *reason; /* why no faster form is used; "" when this is the fastest */
};

/* ---- Tensors and buffers -------------------------------------------------- */

typedef int32_t ratp_dtype;
enum {
    RATP_DTYPE_DEFAULT = 0, /* float32 for tensors, float16 for a cache */
    RATP_F32 = 1,
    RATP_F16 = 2,
    RATP_BF16 = 3,
    /* Since ABI 1.1, for a cache and for K and V of attend_external, no other tensor:
     * blocks of 32 neighbouring channels, each an 8-bit number times the block's float16
     * scale, as GGUF's q8_0. There, and in host's tensors, a block is 34 bytes: the scale,
     * then the numbers. Head sizes that are no multiple of 32: RATP_UNSUPPORTED. */
    RATP_Q8_0 = 4,
    /* Since ABI 1.1, for K and V of attend_external alone: GGUF's q4_0, blocks of 18 bytes
     * for 32 channels: a float16 scale, then 16 bytes with two numbers each, that of channel
     * i in the low half of byte i and that of channel i + 16 in its high half. A number is
     * 8 less than its four bits say. */
    RATP_Q4_0 = 5
};

typedef int32_t ratp_memory_kind;
enum {
    RATP_MEMORY_DEVICE = 0, /* fastest for the device; reached by buffer_read and buffer_write */
    RATP_MEMORY_HOST = 1    /* mapped for the host, readable by the device */
};

struct ratp_buffer_params {
    size_t struct_size;
    uint64_t size; /* bytes, at least 1 */
    ratp_memory_kind kind;
    /* Not NULL: the buffer is this host memory, used in place without a copy
     * (needs RATP_FEATURE_HOST_IMPORT, else RATP_UNSUPPORTED). It must stay
     * valid until buffer_destroy; its address and size must be multiples of
     * 4096 on a Vulkan device. */
    void *host;
};

/* An operand: a view of device or host memory as [batch][token][head][channel].
 * Channels are neighbours. Strides are in bytes; 0 means packed. With 16-bit
 * types, strides and the address must be multiples of 4, with float32 too; with
 * types in blocks multiples of 2. */
struct ratp_tensor {
    size_t struct_size;
    ratp_buffer *buffer;   /* NULL: `host` is used */
    void *host;            /* read or written during the call only; staged by the library */
    uint64_t offset;       /* bytes from the start of the buffer, or of `host` */
    ratp_dtype dtype;      /* default float32 */
    uint64_t token_stride; /* 0: heads * channels * element size */
    uint64_t head_stride;  /* 0: channels * element size; in blocks: the bytes of these */
    uint64_t batch_stride; /* only attend_external; 0: tokens * token_stride */
};

/* ---- Geometry ------------------------------------------------------------ */

typedef int32_t ratp_rope_style;
enum {
    RATP_ROPE_NONE = 0,
    RATP_ROPE_HALF = 1,       /* channel i turns with channel i + size/2 */
    RATP_ROPE_INTERLEAVED = 2 /* channel 2i turns with channel 2i + 1 */
};

/* Rotary position: pair i at position t turns by
 * (t / scale) * theta^(-2i/size) / factors[i]; YaRN (arXiv 2309.00071)
 * mixes these angles with the unscaled ones by wavelength. */
struct ratp_rope {
    size_t struct_size;
    ratp_rope_style style;
    uint32_t size;        /* channels that turn, a multiple of 4; 0: all of the head */
    double theta;         /* 0: 10000 */
    double scale;         /* linear position scaling; 0: 1 */
    const float *factors; /* size/2 divisors of the frequencies, or NULL; copied */
    /* YaRN. yarn_factor 0: off. */
    double yarn_factor;   /* how many times longer than the trained context */
    uint32_t yarn_context; /* the trained context, in tokens */
    double yarn_beta_fast; /* 0: 32 */
    double yarn_beta_slow; /* 0: 1 */
    double yarn_attention; /* factor on rotated q and k; 0: 0.1 ln(yarn_factor) + 1 */
};

/* The attention of one model, or of one tensor-parallel rank of it. */
struct ratp_geometry {
    size_t struct_size;
    uint32_t layers;      /* 1 to 4096 */
    uint32_t query_heads; /* Hq: a multiple of kv_heads */
    uint32_t kv_heads;    /* Hkv: 1 to 1024 */
    uint32_t head_size;   /* d of q and k: a multiple of 8, 8 to 256 */
    uint32_t value_size;  /* dv of v; 0: head_size. With memory it must equal head_size */
    uint32_t memory;      /* nonzero: RAT+ memory; every attend gives forget-gate logits `f` */
    float scale;          /* factor on q . k; 0: head_size^-1/2 */
    float softcap;        /* s -> softcap * tanh(s / softcap); 0: off */
    uint32_t max_tokens;  /* longest sequence, bounds rotary tables; 0: 1048576; at most 2^24 */
    const struct ratp_rope *rope; /* NULL: no rotation */
    /* Tensor-parallel ranks: the model's key/value head that this rank's head 0
     * is. Head ranges of a policy speak of the model's heads. */
    uint32_t first_kv_head;
    uint32_t total_kv_heads; /* 0: kv_heads */
};

/* ---- Policy -------------------------------------------------------------- */

/* The attended set A(t): key j <= t is attended when ... */
typedef int32_t ratp_variant_kind;
enum {
    RATP_DENSE = 0,     /* always */
    RATP_DILATED = 1,   /* (j+1) % dilation == 0, or t - j <= window, or j < sinks */
    RATP_STREAMING = 2, /* t - j <= window, or j < sinks */
    RATP_QUEST = 3,     /* j is in one of the best pages for this query, or in the newest one */
    RATP_MOBA = 4,      /* j is in one of the best blocks for this query, or in its own */
    RATP_SNAPKV = 5     /* j was kept when the prompt was compressed, or came later */
};

/* Who chooses the pages or blocks of quest and moba. */
typedef int32_t ratp_selection;
enum {
    RATP_SELECT_HEAD = 0, /* each query head */
    RATP_SELECT_GROUP = 1 /* the query heads of a key/value head, by the sum of their scores */
};

/* What snapkv makes of the scores of neighbouring tokens. */
typedef int32_t ratp_pooling;
enum { RATP_POOL_MAX = 0, RATP_POOL_AVG = 1 };

/* A field that the kind has no use for must be 0. */
struct ratp_variant {
    size_t struct_size;
    ratp_variant_kind kind;
    uint32_t dilation; /* D, 1 to 2^24; dilated only. 1 is dense */
    uint32_t window;   /* W: tokens before the query's own, which is always attended; to 2^24 */
    uint32_t sinks;    /* S: first tokens of the sequence; to 2^24 */
    /* Since ABI 1.1. */
    uint32_t page;     /* quest: tokens of a page; 0: 16; 8 to 4096, a multiple of 8 */
    /* quest: tokens a query attends, the newest page counted whole; to 2^24, a multiple
     * of page, at most 65536 pages. Required */
    uint32_t budget;
    uint32_t block;    /* moba: tokens of a block; 0: 512; 8 to 65536, a multiple of 8 */
    uint32_t topk;     /* moba: blocks a query attends, its own counted; 1 to 65536. Required */
    ratp_selection selection; /* quest, moba */
    uint32_t observe;  /* snapkv: the prompt's last queries, which choose; 0: 32; 1 to 1024 */
    uint32_t capacity; /* snapkv: tokens kept of a prompt; above observe, to 2^24. Required;
                          see seq_compress */
    uint32_t kernel;   /* snapkv: neighbours that are pooled; 0: 7; odd, 1 to 255 */
    ratp_pooling pool; /* snapkv */
    /* What the tokens of a prompt attend where that differs: dense, dilated, streaming
     * or moba, with no `prompt` of its own; copied. NULL: dense for quest and snapkv,
     * for others the same variant. Policies only. */
    const struct ratp_variant *prompt;
};

/* A half-open range; count 0 means "to the end". */
struct ratp_range {
    uint32_t first;
    uint32_t count;
};

/* ---- Cache --------------------------------------------------------------- */

typedef int32_t ratp_retention;
enum {
    RATP_RETAIN_FULL = 0,  /* every K and V is kept; any policy may follow any other */
    RATP_RETAIN_NEEDED = 1 /* only what the policy can ever attend is kept */
};

struct ratp_cache_params {
    size_t struct_size;
    const struct ratp_geometry *geometry; /* copied */
    const ratp_policy *policy;            /* of new sequences; NULL: dense; copied */
    uint64_t budget;      /* most bytes of pages and memory states; 0: the device's limit */
    uint32_t page_slots;  /* tokens a page holds of a layer; 0: 64; 8 to 4096, a multiple of 8 */
    ratp_dtype k_dtype;   /* default float16 */
    ratp_dtype v_dtype;   /* default float16 */
    ratp_retention retention;
};

struct ratp_cache_stats {
    size_t struct_size; /* set by the caller */
    uint64_t budget_bytes;
    uint64_t pool_bytes;   /* allocated from the device for pages */
    uint64_t used_bytes;   /* pages held by sequences */
    uint64_t state_bytes;  /* of sequences beside their pages: memory states, and what snapkv chose by */
    uint64_t scratch_bytes; /* work memory of steps, kept between them */
    uint64_t page_bytes;
    uint64_t pages_total;
    uint64_t pages_used;
    uint32_t sequences;
    uint64_t pages_free;   /* allocated and held by no sequence */
    uint64_t pages_shared; /* held by several sequences; counted once in pages_used */
};

struct ratp_seq_stats {
    size_t struct_size; /* set by the caller */
    uint64_t length;    /* tokens fed so far: the position of the next one */
    uint64_t pages;
    uint64_t bytes;     /* of pages, memory state and snapkv's last queries */
    uint64_t number;       /* counts the cache's sequences from 1; messages name it so */
    uint64_t pages_shared; /* of `pages`, those that other sequences hold too */
};

/* ---- Steps --------------------------------------------------------------- */

/* What the new tokens of a sequence are. It matters where a variant treats prompts
 * apart: quest, snapkv, and any with a `prompt`. */
typedef int32_t ratp_part_kind;
enum {
    RATP_PART_AUTO = 0,   /* several tokens are of a prompt, one is decoded */
    RATP_PART_PROMPT = 1, /* of a prompt: also one token that ends, or goes on with, a prompt */
    RATP_PART_DECODE = 2  /* decoded: also several, such as a draft that is verified */
};

struct ratp_step_params {
    size_t struct_size;
    uint32_t count;           /* sequences in the batch, 1 to 65536 */
    ratp_seq *const *seqs;    /* [count], all of this cache, each once */
    const uint32_t *n_tokens; /* [count], new tokens of each, at least 1 */
    /* Since ABI 1.1. */
    const ratp_part_kind *kinds; /* [count]; NULL: RATP_PART_AUTO for all */
};

/* Operands of one layer. Rows are the batch's new tokens, sequence after
 * sequence in step_begin's order. Shapes: q, o, out [rows][query_heads][d or dv],
 * k, f [rows][kv_heads][head_size], v [rows][kv_heads][value_size],
 * lse [rows][query_heads] float32. */
struct ratp_attend_io {
    size_t struct_size;
    const struct ratp_tensor *q;
    const struct ratp_tensor *k;
    const struct ratp_tensor *v;
    const struct ratp_tensor *f;   /* forget-gate logits; given exactly when geometry.memory */
    const struct ratp_tensor *o;   /* output-gate logits; NULL: no output gate */
    const struct ratp_tensor *out; /* written */
    const struct ratp_tensor *lse; /* written: natural log of the sum of exp(logits); NULL: not wanted */
    /* Since ABI 1.1. */
    const struct ratp_tensor *sinks; /* see ratp_external; of this layer; NULL: none */
};

/* Attention over K and V that the host keeps in its own tensors, already
 * rotated: no cache, no memory, no rotation. Key j of a sequence has position
 * j, query i has position first_position + i. */
struct ratp_external {
    size_t struct_size;
    uint32_t batch;        /* sequences; 0: 1 */
    uint32_t query_tokens; /* of each sequence, at least 1; batch * query_tokens to 2^24 */
    uint32_t key_tokens;   /* of each sequence, 1 to 2^24 */
    uint32_t query_heads;
    uint32_t kv_heads;
    uint32_t head_size;
    uint32_t value_size; /* 0: head_size */
    float scale;         /* 0: head_size^-1/2 */
    float softcap;       /* 0: off */
    /* Nonzero: key j is seen by query i only when j <= first_position + i, and
     * `variant` applies. 0: every key is seen (but for `mask`), no variant. */
    uint32_t causal;
    uint32_t first_position;
    /* NULL: dense; dense, dilated or streaming; since ABI 1.1 quest or moba, which need
     * `causal`, no `mask`, and all keys up to the last query's own: first_position +
     * query_tokens <= key_tokens; and `k` of no quantised dtype. Queries choose each for
     * itself, be there one or many. */
    const struct ratp_variant *variant;
    const struct ratp_tensor *q, *k, *v; /* k and v, each: any dtype; q: float32, float16
                                            or bfloat16, as `o` and `out` */
    const struct ratp_tensor *o;         /* NULL: no output gate */
    /* Added to the scaled logits: [batch][query token][key], float32 or
     * float16; -inf hides a key. Its head_stride is not 0 when each query head
     * has a mask of its own; batch_stride 0 then means query_heads * head_stride.
     * NULL: none. A query that sees no key gets 0. */
    const struct ratp_tensor *mask;
    const struct ratp_tensor *out;
    const struct ratp_tensor *lse; /* NULL: not wanted; -inf for a query without a key or sink */
    /* Since ABI 1.1. */
    /* A factor on the mask for each query head, as ALiBi has: [query_heads], finite, in host
     * memory; copied. Only with a mask. NULL: 1. */
    const float *slopes;
    /* Sink logits: one more key for each query head, that every query sees and whose V is 0:
     * exp(its logit) is in the softmax's sum, and in lse. It is neither scaled, nor capped,
     * nor masked. [query_heads] float32, neighbours: strides are not used. NULL: none. */
    const struct ratp_tensor *sinks;
    /* For quest and moba; else NULL and 0. What is known of K's blocks, by
     * which queries choose among them: memory that the host keeps beside its K, as long as
     * external_summary_bytes says, in a buffer of the device from `summaries_offset` on, a
     * multiple of 16. The call reads the K of keys from `summarised` on, brings the memory
     * up to its last query, and chooses. NULL: made for this call alone, so that every
     * call reads all of K. */
    ratp_buffer *summaries;
    uint64_t summaries_offset;
    /* Keys of which `summaries` tells already, to key_tokens: the first_position +
     * query_tokens of calls before, down to where the host has written K anew since. 0: of
     * none; what is in the memory does not matter then. */
    uint32_t summarised;
};

/* Merges partial results over disjoint sets of keys:
 * out = sum_p exp(lse_p - lse) out_p, lse = log sum_p exp(lse_p). */
struct ratp_merge {
    size_t struct_size;
    uint32_t parts;      /* 1 to 64 */
    uint32_t tokens;
    uint32_t heads;
    uint32_t value_size; /* a multiple of 8, 8 to 256 */
    const struct ratp_tensor *const *part_out; /* [parts], each [tokens][heads][value_size] */
    const struct ratp_tensor *const *part_lse; /* [parts], each [tokens][heads] float32 */
    const struct ratp_tensor *out;
    const struct ratp_tensor *lse; /* NULL: not wanted */
};

/* ---- The function table --------------------------------------------------
 * It only grows at its end; a slot never changes its meaning. struct_size
 * tells how much of it this library has. Every `T **` that a destroy function
 * takes is set to NULL when it succeeds; NULL inside is accepted. */
struct ratp_api {
    size_t struct_size;
    uint32_t abi_major;
    uint32_t abi_minor;

    /* The library's version, "0.1.0". Static. [any thread] */
    const char *(*version)(void);
    /* The name of a status, "RATP_CACHE_FULL"; "unknown status" for others.
     * Static. [any thread] */
    const char *(*status_name)(ratp_status status);
    /* Copies the message of the last failed call whose first argument was
     * `object` (any handle of this library), cut to `size` with its NUL. Empty
     * when no call failed yet. Returns the message's full length without NUL,
     * 0 for a handle that is none. [any thread] */
    size_t (*last_error)(const void *object, char *text, size_t size);

    /* Makes an instance. `params` may be NULL. On failure *out is NULL and
     * `reason`, if not NULL, gets the message. Works without a Vulkan loader:
     * then only the reference device is listed, and the log says why.
     * [any thread] */
    ratp_status (*instance_create)(const struct ratp_instance_params *params,
                                   ratp_instance **out, char *reason, size_t reason_size);
    /* [one thread per instance] */
    ratp_status (*instance_destroy)(ratp_instance **instance);
    /* An extension's table by its revisioned id, such as "ratplus.vulkan/1";
     * NULL when this library has none of that name. Static. [any thread] */
    const void *(*get_extension)(const ratp_instance *instance, const char *id);

    /* Devices that were there when the instance was made, unusable ones too.
     * [any thread] */
    ratp_status (*device_count)(ratp_instance *instance, uint32_t *count);
    /* [any thread] */
    ratp_status (*device_describe)(ratp_instance *instance, uint32_t index,
                                   struct ratp_device_info *info);
    /* Opens a device with a queue of its own. `params` may be NULL. One device
     * may be opened several times. [any thread] */
    ratp_status (*device_open)(ratp_instance *instance, const struct ratp_device_params *params,
                               ratp_device **out);
    /* Waits for the device's work, then frees it. [one thread per device] */
    ratp_status (*device_close)(ratp_device **device);
    /* What device_describe says, of an open device. [any thread] */
    ratp_status (*device_info)(ratp_device *device, struct ratp_device_info *info);
    /* The form of kernel `index`; RATP_NOT_FOUND past the last. [any thread] */
    ratp_status (*device_kernel_form)(ratp_device *device, uint32_t index,
                                      struct ratp_kernel_form *form);
    /* Waits until all submitted work is done. [any thread] */
    ratp_status (*device_wait)(ratp_device *device);

    /* [any thread] */
    ratp_status (*buffer_create)(ratp_device *device, const struct ratp_buffer_params *params,
                                 ratp_buffer **out);
    /* Work that uses the buffer and was submitted before is completed first.
     * [one thread per buffer] */
    ratp_status (*buffer_destroy)(ratp_buffer **buffer);
    /* Copies host memory in, ordered after all work submitted before, and
     * returns when `data` may be reused. [one thread per buffer] */
    ratp_status (*buffer_write)(ratp_buffer *buffer, uint64_t offset, const void *data,
                                uint64_t size);
    /* Waits for all work submitted before, then copies out. [one thread per buffer] */
    ratp_status (*buffer_read)(ratp_buffer *buffer, uint64_t offset, void *data, uint64_t size);
    /* The buffer's address in the host's memory: RATP_MEMORY_HOST buffers have
     * one on every device, others only where the device shares the host's
     * memory, else RATP_UNSUPPORTED. Valid until buffer_destroy. Reading results
     * there needs device_wait first. [any thread] */
    ratp_status (*buffer_map)(ratp_buffer *buffer, void **address);

    /* A policy that says dense everywhere. [any thread] */
    ratp_status (*policy_create)(ratp_instance *instance, ratp_policy **out);
    /* From JSON (UTF-8, `size` bytes, no NUL needed; see rules.md for the
     * form). On RATP_PARSE_ERROR the message of the instance has line and
     * column. [any thread] */
    ratp_status (*policy_from_json)(ratp_instance *instance, const char *text, size_t size,
                                    ratp_policy **out);
    /* Lays `variant` over a range of layers and of key/value heads; what was
     * there before is replaced. Ranges may reach past a model's end; they are
     * checked by cache_create. [one thread per policy] */
    ratp_status (*policy_set)(ratp_policy *policy, struct ratp_range layers,
                              struct ratp_range kv_heads, const struct ratp_variant *variant);
    /* The policy as JSON that policy_from_json reads, with a NUL. *needed gets
     * the full length without NUL; the text is cut to `size`. [one thread per policy] */
    ratp_status (*policy_to_json)(const ratp_policy *policy, char *text, size_t size,
                                  size_t *needed);
    /* Caches made with it keep their copy. [one thread per policy] */
    ratp_status (*policy_destroy)(ratp_policy **policy);

    /* Makes an empty cache. Pages are allocated in blocks as sequences grow,
     * up to the budget. [any thread] */
    ratp_status (*cache_create)(ratp_device *device, const struct ratp_cache_params *params,
                                ratp_cache **out);
    /* [one thread per cache] */
    ratp_status (*cache_destroy)(ratp_cache **cache);
    /* [one thread per cache] */
    ratp_status (*cache_stats)(ratp_cache *cache, struct ratp_cache_stats *stats);

    /* An empty sequence under the cache's policy. [one thread per cache] */
    ratp_status (*seq_create)(ratp_cache *cache, ratp_seq **out);
    /* Frees its pages. Refused while a step that has it is open.
     * [one thread per cache] */
    ratp_status (*seq_destroy)(ratp_seq **seq);
    /* [one thread per cache] */
    ratp_status (*seq_stats)(ratp_seq *seq, struct ratp_seq_stats *stats);
    /* The positions whose K and V layer `layer` holds, for key/value head
     * `kv_head`, ascending. *count gets how many there are; at most `capacity`
     * are written; `positions` may be NULL when capacity is 0.
     * [one thread per cache] */
    ratp_status (*seq_positions)(ratp_seq *seq, uint32_t layer, uint32_t kv_head,
                                 uint32_t *positions, uint64_t capacity, uint64_t *count);

    /* Starts a forward pass: reserves pages, plans, uploads the work lists. One
     * step per cache may be open. On failure nothing has changed.
     * [one thread per cache] */
    ratp_status (*step_begin)(ratp_cache *cache, const struct ratp_step_params *params,
                              ratp_step **out);
    /* One layer; each layer once, in any order. If any operand is in host
     * memory the call returns when `out` is written; otherwise the work is
     * recorded, and runs when the step is committed (or submitted through
     * ratplus.vulkan/1). A refused argument (RATP_INVALID_ARGUMENT,
     * RATP_WRONG_STATE) changes nothing; after any other failure only
     * step_abort is possible. [one thread per cache] */
    ratp_status (*step_attend)(ratp_step *step, uint32_t layer, const struct ratp_attend_io *io);
    /* Submits what is recorded and makes the new tokens part of their
     * sequences. Every layer must have been attended (RATP_WRONG_STATE
     * otherwise, and the step stays open). Does not wait. Frees the step and
     * sets *step to NULL when it succeeds. [one thread per cache] */
    ratp_status (*step_commit)(ratp_step **step);
    /* Drops the step: every sequence is as it was before step_begin. Frees the
     * step and sets *step to NULL. [one thread per cache] */
    ratp_status (*step_abort)(ratp_step **step);

    /* Runs at once; returns when `out` is written if any operand is in host
     * memory, else as soon as the work is submitted. [any thread] */
    ratp_status (*attend_external)(ratp_device *device, const struct ratp_external *params);
    /* Likewise. [any thread] */
    ratp_status (*merge)(ratp_device *device, const struct ratp_merge *params);

    /* Since ABI 1.1. */

    /* A sequence with the same tokens, in as much time as its page table takes
     * to copy: both share the pages, and the one that first writes to a shared
     * page gets a page of its own in that step_begin. The memory state is
     * copied. Both then live their own lives. RATP_WRONG_STATE while an open
     * step has `seq`. [one thread per cache] */
    ratp_status (*seq_fork)(ratp_seq *seq, ratp_seq **out);
    /* Forgets the tokens from position `length` on, at most the sequence's own
     * length, and frees their pages. What follows is as if they had never been
     * fed; with memory, the state is computed from the K and V of token
     * length - 1 as the cache holds them, so it is rounded to the cache's types.
     * Retention `full` serves every length. With `needed` each layer must still
     * hold what its variant keeps of a sequence of that length, and with memory
     * token length - 1 as well: that is certain where seq_positions lists them,
     * and RATP_NOT_RETAINED names the layer and the first missing token where
     * they are gone. So it does, with both, below the length at which snapkv heads
     * were compressed. 0 is always possible. RATP_WRONG_STATE while an open step
     * has `seq`. [one thread per cache] */
    ratp_status (*seq_truncate)(ratp_seq *seq, uint64_t length);
    /* What the sequence attends from its next step on; `policy` is copied, NULL
     * is the cache's own. A step may mix sequences of different policies. With
     * retention `full` any policy may follow any other, attention is as if it had
     * been in force always, and a switch costs no device work; only where it begins
     * or ends that heads choose by the query (quest, moba) are they copied to pages
     * with room for what blocks are chosen by, or back. With `needed` every
     * head must still hold what the new variant keeps of a sequence of this length
     * (for example D = 4 to D = 16, or a smaller window); RATP_NOT_RETAINED names
     * the layer and the first token that is missing. The same holds, with both, for
     * heads of snapkv that were compressed: with `full` only snapkv of the same numbers
     * may follow there. Heads that become snapkv attend all they hold until seq_compress,
     * or the first decoded token after their next prompt. What is kept is copied to
     * pages of its own, for which there must be room (RATP_CACHE_FULL), and the
     * pages before are freed. A policy's ranges are checked as by cache_create.
     * RATP_WRONG_STATE while an open step has `seq`. [one thread per cache] */
    ratp_status (*seq_set_policy)(ratp_seq *seq, const ratp_policy *policy);
    /* Writes a snapshot of the sequence to `data`, from which seq_load makes it
     * again: in this process or another, on any device. *needed gets the
     * snapshot's size in bytes; with data NULL and size 0 that is all. A smaller
     * `size` is RATP_INVALID_ARGUMENT, and nothing is written; after any other
     * failure `data` holds no snapshot. Waits for submitted work. RATP_WRONG_STATE
     * while an open step has `seq`. [one thread per cache] */
    ratp_status (*seq_save)(ratp_seq *seq, void *data, uint64_t size, uint64_t *needed);
    /* A sequence from a snapshot of `size` bytes, with the tokens, memory state and
     * policy of the one that was saved: it goes on as that one would, on the same
     * device and with the same page_slots bit for bit. The cache's geometry, rotation,
     * dtypes and retention must be those of the cache that it was saved from, and
     * `length` at most max_tokens, else RATP_INVALID_ARGUMENT names what differs; query
     * heads, scale, soft-cap, page_slots, budget and policy may differ.
     * RATP_PARSE_ERROR: the bytes are cut short, damaged or no snapshot, and the
     * message says where. RATP_UNSUPPORTED: of a version that this library does not
     * read. RATP_CACHE_FULL: there is no room. On failure *out is NULL.
     * [one thread per cache] */
    ratp_status (*seq_load)(ratp_cache *cache, const void *data, uint64_t size, ratp_seq **out);
    /* seq_save to a file, readable by its owner alone. It is written beside `path`,
     * under that name and a suffix, and takes its place when it is on the disk: on
     * failure a file that was there still is. Takes host memory for the whole
     * snapshot. What the system refuses is RATP_INVALID_ARGUMENT, a folder that is
     * not there RATP_NOT_FOUND, with the system's reason. [one thread per cache] */
    ratp_status (*seq_save_file)(ratp_seq *seq, const char *path);
    /* seq_load from a file. RATP_NOT_FOUND when there is none; what cannot be read
     * is RATP_INVALID_ARGUMENT, with the system's reason. [one thread per cache] */
    ratp_status (*seq_load_file)(ratp_cache *cache, const char *path, ratp_seq **out);
    /* Compresses the heads of snapkv that hold more than `capacity` tokens, now: of
     * those held, the `capacity` that the last `observe` queries attend most stay, and
     * the pages of the others are freed when submitted work is done. It happens by itself,
     * once, in the step_begin of the first decoded token (RATP_PART_DECODE), if there is
     * more than `capacity` then; this is for other times, and for later: what was kept then
     * competes with what came since. A head that was compressed attends what it holds,
     * in later prompts too. RATP_OK, and nothing done, where no head holds more.
     * There must be room for what stays beside what is there (RATP_CACHE_FULL), also in
     * that step_begin. RATP_NOT_RETAINED names the layer when fewer than `observe` queries
     * are known, as after a long truncation, or a change of the head's numbers; a
     * step_begin waits with it then. RATP_WRONG_STATE while an open step has `seq`.
     * [one thread per cache] */
    ratp_status (*seq_compress)(ratp_seq *seq);
    /* The bytes that `summaries` of such a call must have: for each sequence, key/value head
     * and block of key_tokens keys, two rows of K's type for quest, one of float32 for moba,
     * and as many for each part of a block that has more than 4096 tokens. 0 where the
     * variant does not choose, or no block is complete. Of `params` only batch, key_tokens,
     * kv_heads, head_size, causal, variant and k's dtype (k NULL: float32) are looked at. With
     * more keys the same bytes stay valid and others follow: ask for as many keys as K has
     * room for, or copy to a larger buffer when it grows. When any other of these changes,
     * the memory begins anew, with `summarised` 0. RATP_UNSUPPORTED where one block of all
     * heads and sequences takes 4 GiB. [any thread] */
    ratp_status (*external_summary_bytes)(ratp_device *device, const struct ratp_external *params,
                                          uint64_t *bytes);
    /* What the policy says of a layer and of one of the model's key/value heads, both to
     * 65535, for a prompt (RATP_PART_PROMPT) or for decoded tokens (RATP_PART_DECODE; no
     * other): for hosts that attend through attend_external. Nothing of *variant is left
     * to a default, dilation 1 reads as dense, and `prompt` is NULL. [one thread per policy] */
    ratp_status (*policy_variant)(const ratp_policy *policy, uint32_t layer, uint32_t kv_head,
                                  ratp_part_kind part, struct ratp_variant *variant);
};

/* The only exported symbol. Returns the table, which is static, or NULL when
 * this library does not speak `abi_major`; then `reason`, if not NULL, gets a
 * sentence of at most `reason_size` bytes with its NUL. [any thread] */
RATP_EXPORT const struct ratp_api *ratp_get_api(uint32_t abi_major, char *reason,
                                                size_t reason_size);

#ifdef __cplusplus
}
#endif

#endif
