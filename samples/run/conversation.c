#include "conversation.h"
#include "plugin.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool grow_list(struct conversations *c, struct problem *problem)
{
    struct conversation *list = realloc(c->list, (c->count + 1) * sizeof *list);
    if (!list)
        return problem_set(problem, "out of memory for %u conversations", c->count + 1);
    c->list = list;
    list[c->count] = (struct conversation){0};
    return true;
}

bool conversations_open(struct conversations *c, const struct ratp_api *ratp, ratp_cache *cache,
                        const char *variant, uint32_t limit, struct problem *problem)
{
    *c = (struct conversations){.ratp = ratp, .cache = cache, .limit = limit};
    if (!grow_list(c, problem) || !plugin_check(ratp, ratp->seq_create(cache, &c->list[0].seq),
                                                cache, "a sequence", problem))
        return false;
    c->list[0].number = ++c->numbers;
    snprintf(c->list[0].variant, sizeof c->list[0].variant, "%s", variant);
    c->count = 1;
    return true;
}

static void free_one(struct conversations *c, struct conversation *which)
{
    if (which->seq)
        c->ratp->seq_destroy(&which->seq);
    free(which->tokens);
}

void conversations_close(struct conversations *c)
{
    for (uint32_t i = 0; i < c->count; i++)
        free_one(c, &c->list[i]);
    free(c->list);
    *c = (struct conversations){0};
}

static bool find(const struct conversations *c, const char *which, uint32_t *index,
                 struct problem *problem)
{
    for (uint32_t i = 0; i < c->count; i++) {
        char number[16];
        snprintf(number, sizeof number, "%u", c->list[i].number);
        if (strcmp(which, number) == 0 || (*which && strcmp(which, c->list[i].name) == 0)) {
            *index = i;
            return true;
        }
    }
    return problem_set(problem, "there is no conversation \"%.40s\"; /forks lists them", which);
}

/* A name must not be taken for a number, or for another one's name. */
static bool check_name(const struct conversations *c, const char *name, struct problem *problem)
{
    if (strlen(name) >= CONVERSATION_NAME_SIZE)
        return problem_set(problem, "the name \"%.40s\" has %zu bytes, more than the limit of %d",
                           name, strlen(name), CONVERSATION_NAME_SIZE - 1);
    if (*name && strspn(name, "0123456789") == strlen(name))
        return problem_set(problem, "\"%s\" is a number; a name has other characters too", name);
    for (uint32_t i = 0; *name && i < c->count; i++)
        if (strcmp(name, c->list[i].name) == 0)
            return problem_set(problem, "\"%s\" is conversation %u already; /switch %s goes there",
                               name, c->list[i].number, name);
    return true;
}

bool conversations_fork(struct conversations *c, const char *name, struct problem *problem)
{
    if (!check_name(c, name, problem) || !grow_list(c, problem))
        return false;
    const struct conversation *from = conversations_now(c);
    struct conversation *fork = &c->list[c->count];
    fork->tokens = malloc(((size_t)from->count + 1) * sizeof *fork->tokens);
    if (!fork->tokens)
        return problem_set(problem, "out of memory for %u tokens", from->count);
    if (!plugin_check(c->ratp, c->ratp->seq_fork(from->seq, &fork->seq), from->seq, "the fork",
                      problem)) {
        free(fork->tokens);
        return false;
    }
    for (uint32_t i = 0; i < from->count; i++)
        fork->tokens[i] = from->tokens[i];
    fork->count = from->count;
    fork->room = from->count + 1;
    fork->number = ++c->numbers;
    snprintf(fork->name, sizeof fork->name, "%s", name);
    memcpy(fork->variant, from->variant, sizeof fork->variant);
    c->current = c->count++;
    return true;
}

bool conversations_switch(struct conversations *c, const char *which, struct problem *problem)
{
    return find(c, which, &c->current, problem);
}

bool conversations_drop(struct conversations *c, const char *which, struct problem *problem)
{
    uint32_t index = 0;
    if (!find(c, which, &index, problem))
        return false;
    if (index == c->current)
        return problem_set(problem, "%s is the current conversation; %s", which,
                           c->count > 1 ? "/switch to another one first" : "/reset empties it");
    free_one(c, &c->list[index]);
    c->count--;
    memmove(&c->list[index], &c->list[index + 1], (c->count - index) * sizeof *c->list);
    c->current -= c->current > index;
    return true;
}

bool conversations_reserve(struct conversations *c, uint32_t more, struct problem *problem)
{
    struct conversation *now = conversations_now(c);
    const uint64_t wanted = (uint64_t)now->count + more;
    if (wanted <= now->room)
        return true;
    if (wanted > c->limit)
        return problem_set(problem,
                           "the text has %u tokens; %u more are beyond the limit of %u: /rewind or "
                           "/reset makes room",
                           now->count, more, c->limit);
    int32_t *tokens = realloc(now->tokens, wanted * sizeof *tokens);
    if (!tokens)
        return problem_set(problem, "out of memory for %" PRIu64 " tokens", wanted);
    now->tokens = tokens;
    now->room = (uint32_t)wanted;
    return true;
}

bool conversations_keep(struct conversations *c, uint32_t count, struct problem *problem)
{
    struct conversation *now = conversations_now(c);
    struct ratp_seq_stats stats;
    if (!conversation_stats(c, now, &stats, problem) ||
        (stats.length > count && !plugin_check(c->ratp, c->ratp->seq_truncate(now->seq, count),
                                               now->seq, "the sequence stays as it is", problem)))
        return false;
    now->count = count;
    return true;
}

void conversations_replace(struct conversations *c, const struct conversation *with)
{
    struct conversation *now = conversations_now(c);
    free_one(c, now);
    now->seq = with->seq;
    now->tokens = with->tokens;
    now->count = with->count;
    now->room = with->room;
    memcpy(now->variant, with->variant, sizeof now->variant);
}

bool conversation_stats(const struct conversations *c, const struct conversation *which,
                        struct ratp_seq_stats *stats, struct problem *problem)
{
    *stats = (struct ratp_seq_stats){.struct_size = sizeof *stats};
    return plugin_check(c->ratp, c->ratp->seq_stats(which->seq, stats), which->seq,
                        "the sequence's size", problem);
}
