#include "parts.h"

/* Whether the host may have cut the pass off from the sequence's last one. It gives a batch in
 * passes that have the same number of tokens of each sequence. So they follow each other, and one
 * ends because it is full or because a sequence has no more tokens, which the next is without. */
static bool may_be_a_rest(const struct sequence_end *end, const struct part_pass *pass)
{
    return end->known && end->last.number + 1 == pass->number &&
           (end->last.full || pass->sequences < end->last.sequences);
}

/* Whether the pass begins where decoding would go on: at the end, or a few decoded tokens before
 * it, because drafted tokens were not accepted and taken back. */
static bool follows_decoded(const struct sequence_end *end, const struct part_pass *pass)
{
    return pass->first >= end->decoded_from && pass->first <= end->tokens &&
           end->tokens - pass->first < MOST_DECODED;
}

ratp_part_kind part_of(struct sequence_end *end, const struct part_pass *pass)
{
    const bool rest = !end->decoding && may_be_a_rest(end, pass);
    const bool goes_on = end->known && !rest && (!pass->causal || follows_decoded(end, pass));
    const bool few = pass->tokens <= MOST_DECODED;
    const bool decoded = pass->tokens == 1 || (goes_on && few);
    const uint32_t first = pass->causal ? pass->first : end->tokens;
    end->decoding = goes_on && decoded;
    /* What may be a rest may also be the first drafts: then the next are told by it. */
    if (!end->decoding)
        end->decoded_from = decoded || (rest && few) ? first : first + pass->tokens;
    end->known = true;
    end->tokens = first + pass->tokens;
    end->last = *pass;
    return decoded ? RATP_PART_DECODE : RATP_PART_PROMPT;
}
