#include "policy.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

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

static ratp_status check_ranges(const struct ratp_range *ranges, uint32_t count, const char *what,
                                struct error *err)
{
    ratp_status status = RATP_OK;
    for (uint32_t i = 0; i < count && !status; i++)
        status = check_range(ranges[i], what, err);
    return status;
}

/* Ranges by their begin, and how far those up to each reach: with many of them, whether one
 * has another range inside is found without looking at all. */
struct cover {
    struct ratp_range range[POLICY_RANGES];
    uint64_t reach[POLICY_RANGES];
    uint32_t count;
};

static int by_first(const void *a, const void *b)
{
    uint32_t x = ((const struct ratp_range *)a)->first, y = ((const struct ratp_range *)b)->first;
    return (x > y) - (x < y);
}

static void cover_open(struct cover *cover, const struct ratp_range *ranges, uint32_t count)
{
    uint64_t reach = 0;
    cover->count = count;
    memcpy(cover->range, ranges, count * sizeof *ranges);
    qsort(cover->range, count, sizeof *ranges, by_first);
    for (uint32_t i = 0; i < count; i++) {
        reach = reach > range_end(cover->range[i]) ? reach : range_end(cover->range[i]);
        cover->reach[i] = reach;
    }
}

/* Whether one of the ranges has all of `r`. */
static bool cover_holds(const struct cover *cover, struct ratp_range r)
{
    uint32_t low = 0, high = cover->count; /* ranges that begin no later than r */
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (cover->range[middle].first <= r.first)
            low = middle + 1;
        else
            high = middle;
    }
    return low > 0 && cover->reach[low - 1] >= range_end(r);
}

/* Whether rules of such ranges hide this one. */
static bool hides(const struct cover *layers, const struct cover *heads,
                  const struct policy_rule *rule)
{
    return cover_holds(layers, rule->layers) && cover_holds(heads, rule->kv_heads);
}

/* Those that no later one hides, in their order; returns how many. */
static uint32_t visible_of(const struct ratp_range *ranges, uint32_t count,
                           struct ratp_range *visible)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < count; i++) {
        bool hidden = false;
        for (uint32_t later = i + 1; later < count && !hidden; later++)
            hidden = range_inside(ranges[i], ranges[later]);
        if (!hidden)
            visible[n++] = ranges[i];
    }
    return n;
}

static ratp_status reserve(struct ratp_policy *p, uint32_t count, struct error *err)
{
    uint32_t room = p->room ? p->room : 8;
    while (room < count)
        room *= 2;
    if (room == p->room)
        return RATP_OK;
    struct policy_rule *rules = realloc(p->rules, room * sizeof *rules);
    if (!rules)
        return fail(err, RATP_OUT_OF_MEMORY, "no host memory for %" PRIu32 " policy rules", room);
    p->rules = rules;
    p->room = room;
    return RATP_OK;
}

ratp_status policy_add(struct ratp_policy *p, const struct ratp_range *layers,
                       uint32_t layer_ranges, const struct ratp_range *kv_heads,
                       uint32_t head_ranges, const struct choice *choice, struct error *err)
{
    ratp_status status = check_ranges(layers, layer_ranges, "layers", err);
    if (!status)
        status = check_ranges(kv_heads, head_ranges, "kv_heads", err);
    if (status)
        return status;
    struct ratp_range layer[POLICY_RANGES], head[POLICY_RANGES];
    struct cover layer_cover, head_cover;
    layer_ranges = visible_of(layers, layer_ranges, layer);
    head_ranges = visible_of(kv_heads, head_ranges, head);
    cover_open(&layer_cover, layer, layer_ranges);
    cover_open(&head_cover, head, head_ranges);
    /* Rules that the new ones hide are dropped, so that a policy which is set
     * again and again does not grow. They are counted first: on failure
     * nothing changes. */
    uint32_t wanted = layer_ranges * head_ranges, n = 0;
    for (uint32_t i = 0; i < p->count; i++)
        wanted += !hides(&layer_cover, &head_cover, &p->rules[i]);
    if (wanted > MAX_RULES)
        return fail(err, RATP_INVALID_ARGUMENT,
                    "the policy would have %" PRIu32 " rules, at most %d fit", wanted, MAX_RULES);
    status = reserve(p, wanted, err);
    if (status)
        return status;
    for (uint32_t i = 0; i < p->count; i++)
        if (!hides(&layer_cover, &head_cover, &p->rules[i]))
            p->rules[n++] = p->rules[i];
    for (uint32_t i = 0; i < layer_ranges; i++)
        for (uint32_t j = 0; j < head_ranges; j++)
            p->rules[n++] = (struct policy_rule){layer[i], head[j], *choice};
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

/* The next place from `at` on that no rule has taken yet, of those in `next`: a place that
 * is taken leads on. Ways are made shorter as they are gone. */
static uint32_t next_free(uint32_t *next, uint32_t at)
{
    while (next[at] != at) {
        next[at] = next[next[at]];
        at = next[at];
    }
    return at;
}

ratp_status policy_fill(const struct ratp_policy *p, uint32_t layers, uint32_t first_head,
                        uint32_t heads, struct choice *out, struct error *err)
{
    /* One place a head, and one behind each layer's, which is never taken; behind them, in
     * the same way, one a layer that has a free head. */
    uint32_t row = heads + 1, *next = malloc(((size_t)layers * (row + 1) + 1) * sizeof *next);
    if (!next)
        return fail(err, RATP_OUT_OF_MEMORY, "no host memory for the variants of %" PRIu32
                    " layers", layers);
    uint32_t *open = next + (size_t)layers * row;
    for (uint32_t i = 0; i < layers * row; i++)
        next[i] = i;
    for (uint32_t i = 0; i <= layers; i++)
        open[i] = i;
    const struct choice dense = choice_of(&(struct variant){.kind = RATP_DENSE, .dilation = 1});
    const struct policy_rule rest = {.choice = dense}; /* for all that no rule speaks of */
    for (uint32_t r = p->count + 1; r-- > 0;) {
        const struct policy_rule *rule = r ? &p->rules[r - 1] : &rest;
        uint64_t head = rule->kv_heads.first, end = range_end(rule->kv_heads);
        head = head > first_head ? head - first_head : 0;
        end = end > first_head ? end - first_head : 0;
        end = end < heads ? end : heads;
        if (head >= end || rule->layers.first >= layers)
            continue;
        for (uint32_t layer = next_free(open, rule->layers.first);
             layer < layers && layer < range_end(rule->layers);
             layer = next_free(open, layer + 1)) {
            uint32_t base = layer * row;
            for (uint32_t at = next_free(next, base + (uint32_t)head); at < base + end;
                 at = next_free(next, at)) {
                out[(size_t)layer * heads + (at - base)] = rule->choice;
                next[at] = at + 1;
            }
            if (next_free(next, base) == base + heads)
                open[layer] = layer + 1;
        }
    }
    free(next);
    return RATP_OK;
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
