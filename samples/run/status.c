#include "status.h"
#include "generate.h"
#include "terminal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define CELL POLICY_NAME_SIZE

/* A number, and a name where there is one: "2 other". */
static void print_title(const struct conversation *which, char *text, size_t size)
{
    snprintf(text, size, "%u%s%s", which->number, *which->name ? " " : "", which->name);
}

bool status_line(struct interactive *it, struct problem *problem)
{
    const struct conversation *now = conversations_now(&it->conversations);
    struct ratp_seq_stats stats;
    char bytes[32], title[CELL];
    if (!conversation_stats(&it->conversations, now, &stats, problem))
        return false;
    bytes_print(stats.bytes, bytes, sizeof bytes);
    print_title(now, title, sizeof title);
    fprintf(stderr, "conversation %s: %u tokens, %s, cache %s\n", title, now->count, now->variant,
            bytes);
    return true;
}

bool status_table(struct interactive *it, struct problem *problem)
{
    enum { ROWS = 10 };
    const struct conversations *c = &it->conversations;
    const struct conversation *now = conversations_now(c);
    const struct turn_speed *speed = &it->speed;
    struct ratp_seq_stats stats;
    char cells[ROWS][CELL];
    if (!conversation_stats(c, now, &stats, problem))
        return false;
    print_title(now, cells[0], CELL);
    snprintf(cells[1], CELL, "%u", now->count);
    snprintf(cells[2], CELL, "%s", now->variant);
    bytes_print(stats.bytes, cells[3], CELL);
    snprintf(cells[4], CELL, "%" PRIu64, stats.pages);
    snprintf(cells[5], CELL, "%" PRIu64, stats.pages_shared);
    snprintf(cells[6], CELL, "%u", c->count);
    snprintf(cells[7], CELL, "%u at %.1f tokens/s", speed->prompt,
             tokens_per_second(speed->prompt, speed->prompt_seconds));
    snprintf(cells[8], CELL, "%u at %.1f tokens/s", speed->decoded,
             tokens_per_second(speed->decoded, speed->decode_seconds));
    snprintf(cells[9], CELL, "%s", it->engine->name);
    const char *const table[] = {
        "conversation", cells[0], "tokens", cells[1], "variant", cells[2],
        "cache", cells[3], "pages", cells[4], "shared pages", cells[5],
        "conversations", cells[6], "last prompt", cells[7], "last decoded", cells[8],
        "device", cells[9],
    };
    table_print_to(stderr, table, ROWS, 2);
    return true;
}

bool status_forks(struct interactive *it, struct problem *problem)
{
    enum { COLUMNS = 5 };
    static const char *const heading[COLUMNS] = {"conversation", "tokens", "cache", "shared pages",
                                                 "variant"};
    const struct conversations *c = &it->conversations;
    const size_t rows = c->count + 1;
    char(*cells)[CELL] = malloc(rows * COLUMNS * sizeof *cells);
    const char **pointers = malloc(rows * COLUMNS * sizeof *pointers);
    bool good = (cells && pointers) || problem_set(problem, "out of memory for a table");
    for (size_t i = 0; good && i < COLUMNS; i++)
        snprintf(cells[i], CELL, "%s%s", i ? "" : "  ", heading[i]);
    for (uint32_t i = 0; good && i < c->count; i++) {
        const struct conversation *which = &c->list[i];
        char(*row)[CELL] = cells + (i + 1) * COLUMNS;
        struct ratp_seq_stats stats;
        char title[CELL - 2];
        good = conversation_stats(c, which, &stats, problem);
        print_title(which, title, sizeof title);
        snprintf(row[0], CELL, "%s%s", i == c->current ? "* " : "  ", title);
        snprintf(row[1], CELL, "%u", which->count);
        bytes_print(stats.bytes, row[2], CELL);
        snprintf(row[3], CELL, "%" PRIu64 "/%" PRIu64, stats.pages_shared, stats.pages);
        snprintf(row[4], CELL, "%s", which->variant);
    }
    for (size_t i = 0; good && i < rows * COLUMNS; i++)
        pointers[i] = cells[i];
    if (good)
        table_print_to(stderr, pointers, rows, COLUMNS);
    free(pointers);
    free(cells);
    return good;
}
