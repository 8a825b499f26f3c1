/* What counts as a prompt's tokens and what as decoded ones, over histories of one sequence:
 * each pass, where it begins, and what it must be. */
#include <parts.h>
#include <stdio.h>

enum { ROOM = 512, PASSES = 8 };

/* A pass: ">" stands for a causal one from `first` on, "?" for one whose mask says nothing. */
struct step {
    char mask;
    uint32_t first, tokens;
    bool several;
    char part; /* p: prompt, d: decoded */
};

static const struct history {
    const char *what;
    struct step steps[PASSES];
} histories[] = {
    {"tokens one by one", {{'>', 0, 40, 0, 'p'}, {'>', 40, 1, 0, 'd'}, {'>', 41, 1, 0, 'd'}}},
    {"drafts right behind a prompt",
     {{'>', 0, 40, 0, 'p'}, {'>', 40, 5, 0, 'd'}, {'>', 45, 5, 0, 'd'}, {'>', 50, 65, 0, 'd'}}},
    {"drafts that are not accepted",
     {{'>', 0, 40, 0, 'p'}, {'>', 40, 17, 0, 'd'}, {'>', 41, 17, 0, 'd'}, {'>', 43, 2, 0, 'd'}}},
    {"no drafts but a next prompt",
     {{'>', 0, 40, 0, 'p'}, {'>', 40, 1, 0, 'd'}, {'>', 41, 66, 0, 'p'}, {'>', 107, 3, 0, 'd'}}},
    {"a prompt in parts, its rest a short one",
     {{'>', 0, ROOM, 0, 'p'}, {'>', ROOM, 7, 0, 'p'}, {'>', ROOM + 7, 4, 0, 'd'}}},
    {"a prompt whose last part is full, then single tokens, then drafts",
     {{'>', 0, ROOM, 0, 'p'}, {'>', ROOM, 1, 0, 'd'}, {'>', ROOM + 1, 4, 0, 'd'}}},
    {"the same, then drafts at once: known when some are taken back",
     {{'>', 0, ROOM, 0, 'p'}, {'>', ROOM, 4, 0, 'p'}, {'>', ROOM + 4, 4, 0, 'd'}}},
    {"another prompt that begins alike",
     {{'>', 0, 90, 0, 'p'}, {'>', 90, 1, 0, 'd'}, {'>', 91, 1, 0, 'd'}, {'>', 60, 20, 0, 'p'},
      {'>', 80, 5, 0, 'd'}}},
    {"another prompt from the start", {{'>', 0, 9, 0, 'p'}, {'>', 9, 1, 0, 'd'}, {'>', 0, 5, 0, 'p'}}},
    {"another prompt, of which all but the last token is there",
     {{'>', 0, 90, 0, 'p'}, {'>', 90, 4, 0, 'd'}, {'>', 89, 1, 0, 'd'}, {'>', 90, 4, 0, 'd'}}},
    {"a prompt that begins in the company of a decoded token",
     {{'>', 0, 1, 1, 'd'}, {'>', 1, 30, 0, 'p'}, {'>', 31, 5, 0, 'd'}}},
    {"prompts of two lengths in one batch",
     {{'>', 0, 30, 1, 'p'}, {'>', 30, 40, 0, 'p'}, {'>', 70, 3, 0, 'd'}}},
    {"drafts in company, behind a prompt in company",
     {{'>', 0, 30, 1, 'p'}, {'>', 30, 5, 1, 'p'}, {'>', 32, 5, 1, 'd'}, {'>', 37, 5, 1, 'd'}}},
    {"single tokens in company, then drafts",
     {{'>', 0, 30, 1, 'p'}, {'>', 30, 1, 1, 'd'}, {'>', 31, 1, 1, 'd'}, {'>', 32, 5, 1, 'd'}}},
    {"sequences that share their cells: the mask does not say where they end",
     {{'?', 0, 90, 0, 'p'}, {'?', 0, 2, 0, 'd'}, {'?', 0, 2, 0, 'd'}, {'?', 0, 70, 0, 'p'}}},
};

int main(void)
{
    int wrong = 0;
    for (size_t i = 0; i < sizeof histories / sizeof *histories; i++) {
        struct sequence_end end = {0};
        for (const struct step *s = histories[i].steps; s->tokens; s++) {
            const struct part_pass pass = {s->tokens, s->mask == '>', s->first, s->several,
                                           s->tokens == ROOM};
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
