/* libratplus: RAT+ attention for inference engines, on Vulkan compute.
 *
 * This header has the functions, and ratplus_types.h, which it includes, what
 * they take: together the whole public surface. ratplus_vulkan.h adds what a
 * host with its own Vulkan device needs. rules.md tells the rules that hold for
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

#include "ratplus_types.h"

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
    /* Waits for the device's work, also when it is lost, then frees it. When the
     * work does not end within wait_limit_ms, what the driver may still use is
     * left to it until the process ends, and the answer is RATP_DEVICE_LOST, with
     * a message at the instance; *device is freed and NULL all the same.
     * [one thread per device] */
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
    /* Work that uses the buffer and was submitted before is completed first. Where
     * the memory is the host's and that work does not end within wait_limit_ms, the
     * answer is RATP_DEVICE_LOST, with a message at the device: the buffer is gone
     * and *buffer NULL, but the device may still reach the memory, which must stay
     * until the process ends. [one thread per buffer] */
    ratp_status (*buffer_destroy)(ratp_buffer **buffer);
    /* Copies host memory in, ordered after all work submitted before, and
     * returns when `data` may be reused. [one thread per buffer] */
    ratp_status (*buffer_write)(ratp_buffer *buffer, uint64_t offset, const void *data,
                                uint64_t size);
    /* Waits for all work submitted before, then copies out. [one thread per buffer] */
    ratp_status (*buffer_read)(ratp_buffer *buffer, uint64_t offset, void *data, uint64_t size);
    /* The buffer's address in the host's memory: RATP_MEMORY_HOST and
     * RATP_MEMORY_SHARED buffers have one on every device, others only where the
     * device shares the host's memory, else RATP_UNSUPPORTED. Valid until
     * buffer_destroy. Reading results there needs device_wait first. [any thread] */
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
    /* seq_save to a file. `path` must lead to a regular file, which is replaced, or to
     * where none is yet; symbolic links are followed and stay. A file that was there keeps
     * its permissions, a new one is readable by its owner alone. It is written under another
     * name in the same folder, and takes its place when it is on the disk: on failure a file
     * that was there still is, but where the system could not bring the folder to the disk
     * afterwards. Takes host memory for the whole snapshot. What the system refuses, and a
     * folder, pipe or device, is RATP_INVALID_ARGUMENT, a folder that is not there
     * RATP_NOT_FOUND, with the system's reason. [one thread per cache] */
    ratp_status (*seq_save_file)(ratp_seq *seq, const char *path);
    /* seq_load from a regular file, of which no more than some pages is in host memory at
     * a time. RATP_NOT_FOUND when there is none; what cannot be read is
     * RATP_INVALID_ARGUMENT, with the system's reason; folders, pipes and devices are too,
     * and are not opened. [one thread per cache] */
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
     * and block of key_tokens keys, two rows of K's type for quest (of float16 where K is q8_0
     * or q4_0), one of float32 for moba, and as many for each part of a block that has more
     * than 4096 tokens. 0 where the variant does not choose, or no block is complete. Of
     * `params` only batch, key_tokens, kv_heads, head_size, causal, variant and k's dtype (k
     * NULL: float32) are looked at. With more keys the same bytes stay valid and others
     * follow: ask for as many keys as K has room for, or copy to a larger buffer when it
     * grows. When any other of these changes, the memory begins anew, with `summarised` 0.
     * RATP_UNSUPPORTED where one block of all heads and sequences takes 4 GiB. [any thread] */
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
