/* What the tests of compression share: a model with random tokens, sequences that are fed
 * them, and the definition of what must come out. */
#ifndef RATPLUS_TESTS_API_COMPRESS_H
#define RATPLUS_TESTS_API_COMPRESS_H

#include "api_host.h"

enum { TOKENS = 160, GROUP = QUERY_HEADS / KV_HEADS };

struct compress_model {
    const char *policy;
    ratp_retention retention;
    ratp_dtype dtype; /* 0: float32 */
    uint32_t head_size; /* 0: HEAD_SIZE, at most 32 */
    uint32_t query_heads; /* 0: QUERY_HEADS; else nothing can be fed */
    uint32_t page_slots;
    uint64_t budget;
};

extern float compress_out[LAYERS][TOKENS * QUERY_HEADS * 32]; /* of the last feed */

void compress_start(void);
ratp_cache *compress_cache(const struct compress_model *model);
/* Feeds tokens [from, from + count) of those that all sequences share; compress_out gets
 * their results in the place of those tokens. */
void compress_feed(ratp_cache *cache, ratp_seq *seq, uint32_t from, uint32_t count,
                   ratp_part_kind kind);
/* The same tokens to two sequences in one step; their results are not kept. */
void compress_feed_two(ratp_cache *cache, ratp_seq *const seqs[2], uint32_t from, uint32_t count,
                       ratp_part_kind kind);
ratp_step *compress_begin(ratp_cache *cache, ratp_seq *seq, uint32_t count, ratp_part_kind kind);
void compress_attend(ratp_step *step, uint32_t layer, uint32_t from);
/* What layer `layer` holds for a head; returns how many. */
uint64_t compress_held(ratp_seq *seq, uint32_t layer, uint32_t head, uint32_t positions[TOKENS]);
uint64_t compress_pages(ratp_seq *seq);
/* The cache has nothing left. */
void compress_close(ratp_cache **cache);

/* The first `count` tokens, `prompt` of them as a prompt, compressed at these lengths; of
 * each head of a layer the variant. Checks `out` from token `first` on, and what `seq`
 * holds. Where tokens are rounded, give NULL for seq. */
void compress_check(ratp_seq *seq, uint32_t layer, const struct ratp_variant variants[KV_HEADS],
                    uint32_t first, uint32_t count, uint32_t prompt, const uint32_t *lengths,
                    uint32_t length_count);

#endif
