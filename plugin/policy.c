#include "policy.h"

#include <inttypes.h>
#include <stdlib.h>

/* With so many rules a policy still prints as a text that policy_parse takes. */
enum { MAX_RULES = 1 << 13 };

static uint64_t range_end(struct ratp_range r)
{
    return r.count ? (uint64_t)r.first + r.count : UINT64_MAX;
}

static bool range_inside(struct ratp_range inner, struct ratp_range outer)
{
    return inner.first >= outer.first && range_end(inner) <= range_end(outer);
}

static bool range_holds(struct ratp_range r, uint32_t value)
{
    return value >= r.first && value < range_end(r);
}

static ratp_status check_range(struct ratp_range r, const char *what, struct error *err)
{
    if (r.first <= POLICY_LAST && (r.count == 0 || range_end(r) - 1 <= POLICY_LAST))
        return RATP_OK;
    return fail(err, RATP_INVALID_ARGUMENT,
                "%s: first %" PRIu32 " and count %" PRIu32 " reach beyond %d", what, r.first,
                r.count, POLICY_LAST);
}

ratp_status policy_add(struct ratp_policy *p, struct ratp_range layers, struct ratp_range kv_heads,
                       const struct choice *choice, struct error *err)
{
    ratp_status status = check_range(layers, "layers", err);
    if (!status)
        status = check_range(kv_heads, "kv_heads", err);
    if (status)
        return status;
    /* Rules that the new one hides are dropped, so that a policy which is set
     * again and again does not grow. They are counted first: on failure
     * nothing changes. */
    uint32_t kept = 0;
    for (uint32_t i = 0; i < p->count; i++)
        kept += !(range_inside(p->rules[i].layers, layers) &&
                  range_inside(p->rules[i].kv_heads, kv_heads));
    if (kept >= MAX_RULES)
        return fail(err, RATP_INVALID_ARGUMENT, "the policy has %" PRIu32 " rules, at most %d fit",
                    kept, MAX_RULES);
    if (kept == p->count && p->count == p->room) {
        uint32_t room = p->room ? 2 * p->room : 8;
        struct policy_rule *rules = realloc(p->rules, room * sizeof *rules);
        if (!rules)
            return fail(err, RATP_OUT_OF_MEMORY, "no host memory for %" PRIu32 " policy rules",
                        room);
        p->rules = rules;
        p->room = room;
    }
    uint32_t n = 0;
    for (uint32_t i = 0; i < p->count; i++)
        if (!(range_inside(p->rules[i].layers, layers) &&
              range_inside(p->rules[i].kv_heads, kv_heads)))
            p->rules[n++] = p->rules[i];
    p->rules[n++] = (struct policy_rule){layers, kv_heads, *choice};
    p->count = n;
    return RATP_OK;
}

struct choice policy_at(const struct ratp_policy *p, uint32_t layer, uint32_t kv_head)
{
    for (uint32_t i = p->count; i-- > 0;)
        if (range_holds(p->rules[i].layers, layer) && range_holds(p->rules[i].kv_heads, kv_head))
            return p->rules[i].choice;
    return choice_of(&(struct variant){.kind = RATP_DENSE, .dilation = 1});
}

static ratp_status check_inside(uint32_t rule, const char *what, struct ratp_range r,
                                uint32_t limit, struct error *err)
{
    if (r.first >= limit)
        return fail(err, RATP_INVALID_ARGUMENT,
                    "policy rule %" PRIu32 ": %s begin at %" PRIu32 ", the model has %" PRIu32,
                    rule, what, r.first, limit);
    if (r.count && range_end(r) > limit)
        return fail(err, RATP_INVALID_ARGUMENT,
                    "policy rule %" PRIu32 ": %s end at %" PRIu64 ", the model has %" PRIu32, rule,
                    what, range_end(r) - 1, limit);
    return RATP_OK;
}

ratp_status policy_check(const struct ratp_policy *p, uint32_t layers, uint32_t kv_heads,
                         struct error *err)
{
    for (uint32_t i = 0; i < p->count; i++) {
        ratp_status status = check_inside(i, "layers", p->rules[i].layers, layers, err);
        if (!status)
            status = check_inside(i, "key/value heads", p->rules[i].kv_heads, kv_heads, err);
        if (status)
            return status;
    }
    return RATP_OK;
}
