#include "session.h"
#include "plugin.h"
#include "terminal.h"

#include <stdlib.h>
#include <string.h>

bool session_open(struct session *s, struct engine *engine, const struct session_options *options,
                  struct problem *problem)
{
    const struct model_config *config = &engine->model->config;
    struct ratp_rope rope;
    struct ratp_geometry geometry;
    model_geometry(config, options->max_tokens, &rope, &geometry);
    const struct ratp_cache_params params = {
        .struct_size = sizeof params,
        .geometry = &geometry,
        .policy = options->policy,
        .k_dtype = options->cache_dtype,
        .v_dtype = options->cache_dtype,
        .retention = options->retention,
    };
    *s = (struct session){.engine = engine, .stopped = options->stopped};
    s->logits = malloc(config->vocabulary * sizeof *s->logits);
    if (!s->logits)
        return problem_set(problem, "out of memory for %u logits", config->vocabulary);
    return sampler_open(&s->sampler, &options->sampler, config->vocabulary, problem) &&
           plugin_check(engine->ratp,
                        engine->ratp->cache_create(engine->device, &params, &s->cache),
                        engine->device, "the cache", problem);
}

void session_close(struct session *s)
{
    if (s->cache)
        s->engine->ratp->cache_destroy(&s->cache);
    sampler_close(&s->sampler);
    free(s->logits);
    *s = (struct session){0};
}

bool session_feed(struct session *s, ratp_seq *seq, const int32_t *tokens, uint32_t count,
                  uint32_t chunk, float *all, struct problem *problem)
{
    const size_t vocabulary = s->engine->model->config.vocabulary;
    /* One token a pass is decoding, which a bar would slow down. */
    const bool bar = chunk > 1 && count > chunk;
    bool good = true;
    for (uint32_t done = 0; good && done < count;) {
        const uint32_t left = count - done, now = left < chunk ? left : chunk;
        float *logits = all ? all + done * vocabulary : s->logits;
        const struct engine_step step = {
            .cache = s->cache,
            .seq = seq,
            .tokens = tokens + done,
            .count = now,
            /* The last chunk of a prompt may have one token. */
            .kind = chunk > 1 && count > 1 ? RATP_PART_PROMPT : RATP_PART_AUTO,
            .all_logits = all != NULL,
            .logits = logits,
        };
        good = done == 0 || !s->stopped || !s->stopped() ||
               problem_set(problem, "stopped after %u of %u tokens", done, count);
        good = good && engine_forward(s->engine, &step, problem);
        if (good && all)
            memcpy(s->logits, logits + (now - 1) * vocabulary, vocabulary * sizeof *logits);
        done += now;
        if (bar)
            progress_show("prompt", good ? done : count, count);
    }
    return good;
}

bool session_continue(struct session *s, ratp_seq *seq, const struct session_continuation *how,
                      uint32_t *fed, struct problem *problem)
{
    *fed = 0;
    for (uint32_t picked = 0; picked < how->wanted;) {
        const int32_t token = sampler_pick(&s->sampler, s->logits);
        if (token < 0)
            return problem_set(problem, "the logits are not finite numbers");
        how->on_token(how->user, token);
        if (++picked == how->wanted || token == how->end || (s->stopped && s->stopped()))
            break;
        if (!session_feed(s, seq, &token, 1, 1, NULL, problem))
            return false;
        ++*fed;
    }
    return true;
}
