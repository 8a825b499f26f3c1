/* Numbers that are not finite among the inputs, under variants of every kind, against the naive
 * program: a row is NaN where it attends one, and only there; blocks are chosen and tokens are
 * kept as the rules say. */
#include "../naive.h"
#include "../random.h"
#include "api_host.h"

#include <stdlib.h>

enum { TOKENS = 132, PROMPT = 120, HEADS = 4, STORES = 2, SIZE = 32, SEEDS = 3 };
enum { ROWS = TOKENS * HEADS, KEYS = TOKENS * STORES };

/* What a sequence is made of, and what the device answers. */
struct inputs {
    float q[ROWS * SIZE], k[KEYS * SIZE], v[KEYS * SIZE];
    float out[ROWS * SIZE], lse[ROWS];
};

static void fill(struct random *r, float *values, size_t count)
{
    for (size_t i = 0; i < count; i++)
        values[i] = roundf(random_normal(r) * 256) / 256; /* also in float16 */
}

/* A number of `rows` that a cache of `dtype` does not hold as a finite one. */
static void spoil(struct random *r, float *rows, size_t count, ratp_dtype dtype)
{
    static const float odd[] = {NAN, INFINITY, -INFINITY, 70000};
    rows[random_in(r, 0, (uint32_t)count - 1)] =
        odd[random_in(r, 0, dtype == RATP_F16 ? 3 : 2)];
}

static struct ratp_tensor tensor(float *host)
{
    return (struct ratp_tensor){.struct_size = sizeof(struct ratp_tensor), .host = host};
}

/* A prompt in two parts, then token by token. */
static void play(const struct ratp_variant *variant, ratp_dtype dtype, struct inputs *in)
{
    const struct ratp_geometry geometry = {
        .struct_size = sizeof geometry, .layers = 1, .query_heads = HEADS, .kv_heads = STORES,
        .head_size = SIZE};
    ratp_policy *policy = NULL;
    ratp_cache *cache = NULL;
    CHECK_EQUAL(ratp->policy_create(instance, &policy), RATP_OK);
    CHECK_EQUAL(ratp->policy_set(policy, (struct ratp_range){0}, (struct ratp_range){0}, variant),
                RATP_OK);
    const struct ratp_cache_params params = {.struct_size = sizeof params, .geometry = &geometry,
                                             .policy = policy, .k_dtype = dtype,
                                             .v_dtype = dtype, .page_slots = 16};
    CHECK_EQUAL(ratp->cache_create(device, &params, &cache), RATP_OK);
    ratp_seq *seq = host_seq(cache);
    for (uint32_t done = 0, tokens; done < TOKENS; done += tokens) {
        tokens = done == 0 ? 71 : done < PROMPT ? PROMPT - done : 1;
        const struct ratp_tensor q = tensor(in->q + done * HEADS * SIZE),
                                 k = tensor(in->k + done * STORES * SIZE),
                                 v = tensor(in->v + done * STORES * SIZE),
                                 out = tensor(in->out + done * HEADS * SIZE),
                                 lse = tensor(in->lse + done * HEADS);
        const struct ratp_attend_io io = {.struct_size = sizeof io, .q = &q, .k = &k, .v = &v,
                                          .out = &out, .lse = &lse};
        ratp_step *step = host_step(cache, seq, tokens);
        CHECK_EQUAL(ratp->step_attend(step, 0, &io), RATP_OK);
        CHECK_EQUAL(ratp->step_commit(&step), RATP_OK);
    }
    CHECK_EQUAL(ratp->seq_destroy(&seq), RATP_OK);
    CHECK_EQUAL(ratp->cache_destroy(&cache), RATP_OK);
    CHECK_EQUAL(ratp->policy_destroy(&policy), RATP_OK);
}

static bool alike(double a, double b, double bound)
{
    return isnan(a) || isnan(b) ? isnan(a) && isnan(b) : fabs(a - b) <= bound;
}

static void compare(const struct inputs *in, const struct naive_answer *want)
{
    size_t compared = 0, odd = 0;
    for (size_t i = 0; i < ROWS; i++) {
        if (want->gap[i] < 1e-4)
            continue;
        bool same = alike((double)in->lse[i], want->lse[i], 1e-4);
        for (size_t c = i * SIZE; c < (i + 1) * SIZE; c++)
            same = same && alike((double)in->out[c], want->out[c], 1e-4);
        if (!CHECK(same))
            fprintf(stderr, "    token %zu head %zu: lse %g, not %g\n", i / HEADS, i % HEADS,
                    (double)in->lse[i], want->lse[i]);
        odd += isnan(want->lse[i]) != 0;
        compared++;
    }
    CHECK(compared > ROWS / 2);
    CHECK(odd > 0 && odd < compared);
}

static void test_variant(const struct ratp_variant *variant, ratp_dtype dtype, uint64_t seed)
{
    static struct inputs in;
    static double out[ROWS * SIZE], lse[ROWS], gap[ROWS];
    static const uint32_t compress[] = {PROMPT};
    unsigned char prompt[TOKENS] = {0};
    struct random r = {seed};
    fill(&r, in.q, ROWS * SIZE);
    fill(&r, in.k, KEYS * SIZE);
    fill(&r, in.v, KEYS * SIZE);
    /* Of the second half of the prompt, and queries that snapkv asks. */
    size_t half = PROMPT / 2, last = PROMPT - 6;
    spoil(&r, in.q + last * HEADS * SIZE, 6 * HEADS * SIZE, RATP_F32);
    spoil(&r, in.k + half * STORES * SIZE, half * STORES * SIZE, dtype);
    spoil(&r, in.v + half * STORES * SIZE, half * STORES * SIZE, dtype);
    play(variant, dtype, &in);

    for (size_t i = 0; i < KEYS * SIZE && dtype == RATP_F16; i++) {
        in.k[i] = in.k[i] > 65504 ? INFINITY : in.k[i];
        in.v[i] = in.v[i] > 65504 ? INFINITY : in.v[i];
    }
    memset(prompt, 1, PROMPT);
    const struct naive_layer layer = {.query_heads = HEADS, .kv_heads = STORES, .head_size = SIZE};
    const struct naive_tokens all = {.count = TOKENS, .q = in.q, .k = in.k, .v = in.v,
                                     .prompt = prompt, .compress = compress, .compressions = 1};
    const struct naive_answer want = {.out = out, .lse = lse, .gap = gap};
    if (CHECK(naive_sequence(&layer, variant, 1, &all, &want)))
        compare(&in, &want);
}

static void test_variants(void)
{
    static const struct ratp_variant variants[] = {
        {.kind = RATP_DENSE},
        {.kind = RATP_DILATED, .dilation = 8, .window = 5, .sinks = 2},
        {.kind = RATP_STREAMING, .window = 20, .sinks = 3},
        {.kind = RATP_QUEST, .page = 8, .budget = 32},
        {.kind = RATP_QUEST, .page = 8, .budget = 32, .selection = RATP_SELECT_GROUP},
        {.kind = RATP_MOBA, .block = 16, .topk = 3},
        {.kind = RATP_MOBA, .block = 16, .topk = 3, .selection = RATP_SELECT_GROUP},
        {.kind = RATP_SNAPKV, .observe = 8, .capacity = 40, .kernel = 5},
    };
    for (size_t i = 0; i < sizeof variants / sizeof *variants; i++)
        for (uint64_t seed = 1; seed <= SEEDS; seed++) {
            struct ratp_variant variant = variants[i];
            variant.struct_size = sizeof variant;
            int before = check_failures;
            ratp_dtype dtype = i % 2 ? RATP_F32 : RATP_F16;
            test_variant(&variant, dtype, seed);
            if (check_failures > before)
                fprintf(stderr, "    variant %zu, seed %llu\n", i, (unsigned long long)seed);
        }
}

int main(int argc, char **argv)
{
    host_open(argc, argv);
    RUN(test_variants);
    host_close();
    return check_result();
}
