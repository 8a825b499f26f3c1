/* Budgets that are just too small, and models that are just too large. */
#include "api_host.h"

static const struct ratp_geometry small = {.struct_size = sizeof small, .layers = 1,
                                           .query_heads = 1, .kv_heads = 1, .head_size = 8};

static ratp_cache *cache_of(const struct ratp_geometry *geometry, uint64_t budget)
{
    struct ratp_cache_params params = {sizeof params, .geometry = geometry, .budget = budget};
    ratp_cache *cache = NULL;
    if (!CHECK_EQUAL(ratp->cache_create(device, &params, &cache), RATP_OK))
        fprintf(stderr, "%s\n", host_message(device));
    return cache;
}

static ratp_status begin(ratp_cache *cache, ratp_seq *seq, uint32_t tokens, ratp_step **out)
{
    struct ratp_step_params params = {sizeof params, .count = 1, .seqs = &seq, .n_tokens = &tokens};
    return ratp->step_begin(cache, &params, out);
}

/* Pages that an earlier sequence left behind count as free only as long as
 * they are there: making room for more of them gives them back first. */
static void test_free_pages_that_are_given_back(void)
{
    enum { SLOTS = 64, PAGE = SLOTS * 8 * 2 * 2, FIRST = (1 << 20) / PAGE };
    ratp_cache *cache = cache_of(&small, (uint64_t)(FIRST + FIRST / 2) * PAGE);
    if (!cache)
        return;
    struct ratp_cache_stats stats = {.struct_size = sizeof stats};
    ratp_step *step = NULL;
    ratp_seq *seq = host_seq(cache);
    for (uint32_t pages = FIRST; pages <= 2 * FIRST; pages += FIRST / 4) {
        bool fits = pages <= FIRST + FIRST / 2;
        CHECK_EQUAL(begin(cache, seq, pages * SLOTS, &step), fits ? RATP_OK : RATP_CACHE_FULL);
        if (!fits)
            CHECK_CONTAINS(host_message(cache), "the cache is full");
        CHECK_EQUAL(ratp->cache_stats(cache, &stats), RATP_OK);
        CHECK_EQUAL(stats.pages_used, fits ? pages : 0);
        CHECK(stats.pool_bytes <= stats.budget_bytes);
        CHECK_EQUAL(ratp->step_abort(&step), RATP_OK);
    }
    CHECK_EQUAL(begin(cache, seq, (FIRST + FIRST / 2) * SLOTS, &step), RATP_OK);
    CHECK_EQUAL(ratp->step_abort(&step), RATP_OK);
    CHECK_EQUAL(ratp->seq_destroy(&seq), RATP_OK);
    CHECK_EQUAL(ratp->cache_destroy(&cache), RATP_OK);
}

/* Every field is in its range, and the product leaves 32 bits. */
static void test_large_models(void)
{
    ratp_cache *cache = NULL;
    struct ratp_geometry wide = {.struct_size = sizeof wide, .layers = 1, .head_size = 256};
    struct ratp_cache_params params = {sizeof params, .geometry = &wide, .page_slots = 4096,
                                       .k_dtype = RATP_F32, .v_dtype = RATP_F32};
    for (wide.kv_heads = 512; wide.kv_heads <= 1024; wide.kv_heads += 256) {
        wide.query_heads = wide.kv_heads;
        REFUSE(device, ratp->cache_create(device, &params, &cache), RATP_INVALID_ARGUMENT,
               "page_slots is 4096");
    }
    struct ratp_geometry deep = {sizeof deep, 2048, 1024, 1024, 256, .memory = 1};
    params = (struct ratp_cache_params){sizeof params, .geometry = &deep, .page_slots = 8,
                                        .retention = RATP_RETAIN_NEEDED};
    REFUSE(device, ratp->cache_create(device, &params, &cache), RATP_INVALID_ARGUMENT,
           "geometry.layers is 2048");
    CHECK(!cache);
}

int main(int argc, char **argv)
{
    host_open(argc, argv);
    RUN(test_free_pages_that_are_given_back);
    RUN(test_large_models);
    host_close();
    return check_result();
}
