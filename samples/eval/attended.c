#include "attended.h"
#include "plugin.h"
#include "variant.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>

/* The policy as the library prints it: ranges are a number, "2-5" or "2-". */
static struct ratp_range read_range(const cJSON *rule, const char *key, uint32_t count)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(rule, key);
    uint32_t first = 0, last = count - 1;
    if (cJSON_IsNumber(item))
        first = last = (uint32_t)item->valuedouble;
    else if (cJSON_IsString(item))
        sscanf(item->valuestring, "%u-%u", &first, &last);
    if (last >= count)
        last = count - 1;
    return (struct ratp_range){first, first <= last ? last - first + 1 : 0};
}

static uint32_t most_keys(const struct ratp_variant *v)
{
    if (v->kind == RATP_QUEST)
        return v->budget;
    if (v->kind == RATP_MOBA)
        return (v->block ? v->block : 512) * v->topk;
    return UINT32_MAX;
}

static bool read_rule(struct attended *a, const cJSON *rule, const char *key,
                      struct problem *problem)
{
    const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(rule, key));
    const struct ratp_range layers = read_range(rule, "layers", a->layers);
    const struct ratp_range heads = read_range(rule, "heads", a->heads);
    struct ratp_variant variant, prompt;
    if (!variant_from_name(name ? name : "", &variant, &prompt, problem))
        return false;
    for (uint32_t i = layers.first; i < layers.first + layers.count; i++)
        for (uint32_t j = heads.first; j < heads.first + heads.count; j++)
            a->most[i * a->heads + j] = most_keys(&variant);
    a->compresses |= variant.kind == RATP_SNAPKV;
    return true;
}

static bool read_policy(struct attended *a, const char *text, struct problem *problem)
{
    cJSON *json = cJSON_Parse(text);
    const cJSON *rules = cJSON_GetObjectItemCaseSensitive(json, "rules"), *rule;
    bool good = json || problem_set(problem, "out of memory for a policy");
    good = good && read_rule(a, json, "default", problem);
    cJSON_ArrayForEach(rule, rules)
        good = good && read_rule(a, rule, "variant", problem);
    cJSON_Delete(json);
    return good;
}

bool attended_open(const struct engine *engine, const ratp_policy *policy, struct attended *out,
                   struct problem *problem)
{
    const struct ratp_api *ratp = engine->ratp;
    const struct model_config *config = &engine->model->config;
    size_t size = 0;
    *out = (struct attended){.layers = config->layers, .heads = config->heads};
    if (!plugin_check(ratp, ratp->policy_to_json(policy, NULL, 0, &size), policy, "the policy",
                      problem))
        return false;
    char *text = malloc(size + 1);
    out->most = malloc((size_t)out->layers * out->heads * sizeof *out->most);
    const bool good =
        ((text && out->most) || problem_set(problem, "out of memory for a policy")) &&
        plugin_check(ratp, ratp->policy_to_json(policy, text, size + 1, &size), policy,
                     "the policy", problem) &&
        read_policy(out, text, problem);
    free(text);
    return good;
}

void attended_close(struct attended *attended)
{
    free(attended->most);
    *attended = (struct attended){0};
}
