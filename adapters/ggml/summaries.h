/* What queries of quest and moba choose by: summaries of the blocks of a host's K, beside
 * its cache.
 *
 * They are made at first need, one buffer of the device for each stream of a layer's cache
 * and each run of heads that choose alike, as long as the stream has cells. Each knows of how
 * many first cells it tells; whoever writes cells says so here, and they are made anew. All
 * calls may come from any thread. */
#ifndef RATPLUS_GGML_SUMMARIES_H
#define RATPLUS_GGML_SUMMARIES_H

#include "policy.h"
#include "statistics.h"

#include <ggml.h>

/* Whether queries of the variant choose among blocks; *block and *most, unless NULL, get the
 * tokens of one and how many a query attends, its own counted. */
bool variant_chooses(const struct ratp_variant *variant, uint32_t *block, uint32_t *most);

/* Frees what `policy` has no use for among the summaries of `keys`, a node's K of layer
 * `layer`. `runs` is room for as many as K has heads. Cheap while the policy stays. */
void summaries_follow(const struct ggml_tensor *keys, int layer, struct adapter_policy *policy,
                      struct head_run *runs);

/* Fills in the summaries of a call over one sequence, `sequence` of `keys`, and the run's heads.
 * `by` has all that external_summary_bytes looks at, query_tokens and first_position. Nothing is
 * filled in where each query attends all blocks. FALLBACK_SUMMARIES: the device has no memory
 * for them, and a line says so once; FALLBACK_SUMMARY_FORM: K is none that they are made of.
 * Afterwards they count as made up to the call's last query: summaries_spoil if it fails. */
enum fallback summaries_take(const struct ratp_api *ratp, ratp_device *device,
                             const struct ggml_tensor *keys, uint32_t sequence,
                             const struct head_run *run, struct ratp_external *by);

/* Bytes of summaries that the queries of such a call choose by. */
uint64_t summaries_read(const struct ratp_api *ratp, ratp_device *device,
                        const struct ratp_external *by);

/* Bytes of the memory that all of them have now. */
uint64_t summaries_held(void);

/* These bytes of a cache are written, or may be. */
void summaries_wrote(const void *memory, size_t size);
/* `size` bytes of caches were copied: what is known of whole streams in them is of their copies
 * too. After summaries_wrote of the copy. */
void summaries_copied(const void *from, const void *to, size_t size);
/* None are known any more: work of the device has failed. */
void summaries_spoil(void);
/* The host freed or cleared this memory. */
void summaries_forget(const void *memory, size_t size);

#endif
