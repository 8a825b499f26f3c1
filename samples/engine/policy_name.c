#include "policy_name.h"
#include "file.h"
#include "plugin.h"
#include "variant.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The variant of layer `turn`, and of every `turns`th after it. */
static bool set_turn(const struct engine *engine, ratp_policy *policy, const char *text,
                     uint32_t turn, uint32_t turns, uint32_t layers, struct problem *problem)
{
    const struct ratp_range all = {0, 0};
    struct ratp_variant variant, prompt;
    if (!variant_from_name(text, &variant, &prompt, problem))
        return false;
    for (uint32_t i = turn; i < layers; i += turns)
        if (!plugin_check(engine->ratp,
                          engine->ratp->policy_set(policy, (struct ratp_range){i, 1}, all, &variant),
                          policy, text, problem))
            return false;
    return true;
}

static bool short_name(const char *text, char *name, struct problem *problem)
{
    struct ratp_variant variant, prompt;
    size_t length = strlen(name);
    if (!variant_from_name(text, &variant, &prompt, problem))
        return false;
    if (length > 0)
        name[length++] = '/';
    variant_to_name(&variant, name + length, POLICY_NAME_SIZE - length);
    return true;
}

bool policy_from_name(const struct engine *engine, const char *text, uint32_t layers, char *name,
                      ratp_policy **out, struct problem *problem)
{
    *out = NULL;
    name[0] = '\0';
    char copy[POLICY_NAME_SIZE / 2];
    if (strlen(text) >= sizeof copy)
        return problem_set(problem, "the variants \"%.40s...\" are longer than %zu characters", text,
                           sizeof copy - 1);
    uint32_t turns = 1;
    for (const char *p = text; *p; p++)
        turns += *p == '/';
    if (turns > layers)
        return problem_set(problem, "\"%s\" names %u layers, but the model has %u", text, turns,
                           layers);
    if (!plugin_check(engine->ratp, engine->ratp->policy_create(engine->instance, out),
                      engine->instance, text, problem))
        return false;
    strcpy(copy, text);
    char *part = copy;
    for (uint32_t turn = 0; turn < turns; turn++) {
        char *end = strchr(part, '/');
        if (end)
            *end = '\0';
        if (!short_name(part, name, problem) ||
            !set_turn(engine, *out, part, turn, turns, layers, problem)) {
            engine->ratp->policy_destroy(out);
            return false;
        }
        if (end)
            part = end + 1;
    }
    return true;
}

bool policy_from_file(const struct engine *engine, const char *path, ratp_policy **out,
                      struct problem *problem)
{
    char *text;
    size_t size;
    *out = NULL;
    if (!file_read(path, &text, &size, problem))
        return false;
    const bool good =
        plugin_check(engine->ratp, engine->ratp->policy_from_json(engine->instance, text, size, out),
                     engine->instance, path, problem);
    free(text);
    return good;
}
