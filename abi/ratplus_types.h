/* What the functions of ratplus.h take and give: status codes, objects and structs.
 *
 * Hosts include ratplus.h. rules.md tells the rules that hold for every struct. */
#ifndef RATPLUS_TYPES_H
#define RATPLUS_TYPES_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
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
    /* Since ABI 1.1. Bytes that can still be allocated of memory_bytes, now: what the driver
     * tells (RATP_FEATURE_MEMORY_BUDGET), which counts other processes too, and of an open
     * device no more than what is left of its memory_budget. Where the driver tells nothing
     * it is what this device has not taken of memory_bytes; others may have. 0: also of a
     * device that is lost. */
    uint64_t memory_free;
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
    /* Since ABI 1.1: the longest, in milliseconds, that a call waits for a Vulkan device
     * while nothing that was submitted ends. Then the device counts as lost. 0: 600000, ten
     * minutes; UINT64_MAX: for ever. Raise it where a single submission may take longer, as
     * a whole prompt's can on a software device, or where a semaphore that step_sync waits
     * for is signalled later than that. */
    uint64_t wait_limit_ms;
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
    RATP_MEMORY_HOST = 1,   /* mapped for the host, readable by the device */
    /* Since ABI 1.1: mapped for the host too, but in the device's own memory where the host
     * can reach as much of it (a GPU with resizable BAR, or without memory of its own), else
     * like RATP_MEMORY_HOST. For what the device reads often and the host writes; what the
     * host reads there may come slowly. */
    RATP_MEMORY_SHARED = 2
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
    uint64_t pool_bytes;   /* allocated from the device for pages; free ones may be given back */
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
     * query_tokens <= key_tokens. Queries choose each for itself, be there one or many. */
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

#ifdef __cplusplus
}
#endif

#endif
