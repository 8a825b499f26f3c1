/* What counts as a prompt's tokens and what as decoded ones, over histories of one sequence. */
#include <parts.h>
#include <stdio.h>

enum { ROOM = 512, PASSES = 8 };

struct step {
    char mask; /* '>': causal from `first` on; '?': it says nothing */
    uint32_t first, tokens;
    uint32_t sequences; /* in the pass; 0: one, after a pass that had others alone */
    char part;          /* 'p': of a prompt, 'd': decoded */
};

static const struct history {
    const char *what;
    struct step steps[PASSES];
} histories[] = {
    {"tokens one by one", {{'>', 0, 40, 1, 'p'}, {'>', 40, 1, 1, 'd'}, {'>', 41, 1, 1, 'd'}}},
    {"drafts right behind a prompt",
     {{'>', 0, 40, 1, 'p'}, {'>', 40, 5, 1, 'd'}, {'>', 45, 5, 1, 'd'}, {'>', 50, 65, 1, 'd'}}},
    {"drafts that are not accepted",
     {{'>', 0, 40, 1, 'p'}, {'>', 40, 17, 1, 'd'}, {'>', 41, 17, 1, 'd'}, {'>', 43, 2, 1, 'd'}}},
    {"no drafts but a next prompt",
     {{'>', 0, 40, 1, 'p'}, {'>', 40, 1, 1, 'd'}, {'>', 41, 66, 1, 'p'}, {'>', 107, 3, 1, 'd'}}},
    {"a prompt in parts, its rest a short one",
     {{'>', 0, ROOM, 1, 'p'}, {'>', ROOM, 7, 1, 'p'}, {'>', ROOM + 7, 4, 1, 'd'}}},
    {"a prompt whose last part is full, then single tokens, then drafts",
     {{'>', 0, ROOM, 1, 'p'}, {'>', ROOM, 1, 1, 'd'}, {'>', ROOM + 1, 4, 1, 'd'}}},
    {"the same, then drafts at once: the second is known, whether the first was accepted or not",
     {{'>', 0, ROOM, 1, 'p'}, {'>', ROOM, 4, 1, 'p'}, {'>', ROOM + 4, 4, 1, 'd'}}},
    {"and taken back",
     {{'>', 0, ROOM, 1, 'p'}, {'>', ROOM, 4, 1, 'p'}, {'>', ROOM + 1, 4, 1, 'd'}}},
    {"a full part, then a pass of others", {{'>', 0, ROOM, 1, 'p'}, {'>', ROOM, 4, 0, 'd'}}},
    {"another prompt that begins alike",
     {{'>', 0, 90, 1, 'p'}, {'>', 90, 1, 1, 'd'}, {'>', 91, 1, 1, 'd'}, {'>', 60, 20, 1, 'p'},
      {'>', 80, 5, 1, 'd'}}},
    {"another prompt from the start",
     {{'>', 0, 9, 1, 'p'}, {'>', 9, 1, 1, 'd'}, {'>', 0, 5, 1, 'p'}}},
    {"another prompt, of which all but the last token is there",
     {{'>', 0, 90, 1, 'p'}, {'>', 90, 4, 1, 'd'}, {'>', 89, 1, 1, 'd'}, {'>', 90, 4, 1, 'd'}}},
    {"a prompt that begins in the company of a decoded token",
     {{'>', 0, 1, 2, 'd'}, {'>', 1, 30, 1, 'p'}, {'>', 31, 5, 1, 'd'}}},
    {"prompts of three lengths in one batch: this is the longest",
     {{'>', 0, 30, 3, 'p'}, {'>', 30, 40, 2, 'p'}, {'>', 70, 9, 1, 'p'}, {'>', 79, 3, 3, 'd'}}},
    {"and this the shortest", {{'>', 0, 30, 3, 'p'}, {'>', 30, 3, 0, 'd'}, {'>', 33, 3, 3, 'd'}}},
    {"prompts of one length, then drafts",
     {{'>', 0, 30, 2, 'p'}, {'>', 30, 5, 2, 'd'}, {'>', 32, 5, 1, 'd'}}},
    {"sequences that share their cells: the mask does not say where they end",
     {{'?', 0, 90, 1, 'p'}, {'?', 0, 2, 1, 'd'}, {'?', 0, 2, 1, 'd'}, {'?', 0, 70, 1, 'p'}}},
};

int main(void)
{
    int wrong = 0;
    for (size_t i = 0; i < sizeof histories / sizeof *histories; i++) {
        struct sequence_end end = {0};
        uint64_t number = 0;
        for (const struct step *s = histories[i].steps; s->tokens; s++) {
            number += s->sequences ? 1 : 2;
            const struct part_pass pass = {
                .number = number,
                .sequences = s->sequences ? s->sequences : 1,
                .full = s->tokens == ROOM,
                .tokens = s->tokens,
                .causal = s->mask == '>',
                .first = s->first,
            };
            const char found = part_of(&end, &pass) == RATP_PART_DECODE ? 'd' : 'p';
            if (found == s->part)
                continue;
            wrong++;
            printf("%s: %u tokens from %u on are '%c', not '%c'\n", histories[i].what, s->tokens,
                   s->first, s->part, found);
        }
    }
    return wrong > 0;
}
