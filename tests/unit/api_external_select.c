/* attend_external with quest and moba: what queries choose among the host's own keys,
 * against the naive program, and the summaries that the host keeps. */
#include "../naive.h"
#include "../random.h"
#include "api_external_select.h"

#include <stdlib.h>

static uint32_t pick(struct random *r, const uint32_t *list, uint32_t count)
{
    return list[random_in(r, 0, count - 1)];
}

#define PICK(r, ...)                                                          \
    pick(r, (const uint32_t[]){__VA_ARGS__},                                  \
         sizeof((const uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t))

static struct ratp_variant random_variant(struct random *r)
{
    struct ratp_variant v = {.struct_size = sizeof v, .selection = random_chance(r, 40)};
    if (random_chance(r, 50)) {
        v.kind = RATP_QUEST;
        v.page = PICK(r, 0, 8, 24);
        v.budget = (v.page ? v.page : 16) * random_in(r, 1, 6);
    } else {
        v.kind = RATP_MOBA;
        v.block = PICK(r, 8, 24, 40);
        v.topk = random_in(r, 1, 6);
    }
    return v;
}

static struct keys random_keys(struct random *r)
{
    struct keys keys = {
        .batch = random_in(r, 1, 3), .kv_heads = random_in(r, 1, 3), .group = PICK(r, 1, 2, 5),
        .head_size = 8 * PICK(r, 1, 2, 3, 8, 16), .value_size = 8 * PICK(r, 1, 2, 4),
        .capacity = random_in(r, 40, 300), .variant = random_variant(r),
        .k_dtype = (ratp_dtype)PICK(r, RATP_F32, RATP_F16, RATP_BF16, RATP_Q8_0, RATP_Q4_0),
        .heads_outside = random_chance(r, 50), .gap = 4 * random_in(r, 0, 3),
        .sunk = random_chance(r, 40)};
    if (keys.k_dtype == RATP_Q8_0 || keys.k_dtype == RATP_Q4_0) {
        keys.head_size = (keys.head_size + 31) / 32 * 32; /* whole blocks */
        keys.value_size = (keys.value_size + 31) / 32 * 32;
    }
    keys_open(&keys, r);
    return keys;
}

/* What a sink leaves of an answer: its share of the sum is nobody's. */
static double keep_of(const struct keys *keys, size_t row, uint32_t heads, double lse)
{
    return keys->sunk ? 1 / (1 + exp((double)keys->sinks[row % heads] - lse)) : 1;
}

/* Rows of a call, each by itself, against the naive program, which knows of no chunks. */
static uint64_t compare(const struct keys *keys, uint32_t first, uint32_t queries)
{
    uint32_t total = first + queries, heads = keys->kv_heads * keys->group;
    size_t rows = (size_t)total * heads, dv = keys->value_size;
    const struct naive_layer layer = {.query_heads = heads, .kv_heads = keys->kv_heads,
                                      .head_size = keys->head_size, .value_size = keys->value_size};
    const struct ratp_variant before = {.struct_size = sizeof before, .kind = RATP_STREAMING};
    struct ratp_variant variant = keys->variant;
    const struct naive_answer want = {.out = malloc(rows * dv * sizeof *want.out),
                                      .lse = malloc(rows * sizeof *want.lse),
                                      .gap = malloc(rows * sizeof *want.gap)};
    unsigned char *prompt = calloc(total, 1);
    uint64_t compared = 0;
    variant.prompt = &before; /* the queries that are not asked */
    if (prompt)
        memset(prompt, 1, first);
    for (uint32_t b = 0; b < keys->batch && want.out && want.lse && want.gap && prompt; b++) {
        size_t token0 = (size_t)b * keys->capacity;
        const struct naive_tokens tokens = {
            .count = total, .prompt = prompt, .q = keys->q + token0 * heads * keys->head_size,
            .k = keys->k + token0 * keys->kv_heads * keys->head_size,
            .v = keys->v + token0 * keys->kv_heads * dv};
        CHECK(naive_sequence(&layer, &variant, 1, &tokens, &want));
        for (size_t i = (size_t)first * heads; i < rows; i++) {
            size_t at = (size_t)b * queries * heads + i - (size_t)first * heads;
            double wrong = 0, length = 0;
            if (want.gap[i] < 1e-4)
                continue;
            double keep = keep_of(keys, i, heads, want.lse[i]);
            for (size_t c = 0; c < dv; c++) {
                double y = keep * want.out[i * dv + c];
                wrong += pow((double)keys->out[at * dv + c] - y, 2);
                length += y * y;
            }
            CHECK(sqrt(wrong / length) < 2e-5);
            CHECK(fabs((double)keys->lse[at] - (want.lse[i] - log(keep))) < 1e-4);
            compared++;
        }
    }
    free(want.out);
    free(want.lse);
    free(want.gap);
    free(prompt);
    return compared;
}

/* Calls that begin anywhere, with and without memory for the summaries. */
static void test_shapes(void)
{
    struct random r = {1};
    uint64_t compared = 0, asked = 0;
    for (int i = 0; i < 24; i++) {
        struct keys keys = random_keys(&r);
        uint32_t queries = random_chance(&r, 40) ? 1 : random_in(&r, 2, keys.capacity / 2);
        uint32_t first = random_in(&r, 0, keys.capacity - queries);
        struct asked call = {.first = first, .queries = queries,
                             .keys = random_in(&r, first + queries, keys.capacity),
                             .summaries = random_chance(&r, 50) ? keys.summaries : NULL,
                             .offset = keys.offset};
        keys_spoil(&keys, first + queries);
        CHECK_EQUAL(keys_attend(&keys, &call), RATP_OK);
        compared += compare(&keys, first, queries);
        asked += (uint64_t)keys.batch * queries * keys.kv_heads * keys.group;
        keys_close(&keys);
    }
    CHECK(compared > asked * 9 / 10);
}

/* Prompts long enough for waves: rows that chose the same block go together. */
static void test_waves(void)
{
    static const struct ratp_variant variants[] = {
        {.struct_size = sizeof *variants, .kind = RATP_MOBA, .block = 32, .topk = 4},
        {.struct_size = sizeof *variants, .kind = RATP_MOBA, .block = 64, .topk = 3,
         .selection = RATP_SELECT_GROUP},
        {.struct_size = sizeof *variants, .kind = RATP_QUEST, .page = 16, .budget = 96}};
    struct random r = {2};
    for (size_t i = 0; i < sizeof variants / sizeof *variants; i++) {
        struct keys keys = {.batch = 2, .kv_heads = 2, .group = 2, .head_size = 32,
                            .value_size = 16, .capacity = 410, .variant = variants[i],
                            .k_dtype = RATP_F16, .heads_outside = i == 1, .gap = i == 2 ? 64 : 0,
                            .sunk = i != 1};
        keys_open(&keys, &r);
        const struct asked call = {.first = 7, .queries = 400, .keys = 410,
                                   .summaries = keys.summaries, .offset = keys.offset};
        keys_spoil(&keys, 407);
        CHECK_EQUAL(keys_attend(&keys, &call), RATP_OK);
        CHECK(compare(&keys, 7, 400) > 2 * 400 * 4 * 9 / 10);
        keys_close(&keys);
    }
}

static void *summaries_of(const struct keys *keys, uint64_t bytes)
{
    void *data = calloc(bytes + 1, 1);
    if (CHECK(data) && bytes)
        CHECK_EQUAL(ratp->buffer_read(keys->summaries, keys->offset, data, bytes), RATP_OK);
    return data;
}

/* The same call with the summaries made anew: the same to the last bit. */
static void check_afresh(struct keys *keys, struct asked call)
{
    size_t rows = (size_t)keys->batch * call.queries * keys->kv_heads * keys->group;
    size_t bytes = rows * keys->value_size * sizeof(float);
    uint64_t known = keys_bytes(keys, call.first + call.queries);
    float *out = malloc(bytes);
    void *kept = summaries_of(keys, known), *afresh;
    if (!CHECK(out) || !CHECK(kept))
        exit(1);
    memcpy(out, keys->out, bytes);
    call.summarised = 0;
    CHECK_EQUAL(keys_attend(keys, &call), RATP_OK);
    CHECK(memcmp(out, keys->out, bytes) == 0);
    afresh = summaries_of(keys, known);
    CHECK(memcmp(kept, afresh, known) == 0);
    free(out);
    free(kept);
    free(afresh);
}

/* A prompt, and then token after token. The summaries of what came before are kept: they
 * are the same as made anew. Halfway the host goes back, and on with other tokens. */
static void test_growth(void)
{
    struct random r = {3};
    for (int i = 0; i < 4; i++) {
        struct keys keys = random_keys(&r);
        uint32_t length = 0, summarised = 0, rollbacks = 0;
        while (length < keys.capacity) {
            uint32_t left = keys.capacity - length;
            uint32_t queries = random_chance(&r, 70) ? 1 : random_in(&r, 1, left < 50 ? left : 50);
            const struct asked call = {.first = length, .queries = queries,
                                       .keys = random_in(&r, length + queries, keys.capacity),
                                       .summaries = keys.summaries, .offset = keys.offset,
                                       .summarised = summarised};
            CHECK_EQUAL(keys_attend(&keys, &call), RATP_OK);
            length += queries;
            summarised = length;
            if (random_chance(&r, 15)) {
                check_afresh(&keys, call);
                CHECK(compare(&keys, call.first, queries) > 0);
            }
            if (rollbacks < 2 && length > keys.capacity / 2 && random_chance(&r, 30)) {
                length = summarised = random_in(&r, 1, length - 1);
                keys_rewrite(&keys, length, &r);
                rollbacks++;
            }
        }
        keys_close(&keys);
    }
}

/* Entries of keys below `summarised` are not made again, nor others touched. */
static void test_kept(void)
{
    enum { BYTE = 0x3a }; /* a number, in every type */
    struct random r = {4};
    for (int i = 0; i < 5; i++) {
        struct keys keys = random_keys(&r);
        uint32_t total = random_in(&r, 1, keys.capacity), from = random_in(&r, 0, total);
        uint64_t before = keys_bytes(&keys, from), end = keys_bytes(&keys, total);
        uint64_t all = keys_bytes(&keys, keys.capacity), other = 0;
        unsigned char *data = malloc(all + 1);
        if (!CHECK(data))
            return;
        memset(data, BYTE, all);
        if (all)
            CHECK_EQUAL(ratp->buffer_write(keys.summaries, keys.offset, data, all), RATP_OK);
        const struct asked call = {.first = total - 1, .queries = 1, .keys = keys.capacity,
                                   .summaries = keys.summaries, .offset = keys.offset,
                                   .summarised = from};
        CHECK_EQUAL(keys_attend(&keys, &call), RATP_OK);
        free(data);
        data = summaries_of(&keys, all);
        for (uint64_t at = 0; at < all; at++)
            if (at < before || at >= end)
                CHECK_EQUAL(data[at], BYTE);
            else
                other += data[at] != BYTE;
        CHECK(other > (end - before) / 2 || before == end);
        free(data);
        keys_close(&keys);
    }
}

/* A budget for everything is dense attention. */
static void test_everything(void)
{
    struct random r = {5};
    for (int i = 0; i < 4; i++) {
        struct keys keys = random_keys(&r);
        struct asked call = {.first = keys.capacity - 3, .queries = 3, .keys = keys.capacity,
                             .summaries = i % 2 ? keys.summaries : NULL, .offset = keys.offset};
        size_t rows = (size_t)keys.batch * 3 * keys.kv_heads * keys.group;
        size_t bytes = rows * keys.value_size * sizeof(float);
        float *out = malloc(bytes);
        if (!CHECK(out))
            return;
        if (keys.variant.kind == RATP_QUEST)
            keys.variant.budget = (keys.variant.page ? keys.variant.page : 16) * 64;
        else
            keys.variant.topk = 64;
        CHECK_EQUAL(keys_attend(&keys, &call), RATP_OK);
        memcpy(out, keys.out, bytes);
        call.summaries = NULL;
        keys.variant = (struct ratp_variant){.struct_size = sizeof keys.variant};
        CHECK_EQUAL(keys_attend(&keys, &call), RATP_OK);
        CHECK(memcmp(out, keys.out, bytes) == 0);
        free(out);
        keys_close(&keys);
    }
}

/* Blocks longer than a part that is summed at once, and more keys than one piece of work
 * has. All keys point away from the query, but those of one block: whose V is 1. */
static void long_blocks(struct ratp_variant variant, uint32_t block, uint32_t total, uint32_t best)
{
    struct random r = {6};
    struct keys keys = {.batch = 1, .kv_heads = 1, .group = 1, .head_size = 8, .value_size = 8,
                        .capacity = total, .variant = variant, .k_dtype = RATP_F16};
    keys_open(&keys, &r);
    for (uint32_t t = 0; t < total; t++)
        for (uint32_t c = 0; c < 8; c++) {
            keys.k[(size_t)t * 8 + c] = t / block == best ? 0.25f : -0.25f;
            keys.v[(size_t)t * 8 + c] = t / block == best;
        }
    for (uint32_t c = 0; c < 8; c++)
        keys.q[(size_t)(total - 1) * 8 + c] = 1;
    keys_write(&keys);
    const struct asked call = {.first = total - 1, .queries = 1, .keys = total,
                               .summaries = keys.summaries, .offset = keys.offset};
    CHECK_EQUAL(keys_attend(&keys, &call), RATP_OK);
    double scale = 1 / sqrt(8), own = (total - 1) % block + 1;
    double chosen = block * exp(2 * scale), wanted = chosen / (chosen + own * exp(-2 * scale));
    CHECK(fabs((double)keys.out[0] - wanted) < 1e-4);
    keys_close(&keys);
}

static void test_long_blocks(void)
{
    struct ratp_variant moba = {.struct_size = sizeof moba, .kind = RATP_MOBA, .topk = 2};
    struct ratp_variant quest = {.struct_size = sizeof quest, .kind = RATP_QUEST, .page = 4096,
                                 .budget = 8192};
    moba.block = 65536;
    long_blocks(moba, moba.block, 3 * 65536 + 5, 1);
    moba.block = 65528; /* of 8 times a prime */
    long_blocks(moba, moba.block, 2 * 65528 + 9, 0);
    long_blocks(quest, 4096, (1 << 20) + 5 * 4096 + 70, (1 << 20) / 4096 + 2);
}

static void test_refused(void)
{
    struct random r = {8};
    struct keys keys = {.batch = 2, .kv_heads = 2, .group = 2, .head_size = 16, .value_size = 16,
                        .capacity = 64, .k_dtype = RATP_F32,
                        .variant = {.struct_size = sizeof keys.variant, .kind = RATP_QUEST,
                                    .budget = 32}};
    keys_open(&keys, &r);
    ratp_device *other = NULL;
    ratp_buffer *foreign = NULL;
    const struct ratp_device_params reference = {.struct_size = sizeof reference,
                                                 .name = "reference"};
    const struct ratp_buffer_params size = {.struct_size = sizeof size, .size = 1 << 16};
    CHECK_EQUAL(ratp->device_open(instance, &reference, &other), RATP_OK);
    CHECK_EQUAL(ratp->buffer_create(other, &size, &foreign), RATP_OK);
    const struct ratp_variant dense = {.struct_size = sizeof dense},
                              moba = {.struct_size = sizeof moba, .kind = RATP_MOBA, .topk = 1},
                              snapkv = {.struct_size = sizeof snapkv, .kind = RATP_SNAPKV,
                                        .capacity = 64};
    struct ratp_tensor t = {.struct_size = sizeof t, .host = keys.q}, q8 = t;
    q8.dtype = RATP_Q8_0;
    const struct ratp_external good = {
        .struct_size = sizeof good, .batch = 2, .query_tokens = 4, .key_tokens = 64,
        .query_heads = 4, .kv_heads = 2, .head_size = 16, .causal = 1, .first_position = 60,
        .variant = &keys.variant, .q = &t, .k = &t, .v = &t,
        .out = &(struct ratp_tensor){.struct_size = sizeof t, .host = keys.out},
        .summaries = keys.summaries, .summaries_offset = keys.offset};
    struct ratp_external p = good;
    uint64_t bytes = 0;
    CHECK_EQUAL(ratp->attend_external(device, &p), RATP_OK);
    p.summarised = 64;
    CHECK_EQUAL(ratp->attend_external(device, &p), RATP_OK);
#define WRONG(field, value, status, part)                                     \
    do {                                                                      \
        p = good;                                                             \
        p.field = (value);                                                    \
        REFUSE(device, ratp->attend_external(device, &p), status, part);      \
    } while (0)
    WRONG(causal, 0, RATP_UNSUPPORTED, "params->causal is 0, params->variant is quest");
    WRONG(mask, &t, RATP_UNSUPPORTED, "params->mask is given, params->variant is quest");
    WRONG(variant, &snapkv, RATP_UNSUPPORTED, "params->variant.kind is 5 (snapkv)");
    WRONG(variant, &dense, RATP_INVALID_ARGUMENT, "params->summaries is given, and no query");
    WRONG(first_position, 61, RATP_INVALID_ARGUMENT,
          "params->first_position 61 and query_tokens 4 lead to 65, with quest they must end "
          "within key_tokens, 64");
    WRONG(summaries, foreign, RATP_INVALID_ARGUMENT, "params->summaries belongs to another dev");
    WRONG(summaries, (ratp_buffer *)(void *)device, RATP_INVALID_ARGUMENT, "params->summaries is");
    WRONG(summaries_offset, 40, RATP_INVALID_ARGUMENT,
          "params->summaries_offset is 40, it must be a multiple of 16");
    WRONG(summaries_offset, 64, RATP_INVALID_ARGUMENT,
          "params->summaries: 2048 bytes from summaries_offset 64 are needed, the buffer has "
          "2096; external_summary_bytes");
    WRONG(summaries_offset, UINT64_MAX - 15, RATP_INVALID_ARGUMENT, "params->summaries: 2048");
    WRONG(summarised, 65, RATP_INVALID_ARGUMENT,
          "params->summarised is 65, it must be at most key_tokens, 64");
    WRONG(summaries, NULL, RATP_INVALID_ARGUMENT,
          "params->summaries is NULL, summarised 0 and summaries_offset 48 must be 0 then");
    p = good;
    p.variant = NULL;
    p.summaries = NULL;
    p.summaries_offset = 0;
    p.summarised = 1;
    REFUSE(device, ratp->attend_external(device, &p), RATP_INVALID_ARGUMENT,
           "params->summaries is NULL, summarised 1");
    p = good;
    p.k = &q8;
    REFUSE(device, ratp->attend_external(device, &p), RATP_UNSUPPORTED,
           "params->k: dtype is q8_0 and a head has 16 channels: it needs a multiple of 32");
#undef WRONG

    CHECK_EQUAL(ratp->external_summary_bytes(device, &good, &bytes), RATP_OK);
    CHECK_EQUAL(bytes, 2048);
#define WRONG(field, value, status, part)                                                  \
    do {                                                                                   \
        p = good;                                                                          \
        p.field = (value);                                                                 \
        REFUSE(device, ratp->external_summary_bytes(device, &p, &bytes), status, part);    \
    } while (0)
    CHECK_EQUAL(ratp->external_summary_bytes(NULL, &good, &bytes), RATP_INVALID_ARGUMENT);
    REFUSE(device, ratp->external_summary_bytes(device, NULL, &bytes), RATP_INVALID_ARGUMENT,
           "params is NULL");
    REFUSE(device, ratp->external_summary_bytes(device, &good, NULL), RATP_INVALID_ARGUMENT,
           "bytes is NULL");
    WRONG(struct_size, 8, RATP_INVALID_ARGUMENT, "params->struct_size is 8");
    WRONG(batch, 65537, RATP_INVALID_ARGUMENT, "params->batch is 65537");
    WRONG(key_tokens, 0, RATP_INVALID_ARGUMENT, "params->key_tokens is 0");
    WRONG(kv_heads, 1025, RATP_INVALID_ARGUMENT, "params->kv_heads is 1025");
    WRONG(head_size, 12, RATP_INVALID_ARGUMENT, "params->head_size is 12");
    WRONG(causal, 0, RATP_UNSUPPORTED, "params->causal is 0, params->variant is quest");
    WRONG(variant, &snapkv, RATP_UNSUPPORTED, "params->variant.kind is 5 (snapkv)");
    WRONG(k, &q8, RATP_UNSUPPORTED,
          "params->k: dtype is q8_0 and a head has 16 channels: it needs a multiple of 32");
    CHECK_EQUAL(bytes, 2048);
#undef WRONG
    p = good;
    p.k = NULL;
    p.k = &q8;
    p.head_size = 64;
    CHECK_EQUAL(ratp->external_summary_bytes(device, &p, &bytes), RATP_OK);
    CHECK_EQUAL(bytes, 4 * 2 * 2 * 2 * 64 * 2); /* of float16 */
    p.k = NULL;
    p.head_size = 16;
    p.variant = &moba;
    p.key_tokens = 5119;
    CHECK_EQUAL(ratp->external_summary_bytes(device, &p, &bytes), RATP_OK);
    CHECK_EQUAL(bytes, 9 * 2 * 2 * 16 * 4);
    p.batch = 65536;
    p.kv_heads = 1024;
    REFUSE(device, ratp->external_summary_bytes(device, &p, &bytes), RATP_UNSUPPORTED,
           "params->batch 65536 times kv_heads 1024 is 4294967296 bytes a block for moba");
    p.variant = NULL;
    CHECK_EQUAL(ratp->external_summary_bytes(device, &p, &bytes), RATP_OK);
    CHECK_EQUAL(bytes, 0);
    CHECK_EQUAL(ratp->buffer_destroy(&foreign), RATP_OK);
    CHECK_EQUAL(ratp->device_close(&other), RATP_OK);
    keys_close(&keys);
}

int main(int argc, char **argv)
{
    host_open(argc, argv);
    RUN(test_shapes);
    RUN(test_waves);
    RUN(test_growth);
    RUN(test_kept);
    RUN(test_everything);
    RUN(test_long_blocks);
    RUN(test_refused);
    host_close();
    return check_result();
}
