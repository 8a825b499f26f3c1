#include "generate.h"
#include "plugin.h"
#include "terminal.h"

#include <stdlib.h>

/* One sequence in a cache of its own. */
struct session {
    struct engine *engine;
    const struct generate_options *options;
    struct generated *out;
    ratp_cache *cache;
    ratp_seq *seq;
    struct sampler sampler;
    float *logits; /* [vocabulary]: of the latest token */
    int32_t next;  /* the token that was picked from them */
};

static bool open_session(struct session *s, struct problem *problem)
{
    const struct generate_options *options = s->options;
    const struct ratp_api *ratp = s->engine->ratp;
    const struct model_config *config = &s->engine->model->config;
    const uint64_t vocabulary = config->vocabulary;
    struct ratp_rope rope;
    struct ratp_geometry geometry;
    model_geometry(config, options->count + options->wanted, &rope, &geometry);
    const struct ratp_cache_params params = {
        .struct_size = sizeof params,
        .geometry = &geometry,
        .policy = options->policy,
        .k_dtype = options->cache_dtype,
        .v_dtype = options->cache_dtype,
        .retention = options->retention,
    };
    s->logits = malloc(vocabulary * sizeof *s->logits);
    s->out->tokens = malloc(((size_t)options->wanted + 1) * sizeof *s->out->tokens);
    if (options->all_logits)
        s->out->logits = malloc(options->count * vocabulary * sizeof *s->out->logits);
    if (!s->logits || !s->out->tokens || (options->all_logits && !s->out->logits))
        return problem_set(problem, "out of memory for the results of %u tokens",
                           options->count + options->wanted);
    return sampler_open(&s->sampler, &options->sampler, config->vocabulary, problem) &&
           plugin_check(ratp, ratp->cache_create(s->engine->device, &params, &s->cache),
                        s->engine->device, "the cache", problem) &&
           plugin_check(ratp, ratp->seq_create(s->cache, &s->seq), s->cache, "a sequence",
                        problem);
}

static void close_session(struct session *s)
{
    if (s->seq)
        s->engine->ratp->seq_destroy(&s->seq);
    if (s->cache)
        s->engine->ratp->cache_destroy(&s->cache);
    sampler_close(&s->sampler);
    free(s->logits);
}

/* Feeds tokens of the input, which end up with their logits kept when asked. */
static bool feed_input(struct session *s, uint32_t first, uint32_t count, struct problem *problem)
{
    const struct generate_options *options = s->options;
    const size_t vocabulary = s->engine->model->config.vocabulary;
    float *logits = options->all_logits ? s->out->logits + first * vocabulary : s->logits;
    const struct engine_step step = {
        .cache = s->cache,
        .seq = s->seq,
        .tokens = options->tokens + first,
        .count = count,
        .all_logits = options->all_logits,
        .logits = logits,
    };
    if (!engine_forward(s->engine, &step, problem))
        return false;
    if (options->all_logits)
        for (size_t i = 0; i < vocabulary; i++)
            s->logits[i] = logits[(count - 1) * vocabulary + i];
    return true;
}

static bool pick(struct session *s, struct problem *problem)
{
    s->next = sampler_pick(&s->sampler, s->logits);
    if (s->next < 0)
        return problem_set(problem, "the logits after %u tokens are not finite numbers",
                           s->options->count + s->out->count);
    s->out->tokens[s->out->count++] = s->next;
    if (s->options->on_token && s->next != s->options->end)
        s->options->on_token(s->options->user, s->next);
    return true;
}

static bool run(struct session *s, struct problem *problem)
{
    const struct generate_options *options = s->options;
    const uint32_t chunk = s->engine->options.chunk;
    double start = seconds_now();
    for (uint32_t done = 0; done < options->prompt;) {
        const uint32_t left = options->prompt - done;
        const uint32_t count = left < chunk ? left : chunk;
        if (!feed_input(s, done, count, problem))
            return false;
        done += count;
        progress_show("prompt", done, options->prompt);
    }
    s->out->prompt_seconds = seconds_now() - start;

    start = seconds_now();
    for (uint32_t done = options->prompt; done < options->count; done++) {
        if (!feed_input(s, done, 1, problem))
            return false;
        s->out->decoded++;
    }
    while (s->out->count < options->wanted) {
        if (!pick(s, problem))
            return false;
        /* The last token's own logits are not needed. */
        if (s->next == options->end || s->out->count == options->wanted)
            break;
        const struct engine_step step = {.cache = s->cache,
                                         .seq = s->seq,
                                         .tokens = &s->next,
                                         .count = 1,
                                         .logits = s->logits};
        if (!engine_forward(s->engine, &step, problem))
            return false;
        s->out->decoded++;
    }
    s->out->decode_seconds = seconds_now() - start;

    struct ratp_seq_stats stats = {.struct_size = sizeof stats};
    if (!plugin_check(s->engine->ratp, s->engine->ratp->seq_stats(s->seq, &stats), s->seq,
                      "the sequence's size", problem))
        return false;
    s->out->cache_bytes = stats.bytes;
    return true;
}

bool generate(struct engine *engine, const struct generate_options *options,
              struct generated *out, struct problem *problem)
{
    struct session s = {.engine = engine, .options = options, .out = out};
    *out = (struct generated){0};
    const bool good = open_session(&s, problem) && run(&s, problem);
    close_session(&s);
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
