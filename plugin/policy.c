#include "policy.h"

#include "structs.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* With so many rules a policy still prints as a text that policy_parse takes. */
enum { MAX_TOKENS = 1 << 24, MAX_RULES = 1 << 13 };

const char *const variant_number_name[VARIANT_NUMBERS] = {"dilation", "window", "sinks"};

static const struct variant dense = {.kind = RATP_DENSE, .dilation = 1};

/* ---- Variants ---- */

ratp_status variant_make(ratp_variant_kind kind, const uint32_t numbers[VARIANT_NUMBERS],
                         const char *what, struct variant *out, int *wrong, struct error *err)
{
    static const struct {
        const char *name;
        uint32_t least[VARIANT_NUMBERS], most[VARIANT_NUMBERS];
    } kinds[] = {
        [RATP_DENSE] = {"dense", {0, 0, 0}, {1, 0, 0}},
        [RATP_DILATED] = {"dilated", {1, 0, 0}, {MAX_TOKENS, MAX_TOKENS, MAX_TOKENS}},
        [RATP_STREAMING] = {"streaming", {0, 0, 0}, {0, MAX_TOKENS, MAX_TOKENS}},
    };
    *wrong = -1;
    *out = dense;
    if (kind < RATP_DENSE || kind > RATP_STREAMING)
        return fail(err, RATP_INVALID_ARGUMENT,
                    "%s.kind is %" PRId32 ", it must be 0 (dense), 1 (dilated) or 2 (streaming)",
                    what, kind);
    for (int i = 0; i < VARIANT_NUMBERS; i++) {
        uint32_t least = kinds[kind].least[i], most = kinds[kind].most[i];
        if (numbers[i] >= least && numbers[i] <= most)
            continue;
        *wrong = i;
        return fail(err, RATP_INVALID_ARGUMENT,
                    "%s.%s is %" PRIu32 ", for kind %s it must be %" PRIu32 " to %" PRIu32, what,
                    variant_number_name[i], numbers[i], kinds[kind].name, least, most);
    }
    if (kind != RATP_DENSE && numbers[0] != 1)
        *out = (struct variant){
            .kind = kind, .dilation = numbers[0], .window = numbers[1], .sinks = numbers[2]};
    return RATP_OK;
}

ratp_status variant_from_public(const struct ratp_variant *in, const char *what,
                                struct variant *out, struct error *err)
{
    *out = dense;
    if (!in)
        return RATP_OK;
    struct ratp_variant v;
    ratp_status status =
        struct_read(&v, sizeof v, in, STRUCT_UPTO(struct ratp_variant, kind), what, err);
    if (status)
        return status;
    int wrong;
    return variant_make(v.kind, (uint32_t[]){v.dilation, v.window, v.sinks}, what, out, &wrong,
                        err);
}

bool variant_equal(const struct variant *a, const struct variant *b)
{
    return a->kind == b->kind && a->dilation == b->dilation && a->window == b->window &&
           a->sinks == b->sinks && a->block == b->block && a->choose == b->choose &&
           a->by_group == b->by_group && a->capacity == b->capacity && a->observe == b->observe &&
           a->kernel == b->kernel && a->average == b->average;
}

struct choice choice_of(const struct variant *v)
{
    return (struct choice){*v, *v};
}

bool choice_equal(const struct choice *a, const struct choice *b)
{
    return variant_equal(&a->prompt, &b->prompt) && variant_equal(&a->decode, &b->decode);
}

void variant_name(const struct variant *v, char *text, size_t size)
{
    char head[16] = "dense", window[16] = "", sinks[16] = "";
    if (v->kind == RATP_DILATED)
        snprintf(head, sizeof head, "d%" PRIu32, v->dilation);
    else if (v->kind == RATP_STREAMING)
        snprintf(head, sizeof head, "stream");
    if (v->window)
        snprintf(window, sizeof window, "w%" PRIu32, v->window);
    if (v->sinks)
        snprintf(sinks, sizeof sinks, "s%" PRIu32, v->sinks);
    snprintf(text, size, "%s%s%s", head, window, sinks);
}

/* A number after the letter `letter`, or nothing. */
static bool read_part(const char **text, char letter, uint32_t *value)
{
    const char *p = *text;
    if (*p != letter)
        return true;
    uint64_t sum = 0;
    const char *digits = ++p;
    for (; *p >= '0' && *p <= '9'; p++) {
        sum = sum * 10 + (uint64_t)(*p - '0');
        if (sum > UINT32_MAX)
            return false;
    }
    if (p == digits)
        return false;
    *value = (uint32_t)sum;
    *text = p;
    return true;
}

ratp_status variant_parse(const char *text, const char *what, struct variant *out,
                          struct error *err)
{
    ratp_variant_kind kind = RATP_DENSE;
    uint32_t numbers[VARIANT_NUMBERS] = {0};
    const char *p = text;
    bool good = true;
    if (strncmp(p, "dense", 5) == 0) {
        p += 5;
    } else if (strncmp(p, "stream", 6) == 0) {
        kind = RATP_STREAMING;
        p += 6;
    } else {
        kind = RATP_DILATED;
        good = *p == 'd' && read_part(&p, 'd', &numbers[0]);
    }
    if (kind != RATP_DENSE)
        good = good && read_part(&p, 'w', &numbers[1]) && read_part(&p, 's', &numbers[2]);
    if (!good || *p != '\0')
        return fail(err, RATP_INVALID_ARGUMENT,
                    "%s is \"%.60s\", it must read like dense, d16, d16w256s4 or streamw256s4",
                    what, text);
    int wrong;
    return variant_make(kind, numbers, what, out, &wrong, err);
}

/* ---- Policies ---- */

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
    return choice_of(&dense);
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
