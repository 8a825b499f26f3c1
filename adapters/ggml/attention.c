/* FLASH_ATTN_EXT by the library's attention over a host's own K and V.
 *
 * ggml's shapes, fastest dimension first: q [head size, queries, query heads,
 * sequences], k and v [head or value size, keys, key/value heads, sequences],
 * mask [keys, queries, 1 or query heads, 1 or sequences], sinks [query heads], out
 * [value size, query heads, queries, sequences]. The mask says what is causal. */
#include "attention.h"

#include "layers.h"
#include "order.h"
#include "summaries.h"

#include <math.h>
#include <string.h>

enum { SINKS = 4, MAX_TOKENS = 1 << 24 };

struct numbers {
    float scale, max_bias, softcap;
};

static struct numbers numbers_of(const struct ggml_tensor *op)
{
    struct numbers n;
    memcpy(&n, op->op_params, sizeof n);
    return n;
}

static ratp_dtype dtype_of(enum ggml_type type)
{
    return type == GGML_TYPE_F32    ? RATP_F32
           : type == GGML_TYPE_F16  ? RATP_F16
           : type == GGML_TYPE_BF16 ? RATP_BF16
           : type == GGML_TYPE_Q8_0 ? RATP_Q8_0
           : type == GGML_TYPE_Q4_0 ? RATP_Q4_0
                                    : RATP_DTYPE_DEFAULT;
}

/* Channels are neighbours, strides are whole words below 4 GiB (of blocks: half words), and
 * rows do not overlap. */
static bool is_addressable(const struct ggml_tensor *t)
{
    size_t multiple = ggml_is_quantized(t->type) ? 2 : 4;
    if (dtype_of(t->type) == RATP_DTYPE_DEFAULT || t->nb[0] != ggml_type_size(t->type))
        return false;
    for (int i = 1; i < GGML_MAX_DIMS; i++)
        if (t->ne[i] > 1 &&
            (t->nb[i] % multiple != 0 || t->nb[i] < ggml_row_size(t->type, t->ne[0]) ||
             t->nb[i] > UINT32_MAX))
            return false;
    return t->view_offs % multiple == 0;
}

static bool size_is_known(int64_t size)
{
    return size >= 8 && size <= 256 && size % 8 == 0;
}

static bool mask_is_supported(const struct ggml_tensor *mask, const struct ggml_tensor *q)
{
    return mask->type == GGML_TYPE_F16 && is_addressable(mask) && mask->ne[1] >= q->ne[1] &&
           (mask->ne[2] == 1 || mask->ne[2] == q->ne[2]) &&
           (mask->ne[3] == 1 || mask->ne[3] == q->ne[3]);
}

/* ALiBi's factor on the mask: a geometric series over the heads of the largest power of two,
 * then the odd terms of the one with twice as many. */
static void alibi_slopes(float max_bias, uint32_t heads, float *slopes)
{
    uint32_t half = 1;
    while (half * 2 <= heads)
        half *= 2;
    float first = powf(2, -max_bias / (float)half), second = powf(2, -max_bias / 2 / (float)half);
    for (uint32_t h = 0; h < heads; h++)
        slopes[h] = h < half ? powf(first, (float)(h + 1))
                             : powf(second, (float)(2 * (h - half) + 1));
}

static bool sinks_are_supported(const struct ggml_tensor *sinks, const struct ggml_tensor *q)
{
    return sinks->type == GGML_TYPE_F32 && sinks->nb[0] == sizeof(float) &&
           sinks->ne[0] == q->ne[2] && sinks->view_offs % sizeof(float) == 0;
}

/* What the library has no way to say is refused: other types, head sizes beyond 256. A scale
 * of 0 would be its default. */
bool attention_is_supported(const struct ggml_tensor *op)
{
    const struct ggml_tensor *q = op->src[0], *k = op->src[1], *v = op->src[2];
    const struct ggml_tensor *mask = op->src[MASK_SOURCE];
    struct numbers n = numbers_of(op);
    if (!isfinite(n.max_bias) || n.max_bias < 0 || n.scale == 0 || !isfinite(n.scale) ||
        !isfinite(n.softcap) || n.softcap < 0)
        return false;
    if (q->ne[2] > MAX_HEADS || (op->src[SINKS] && !sinks_are_supported(op->src[SINKS], q)))
        return false;
    if (op->type != GGML_TYPE_F32 || q->type != GGML_TYPE_F32 || !is_addressable(q) ||
        !is_addressable(k) || !is_addressable(v) || !is_addressable(op))
        return false;
    if (!size_is_known(q->ne[0]) || !size_is_known(v->ne[0]) || k->ne[0] != q->ne[0])
        return false;
    if (k->ne[2] > MAX_HEADS || v->ne[2] != k->ne[2] || q->ne[2] % k->ne[2] != 0)
        return false;
    if (q->ne[3] != k->ne[3] || q->ne[3] != v->ne[3] || q->ne[1] > MAX_TOKENS / q->ne[3] ||
        k->ne[1] > MAX_TOKENS)
        return false;
    return !mask || (mask->ne[0] == k->ne[1] && mask_is_supported(mask, q));
}

/* Where a part of a node begins, and how much it is. */
struct part {
    uint32_t sequence, sequences;
    uint32_t kv_head, kv_heads;
};

/* `tensor` from a sequence and from one of its heads on; `token` and `head` are the
 * dimensions that these are in. */
static struct ratp_tensor operand(const struct ggml_tensor *tensor, int token, int head,
                                  size_t first, size_t first_head)
{
    struct ratp_tensor t = {
        .struct_size = sizeof t,
        .dtype = dtype_of(tensor->type),
        .token_stride = tensor->nb[token],
        .head_stride = tensor->ne[head] > 1 ? tensor->nb[head] : 0,
        .batch_stride = tensor->nb[3],
    };
    buffer_place(tensor, &t.buffer, &t.offset);
    t.offset += first * tensor->nb[3] + first_head * tensor->nb[head];
    return t;
}

/* `gate`: the output gates of a packed node, whose heads are half of what ggml sees, or NULL. */
static struct ratp_external sizes_of(const struct ggml_tensor *op, const struct part *part,
                                     const struct ratp_tensor *gate)
{
    const struct ggml_tensor *q = op->src[0], *k = op->src[1], *v = op->src[2];
    const struct numbers n = numbers_of(op);
    const uint32_t halves = gate ? 2 : 1;
    return (struct ratp_external){
        .struct_size = sizeof(struct ratp_external),
        .batch = part->sequences,
        .query_tokens = (uint32_t)q->ne[1],
        .query_heads = part->kv_heads * (uint32_t)(q->ne[2] / k->ne[2]),
        .kv_heads = part->kv_heads,
        .head_size = (uint32_t)q->ne[0] / halves,
        .value_size = (uint32_t)v->ne[0] / halves,
        .scale = n.scale,
        .softcap = n.softcap,
        .o = gate,
    };
}

/* `by`: sizes, and how the keys are chosen; its operands are filled in here. With causal
 * attention the mask says nothing more. */
static ratp_status attend(struct adapter_device *device, const struct ggml_tensor *op,
                          const struct part *part, struct ratp_external by)
{
    const struct ggml_tensor *q = op->src[0], *k = op->src[1], *v = op->src[2];
    const struct ggml_tensor *mask = by.causal ? NULL : op->src[MASK_SOURCE];
    const size_t group = (size_t)(q->ne[2] / k->ne[2]), head = part->kv_head;
    const struct ratp_tensor tq = operand(q, 1, 2, part->sequence, head * group);
    const struct ratp_tensor tk = operand(k, 1, 2, part->sequence, head);
    const struct ratp_tensor tv = operand(v, 1, 2, part->sequence, head);
    const struct ratp_tensor out = operand(op, 2, 1, part->sequence, head * group);
    struct ratp_tensor tm = {0}, to = {0}, ts = {0};
    float slopes[MAX_HEADS];
    if (by.o) {
        to = *by.o;
        to.offset += part->sequence * to.batch_stride + head * group * to.head_stride;
        by.o = &to;
    }
    if (mask)
        tm = operand(mask, 1, 2, mask->ne[3] == 1 ? 0 : part->sequence,
                     mask->ne[2] == 1 ? 0 : head * group);
    if (mask && numbers_of(op).max_bias > 0) {
        alibi_slopes(numbers_of(op).max_bias, (uint32_t)q->ne[2], slopes);
        by.slopes = slopes + head * group;
    }
    if (op->src[SINKS]) {
        ts = operand(op->src[SINKS], 1, 0, 0, head * group);
        by.sinks = &ts;
    }
    by.q = &tq;
    by.k = &tk;
    by.v = &tv;
    by.mask = mask ? &tm : NULL;
    by.out = &out;
    return device->ratp->attend_external(device->opened, &by);
}

/* ---- Policies ---- */

/* The forward pass that this thread is in. ggml's scheduler runs a pass in one thread, and the
 * layers of each device in a backend of their own: one after the other. */
static _Thread_local struct {
    bool under_way;
    int layer;       /* of the last attention node */
    uint64_t policy; /* its number */
} thread_pass;

/* Sequences of a node whose masks say the same. */
struct together {
    uint32_t first, count;
    struct mask_plane mask;
    struct order_found found;
    bool copied; /* K is not the cache, but a copy of it */
};

/* What keeps the heads of `variant` from attending as it says. */
static enum fallback refusal_of(const struct ratp_variant *variant, const struct together *t)
{
    if (variant->kind == RATP_DENSE)
        return FALLBACK_NONE;
    if (variant->kind == RATP_SNAPKV)
        return FALLBACK_SNAPKV;
    if (t->copied)
        return FALLBACK_COPY;
    if (t->mask.why)
        return t->mask.why;
    return t->found.ordered ? FALLBACK_NONE : FALLBACK_ORDER;
}

/* The part of a call that a variant decides, for a run of heads. The variant is read
 * when the call is made, and the type of `by->k`. */
static enum fallback choose(struct adapter_device *device, struct ratp_external *by,
                            const struct head_run *run, const struct together *t,
                            const struct ggml_tensor *op, uint32_t sequence)
{
    const enum fallback why = refusal_of(&run->variant, t);
    by->key_tokens = (uint32_t)op->src[1]->ne[1];
    if (t->mask.why)
        return why;
    by->causal = 1;
    by->first_position = t->mask.first;
    by->key_tokens = t->mask.first + by->query_tokens;
    if (why || run->variant.kind == RATP_DENSE)
        return why;
    by->variant = &run->variant;
    if (!variant_chooses(by->variant, NULL, NULL))
        return FALLBACK_NONE;
    const enum fallback missing =
        summaries_take(device->ratp, device->opened, op->src[1], sequence, run, by);
    if (missing)
        by->variant = NULL;
    return missing;
}

/* At most: which they are is known to the device alone. */
static uint64_t keys_chosen(const struct ratp_external *by, uint32_t block, uint32_t most)
{
    const uint64_t group = by->query_heads / by->kv_heads;
    const uint64_t choosers =
        by->query_tokens * (by->variant->selection == RATP_SELECT_GROUP ? 1 : group);
    const uint64_t own = by->key_tokens - by->first_position / block * block;
    const uint64_t keys = choosers * (most - 1) * block + own;
    return keys < by->key_tokens ? keys : by->key_tokens;
}

/* The keys that one of the queries attends. */
static uint64_t keys_attended(const struct ratp_external *by)
{
    const struct ratp_variant *v = by->variant;
    uint32_t block = 0, most = 0;
    if (!v)
        return by->key_tokens;
    if (variant_chooses(v, &block, &most))
        return keys_chosen(by, block, most);
    const uint64_t window = by->first_position > v->window ? by->first_position - v->window : 0;
    const uint64_t sinks = v->sinks < window ? v->sinks : window;
    const uint64_t spread = v->kind == RATP_DILATED ? window / v->dilation - sinks / v->dilation
                                                    : 0;
    return by->key_tokens - window + sinks + spread;
}

static void count(struct adapter_device *device, const struct ggml_tensor *op,
                  const struct part *part, const struct ratp_external *by, enum fallback why,
                  struct node_ways *ways)
{
    const struct ggml_tensor *k = op->src[1], *v = op->src[2];
    const size_t head = ggml_row_size(k->type, k->ne[0]) + ggml_row_size(v->type, v->ne[0]);
    const size_t key = by->o ? head / 2 : head;
    const uint32_t way = by->variant ? statistics_way(by->variant)
                         : by->causal ? WAY_DENSE
                                      : WAY_MASK;
    ways->ways |= UINT64_C(1) << way;
    ways->fallbacks |= UINT64_C(1) << why;
    statistics_read(way, keys_attended(by) * key * part->kv_heads * part->sequences +
                             summaries_read(device->ratp, device->opened, by));
}

static ratp_status run_together(struct adapter_device *device, struct pass *pass,
                                const struct together *t, const struct ggml_tensor *op,
                                struct node_ways *ways)
{
    const struct ggml_tensor *mask = op->src[MASK_SOURCE];
    const uint32_t runs = policy_runs(pass->policy, pass->layer, (uint32_t)op->src[1]->ne[2],
                                      t->found.part, pass->runs);
    const struct ratp_tensor k = {.struct_size = sizeof k, .dtype = dtype_of(op->src[1]->type)};
    ratp_status status = RATP_OK;
    for (uint32_t i = 0; i < runs && !status; i++) {
        const struct head_run *run = &pass->runs[i];
        /* A mask that sequences share has no batch stride, and summaries are a sequence's own:
         * then each is a call of its own. */
        const bool apart = (t->mask.why && mask && mask->ne[3] == 1) ||
                           variant_chooses(&run->variant, NULL, NULL);
        struct part part = {t->first, apart ? 1 : t->count, run->first, run->count};
        for (; part.sequence < t->first + t->count && !status; part.sequence += part.sequences) {
            struct ratp_external by = sizes_of(op, &part, pass->gate);
            by.k = &k;
            const enum fallback why = choose(device, &by, run, t, op, part.sequence);
            status = attend(device, op, &part, by);
            count(device, op, &part, &by, why, ways);
        }
    }
    return status;
}

static struct together look(struct pass *pass, const struct ggml_tensor *op, uint32_t sequence,
                            bool copied)
{
    const int64_t queries = op->src[0]->ne[1];
    struct together t = {
        .first = sequence,
        .count = 1,
        .mask = mask_read(&pass->masks, op->src[MASK_SOURCE], queries, sequence),
        .copied = copied,
    };
    const struct order_pass of = {sequence, queries, !t.mask.why, t.mask.first};
    t.found = order_follow(op->src[1], &of);
    return t;
}

static bool are_alike(const struct together *a, const struct together *b)
{
    return a->mask.why == b->mask.why && a->mask.first == b->mask.first &&
           a->found.ordered == b->found.ordered && a->found.part == b->found.part;
}

ratp_status attention_run(struct adapter_device *device, struct pass *pass,
                          const struct ggml_tensor *op)
{
    const struct ggml_tensor *q = op->src[0], *k = op->src[1];
    const uint32_t sequences = (uint32_t)q->ne[3];
    struct node_ways ways = {0, 0};
    ratp_status status = RATP_OK;
    bool copied = false;
    pass->layer = thread_pass.layer = layers_of_keys(k, &copied);
    if (pass->layer >= 0 && !copied)
        summaries_follow(k, pass->layer, pass->policy, pass->runs);
    struct together now = look(pass, op, 0, copied);
    for (uint32_t i = 1; i <= sequences && !status; i++) {
        struct together next = now;
        if (i < sequences) {
            next = look(pass, op, i, copied);
            if (are_alike(&next, &now)) {
                now.count++;
                continue;
            }
        }
        status = run_together(device, pass, &now, op, &ways);
        now = next;
    }
    statistics_attention(&ways);
    layers_ran(pass->layer, (uint32_t)k->ne[2], ways.fallbacks);
    return status;
}

/* ---- Passes ---- */

void pass_graph(struct pass *pass, struct ggml_cgraph *graph)
{
    const struct ggml_tensor *first = NULL;
    for (int i = 0; i < ggml_graph_n_nodes(graph) && !first; i++)
        if (ggml_graph_node(graph, i)->op == GGML_OP_FLASH_ATTN_EXT)
            first = ggml_graph_node(graph, i);
    if (!first)
        return;
    const int layer = layers_of_keys(first->src[1], NULL);
    if (pass->under_way && layer > pass->layer)
        return;
    pass_end(pass);
    /* Another device had the layers before. Its backend holds the policy, at least until it
     * begins a pass itself. */
    if (thread_pass.under_way && layer > thread_pass.layer)
        pass->policy = policy_take_same(thread_pass.policy);
    else
        pass->policy = policy_take();
    pass->under_way = true;
    thread_pass.under_way = true;
    thread_pass.policy = policy_number(pass->policy);
}

void pass_end(struct pass *pass)
{
    if (pass->under_way)
        layers_pass_ended(pass->policy);
    policy_give(pass->policy);
    pass->policy = NULL;
    pass->under_way = false;
    pass->layer = -1;
    pass->masks.count = 0;
}
