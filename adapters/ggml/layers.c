#include "layers.h"

#include "adapter.h"
#include "attention.h"
#include "order.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct layer {
    bool weights;      /* it has some that were asked about, ... */
    bool keys, output; /* ... and these of attention */
    bool cache;        /* it has a cache, that something was asked about */
    bool here;         /* its attention runs here, as was answered last */
    bool ran;
    uint32_t away;      /* bits of enum away; 0, and not here: AWAY_CACHE */
    uint32_t kv_heads;  /* 0: not known */
    uint64_t fallbacks; /* of the last node */
};

enum { MAX_LAYERS = UINT16_MAX + 1, LINE = 440, MOST_RANGES = 8 };

static struct {
    pthread_mutex_t lock;
    struct layer *list;
    int count;
    uint32_t waits;       /* since something was asked */
    bool changed;         /* since the last look: there may be something to say */
    bool spoken;          /* a first line was said */
    uint64_t policy;      /* the number of the one that the lines below were about */
    uint64_t said;        /* fallbacks that a line told of */
    uint32_t said_away;   /* and reasons of the other kind */
    uint64_t new_fallbacks; /* of nodes since a pass ended */
} all = {.lock = PTHREAD_MUTEX_INITIALIZER};

static const char *const reasons[AWAY_REASONS] = {
    [AWAY_CACHE] = "no cache came here (-ngl 99, no -nkvo)",
    [AWAY_TYPE] = "a cache of this type does not run here (-ctk, -ctv)",
    [AWAY_FORM] = "head sizes or masks like these do not run here",
    [AWAY_NO_FLASH] = "the host runs without flash attention (-fa on)",
};

const char *layers_reason(enum away why)
{
    return reasons[why];
}

/* ---- Names ---- */

/* The number that follows `prefix` where `name` begins with it, -1 where it does not; *rest
 * is what comes behind. */
static int number_after(const char *name, const char *prefix, const char **rest)
{
    char *end = NULL;
    if (strncmp(name, prefix, strlen(prefix)) != 0)
        return -1;
    name += strlen(prefix);
    const long number = strtol(name, &end, 10);
    *rest = end;
    return end > name && *name != '-' && number >= 0 && number < MAX_LAYERS ? (int)number : -1;
}

/* Of K or V of a cache, by its name alone. */
static int cache_of(const struct ggml_tensor *tensor)
{
    const char *name = tensor_root(tensor)->name, *rest = "";
    const int keys = number_after(name, "cache_k_l", &rest);
    return keys >= 0 ? keys : number_after(name, "cache_v_l", &rest);
}

/* A copy that the host's scheduler made for another device, "RATPLUS0#cache_k_l0 (view)
 * (copy)#0", has lost what it is a copy of. */
static int layer_in_copy(const struct ggml_tensor *copy)
{
    const char *name = tensor_root(copy)->name, *mark = strchr(name, '#'), *rest = "";
    const int layer = number_after(mark ? mark + 1 : name, "cache_k_l", &rest);
    return layer >= 0 && (*rest == ' ' || *rest == '#') ? layer : -1;
}

int layers_of_keys(const struct ggml_tensor *keys, bool *copied)
{
    const struct ggml_tensor *at = tensor_root(keys);
    int layer = order_layer(at);
    if (copied)
        *copied = layer < 0;
    while (layer < 0 && at && (at->op == GGML_OP_CPY || at->op == GGML_OP_CONT ||
                               at->op == GGML_OP_DUP)) {
        at = at->src[0] ? tensor_root(at->src[0]) : NULL;
        layer = at ? order_layer(at) : -1;
    }
    return layer >= 0 ? layer : layer_in_copy(keys);
}

/* ---- What is known ---- */

/* Under the lock; NULL below 0 and without memory. */
static struct layer *layer_at(int number)
{
    if (number < 0 || number >= MAX_LAYERS)
        return NULL;
    if (number >= all.count) {
        struct layer *list = realloc(all.list, ((size_t)number + 1) * sizeof *list);
        if (!list)
            return NULL;
        memset(list + all.count, 0, (size_t)(number + 1 - all.count) * sizeof *list);
        all.list = list;
        all.count = number + 1;
    }
    return &all.list[number];
}

static void stays_away(int number, enum away why)
{
    struct layer *layer = layer_at(number);
    if (!layer)
        return;
    all.changed |= layer->here || !(layer->away >> why & 1);
    layer->cache = true;
    layer->here = false;
    layer->away |= 1u << why;
}

static void comes_here(int number)
{
    struct layer *layer = layer_at(number);
    if (!layer)
        return;
    layer->cache = layer->here = true;
    layer->away = 0;
}

/* That a layer has attention shows in its weights, where the host asks about them. While a
 * model is loaded it asks about all, by nodes without a name; those of its graphs have one. */
static void weights_asked(const struct ggml_tensor *op)
{
    const char *rest = "";
    struct layer *layer = op->name[0] && op->src[0]
                              ? layer_at(number_after(op->src[0]->name, "blk.", &rest))
                              : NULL;
    if (!layer)
        return;
    all.changed |= !layer->weights;
    layer->weights = true;
    layer->keys |= strncmp(rest, ".attn_k", 7) == 0 || strncmp(rest, ".attn_qkv", 9) == 0;
    layer->output |= strncmp(rest, ".attn_out", 9) == 0;
}

static void attention_asked(const struct ggml_tensor *op, bool supported)
{
    const struct ggml_tensor *k = op->src[1], *v = op->src[2];
    const int layer = layers_of_keys(k, NULL);
    if (supported)
        comes_here(layer);
    else
        stays_away(layer, rows_type_is_known(k->type) && rows_type_is_known(v->type) ? AWAY_FORM
                                                                                     : AWAY_TYPE);
}

void layers_asked(const struct ggml_tensor *op, bool supported)
{
    pthread_mutex_lock(&all.lock);
    all.waits = 0;
    if (op->op == GGML_OP_FLASH_ATTN_EXT)
        attention_asked(op, supported);
    else if (op->op == GGML_OP_SET_ROWS && !supported && !rows_type_is_known(op->type))
        stays_away(cache_of(op), AWAY_TYPE);
    else if (op->op == GGML_OP_MUL_MAT && op->src[0] && order_layer(op->src[0]) >= 0)
        stays_away(order_layer(op->src[0]), AWAY_NO_FLASH);
    else if (op->op == GGML_OP_MUL_MAT)
        weights_asked(op);
    pthread_mutex_unlock(&all.lock);
}

void layers_ran(int number, uint32_t kv_heads, uint64_t fallbacks)
{
    pthread_mutex_lock(&all.lock);
    struct layer *layer = layer_at(number);
    if (layer) {
        all.changed |= !layer->here || !layer->ran;
        layer->cache = layer->here = layer->ran = true;
        layer->kv_heads = kv_heads;
        layer->fallbacks = fallbacks;
        all.new_fallbacks |= fallbacks;
    }
    pthread_mutex_unlock(&all.lock);
}

/* ---- Counting ---- */

/* Whether the policy asks more than dense attention of one of the layer's heads. Of layers
 * whose heads are not known, of any head. */
static bool is_asked(struct adapter_policy *policy, int number, struct head_run *runs)
{
    static const ratp_part_kind parts[] = {RATP_PART_PROMPT, RATP_PART_DECODE};
    const uint32_t known = all.list[number].kv_heads, heads = known ? known : MAX_HEADS;
    for (int part = 0; part < 2; part++) {
        const uint32_t count = policy_runs(policy, number, heads, parts[part], runs);
        for (uint32_t i = 0; i < count; i++)
            if (runs[i].variant.kind != RATP_DENSE)
                return true;
    }
    return false;
}

/* Where the layer stands: bits of enum fallback, or of enum away; neither where it follows.
 * False: the policy asks nothing of it, or its first pass is still to come. */
static bool stand_of(struct adapter_policy *policy, int number, struct head_run *runs,
                     uint64_t *fallbacks, uint32_t *away)
{
    const struct layer *layer = &all.list[number];
    const bool known = layer->cache || (layer->keys && layer->output);
    *fallbacks = layer->here ? layer->fallbacks & ~UINT64_C(1) : 0;
    *away = layer->here ? 0 : layer->away ? layer->away : 1u << AWAY_CACHE;
    return known && (layer->ran || !layer->here) && is_asked(policy, number, runs);
}

static void count_locked(struct adapter_policy *policy, struct layers_tally *out,
                         struct head_run *runs)
{
    *out = (struct layers_tally){0};
    for (int i = 0; i < all.count; i++) {
        uint64_t fallbacks;
        uint32_t away;
        if (!stand_of(policy, i, runs, &fallbacks, &away))
            continue;
        out->asked++;
        out->following += !fallbacks && !away;
        for (int why = 1; why < FALLBACK_REASONS; why++)
            out->fallbacks[why] += fallbacks >> why & 1;
        for (int why = 0; why < AWAY_REASONS; why++)
            out->away[why] += away >> why & 1;
    }
}

void layers_count(struct adapter_policy *policy, struct layers_tally *out)
{
    struct head_run *runs = policy ? malloc(MAX_HEADS * sizeof *runs) : NULL;
    *out = (struct layers_tally){0};
    if (!runs)
        return;
    pthread_mutex_lock(&all.lock);
    count_locked(policy, out, runs);
    pthread_mutex_unlock(&all.lock);
    free(runs);
}

/* ---- Lines ---- */

struct line {
    char text[LINE];
    size_t length;
};

__attribute__((format(printf, 2, 3))) static void append(struct line *line, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    const int more = vsnprintf(line->text + line->length, LINE - line->length, format, args);
    va_end(args);
    if (more > 0)
        line->length += (size_t)more;
    if (line->length >= LINE)
        line->length = LINE - 1;
}

/* "; layers 0-1,3 are dense, because ...": those that have one of the bits, which some have. */
static void append_reason(struct line *line, struct adapter_policy *policy, struct head_run *runs,
                          uint64_t fallback, uint32_t away_bit, const char *why)
{
    struct line list = {.length = 0};
    int first = -1, ranges = 0, layers = 0;
    for (int i = 0; i <= all.count; i++) {
        uint64_t fallbacks = 0;
        uint32_t away = 0;
        const bool has = i < all.count && stand_of(policy, i, runs, &fallbacks, &away) &&
                         ((fallbacks & fallback) || (away & away_bit));
        layers += has;
        if (has && first < 0)
            first = i;
        if (has || first < 0)
            continue;
        if (ranges < MOST_RANGES) {
            append(&list, "%s%d", ranges ? "," : "", first);
            if (first < i - 1)
                append(&list, "-%d", i - 1);
        } else if (ranges == MOST_RANGES) {
            append(&list, " and others");
        }
        ranges++;
        first = -1;
    }
    append(line, layers == 1 ? "; layer %s is dense, because %s" : "; layers %s are dense, because %s",
           list.text, why);
}

/* First layers of which nothing at all is known, where a host keeps its weights from this
 * backend's eyes. */
static int unknown_layers(void)
{
    int count = 0;
    while (count < all.count && !all.list[count].cache && !all.list[count].weights)
        count++;
    return count;
}

/* With the lock held. */
static void say(struct adapter_policy *policy, struct head_run *runs)
{
    struct layers_tally tally;
    struct line line = {.length = 0};
    uint64_t fallbacks = 0;
    uint32_t away = 0;
    count_locked(policy, &tally, runs);
    for (int why = 1; why < FALLBACK_REASONS; why++)
        fallbacks |= (uint64_t)(tally.fallbacks[why] > 0) << why;
    for (int why = 0; why < AWAY_REASONS; why++)
        away |= (uint32_t)(tally.away[why] > 0) << why;
    if (!tally.asked || (all.spoken && !(fallbacks & ~all.said) && !(away & ~all.said_away)))
        return;
    append(&line, "%u of %u layers follow it", tally.following, tally.asked);
    if (unknown_layers() > 0)
        append(&line, "; of %d before them nothing came here (-ngl 99)", unknown_layers());
    for (int why = 0; why < AWAY_REASONS; why++)
        if (tally.away[why])
            append_reason(&line, policy, runs, 0, 1u << why, reasons[why]);
    for (int why = 1; why < FALLBACK_REASONS; why++)
        if (tally.fallbacks[why])
            append_reason(&line, policy, runs, UINT64_C(1) << why, 0,
                          statistics_reason((enum fallback)why));
    complain("policy %s: %s", policy_path(), line.text);
    all.spoken = true;
    all.said |= fallbacks;
    all.said_away |= away;
}

static void look(struct adapter_policy *policy)
{
    struct head_run *runs = malloc(MAX_HEADS * sizeof *runs);
    if (!runs)
        return;
    if (all.policy != policy_number(policy)) {
        all.policy = policy_number(policy);
        all.said = 0;
        all.said_away = 0;
    }
    all.changed = false;
    say(policy, runs);
    free(runs);
}

void layers_pass_ended(struct adapter_policy *policy)
{
    pthread_mutex_lock(&all.lock);
    const bool news = all.changed || all.policy != policy_number(policy) ||
                      (all.new_fallbacks & ~all.said & ~UINT64_C(1));
    if (policy && news)
        look(policy);
    all.new_fallbacks = 0;
    pthread_mutex_unlock(&all.lock);
}

static bool any_is_here(void)
{
    for (int i = 0; i < all.count; i++)
        if (all.list[i].here)
            return true;
    return false;
}

/* Before its first pass the host asks between one wait and the next. Once it waits again
 * without having asked, a pass is under way; where nothing of it comes here, that is all there
 * will ever be to see of it. */
void layers_waited(void)
{
    pthread_mutex_lock(&all.lock);
    if (all.changed && ++all.waits == 2 && !any_is_here()) {
        struct adapter_policy *policy = policy_now();
        if (policy)
            look(policy);
        policy_give(policy);
    }
    pthread_mutex_unlock(&all.lock);
}

/* Of a host that ran no second pass, and frees no backend; or that asked about no model. */
static void end(void)
{
    struct adapter_policy *policy = policy_now();
    bool ran = false;
    pthread_mutex_lock(&all.lock);
    for (int i = 0; i < all.count; i++)
        ran |= all.list[i].ran;
    if (policy && !all.spoken && ran)
        look(policy);
    else if (policy && !all.spoken && all.count == 0)
        complain("policy %s: no attention came to this backend, nothing follows it", policy_path());
    pthread_mutex_unlock(&all.lock);
    policy_give(policy);
}

void layers_start(void)
{
    if (policy_path())
        atexit(end);
}
