#include "policy_name.h"
#include "file.h"
#include "plugin.h"
#include "variant.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint32_t count_parts(const char *text, char between)
{
    uint32_t count = 1;
    for (const char *p = text; *p; p++)
        count += *p == between;
    return count;
}

/* Ends the text at the next `between`; returns what follows, or NULL. */
static char *cut(char *text, char between)
{
    char *end = strchr(text, between);
    if (!end)
        return NULL;
    *end = '\0';
    return end + 1;
}

/* Layers `turn`, turn + turns, and so on. */
struct turn {
    const struct engine *engine;
    ratp_policy *policy;
    uint32_t turn, turns;
    char *name; /* what was read, for POLICY_NAME_SIZE */
};

/* The variant of a run of key/value heads. */
static bool set_heads(const struct turn *t, const char *text, struct ratp_range heads,
                      const char *before, struct problem *problem)
{
    const struct ratp_api *ratp = t->engine->ratp;
    const size_t length = strlen(t->name);
    struct ratp_variant variant, prompt;
    if (!variant_from_name(text, &variant, &prompt, problem))
        return false;
    for (uint32_t i = t->turn; i < t->engine->model->config.layers; i += t->turns)
        if (!plugin_check(ratp,
                          ratp->policy_set(t->policy, (struct ratp_range){i, 1}, heads, &variant),
                          t->policy, text, problem))
            return false;
    snprintf(t->name + length, POLICY_NAME_SIZE - length, "%s", before);
    variant_to_name(&variant, t->name + strlen(t->name), POLICY_NAME_SIZE - strlen(t->name));
    return true;
}

static bool set_turn(const struct turn *t, char *text, struct problem *problem)
{
    const uint32_t heads = t->engine->model->config.heads, runs = count_parts(text, '+');
    if (heads % runs)
        return problem_set(problem, "\"%s\" names %u variants for the heads of a layer, but the "
                           "model's %u key/value heads cannot be shared by %u", text, runs, heads,
                           runs);
    for (uint32_t run = 0; run < runs; run++) {
        char *rest = cut(text, '+');
        /* Of a whole layer, so that the policy has the short form. */
        const struct ratp_range range = {run * (heads / runs), runs > 1 ? heads / runs : 0};
        const char *before = run > 0 ? "+" : t->turn > 0 ? "/" : "";
        if (!set_heads(t, text, range, before, problem))
            return false;
        text = rest;
    }
    return true;
}

bool policy_from_name(const struct engine *engine, const char *text, char *name,
                      ratp_policy **out, struct problem *problem)
{
    const uint32_t layers = engine->model->config.layers, turns = count_parts(text, '/');
    char copy[POLICY_NAME_SIZE / 2];
    *out = NULL;
    name[0] = '\0';
    if (strlen(text) >= sizeof copy)
        return problem_set(problem, "the variants \"%.40s...\" are longer than %zu characters", text,
                           sizeof copy - 1);
    if (turns > layers)
        return problem_set(problem, "\"%s\" names %u layers, but the model has %u", text, turns,
                           layers);
    if (!plugin_check(engine->ratp, engine->ratp->policy_create(engine->instance, out),
                      engine->instance, text, problem))
        return false;
    strcpy(copy, text);
    char *part = copy;
    for (uint32_t i = 0; i < turns; i++) {
        const struct turn turn = {engine, *out, i, turns, name};
        char *rest = cut(part, '/');
        if (!set_turn(&turn, part, problem)) {
            engine->ratp->policy_destroy(out);
            return false;
        }
        part = rest;
    }
    return true;
}

bool policy_from_file(const struct engine *engine, const char *path, ratp_policy **out,
                      struct problem *problem)
{
    char *text;
    size_t size;
    *out = NULL;
    if (!file_read(path, FILE_MAX_LIST, &text, &size, problem))
        return false;
    const bool good =
        plugin_check(engine->ratp, engine->ratp->policy_from_json(engine->instance, text, size, out),
                     engine->instance, path, problem);
    free(text);
    return good;
}
