#include "parts.h"

/* Where a pass that goes on with decoding may begin: at the end, or a few decoded tokens before
 * it, because drafted tokens were not accepted and taken back. */
static bool follows_decoded(const struct sequence_end *end, const struct part_pass *pass)
{
    return pass->first >= end->decoded_from && pass->first <= end->tokens &&
           end->tokens - pass->first < MOST_DECODED;
}

/* After a pass that was cut off, what shows that it was the last of its prompt: tokens are taken
 * back and others come in their place, or single tokens come one after the other. */
static bool is_decoding_after_all(const struct sequence_end *end, const struct part_pass *pass)
{
    const bool taken_back = pass->first < end->tokens && end->tokens - pass->first < end->last;
    const bool one_by_one = pass->tokens == 1 && end->last == 1 && pass->first == end->tokens;
    return taken_back || one_by_one;
}

static bool goes_on(const struct sequence_end *end, const struct part_pass *pass)
{
    if (!end->known)
        return false;
    if (!pass->causal)
        return !end->open;
    return end->open ? is_decoding_after_all(end, pass) : follows_decoded(end, pass);
}

ratp_part_kind part_of(struct sequence_end *end, const struct part_pass *pass)
{
    const bool on = goes_on(end, pass);
    const bool decoded = pass->tokens == 1 || (on && pass->tokens <= MOST_DECODED);
    const uint32_t first = pass->causal ? pass->first : end->tokens;
    if (!on || !decoded) {
        end->decoded_from = decoded ? first : first + pass->tokens;
        end->open = pass->full || pass->several;
    } else if (end->open) {
        end->decoded_from = first;
        end->open = false;
    }
    end->known = true;
    end->tokens = first + pass->tokens;
    end->last = pass->tokens;
    return decoded ? RATP_PART_DECODE : RATP_PART_PROMPT;
}
