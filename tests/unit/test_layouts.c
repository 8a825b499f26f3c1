/* Very many policies in one cache, and very many variants in one policy: what is equal is
 * found without comparing all. */
#include "../check.h"

#include "cache/cache.h"

#include <stdlib.h>

enum { POLICIES = 20000, LAYERS = 16, HEADS = 512 };

static const struct ratp_api *ratp;
static ratp_instance *instance;
static ratp_device *device;

static ratp_cache *open_cache(uint32_t layers, uint32_t heads)
{
    struct ratp_geometry geometry = {.struct_size = sizeof geometry, .layers = layers,
                                     .query_heads = heads, .kv_heads = heads, .head_size = 8};
    struct ratp_cache_params params = {sizeof params, .geometry = &geometry, .page_slots = 8};
    ratp_cache *cache = NULL;
    CHECK_EQUAL(ratp->cache_create(device, &params, &cache), RATP_OK);
    return cache;
}

static void set(ratp_policy *policy, uint32_t layer, uint32_t head, uint32_t number)
{
    struct ratp_variant variant = {sizeof variant, RATP_DILATED, .dilation = number / 128 + 2,
                                   .window = number % 128};
    CHECK_EQUAL(ratp->policy_set(policy, (struct ratp_range){layer, 1},
                                 (struct ratp_range){head, 1}, &variant), RATP_OK);
}

/* Each sequence has a policy of its own. How many layouts share a bucket bounds how many
 * one is compared with. */
static void test_policies(void)
{
    ratp_cache *cache = open_cache(1, 1);
    ratp_seq **seqs = calloc(POLICIES, sizeof *seqs), *twin = NULL;
    ratp_policy *policy = NULL;
    CHECK_EQUAL(ratp->policy_create(instance, &policy), RATP_OK);
    for (uint32_t i = 0; i < POLICIES; i++) {
        CHECK_EQUAL(ratp->seq_create(cache, &seqs[i]), RATP_OK);
        set(policy, 0, 0, i);
        CHECK_EQUAL(ratp->seq_set_policy(seqs[i], policy), RATP_OK);
    }
    CHECK_EQUAL(cache->layout_count, POLICIES + 1);
    CHECK(cache->bucket_count > POLICIES);
    uint32_t found = 0;
    for (uint32_t b = 0; b < cache->bucket_count; b++) {
        uint32_t alike = 0;
        for (const struct layout *l = cache->buckets[b]; l; l = l->next_alike)
            alike++;
        CHECK(alike < 16);
        found += alike;
    }
    CHECK_EQUAL(found, POLICIES + 1);
    CHECK_EQUAL(ratp->seq_create(cache, &twin), RATP_OK);
    CHECK_EQUAL(ratp->seq_set_policy(twin, policy), RATP_OK);
    CHECK(twin->layout == seqs[POLICIES - 1]->layout);
    CHECK_EQUAL(ratp->seq_destroy(&twin), RATP_OK);
    for (uint32_t i = 0; i < POLICIES; i++)
        CHECK_EQUAL(ratp->seq_destroy(&seqs[(i * 7919u) % POLICIES]), RATP_OK);
    CHECK_EQUAL(cache->layout_count, 1);
    CHECK(cache->layouts == cache->layout && !cache->layout->next);
    CHECK_EQUAL(ratp->policy_destroy(&policy), RATP_OK);
    CHECK_EQUAL(ratp->cache_destroy(&cache), RATP_OK);
    free(seqs);
}

/* Each head has a variant of its own, half of the heads of one layer that of another. */
static void test_variants(void)
{
    ratp_cache *cache = open_cache(LAYERS, HEADS);
    ratp_policy *policy = NULL;
    ratp_seq *seq = NULL;
    CHECK_EQUAL(ratp->policy_create(instance, &policy), RATP_OK);
    for (uint32_t layer = 0; layer < LAYERS; layer++)
        for (uint32_t head = 0; head < HEADS; head++)
            set(policy, layer, head, (head % 2 ? 0 : layer * HEADS) + head);
    CHECK_EQUAL(ratp->seq_create(cache, &seq), RATP_OK);
    CHECK_EQUAL(ratp->seq_set_policy(seq, policy), RATP_OK);
    const struct layout *layout = seq->layout;
    CHECK_EQUAL(layout->store_count, 1); /* retention is full: they keep the same tokens */
    uint32_t *first = malloc(sizeof *first * LAYERS * HEADS), kinds = 0;
    for (uint32_t slab = 0; slab < LAYERS * HEADS; slab++) {
        uint32_t kind = layout->slab_kind[slab], head = slab % HEADS;
        if (kind == kinds)
            first[kinds++] = slab;
        CHECK(choice_equal(&layout->choice[slab], &layout->choice[first[kind]]));
        CHECK_EQUAL(first[kind], head % 2 ? head : slab);
    }
    free(first);
    CHECK_EQUAL(ratp->seq_destroy(&seq), RATP_OK);
    CHECK_EQUAL(ratp->policy_destroy(&policy), RATP_OK);
    CHECK_EQUAL(ratp->cache_destroy(&cache), RATP_OK);
}

int main(void)
{
    struct ratp_instance_params params = {sizeof params, .no_vulkan = 1};
    ratp = ratp_get_api(RATP_ABI_MAJOR, NULL, 0);
    CHECK_EQUAL(ratp->instance_create(&params, &instance, NULL, 0), RATP_OK);
    CHECK_EQUAL(ratp->device_open(instance, NULL, &device), RATP_OK);
    RUN(test_policies);
    RUN(test_variants);
    CHECK_EQUAL(ratp->device_close(&device), RATP_OK);
    CHECK_EQUAL(ratp->instance_destroy(&instance), RATP_OK);
    return check_result();
}
