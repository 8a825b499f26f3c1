#include "interactive.h"
#include "commands.h"
#include "input.h"
#include "turn.h"

#include <stdio.h>
#include <stdlib.h>

/* Room for long conversations, also with models of a short context. */
#define LEAST_LIMIT (1u << 20)

static bool open_all(struct interactive *it, struct problem *problem)
{
    const struct interactive_options *options = it->options;
    const uint32_t context = it->engine->model->config.context;
    const struct session_options session = {
        .max_tokens = context > LEAST_LIMIT ? context : LEAST_LIMIT,
        .sampler = options->sampler,
        .policy = options->policy,
        .retention = options->retention,
        .cache_dtype = options->cache_dtype,
        .stopped = input_interrupted,
    };
    return session_open(&it->session, it->engine, &session, problem) &&
           conversations_open(&it->conversations, it->engine->ratp, it->session.cache,
                              options->variant, session.max_tokens, problem);
}

/* A failure is told, and leaves everything as it was. */
static void tell(bool good, const struct problem *problem)
{
    if (!good)
        fprintf(stderr, "%s\n", problem->text);
}

static bool say(struct interactive *it, const char *text, size_t size, struct problem *problem)
{
    int32_t *tokens;
    uint32_t count;
    if (!tokenizer_encode(it->tokenizer, text, size, &tokens, &count, problem))
        return false;
    /* A text begins once. */
    const bool begun = conversations_now(&it->conversations)->count > 0 && count > 0 &&
                       tokens[0] == it->tokenizer->begin;
    const bool good = turn_take(it, tokens + begun, count - begun, problem);
    free(tokens);
    return good;
}

static void answer(struct interactive *it, const char *line, size_t size)
{
    struct problem problem;
    if (size > 1 && line[0] == '/' && line[1] == '/')
        tell(say(it, line + 1, size - 1, &problem), &problem);
    else if (line[0] == '/')
        tell(command_run(it, line, size, &problem), &problem);
    else
        tell(say(it, line, size, &problem), &problem);
    /* What was meant for this answer does not end the program. */
    input_clear();
}

static bool converse(struct interactive *it, struct input *input, struct problem *problem)
{
    if (input->terminal)
        fprintf(stderr, "%s, %s. Type text, and the model goes on with it; /help lists the "
                "commands.\n", it->engine->name, it->options->variant);
    if (it->options->count > 0) {
        struct problem first;
        tell(turn_take(it, it->options->tokens, it->options->count, &first), &first);
        input_clear();
    }
    while (!it->quit) {
        const char *line;
        size_t size;
        if (input->terminal)
            fputs("> ", stderr);
        const enum input_result result = input_line(input, &line, &size, problem);
        if (result != INPUT_LINE) {
            if (input->terminal)
                fputc('\n', stderr);
            return result == INPUT_END;
        }
        answer(it, line, size);
    }
    return true;
}

bool interactive_run(struct engine *engine, const struct tokenizer *tokenizer,
                     const struct interactive_options *options, struct problem *problem)
{
    struct interactive it = {.options = options, .tokenizer = tokenizer, .engine = engine};
    struct input input;
    const bool good = input_open(&input, problem) && open_all(&it, problem) &&
                      converse(&it, &input, problem);
    input_close(&input);
    conversations_close(&it.conversations);
    session_close(&it.session);
    return good;
}
