/* A device that runs short of memory: what nobody uses is given back before a call is
 * refused, and a call that is refused leaves no more memory taken than there was. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include "api_host.h"

#include <sys/mman.h>

enum { MIB = 1 << 20, BUDGET = 96 * MIB };

/* 8 KiB a token, so pages of 512 KiB. */
static const struct ratp_geometry geometry = {.struct_size = sizeof geometry, .layers = 4,
                                              .query_heads = 8, .kv_heads = 8, .head_size = 64,
                                              .max_tokens = 1 << 20};
enum { TOKENS_OF_64_MIB = 8192, TOKENS_OF_40_MIB = 5120, TOKENS_OF_36_MIB = 4608 };

static const char *name;
static ratp_device *small;

static void open_small(void)
{
    struct ratp_device_params params = {sizeof params, .name = name, .memory_budget = BUDGET};
    CHECK_EQUAL(ratp->device_open(instance, &params, &small), RATP_OK);
}

static void close_small(void)
{
    CHECK_EQUAL(ratp->device_close(&small), RATP_OK);
}

static ratp_cache *cache_of(struct ratp_cache_params params)
{
    ratp_cache *cache = NULL;
    params.struct_size = sizeof params;
    params.geometry = params.geometry ? params.geometry : &geometry;
    CHECK_EQUAL(ratp->cache_create(small, &params, &cache), RATP_OK);
    return cache;
}

static ratp_status begin(ratp_cache *cache, ratp_seq *seq, uint32_t tokens, ratp_step **out)
{
    struct ratp_step_params params = {sizeof params, .count = 1, .seqs = &seq, .n_tokens = &tokens};
    return ratp->step_begin(cache, &params, out);
}

static bool fits(ratp_cache *cache, ratp_seq *seq, uint32_t tokens)
{
    ratp_step *step = NULL;
    ratp_status status = begin(cache, seq, tokens, &step);
    if (status)
        fprintf(stderr, "%u tokens: %s\n", tokens, host_message(cache));
    CHECK_EQUAL(ratp->step_abort(&step), RATP_OK);
    return status == RATP_OK;
}

static struct ratp_cache_stats stats_of(ratp_cache *cache)
{
    struct ratp_cache_stats stats = {.struct_size = sizeof stats};
    CHECK_EQUAL(ratp->cache_stats(cache, &stats), RATP_OK);
    return stats;
}

static ratp_status make_buffer(uint64_t size, ratp_buffer **out)
{
    struct ratp_buffer_params params = {sizeof params, .size = size};
    return ratp->buffer_create(small, &params, out);
}

static bool buffer_fits(uint64_t size)
{
    ratp_buffer *buffer = NULL;
    ratp_status status = make_buffer(size, &buffer);
    if (status)
        fprintf(stderr, "%llu bytes: %s\n", (unsigned long long)size, host_message(small));
    CHECK_EQUAL(ratp->buffer_destroy(&buffer), RATP_OK);
    return status == RATP_OK;
}

static void destroy(ratp_cache *cache, ratp_seq *seq)
{
    CHECK_EQUAL(ratp->seq_destroy(&seq), RATP_OK);
    CHECK_EQUAL(ratp->cache_destroy(&cache), RATP_OK);
}

static void test_refused_prompt(void)
{
    open_small();
    ratp_cache *cache = cache_of((struct ratp_cache_params){0});
    ratp_seq *seqs[2] = {host_seq(cache), host_seq(cache)};
    ratp_step *step = NULL;
    REFUSE(cache, begin(cache, seqs[0], 200000, &step), RATP_OUT_OF_MEMORY, "KV pages");
    CHECK_CONTAINS(host_message(cache), "3125 more pages of 524288 bytes");
    CHECK_CONTAINS(host_message(cache), "memory_budget is 100663296");
    CHECK_CONTAINS(host_message(cache), "larger budget");
    CHECK_EQUAL(stats_of(cache).pool_bytes, 0);
    CHECK(buffer_fits(40 * MIB));

    /* The second sequence of a batch is what does not fit. */
    const uint32_t tokens[2] = {TOKENS_OF_40_MIB, TOKENS_OF_64_MIB};
    struct ratp_step_params both = {sizeof both, .count = 2, .seqs = seqs, .n_tokens = tokens};
    CHECK_EQUAL(ratp->step_begin(cache, &both, &step), RATP_OUT_OF_MEMORY);
    CHECK_EQUAL(stats_of(cache).pool_bytes, 0);

    /* What was there before stays, as long as nobody else asks for it. */
    CHECK(fits(cache, seqs[0], TOKENS_OF_40_MIB));
    CHECK_EQUAL(stats_of(cache).pool_bytes, 40 * MIB);
    CHECK_EQUAL(begin(cache, seqs[0], 200000, &step), RATP_OUT_OF_MEMORY);
    CHECK_EQUAL(stats_of(cache).pool_bytes, 40 * MIB);
    CHECK_EQUAL(stats_of(cache).pages_used, 0);
    CHECK(buffer_fits(80 * MIB));
    CHECK_EQUAL(stats_of(cache).pool_bytes, 0);
    CHECK_EQUAL(ratp->seq_destroy(&seqs[1]), RATP_OK);
    destroy(cache, seqs[0]);
    close_small();
}

/* The same where the limit is the cache's own. */
static void test_full_cache(void)
{
    open_small();
    ratp_cache *cache = cache_of((struct ratp_cache_params){.budget = 64 * MIB});
    ratp_seq *seqs[2] = {host_seq(cache), host_seq(cache)};
    const uint32_t tokens[2] = {TOKENS_OF_40_MIB, TOKENS_OF_40_MIB};
    struct ratp_step_params both = {sizeof both, .count = 2, .seqs = seqs, .n_tokens = tokens};
    ratp_step *step = NULL;
    REFUSE(cache, ratp->step_begin(cache, &both, &step), RATP_CACHE_FULL, "the cache is full");
    CHECK_EQUAL(stats_of(cache).pool_bytes, 0);
    CHECK(fits(cache, seqs[1], TOKENS_OF_64_MIB));
    CHECK_EQUAL(ratp->seq_destroy(&seqs[1]), RATP_OK);
    destroy(cache, seqs[0]);
    close_small();
}

static void test_other_caches_give_back(void)
{
    open_small();
    ratp_cache *first = cache_of((struct ratp_cache_params){0});
    ratp_cache *second = cache_of((struct ratp_cache_params){0});
    ratp_seq *seq = host_seq(first), *other = host_seq(second);
    ratp_step *step = NULL, *tall = NULL;
    ratp_buffer *buffer = NULL;
    CHECK(fits(first, seq, TOKENS_OF_64_MIB));
    CHECK_EQUAL(stats_of(first).pool_bytes, 64 * MIB);
    CHECK_EQUAL(begin(second, other, TOKENS_OF_64_MIB, &step), RATP_OK);
    CHECK_EQUAL(stats_of(first).pool_bytes, 0);
    CHECK_EQUAL(stats_of(second).pages_used, 128);
    /* What is in use stays. */
    REFUSE(small, make_buffer(40 * MIB, &buffer), RATP_OUT_OF_MEMORY, "memory_budget");
    CHECK_EQUAL(begin(first, seq, TOKENS_OF_40_MIB, &tall), RATP_OUT_OF_MEMORY);
    CHECK_EQUAL(stats_of(second).pages_used, 128);
    CHECK_EQUAL(ratp->step_abort(&step), RATP_OK);
    CHECK(buffer_fits(40 * MIB));
    CHECK(fits(first, seq, TOKENS_OF_64_MIB));
    destroy(first, seq);
    destroy(second, other);
    close_small();
}

/* A cache gives back its own pages before it takes another's. */
static void test_own_first(void)
{
    open_small();
    ratp_cache *caches[3];
    ratp_seq *seqs[3];
    for (int i = 0; i < 3; i++) {
        caches[i] = cache_of((struct ratp_cache_params){.retention = RATP_RETAIN_NEEDED});
        seqs[i] = host_seq(caches[i]);
    }
    for (int i = 0; i < 3; i += 2)
        CHECK(fits(caches[i], seqs[i], TOKENS_OF_36_MIB));
    CHECK(fits(caches[1], seqs[1], 2048));
    /* Pages of another size: those of the first are of no use for it. */
    static const char json[] = "{\"rules\": [{\"layers\": \"0-1\", \"variant\": \"streamw500\"}]}";
    ratp_policy *policy = NULL;
    CHECK_EQUAL(ratp->policy_from_json(instance, json, sizeof json - 1, &policy), RATP_OK);
    CHECK_EQUAL(ratp->seq_set_policy(seqs[1], policy), RATP_OK);
    CHECK(fits(caches[1], seqs[1], 2048));
    CHECK(stats_of(caches[1]).pool_bytes < 16 * MIB);
    CHECK_EQUAL(stats_of(caches[0]).pool_bytes, 36 * MIB);
    CHECK_EQUAL(stats_of(caches[2]).pool_bytes, 36 * MIB);
    CHECK_EQUAL(ratp->policy_destroy(&policy), RATP_OK);
    for (int i = 0; i < 3; i++)
        destroy(caches[i], seqs[i]);
    close_small();
}

static void test_pages_of_another_size(void)
{
    open_small();
    ratp_cache *cache = cache_of((struct ratp_cache_params){.retention = RATP_RETAIN_NEEDED});
    ratp_seq *seq = host_seq(cache);
    static const char json[] = "{\"rules\": [{\"layers\": \"0-1\", \"variant\": \"streamw4000\"}]}";
    ratp_policy *policy = NULL;
    CHECK(fits(cache, seq, TOKENS_OF_64_MIB));
    CHECK_EQUAL(ratp->policy_from_json(instance, json, sizeof json - 1, &policy), RATP_OK);
    CHECK_EQUAL(ratp->seq_set_policy(seq, policy), RATP_OK);
    CHECK(fits(cache, seq, TOKENS_OF_64_MIB));
    CHECK_EQUAL(ratp->seq_set_policy(seq, NULL), RATP_OK);
    CHECK(fits(cache, seq, TOKENS_OF_64_MIB));
    CHECK_EQUAL(ratp->policy_destroy(&policy), RATP_OK);
    destroy(cache, seq);
    close_small();
}

/* Another cache's step is being recorded all the while. */
static void test_beside_an_open_step(void)
{
    open_small();
    ratp_cache *first = cache_of((struct ratp_cache_params){0});
    ratp_cache *second = cache_of((struct ratp_cache_params){0});
    ratp_seq *seq = host_seq(first), *other = host_seq(second);
    ratp_buffer *operand = NULL;
    ratp_step *step = NULL;
    CHECK_EQUAL(make_buffer(8 * 64 * 4, &operand), RATP_OK);
    struct ratp_tensor t = {sizeof t, .buffer = operand};
    struct ratp_attend_io io = {sizeof io, &t, &t, &t, .out = &t};
    CHECK(fits(first, seq, TOKENS_OF_64_MIB));
    CHECK_EQUAL(begin(second, other, 1, &step), RATP_OK);
    CHECK_EQUAL(ratp->step_attend(step, 0, &io), RATP_OK);
    CHECK(buffer_fits(60 * MIB));
    for (uint32_t layer = 1; layer < geometry.layers; layer++)
        CHECK_EQUAL(ratp->step_attend(step, layer, &io), RATP_OK);
    CHECK_EQUAL(ratp->step_commit(&step), RATP_OK);
    CHECK_EQUAL(ratp->buffer_destroy(&operand), RATP_OK);
    destroy(first, seq);
    destroy(second, other);
    close_small();
}

/* Work memory of steps, and the copies of operands in host memory, are kept for the next
 * call, and given back where somebody needs the room. */
static void test_kept_memory(void)
{
    static float keys[TOKENS_OF_64_MIB * 8 * 64], out[8 * 64];
    open_small();
    ratp_cache *cache = cache_of((struct ratp_cache_params){.k_dtype = RATP_Q8_0,
                                                            .v_dtype = RATP_Q8_0});
    ratp_seq *seq = host_seq(cache);
    CHECK(fits(cache, seq, TOKENS_OF_40_MIB));
    CHECK(stats_of(cache).scratch_bytes > 16 * MIB);
    CHECK(buffer_fits(88 * MIB));
    CHECK_EQUAL(stats_of(cache).scratch_bytes, 0);
    CHECK(fits(cache, seq, TOKENS_OF_40_MIB));

    struct ratp_tensor t = {sizeof t, .host = keys}, to = {sizeof to, .host = out};
    struct ratp_external p = {sizeof p, 1, 1, TOKENS_OF_64_MIB, 8, 8, 64,
                              .q = &t, .k = &t, .v = &t, .out = &to};
    CHECK_EQUAL(ratp->attend_external(small, &p), RATP_OK);
    CHECK(buffer_fits(88 * MIB));
    CHECK_EQUAL(ratp->attend_external(small, &p), RATP_OK);
    destroy(cache, seq);
    close_small();
}

/* Every refusal says what was asked, what the limit is, and what can be done. */
static void test_messages(void)
{
    open_small();
    struct ratp_device_info info = {.struct_size = sizeof info};
    CHECK_EQUAL(ratp->device_info(small, &info), RATP_OK);
    ratp_buffer *buffer = NULL;
    char number[32];
    REFUSE(small, make_buffer(BUDGET + 1, &buffer), RATP_OUT_OF_MEMORY, "100663297 bytes");
    CHECK_CONTAINS(host_message(small), "memory_budget is 100663296");
    CHECK_CONTAINS(host_message(small), "free ");
    /* One allocation may have that many, so it is the budget alone that is too small. */
    REFUSE(small, make_buffer(info.max_allocation, &buffer), RATP_OUT_OF_MEMORY, "memory_budget");
    if (info.kind != RATP_DEVICE_REFERENCE) {
        REFUSE(small, make_buffer(info.max_allocation + 1, &buffer), RATP_OUT_OF_MEMORY,
               "max_allocation");
        snprintf(number, sizeof number, "%llu", (unsigned long long)info.max_allocation);
        CHECK_CONTAINS(host_message(small), number);
    }

    const uint64_t large = (uint64_t)9 << 29; /* 4.5 GiB, which nobody touches */
    void *host = mmap(NULL, large, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    struct ratp_buffer_params import = {sizeof import, .size = large, .host = host};
    if (CHECK(host != MAP_FAILED)) {
        ratp_status status = ratp->buffer_create(small, &import, &buffer);
        if (status && info.features & RATP_FEATURE_HOST_IMPORT) {
            CHECK_EQUAL(status, RATP_OUT_OF_MEMORY);
            CHECK_CONTAINS(host_message(small), "4831838208 bytes");
            CHECK_CONTAINS(host_message(small), "max_allocation");
        }
        CHECK_EQUAL(ratp->buffer_destroy(&buffer), RATP_OK);
        CHECK_EQUAL(munmap(host, large), 0);
    }

    ratp_cache *cache = NULL;
    struct ratp_rope rope = {sizeof rope, .style = RATP_ROPE_HALF};
    struct ratp_geometry model = geometry;
    struct ratp_cache_params params = {sizeof params, .geometry = &model};
    model.rope = &rope;
    model.max_tokens = 1 << 24;
    model.head_size = 256;
    CHECK_EQUAL(make_buffer(80 * MIB, &buffer), RATP_OK);
    REFUSE(small, ratp->cache_create(small, &params, &cache), RATP_OUT_OF_MEMORY, "rotary tables");
    CHECK_CONTAINS(host_message(small), "memory_budget");
    CHECK_EQUAL(ratp->buffer_destroy(&buffer), RATP_OK);
    close_small();
}

int main(int argc, char **argv)
{
    host_open(argc, argv);
    name = argc > 1 ? argv[1] : "reference";
    RUN(test_refused_prompt);
    RUN(test_full_cache);
    RUN(test_other_caches_give_back);
    RUN(test_own_first);
    RUN(test_pages_of_another_size);
    RUN(test_beside_an_open_step);
    RUN(test_kept_memory);
    RUN(test_messages);
    host_close();
    return check_result();
}
