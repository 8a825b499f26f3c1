#include "search.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Sums of costs are told apart to this part of the target; each keeps its exact value. */
#define BUCKETS 4096
/* Costs need not be whole numbers: equal sums may differ in their last digits. */
#define SLACK 1e-9

/* The least loss of the layers so far at about this cost. */
struct state {
    double cost, loss;
    uint32_t variant, from; /* of the last layer, and the bucket before it */
    bool reached;
};

struct walk {
    const struct search *search;
    struct search_result *result;
    double *delta;   /* [layers][variants]: the loss beyond the base's, one layer changed */
    uint32_t *trial; /* [layers] */
    uint32_t *base;  /* [layers]: the base in each */
    uint32_t *tried; /* [count][layers]: what was measured after the first pass */
    uint32_t tried_count;
};

/* One or two layers of the current policy that change. */
struct change {
    uint32_t layer[2], variant[2];
    double gain; /* predicted; less is better */
    bool found;
};

static double limit(const struct search *s)
{
    return s->target * s->layers * (1 + SLACK);
}

static double total(const struct search *s, const uint32_t *choice)
{
    double sum = 0;
    for (uint32_t i = 0; i < s->layers; i++)
        sum += s->cost[choice[i]];
    return sum;
}

static double delta_of(const struct walk *w, uint32_t layer, uint32_t variant)
{
    return w->delta[(size_t)layer * w->search->variants + variant];
}

static size_t choice_bytes(const struct walk *w)
{
    return w->search->layers * sizeof *w->trial;
}

static double doubt(const struct walk *w, const uint32_t *a, const uint32_t *b)
{
    return w->search->doubt ? w->search->doubt(w->search->user, a, b) : 0;
}

/* Keeps w->trial when it is better than all before, and not by chance. */
static bool consider(struct walk *w, double loss)
{
    const bool better = loss + doubt(w, w->trial, w->result->choice) < w->result->loss;
    if (better) {
        w->result->loss = loss;
        memcpy(w->result->choice, w->trial, choice_bytes(w));
    }
    return better;
}

static bool try_it(struct walk *w, bool *better, struct problem *problem)
{
    const struct search *s = w->search;
    double loss;
    uint32_t *grown = realloc(w->tried, (w->tried_count + 1) * choice_bytes(w));
    if (!grown)
        return problem_set(problem, "out of memory for the search");
    w->tried = grown;
    memcpy(grown + (size_t)w->tried_count++ * s->layers, w->trial, choice_bytes(w));
    if (!s->measure(s->user, w->trial, &loss, problem))
        return false;
    *better = consider(w, loss);
    return true;
}

static double cheapest(const struct search *s)
{
    double least = s->cost[0];
    for (uint32_t v = 1; v < s->variants; v++)
        least = s->cost[v] < least ? s->cost[v] : least;
    return least;
}

static bool find_base(struct walk *w, struct problem *problem)
{
    const struct search *s = w->search;
    bool found = false;
    for (uint32_t v = 0; v < s->variants; v++) {
        if (s->cost[v] > s->target * (1 + SLACK) || (found && s->uniform[v] >= w->result->loss))
            continue;
        found = true;
        w->result->base = v;
        w->result->loss = s->uniform[v];
    }
    for (uint32_t i = 0; i < s->layers; i++)
        w->base[i] = w->result->choice[i] = w->result->base;
    return found || problem_set(problem, "the target is %.10g, but the cheapest variant costs %.10g",
                                s->target, cheapest(s));
}

/* One layer at a time leaves the base. A variant that costs too much for that may
 * still fit beside cheaper layers; one that does not even then is never taken. */
static bool measure_deltas(struct walk *w, struct problem *problem)
{
    const struct search *s = w->search;
    const double base_loss = w->result->loss;
    const uint32_t base = w->result->base;
    memcpy(w->trial, w->base, choice_bytes(w));
    for (uint32_t i = 0; i < s->layers; i++) {
        double *delta = w->delta + (size_t)i * s->variants;
        for (uint32_t v = 0; v < s->variants; v++) {
            double loss;
            w->trial[i] = v;
            if (s->cost[v] + (s->layers - 1) * cheapest(s) > limit(s)) {
                delta[v] = INFINITY;
                continue;
            }
            if (v == base)
                continue;
            if (!s->measure(s->user, w->trial, &loss, problem))
                return false;
            /* What is doubtful counts as worse. */
            delta[v] = loss - base_loss + doubt(w, w->trial, w->base);
            if (total(s, w->trial) <= limit(s))
                consider(w, loss);
        }
        w->trial[i] = base;
    }
    return true;
}

static void extend(const struct search *s, const struct walk *w, uint32_t layer,
                   const struct state *before, struct state *after)
{
    for (uint32_t bucket = 0; bucket <= BUCKETS; bucket++)
        for (uint32_t v = 0; before[bucket].reached && v < s->variants; v++) {
            const double cost = before[bucket].cost + s->cost[v];
            const double loss = before[bucket].loss + delta_of(w, layer, v);
            if (cost > limit(s) || isinf(loss))
                continue;
            struct state *to = &after[(uint32_t)(cost / limit(s) * BUCKETS)];
            if (!to->reached || loss < to->loss || (loss <= to->loss && cost < to->cost))
                *to = (struct state){cost, loss, v, bucket, true};
        }
}

/* The policy with the least sum of deltas, by dynamic programming, into w->trial. */
static bool solve(struct walk *w, struct problem *problem)
{
    const struct search *s = w->search;
    const size_t row = BUCKETS + 1;
    struct state *states = calloc((s->layers + 1) * row, sizeof *states);
    if (!states)
        return problem_set(problem, "out of memory for the search");
    states[0].reached = true;
    for (uint32_t i = 0; i < s->layers; i++)
        extend(s, w, i, states + i * row, states + (i + 1) * row);
    /* The base's own cost is within the limit, so something was reached. */
    const struct state *last = states + s->layers * row;
    uint32_t best = BUCKETS;
    for (uint32_t bucket = 0; bucket <= BUCKETS; bucket++)
        if (last[bucket].reached && (!last[best].reached || last[bucket].loss < last[best].loss))
            best = bucket;
    for (uint32_t i = s->layers; i > 0; i--) {
        const struct state *at = &states[i * row + best];
        w->trial[i - 1] = at->variant;
        best = at->from;
    }
    free(states);
    return true;
}

static bool was_tried(const struct walk *w, const struct change *change)
{
    const uint32_t layers = w->search->layers;
    memcpy(w->trial, w->result->choice, choice_bytes(w));
    for (int i = 0; i < 2; i++)
        w->trial[change->layer[i]] = change->variant[i];
    uint32_t changed = 0;
    for (uint32_t i = 0; i < layers; i++)
        changed += w->trial[i] != w->result->base;
    for (uint32_t i = 0; i < w->tried_count; i++)
        if (memcmp(w->tried + (size_t)i * layers, w->trial, choice_bytes(w)) == 0)
            return true;
    return changed < 2; /* measured by the first pass */
}

/* The neighbour that should gain most, of those that are within the target and new. */
static struct change likeliest(const struct walk *w)
{
    const struct search *s = w->search;
    const uint32_t *now = w->result->choice;
    const double spent = total(s, now);
    struct change best = {.found = false};
    /* a == b, with the variant that it has, changes one layer. */
    for (uint32_t a = 0; a < s->layers; a++)
        for (uint32_t b = a; b < s->layers; b++)
            for (uint32_t va = 0; va < s->variants; va++)
                for (uint32_t vb = 0; vb < s->variants; vb++) {
                    if (va == now[a] || (a == b ? vb != va : vb == now[b]))
                        continue;
                    double cost = spent + s->cost[va] - s->cost[now[a]];
                    double gain = delta_of(w, a, va) - delta_of(w, a, now[a]);
                    if (a != b) {
                        cost += s->cost[vb] - s->cost[now[b]];
                        gain += delta_of(w, b, vb) - delta_of(w, b, now[b]);
                    }
                    const struct change change = {{a, b}, {va, vb}, gain, true};
                    if (cost <= limit(s) && (!best.found || gain < best.gain) &&
                        !was_tried(w, &change))
                        best = change;
                }
    return best;
}

static bool refine(struct walk *w, struct problem *problem)
{
    for (uint32_t failures = 0; failures < w->search->patience;) {
        const struct change change = likeliest(w);
        bool better;
        if (!change.found)
            return true;
        memcpy(w->trial, w->result->choice, choice_bytes(w));
        for (int i = 0; i < 2; i++)
            w->trial[change.layer[i]] = change.variant[i];
        if (!try_it(w, &better, problem))
            return false;
        failures = better ? 0 : failures + 1;
    }
    return true;
}

bool search_run(const struct search *search, struct search_result *out, struct problem *problem)
{
    struct walk w = {.search = search, .result = out};
    *out = (struct search_result){0};
    out->choice = calloc(search->layers, sizeof *out->choice);
    w.trial = calloc(search->layers, sizeof *w.trial);
    w.base = calloc(search->layers, sizeof *w.base);
    w.delta = calloc((size_t)search->layers * search->variants, sizeof *w.delta);
    bool better, good = (out->choice && w.trial && w.base && w.delta) ||
                        problem_set(problem, "out of memory for the search");
    good = good && find_base(&w, problem) && measure_deltas(&w, problem) && solve(&w, problem) &&
           try_it(&w, &better, problem) && refine(&w, problem);
    free(w.tried);
    free(w.delta);
    free(w.base);
    free(w.trial);
    if (!good)
        search_result_free(out);
    return good;
}

void search_result_free(struct search_result *result)
{
    free(result->choice);
    result->choice = NULL;
}
