/* Whether the tokens of a pass are of a prompt or decoded.
 *
 * A host's nodes do not say it, and how many tokens come does not either: one that verifies
 * drafted tokens gives several decoded ones at once. So each sequence is followed: a few tokens
 * behind its end are decoded ones, as is a single token. What is of a prompt is a sequence's
 * beginning, what takes the place of a prompt's tokens, every larger number of tokens, and what
 * may be the rest of a prompt that did not fit into the pass before. */
#ifndef RATPLUS_GGML_PARTS_H
#define RATPLUS_GGML_PARTS_H

#include <ratplus.h>
#include <stdbool.h>
#include <stdint.h>

/* The most tokens of a pass that may be decoded ones: 64 drafted ones, which is the most that
 * llama.cpp drafts unless told otherwise, and the one before them. */
enum { MOST_DECODED = 65 };

struct part_pass {
    uint64_t number;    /* of the passes over this cache, one after the other */
    uint32_t sequences; /* that have tokens in it, each as many */
    bool full;          /* it has no room for one token more of each */
    uint32_t tokens;
    bool causal;        /* `first` is known: how many tokens of the sequence come before the pass */
    uint32_t first;
};

/* The end of a sequence, as its last pass left it. Zero it for one that is not known. */
struct sequence_end {
    bool known;
    bool decoding;         /* the last pass went on with decoding */
    uint32_t tokens;       /* of the sequence */
    uint32_t decoded_from; /* those from here on were decoded, as far as is known */
    struct part_pass last;
};

/* What the tokens of the pass are, RATP_PART_PROMPT or RATP_PART_DECODE; the pass then counts as
 * the sequence's last. */
ratp_part_kind part_of(struct sequence_end *end, const struct part_pass *pass);

#endif
