#include "plugin.h"
#include "terminal.h"
#include "tune.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

double measured_loss(const struct measured *measured)
{
    return measured->nats + measured->answer_nats;
}

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

bool tuner_try(struct tuner *t, const uint32_t *choice, struct trial *out,
               struct problem *problem)
{
    struct measured measured;
    ratp_policy *policy = NULL;
    char *name = tuner_name(t, choice);
    if (!name)
        return problem_set(problem, "out of memory for a policy's name");
    t->trials++;
    const struct trial *before = memo_find(&t->memo, name);
    if (before)
        *out = *before;
    bool good = before || tuner_policy(t, choice, &policy, problem);
    if (good && !before) {
        good = measure(t->engine, policy, &t->known, t->options.quiet ? NULL : show, t, &measured,
                       problem);
        t->engine->ratp->policy_destroy(&policy);
        *out = (struct trial){measured_loss(&measured), measured.cache_bytes, measured.length};
        if (good && !isfinite(out->loss))
            good = problem_set(problem, "the logits under %s are not finite numbers", name);
        good = good && memo_add(&t->memo, name, out, problem);
    }
    free(name);
    return good;
}
