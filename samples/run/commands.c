#include "commands.h"
#include "arguments.h"
#include "plugin.h"
#include "saved.h"
#include "status.h"
#include "turn.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum argument { ARGUMENT_NONE, ARGUMENT_MAY, ARGUMENT_MUST, ARGUMENT_FILE };

struct command {
    const char *name; /* "/rewind" */
    enum argument argument;
    const char *value; /* what help calls the argument */
    const char *example;
    const char *help;
    bool (*run)(struct interactive *it, const char *argument, struct problem *problem);
};

/* Puts a policy in force, which it frees. */
static bool set_policy(struct interactive *it, ratp_policy *policy, const char *name,
                       struct problem *problem)
{
    const struct ratp_api *ratp = it->engine->ratp;
    struct conversation *now = conversations_now(&it->conversations);
    char stays[POLICY_NAME_SIZE + 32];
    snprintf(stays, sizeof stays, "the variant stays %s", now->variant);
    const bool good =
        plugin_check(ratp, ratp->seq_set_policy(now->seq, policy), now->seq, stays, problem);
    ratp->policy_destroy(&policy);
    if (!good)
        return false;
    snprintf(now->variant, sizeof now->variant, "%s", name);
    return status_line(it, problem);
}

static bool run_variant(struct interactive *it, const char *argument, struct problem *problem)
{
    char name[POLICY_NAME_SIZE];
    ratp_policy *policy;
    return policy_from_name(it->engine, argument, name, &policy, problem) &&
           set_policy(it, policy, name, problem);
}

static bool run_policy(struct interactive *it, const char *argument, struct problem *problem)
{
    ratp_policy *policy;
    return policy_from_file(it->engine, argument, &policy, problem) &&
           set_policy(it, policy, argument, problem);
}

static bool run_save(struct interactive *it, const char *argument, struct problem *problem)
{
    if (!saved_write(it, argument, problem))
        return false;
    fprintf(stderr, "saved in %s\n", argument);
    return true;
}

static bool run_load(struct interactive *it, const char *argument, struct problem *problem)
{
    return saved_read(it, argument, problem) && status_line(it, problem);
}

static bool run_more(struct interactive *it, const char *argument, struct problem *problem)
{
    (void)argument;
    return turn_take(it, NULL, 0, problem);
}

static bool run_stats(struct interactive *it, const char *argument, struct problem *problem)
{
    (void)argument;
    return status_table(it, problem);
}

static bool run_rewind(struct interactive *it, const char *argument, struct problem *problem)
{
    struct conversations *c = &it->conversations;
    const uint32_t count = conversations_now(c)->count;
    uint64_t back;
    if (count == 0)
        return problem_set(problem, "there is nothing to forget: the text is empty");
    return number_read("/rewind", argument, 1, count, &back, problem) &&
           conversations_keep(c, count - (uint32_t)back, problem) && status_line(it, problem);
}

static bool run_reset(struct interactive *it, const char *argument, struct problem *problem)
{
    (void)argument;
    return conversations_keep(&it->conversations, 0, problem) && status_line(it, problem);
}

static bool run_fork(struct interactive *it, const char *argument, struct problem *problem)
{
    return conversations_fork(&it->conversations, argument, problem) && status_line(it, problem);
}

static bool run_forks(struct interactive *it, const char *argument, struct problem *problem)
{
    (void)argument;
    return status_forks(it, problem);
}

static bool run_switch(struct interactive *it, const char *argument, struct problem *problem)
{
    return conversations_switch(&it->conversations, argument, problem) && status_line(it, problem);
}

static bool run_drop(struct interactive *it, const char *argument, struct problem *problem)
{
    return conversations_drop(&it->conversations, argument, problem) && status_line(it, problem);
}

static bool run_temperature(struct interactive *it, const char *argument, struct problem *problem)
{
    double *temperature = &it->session.sampler.options.temperature;
    if (*argument && !real_read("/temperature", argument, 0, 100, temperature, problem))
        return false;
    fprintf(stderr, "temperature %g%s\n", *temperature,
            *temperature > 0 ? "" : ": the likeliest token");
    return true;
}

static bool run_quit(struct interactive *it, const char *argument, struct problem *problem)
{
    (void)argument;
    (void)problem;
    it->quit = true;
    return true;
}

static bool run_help(struct interactive *it, const char *argument, struct problem *problem);

static const struct command commands[] = {
    {"/variant", ARGUMENT_MUST, "NAME", "/variant d16w256s4", "other attention from here on",
     run_variant},
    {"/policy", ARGUMENT_FILE, "FILE", "/policy hybrid.json", "by layer and head, from JSON",
     run_policy},
    {"/more", ARGUMENT_NONE, NULL, "/more", "go on without new text", run_more},
    {"/stats", ARGUMENT_NONE, NULL, "/stats", "sizes, and speeds of the last turn", run_stats},
    {"/rewind", ARGUMENT_MUST, "N", "/rewind 16", "forget the last N tokens", run_rewind},
    {"/reset", ARGUMENT_NONE, NULL, "/reset", "forget all of the text", run_reset},
    {"/fork", ARGUMENT_MAY, "[NAME]", "/fork other", "a second conversation, the same past",
     run_fork},
    {"/forks", ARGUMENT_NONE, NULL, "/forks", "all of them; * is the current one", run_forks},
    {"/switch", ARGUMENT_MUST, "N", "/switch 1", "to another, by number or name", run_switch},
    {"/drop", ARGUMENT_MUST, "N", "/drop 2", "remove another", run_drop},
    {"/save", ARGUMENT_FILE, "FILE", "/save talk.rat", "keep this conversation and its cache",
     run_save},
    {"/load", ARGUMENT_FILE, "FILE", "/load talk.rat", "a saved one in place of this one",
     run_load},
    {"/temperature", ARGUMENT_MAY, "[T]", "/temperature 0.8", "0: the likeliest token",
     run_temperature},
    {"/help", ARGUMENT_NONE, NULL, "/help", "this list", run_help},
    {"/quit", ARGUMENT_NONE, NULL, "/quit", "leave", run_quit},
};
enum { COMMANDS = sizeof commands / sizeof *commands };

static bool run_help(struct interactive *it, const char *argument, struct problem *problem)
{
    (void)it;
    (void)argument;
    (void)problem;
    for (size_t i = 0; i < COMMANDS; i++) {
        char left[32];
        snprintf(left, sizeof left, "%s %s", commands[i].name,
                 commands[i].value ? commands[i].value : "");
        fprintf(stderr, "  %-17s %-20s %s\n", left,
                commands[i].value ? commands[i].example : "", commands[i].help);
    }
    fputs("Anything else is text: it is fed, with its newline, and the model goes on. Text that\n"
          "begins with / is typed with two: //. Ctrl-C stops the model; Ctrl-D after some text\n"
          "feeds it without a newline. Both leave at an empty prompt.\n",
          stderr);
    return true;
}

static const struct command *find(const char *name)
{
    for (size_t i = 0; i < COMMANDS; i++)
        if (strcmp(name, commands[i].name) == 0)
            return &commands[i];
    return NULL;
}

static bool run_words(struct interactive *it, const char *name, const char *argument,
                      struct problem *problem)
{
    const struct command *command = find(name);
    if (!command)
        return problem_set(problem,
                           "there is no command \"%.40s\": /help lists them; text that begins with "
                           "/ is typed with two",
                           name);
    if (command->argument == ARGUMENT_NONE && *argument)
        return problem_set(problem, "%s stands alone, without \"%.40s\"", name, argument);
    const bool file = command->argument == ARGUMENT_FILE;
    if ((file || command->argument == ARGUMENT_MUST) && !*argument)
        return problem_set(problem, "%s needs %s, for example %s", name, command->value,
                           command->example);
    if (file && strcmp(argument, "-") == 0)
        return problem_set(problem, "%s -: standard input is the conversation; give a file", name);
    return command->run(it, argument, problem);
}

static bool is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

bool command_run(struct interactive *it, const char *line, size_t size, struct problem *problem)
{
    if (memchr(line, '\0', size))
        return problem_set(problem, "a command has no byte 0 in it; /help lists them");
    char *words = malloc(size + 1);
    if (!words)
        return problem_set(problem, "out of memory for a line of %zu bytes", size);
    memcpy(words, line, size);
    while (size > 0 && is_blank(words[size - 1]))
        size--;
    words[size] = '\0';
    char *argument = words;
    while (*argument && !is_blank(*argument))
        argument++;
    while (is_blank(*argument))
        *argument++ = '\0';
    const bool good = run_words(it, words, argument, problem);
    free(words);
    return good;
}
