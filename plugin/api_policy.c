/* Policies. */
#include "api.h"

#include "policy.h"
#include "structs.h"

#include <inttypes.h>
#include <stdlib.h>

static ratp_status policy_open(ratp_instance *instance, ratp_policy **out, struct error *err)
{
    ratp_policy *policy = calloc(1, sizeof *policy);
    if (!policy)
        return fail(err, RATP_OUT_OF_MEMORY, "no host memory for a policy");
    object_init(&policy->object, OBJECT_POLICY);
    policy->instance = instance;
    atomic_fetch_add(&instance->object.children, 1);
    *out = policy;
    return RATP_OK;
}

static void policy_close(ratp_policy *policy)
{
    atomic_fetch_sub(&policy->instance->object.children, 1);
    object_fini(&policy->object);
    free(policy->rules);
    free(policy);
}

ratp_status api_policy_create(ratp_instance *instance, ratp_policy **out)
{
    struct error err = {""};
    ratp_status status = api_not_null(out, "out", &err);
    if (!status) {
        *out = NULL;
        status = object_check(instance, OBJECT_INSTANCE, "instance", &err);
    }
    if (!status)
        status = policy_open(instance, out, &err);
    return api_return(instance, status, &err);
}

ratp_status api_policy_from_json(ratp_instance *instance, const char *text, size_t size,
                                 ratp_policy **out)
{
    struct error err = {""};
    ratp_policy *policy = NULL;
    ratp_status status = api_not_null(out, "out", &err);
    if (!status) {
        *out = NULL;
        status = object_check(instance, OBJECT_INSTANCE, "instance", &err);
    }
    if (!status)
        status = api_not_null(text, "text", &err);
    if (!status)
        status = policy_open(instance, &policy, &err);
    if (!status)
        status = policy_parse(text, size, policy, &err);
    if (!status)
        *out = policy;
    else if (policy)
        policy_close(policy);
    return api_return(instance, status, &err);
}

ratp_status api_policy_set(ratp_policy *policy, struct ratp_range layers,
                           struct ratp_range kv_heads, const struct ratp_variant *variant)
{
    struct error err = {""};
    struct choice choice;
    ratp_status status = object_check(policy, OBJECT_POLICY, "policy", &err);
    if (!status)
        status = api_not_null(variant, "variant", &err);
    if (!status)
        status = choice_from_public(variant, "variant", &choice, &err);
    if (!status)
        status = policy_add(policy, &layers, 1, &kv_heads, 1, &choice, &err);
    return api_return(policy, status, &err);
}

ratp_status api_policy_to_json(const ratp_policy *policy, char *text, size_t size,
                               size_t *needed)
{
    struct error err = {""};
    ratp_status status = object_check(policy, OBJECT_POLICY, "policy", &err);
    if (!status && !text && size > 0)
        status = fail(&err, RATP_INVALID_ARGUMENT, "text is NULL and size is %zu", size);
    if (!status) {
        size_t length = policy_print(policy, text, size);
        if (needed)
            *needed = length;
    }
    return api_return(policy, status, &err);
}

ratp_status api_policy_destroy(ratp_policy **policy)
{
    struct error err = {""};
    if (!policy)
        return RATP_INVALID_ARGUMENT;
    if (!*policy)
        return RATP_OK;
    ratp_status status = object_check(*policy, OBJECT_POLICY, "*policy", &err);
    if (status)
        return api_return(*policy, status, &err);
    policy_close(*policy);
    *policy = NULL;
    return RATP_OK;
}

static ratp_status check_number(const char *what, uint32_t value, struct error *err)
{
    if (value <= POLICY_LAST)
        return RATP_OK;
    return fail(err, RATP_INVALID_ARGUMENT, "%s is %" PRIu32 ", it must be at most %d", what,
                value, POLICY_LAST);
}

ratp_status api_policy_variant(const ratp_policy *policy, uint32_t layer, uint32_t kv_head,
                               ratp_part_kind part, struct ratp_variant *variant)
{
    struct error err = {""};
    ratp_status status = object_check(policy, OBJECT_POLICY, "policy", &err);
    if (!status)
        status = check_number("layer", layer, &err);
    if (!status)
        status = check_number("kv_head", kv_head, &err);
    if (!status && part != RATP_PART_PROMPT && part != RATP_PART_DECODE)
        status = fail(&err, RATP_INVALID_ARGUMENT,
                      "part is %" PRId32 ", it must be 1 (of a prompt) or 2 (decoded)", part);
    if (!status)
        status = struct_check_out(variant, STRUCT_UPTO(struct ratp_variant, sinks), "variant",
                                  &err);
    if (!status) {
        const struct choice choice = policy_at(policy, layer, kv_head);
        struct ratp_variant full;
        variant_to_public(part == RATP_PART_PROMPT ? &choice.prompt : &choice.decode, &full);
        struct_write(variant, &full, sizeof full);
    }
    return api_return(policy, status, &err);
}
