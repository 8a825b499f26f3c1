/* Layouts: what the layers of a sequence attend, and how that changes. */
#include "cache.h"

#include <stdlib.h>

/* The variant of a layer; in this version all of its heads share one. */
static ratp_status layer_variant(const ratp_cache *cache, const struct ratp_policy *policy,
                                 uint32_t layer, struct variant *out, struct error *err)
{
    *out = policy_at(policy, layer, cache->first_kv_head);
    for (uint32_t h = 1; h < cache->shape.kv_heads; h++) {
        struct variant other = policy_at(policy, layer, cache->first_kv_head + h);
        if (!variant_equal(out, &other))
            return fail(err, RATP_UNSUPPORTED,
                        "policy: key/value heads %u and %u of layer %u have different variants; "
                        "this version wants one variant a layer",
                        cache->first_kv_head, cache->first_kv_head + h, layer);
    }
    return RATP_OK;
}

static bool equal(const ratp_cache *cache, const struct layout *a, const struct layout *b)
{
    for (uint32_t l = 0; l < cache->layers; l++)
        if (!variant_equal(&a->variant[l], &b->variant[l]))
            return false;
    return true;
}

ratp_status layout_take(ratp_cache *cache, const struct ratp_policy *policy, struct layout **out,
                        struct error *err)
{
    static const struct ratp_policy none = {.count = 0};
    ratp_status status = RATP_OK;
    *out = NULL;
    if (policy)
        status = policy_check(policy, cache->layers, cache->total_kv_heads, err);
    if (status)
        return status;
    struct layout *made = calloc(1, sizeof *made + cache->layers * sizeof made->variant[0]);
    if (!made)
        return fail(err, RATP_OUT_OF_MEMORY, "no host memory for the variants of %u layers",
                    cache->layers);
    for (uint32_t l = 0; l < cache->layers && !status; l++)
        status = layer_variant(cache, policy ? policy : &none, l, &made->variant[l], err);
    struct layout *same = cache->layouts;
    while (same && !status && !equal(cache, same, made))
        same = same->next;
    if (status || same) {
        free(made);
        made = status ? NULL : same;
    } else {
        made->next = cache->layouts;
        cache->layouts = made;
    }
    if (made)
        made->refs++;
    *out = made;
    return status;
}

void layout_release(ratp_cache *cache, struct layout *layout)
{
    if (--layout->refs)
        return;
    struct layout **link = &cache->layouts;
    while (*link != layout)
        link = &(*link)->next;
    *link = layout->next;
    free(layout);
}

/* Whether what the store holds serves another variant. */
static ratp_status check_switch(const ratp_seq *seq, uint32_t layer, const struct variant *to,
                                struct error *err)
{
    const struct store *store = &seq->cache->stores[seq->cache->layer_store[layer]];
    if (store->everything || variant_equal(&store->keep, to))
        return RATP_OK;
    char from_name[64], to_name[64];
    variant_name(&store->keep, from_name, sizeof from_name);
    variant_name(to, to_name, sizeof to_name);
    for (uint32_t p = 0; p < seq->length; p++)
        if (variant_keeps(to, seq->length, p) && !variant_keeps(&store->keep, seq->length, p))
            return fail(err, RATP_NOT_RETAINED,
                        "policy: layer %u is to attend %s, but holds %s of %u tokens: token %u is "
                        "missing; retention \"full\" keeps all",
                        layer, to_name, from_name, seq->length, p);
    return fail(err, RATP_UNSUPPORTED,
                "policy: layer %u is to attend %s, but holds %s; with retention \"needed\" this "
                "version changes the variant of dense layers only",
                layer, to_name, from_name);
}

ratp_status seq_switch(ratp_seq *seq, const struct ratp_policy *policy, struct error *err)
{
    ratp_cache *cache = seq->cache;
    if (seq->step)
        return fail(err, RATP_WRONG_STATE,
                    "the sequence is part of an open step; commit or abort it before "
                    "seq_set_policy");
    struct layout *to = cache->layout;
    ratp_status status = RATP_OK;
    if (policy)
        status = layout_take(cache, policy, &to, err);
    else
        to->refs++;
    for (uint32_t l = 0; l < cache->layers && !status; l++)
        status = check_switch(seq, l, &to->variant[l], err);
    if (status) {
        if (to)
            layout_release(cache, to);
        return status;
    }
    layout_release(cache, seq->layout);
    seq->layout = to;
    return RATP_OK;
}
