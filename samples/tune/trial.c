#include "plugin.h"
#include "terminal.h"
#include "tune.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool tuner_policy(const struct tuner *t, const uint32_t *choice, ratp_policy **out,
                  struct problem *problem)
{
    const struct ratp_api *ratp = t->engine->ratp;
    const struct ratp_range all = {0, 0};
    if (!plugin_check(ratp, ratp->policy_create(t->engine->instance, out), t->engine->instance,
                      "a policy", problem))
        return false;
    for (uint32_t i = 0; i < t->model.config.layers; i++)
        if (!plugin_check(ratp,
                          ratp->policy_set(*out, (struct ratp_range){i, 1}, all,
                                           &t->candidates[choice[i]]),
                          *out, t->names[choice[i]], problem)) {
            ratp->policy_destroy(out);
            return false;
        }
    return true;
}

char *tuner_name(const struct tuner *t, const uint32_t *choice)
{
    char *name = calloc(t->model.config.layers, CANDIDATE_SIZE);
    for (uint32_t i = 0; name && i < t->model.config.layers; i++) {
        if (i > 0)
            strcat(name, "/");
        strcat(name, t->names[choice[i]]);
    }
    return name;
}

static void show(void *user, double share)
{
    const struct tuner *t = user;
    char label[32];
    snprintf(label, sizeof label, "policy %u", t->trials);
    const double done = (t->trials - 1 + share) / t->trials_expected;
    /* The bar ends, and is cleared, after the last trial. */
    progress_show(label, (uint64_t)(done < 1 ? done * 1000 : 999), 1000);
}

double standard_error(const double *a, const double *b, uint32_t units)
{
    double mean = 0, square = 0;
    for (uint32_t i = 0; i < units; i++)
        mean += (a[i] - b[i]) / units;
    for (uint32_t i = 0; i < units; i++)
        square += (a[i] - b[i] - mean) * (a[i] - b[i] - mean);
    return units > 1 ? sqrt(square * units / (units - 1)) : 0;
}

/* Nats become shares of the loss, which is a mean over tokens of each kind. */
static void share_loss(const struct measure_input *input, const struct measured *measured,
                       double *units)
{
    for (uint32_t i = 0; i < measure_units(input); i++)
        units[i] /= i < input->questions.count ? measured->answer_tokens : measured->text_tokens;
}

bool tuner_measure(struct tuner *t, const uint32_t *choice, struct measure_input *input,
                   struct trial *trial, struct measured *measured, struct problem *problem)
{
    struct measured m;
    ratp_policy *policy = NULL;
    *trial = (struct trial){0};
    trial->units = malloc((measure_units(input) + 1) * sizeof *trial->units);
    input->unit_nats = trial->units;
    bool good = trial->units || problem_set(problem, "out of memory for a trial");
    good = good && tuner_policy(t, choice, &policy, problem) &&
           measure(t->engine, policy, input, t->options.quiet ? NULL : show, t, &m, problem);
    if (policy)
        t->engine->ratp->policy_destroy(&policy);
    input->unit_nats = NULL;
    if (!good)
        return false;
    share_loss(input, &m, trial->units);
    trial->loss = m.nats + m.answer_nats;
    trial->cache_bytes = m.cache_bytes;
    trial->length = m.length;
    if (measured)
        *measured = m;
    return isfinite(trial->loss) ||
           problem_set(problem, "the logits of %s are not finite numbers", t->model.folder);
}

bool tuner_try(struct tuner *t, const uint32_t *choice, struct trial *out,
               struct problem *problem)
{
    char *name = tuner_name(t, choice);
    if (!name)
        return problem_set(problem, "out of memory for a policy's name");
    t->trials++;
    bool good = true;
    if (!memo_find(&t->memo, name)) {
        struct trial trial;
        good = tuner_measure(t, choice, &t->known, &trial, NULL, problem) &&
               memo_add(&t->memo, name, &trial, problem);
        free(trial.units);
    }
    if (good)
        *out = *memo_find(&t->memo, name);
    free(name);
    return good;
}
