/* Sequences under any variant: which keys each query attends, chosen by their scores
 * where the variant says so. */
#include "naive.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct scored {
    double score;
    uint32_t index;
};

struct sequence {
    const struct naive_layer *layer;
    const struct naive_tokens *tokens;
    uint32_t group; /* query heads of a key/value head */
    double *q, *k, *v;    /* [token][heads][channels], with memory, q and k rotated */
    unsigned char *set;   /* [query_heads][token], of one query */
    unsigned char *held;  /* [kv_heads][token]: what snapkv has not dropped */
    double *held_gap;     /* [kv_heads]: how close that decision was */
    bool *dropped;        /* [kv_heads]: whether snapkv has dropped any */
    uint32_t *taken;      /* [kv_heads]: as the answer has it */
    struct scored *list;  /* [token] */
    double *score;        /* [token] */
    uint32_t *visible;    /* [token] */
};

static uint32_t usual(uint32_t value, uint32_t otherwise)
{
    return value ? value : otherwise;
}

static const double *query_of(const struct sequence *s, uint32_t t, uint32_t head)
{
    return s->q + ((size_t)t * s->layer->query_heads + head) * s->layer->head_size;
}

static const double *key_of(const struct sequence *s, uint32_t t, uint32_t kv_head)
{
    return s->k + ((size_t)t * s->layer->kv_heads + kv_head) * s->layer->head_size;
}

/* ---- Choosing ---- */

/* Highest first, ties to the lower index. One that is not finite is the highest. */
static int compare(const void *a, const void *b)
{
    const struct scored *x = a, *y = b;
    bool x_odd = !isfinite((float)x->score), y_odd = !isfinite((float)y->score);
    if (x_odd != y_odd)
        return x_odd ? -1 : 1;
    if (!x_odd && x->score != y->score)
        return x->score > y->score ? -1 : 1;
    return x->index < y->index ? -1 : x->index > y->index;
}

/* Sorts the list, best first; how far the first `chosen` are from the rest. */
static double choose(struct scored *list, uint32_t count, uint32_t chosen)
{
    qsort(list, count, sizeof *list, compare);
    if (chosen == 0 || chosen >= count)
        return INFINITY;
    double last = list[chosen - 1].score, gap = INFINITY;
    if (last > list[chosen].score)
        return last - list[chosen].score;
    for (uint32_t i = 0; i < count; i++)
        if (list[i].score != last)
            gap = fmin(gap, fabs(list[i].score - last));
    return gap;
}

/* ---- Quest and MoBA ---- */

static double block_score(const struct sequence *s, ratp_variant_kind kind, const double *q,
                          uint32_t kv_head, uint32_t first, uint32_t count)
{
    double score = 0;
    for (uint32_t c = 0; c < s->layer->head_size; c++) {
        double least = INFINITY, most = -INFINITY, sum = 0;
        for (uint32_t t = first; t < first + count; t++) {
            double k = key_of(s, t, kv_head)[c];
            if (!isfinite(k))
                return NAN;
            least = fmin(least, k);
            most = fmax(most, k);
            sum += k;
        }
        score += kind == RATP_QUEST ? fmax(q[c] * most, q[c] * least) : q[c] * sum / count;
    }
    return score;
}

static double choose_blocks(const struct sequence *s, const struct ratp_variant *v, uint32_t t,
                            uint32_t head, unsigned char *set)
{
    bool quest = v->kind == RATP_QUEST;
    uint32_t block = quest ? usual(v->page, 16) : usual(v->block, 512);
    uint32_t others = (quest ? v->budget / block : v->topk) - 1;
    uint32_t own = t / block, kv_head = head / s->group;
    bool together = v->selection == RATP_SELECT_GROUP;
    uint32_t first = together ? kv_head * s->group : head;
    uint32_t end = together ? first + s->group : head + 1;
    double size = 0;
    for (uint32_t b = 0; b < own; b++) {
        s->list[b] = (struct scored){0, b};
        for (uint32_t h = first; h < end; h++)
            s->list[b].score +=
                block_score(s, v->kind, query_of(s, t, h), kv_head, b * block, block);
        if (isfinite(s->list[b].score))
            size = fmax(size, fabs(s->list[b].score));
    }
    double gap = choose(s->list, own, others);
    memset(set, 0, s->tokens->count);
    memset(set + (size_t)own * block, 1, t - own * block + 1);
    for (uint32_t i = 0; i < own && i < others; i++)
        memset(set + (size_t)s->list[i].index * block, 1, block);
    return gap / size;
}

/* ---- SnapKV ---- */

/* What the observing queries of all heads of the group see of each visible key. */
static void observe(const struct sequence *s, uint32_t kv_head, uint32_t count, uint32_t observing)
{
    memset(s->score, 0, count * sizeof *s->score);
    for (uint32_t i = count - observing; i < count; i++)
        for (uint32_t h = kv_head * s->group; h < (kv_head + 1) * s->group; h++) {
            const double *q = query_of(s, s->visible[i], h);
            double most = -INFINITY, total = 0;
            for (uint32_t j = 0; j <= i; j++) {
                s->list[j].score = naive_logit(s->layer, q, key_of(s, s->visible[j], kv_head));
                if (isnan(s->list[j].score)) /* takes all votes */
                    s->list[j].score = (double)FLT_MAX;
                most = fmax(most, s->list[j].score);
            }
            for (uint32_t j = 0; j <= i; j++)
                total += exp(s->list[j].score - most);
            for (uint32_t j = 0; j <= i; j++)
                s->score[j] += exp(s->list[j].score - most) / total;
        }
}

static double pooled(const double *score, uint32_t count, uint32_t at, uint32_t kernel,
                     bool average)
{
    double most = -INFINITY, sum = 0;
    uint32_t half = kernel / 2;
    for (uint32_t i = at > half ? at - half : 0; i < count && i <= at + half; i++) {
        most = fmax(most, score[i]);
        sum += score[i];
    }
    return average ? sum / kernel : most;
}

/* Whether no other vote comes near this one, so that rounding leaves tokens whose best
 * neighbour it is as equal as they are. */
static bool stands_alone(const struct sequence *s, double score, uint32_t count, double near)
{
    for (uint32_t i = 0; i < count; i++)
        if (s->score[i] != score && fabs(s->score[i] - score) <= near)
            return false;
    return true;
}

/* Whether a device that kept these may have chosen `chosen` of the `count` scores. */
static bool may_choose(const struct sequence *s, const unsigned char *kept, uint32_t count,
                       uint32_t chosen)
{
    const struct scored *list = s->list;
    double last = list[chosen - 1].score, near = s->tokens->close * last;
    uint32_t found = 0;
    for (uint32_t i = 0; i < count; i++) {
        bool here = kept[s->visible[list[i].index]];
        bool passed = i && list[i].score == list[i - 1].score && here &&
                      !kept[s->visible[list[i - 1].index]];
        if (passed && stands_alone(s, list[i].score, count, near))
            return false;
        if (here != (i < chosen) && fabs(list[i].score - last) > near)
            return false;
        found += here;
    }
    return found == chosen;
}

/* A device's choice in the place of the first `chosen` of the list, if it may be one. */
static void settle(const struct sequence *s, const unsigned char *kept, uint32_t kv_head,
                   uint32_t count, uint32_t chosen)
{
    bool same = true;
    if (!may_choose(s, kept, count, chosen))
        return;
    uint32_t next = 0;
    for (uint32_t i = 0; i < count; i++)
        if (kept[s->visible[s->list[i].index]]) {
            same = same && i == next;
            s->list[next++].index = s->list[i].index;
        }
    s->held_gap[kv_head] = INFINITY;
    s->taken[kv_head] += !same;
}

/* `there`: what a device kept, or NULL. */
static void compress(const struct sequence *s, const struct ratp_variant *v, uint32_t kv_head,
                     uint32_t length, const unsigned char *there)
{
    uint32_t observing = usual(v->observe, 32), kernel = usual(v->kernel, 7), count = 0;
    unsigned char *held = s->held + (size_t)kv_head * s->tokens->count;
    for (uint32_t t = 0; t < length; t++)
        if (!s->tokens->gone || held[t])
            s->visible[count++] = t;
    memset(held, 0, length);
    s->held_gap[kv_head] = INFINITY;
    uint32_t before = count, kept = count;
    if (count >= v->capacity) {
        before = count - observing;
        kept = v->capacity - observing;
        observe(s, kv_head, count, observing);
        for (uint32_t i = 0; i < before; i++)
            s->list[i] = (struct scored){
                pooled(s->score, before, i, kernel, v->pool == RATP_POOL_AVG), i};
        double gap = choose(s->list, before, kept);
        s->held_gap[kv_head] = gap / s->list[kept - 1].score;
        s->dropped[kv_head] |= count > v->capacity;
        if (there)
            settle(s, there, kv_head, before, kept);
    } else {
        for (uint32_t i = 0; i < count; i++)
            s->list[i].index = i;
    }
    for (uint32_t i = 0; i < kept; i++)
        held[s->visible[s->list[i].index]] = 1;
    for (uint32_t i = before; i < count; i++)
        held[s->visible[i]] = 1;
}

/* ---- Sequences ---- */

/* The variant for token t; NULL: dense. */
static const struct ratp_variant *variant_at(const struct naive_tokens *tokens, uint32_t t,
                                             const struct ratp_variant *v)
{
    if (!tokens->prompt || !tokens->prompt[t])
        return v;
    bool for_decode = v->kind == RATP_QUEST || v->kind == RATP_SNAPKV;
    return v->prompt || for_decode ? v->prompt : v;
}

/* What query head `head` of token t attends; how close that was. */
static double select_keys(const struct sequence *s, const struct ratp_variant *variant, uint32_t t,
                          uint32_t head, unsigned char *set)
{
    const struct ratp_variant *v = variant_at(s->tokens, t, variant);
    const unsigned char *held = s->held + (size_t)(head / s->group) * s->tokens->count;
    if (s->tokens->gone && s->dropped[head / s->group])
        v = variant;
    double gap = INFINITY;
    if (v && (v->kind == RATP_QUEST || v->kind == RATP_MOBA))
        gap = choose_blocks(s, v, t, head, set);
    else
        for (uint32_t j = 0; j < s->tokens->count; j++)
            set[j] = v && v->kind == RATP_SNAPKV ? j <= t : naive_attends(v, t, j);
    if (v && v->kind == RATP_SNAPKV) {
        for (uint32_t j = 0; j <= t; j++)
            set[j] = set[j] && held[j];
        gap = fmin(gap, s->held_gap[head / s->group]);
    }
    return gap;
}

/* The memory of K and V, rotated; and q. */
static void prepare(const struct sequence *s)
{
    const struct naive_layer *layer = s->layer;
    const struct naive_tokens *in = s->tokens;
    size_t d = layer->head_size, q_rows = (size_t)in->count * layer->query_heads;
    size_t k_rows = (size_t)in->count * layer->kv_heads;
    naive_memory(layer, in->count, in->k, in->v, in->f, NULL, s->k, s->v);
    for (size_t row = 0; row < k_rows; row++)
        naive_rotate(layer, row / layer->kv_heads, s->k + row * d);
    for (size_t i = 0; i < q_rows * d; i++)
        s->q[i] = (double)in->q[i];
    for (size_t row = 0; row < q_rows; row++)
        naive_rotate(layer, row / layer->query_heads, s->q + row * d);
    memset(s->held, 1, k_rows);
    for (uint32_t h = 0; h < layer->kv_heads; h++)
        s->held_gap[h] = INFINITY;
}

static void attend(const struct sequence *s, const struct ratp_variant *variants, uint32_t count,
                   const struct naive_answer *answer)
{
    const struct naive_layer *layer = s->layer;
    const struct naive_tokens *in = s->tokens;
    size_t heads = layer->query_heads, d = layer->head_size;
    size_t dv = layer->value_size ? layer->value_size : d;
    uint32_t compression = 0;
    for (uint32_t t = 0; t <= in->count; t++) {
        while (compression < in->compressions && in->compress[compression] == t) {
            for (uint32_t h = 0; h < layer->kv_heads; h++)
                if (variants[h % count].kind == RATP_SNAPKV)
                    compress(s, &variants[h % count], h, t,
                             in->kept ? in->kept + ((size_t)compression * layer->kv_heads + h) *
                                                       in->count : NULL);
            compression++;
        }
        if (t == in->count)
            break;
        for (uint32_t h = 0; h < heads; h++) {
            double gap = select_keys(s, &variants[h / s->group % count], t, h,
                                     s->set + (size_t)h * in->count);
            if (answer->gap)
                answer->gap[t * heads + h] = gap;
        }
        struct naive_span span = {.first = t, .queries = 1, .keys = in->count, .set = s->set};
        naive_attend(layer, &span, NULL, 0, in->q + t * heads * d, s->k, s->v,
                     in->o ? in->o + t * heads * dv : NULL, answer->out + t * heads * dv,
                     answer->lse ? answer->lse + t * heads : NULL,
                     answer->attended ? answer->attended + t * heads : NULL);
    }
}

bool naive_sequence(const struct naive_layer *layer, const struct ratp_variant *variants,
                    uint32_t variant_count, const struct naive_tokens *tokens,
                    const struct naive_answer *answer)
{
    size_t d = layer->head_size, dv = layer->value_size ? layer->value_size : d;
    size_t count = tokens->count, kv_heads = layer->kv_heads;
    struct sequence s = {
        .layer = layer,
        .tokens = tokens,
        .group = layer->query_heads / layer->kv_heads,
        .q = malloc(count * layer->query_heads * d * sizeof *s.q),
        .k = malloc(count * kv_heads * d * sizeof *s.k),
        .v = malloc(count * kv_heads * dv * sizeof *s.v),
        .set = malloc(count * layer->query_heads),
        .held = malloc(count * kv_heads),
        .held_gap = malloc(kv_heads * sizeof *s.held_gap),
        .dropped = calloc(kv_heads, sizeof *s.dropped),
        .taken = calloc(kv_heads, sizeof *s.taken),
        .list = malloc(count * sizeof *s.list),
        .score = malloc(count * sizeof *s.score),
        .visible = malloc(count * sizeof *s.visible),
    };
    bool ok = s.q && s.k && s.v && s.set && s.held && s.held_gap && s.dropped && s.taken &&
              s.list && s.score && s.visible;
    if (ok) {
        prepare(&s);
        attend(&s, variants, variant_count, answer);
        if (answer->held)
            memcpy(answer->held, s.held, count * kv_heads);
        if (answer->taken)
            memcpy(answer->taken, s.taken, kv_heads * sizeof *s.taken);
    }
    free(s.q);
    free(s.k);
    free(s.v);
    free(s.set);
    free(s.held);
    free(s.held_gap);
    free(s.dropped);
    free(s.taken);
    free(s.list);
    free(s.score);
    free(s.visible);
    return ok;
}
