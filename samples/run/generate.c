#include "generate.h"
#include "plugin.h"
#include "session.h"
#include "terminal.h"

#include <stdlib.h>

/* One sequence in a cache of its own. */
struct generation {
    const struct generate_options *options;
    struct generated *out;
    struct session session;
    ratp_seq *seq;
};

static bool open_generation(struct generation *g, struct engine *engine, struct problem *problem)
{
    const struct generate_options *options = g->options;
    const size_t vocabulary = engine->model->config.vocabulary;
    const struct session_options session = {
        .max_tokens = options->count + options->wanted,
        .sampler = options->sampler,
        .policy = options->policy,
        .retention = options->retention,
        .cache_dtype = options->cache_dtype,
    };
    g->out->tokens = malloc(((size_t)options->wanted + 1) * sizeof *g->out->tokens);
    if (options->all_logits)
        g->out->logits = malloc(options->count * vocabulary * sizeof *g->out->logits);
    if (!g->out->tokens || (options->all_logits && !g->out->logits))
        return problem_set(problem, "out of memory for the results of %u tokens",
                           options->count + options->wanted);
    return session_open(&g->session, engine, &session, problem) &&
           plugin_check(engine->ratp, engine->ratp->seq_create(g->session.cache, &g->seq),
                        g->session.cache, "a sequence", problem);
}

static void take_token(void *user, int32_t token)
{
    struct generation *g = user;
    g->out->tokens[g->out->count++] = token;
    if (g->options->on_token && token != g->options->end)
        g->options->on_token(g->options->user, token);
}

static bool run(struct generation *g, struct problem *problem)
{
    const struct generate_options *options = g->options;
    const struct engine *engine = g->session.engine;
    const uint32_t rest = options->count - options->prompt;
    float *all = g->out->logits;
    double start = seconds_now();
    if (!session_feed(&g->session, g->seq, options->tokens, options->prompt,
                      engine->options.chunk, all, problem))
        return false;
    g->out->prompt_seconds = seconds_now() - start;

    start = seconds_now();
    if (all)
        all += options->prompt * (size_t)engine->model->config.vocabulary;
    const struct session_continuation how = {options->wanted, options->end, take_token, g};
    if (!session_feed(&g->session, g->seq, options->tokens + options->prompt, rest, 1, all,
                      problem) ||
        !session_continue(&g->session, g->seq, &how, &g->out->decoded, problem))
        return false;
    g->out->decoded += rest;
    g->out->decode_seconds = seconds_now() - start;

    struct ratp_seq_stats stats = {.struct_size = sizeof stats};
    if (!plugin_check(engine->ratp, engine->ratp->seq_stats(g->seq, &stats), g->seq,
                      "the sequence's size", problem))
        return false;
    g->out->cache_bytes = stats.bytes;
    return true;
}

bool generate(struct engine *engine, const struct generate_options *options,
              struct generated *out, struct problem *problem)
{
    struct generation g = {.options = options, .out = out};
    *out = (struct generated){0};
    const bool good = open_generation(&g, engine, problem) && run(&g, problem);
    if (g.seq)
        engine->ratp->seq_destroy(&g.seq);
    session_close(&g.session);
    if (!good)
        generated_free(out);
    return good;
}

void generated_free(struct generated *generated)
{
    free(generated->tokens);
    free(generated->logits);
    *generated = (struct generated){0};
}

double tokens_per_second(uint32_t tokens, double seconds)
{
    return tokens > 0 && seconds > 0 ? tokens / seconds : 0;
}
