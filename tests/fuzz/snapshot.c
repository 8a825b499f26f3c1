/* Snapshots that were changed, as they are and with a size and checksums that are
 * right for them. What is accepted goes on as a sequence, and was saved as the same
 * bytes; what is refused changes nothing. */
#include "fuzz.h"

#include <ratplus.h>
#include <string.h>
#include <zlib.h>

enum { LAYERS = 2, HEADS = 2, SIZE = 8, MAX_TOKENS = 64, CACHES = 4, LENGTHS = 4 };
/* Bytes of the parts of a head, with the checksum that is each one's last. */
enum { START = 24, HEAD = 148, RUN = 108, STORE = 16, LEAST = HEAD + 8 + 4 + 4 };

static const struct ratp_api *ratp;
static ratp_instance *instance;
static ratp_device *device;
static ratp_cache *caches[CACHES];
static unsigned long whole, changed, refused[RATP_INTERNAL + 1];

static ratp_cache *make_cache(int number)
{
    static const char *const policies[CACHES] = {
        "{}",
        "{\"default\": \"d4w5s3\", \"rules\": [{\"heads\": 1, \"variant\": \"streamw9s1\"}]}",
        "{\"default\": \"d3w2\", \"rules\": [{\"layers\": 1, \"variant\": \"dense\"}]}",
        "{\"default\": \"snapkv12o4n3\", \"rules\": [{\"heads\": 1, \"variant\": \"d4w5\"}]}",
    };
    struct ratp_rope rope = {sizeof rope, .style = RATP_ROPE_HALF, .yarn_factor = 2,
                             .yarn_context = 32};
    struct ratp_geometry geometry = {sizeof geometry, LAYERS, HEADS, HEADS, SIZE,
                                     .memory = number != 2, .max_tokens = MAX_TOKENS,
                                     .rope = number ? &rope : NULL};
    struct ratp_cache_params params = {sizeof params, .geometry = &geometry, .page_slots = 8,
                                       .retention = number ? RATP_RETAIN_NEEDED : RATP_RETAIN_FULL};
    ratp_policy *policy = NULL;
    ratp_cache *cache = NULL;
    REQUIRE(ratp->policy_from_json(instance, policies[number], strlen(policies[number]),
                                   &policy) == RATP_OK);
    params.policy = policy;
    REQUIRE(ratp->cache_create(device, &params, &cache) == RATP_OK);
    REQUIRE(ratp->policy_destroy(&policy) == RATP_OK);
    return cache;
}

bool fuzz_start(void)
{
    struct ratp_instance_params params = {sizeof params, .no_vulkan = 1};
    ratp = ratp_get_api(RATP_ABI_MAJOR, NULL, 0);
    REQUIRE(ratp && ratp->instance_create(&params, &instance, NULL, 0) == RATP_OK);
    REQUIRE(ratp->device_open(instance, NULL, &device) == RATP_OK);
    for (int i = 0; i < CACHES; i++)
        caches[i] = make_cache(i);
    return true;
}

void fuzz_end(void)
{
    for (int i = 0; i < CACHES; i++)
        REQUIRE(ratp->cache_destroy(&caches[i]) == RATP_OK);
    REQUIRE(ratp->device_close(&device) == RATP_OK);
    REQUIRE(ratp->instance_destroy(&instance) == RATP_OK);
}

static void feed(ratp_cache *cache, ratp_seq *seq, uint32_t tokens)
{
    static float in[MAX_TOKENS * HEADS * SIZE], out[MAX_TOKENS * HEADS * SIZE];
    for (size_t i = 0; i < sizeof in / sizeof *in; i++)
        in[i] = (float)(i % 11) / 8 - 0.6f;
    const struct ratp_tensor tensor = {sizeof tensor, .host = in}, to = {sizeof to, .host = out};
    struct ratp_attend_io io = {sizeof io, &tensor, &tensor, &tensor, .out = &to};
    io.f = cache == caches[2] ? NULL : &tensor;
    struct ratp_step_params params = {sizeof params, .count = 1, .seqs = &seq, .n_tokens = &tokens};
    ratp_step *step = NULL;
    REQUIRE(ratp->step_begin(cache, &params, &step) == RATP_OK);
    for (uint32_t layer = 0; layer < LAYERS; layer++)
        REQUIRE(ratp->step_attend(step, layer, &io) == RATP_OK);
    REQUIRE(ratp->step_commit(&step) == RATP_OK);
}

size_t fuzz_seed(size_t index, uint8_t *out)
{
    static const uint32_t lengths[LENGTHS] = {0, 5, 20, 41};
    if (index >= CACHES * LENGTHS)
        return 0;
    ratp_cache *cache = caches[index % CACHES];
    uint32_t length = lengths[index / CACHES];
    ratp_seq *seq = NULL;
    uint64_t size = 0;
    REQUIRE(ratp->seq_create(cache, &seq) == RATP_OK);
    if (length)
        feed(cache, seq, length);
    if (length > 20)
        feed(cache, seq, 1); /* compresses */
    REQUIRE(ratp->seq_save(seq, out, FUZZ_ROOM, &size) == RATP_OK);
    REQUIRE(ratp->seq_destroy(&seq) == RATP_OK);
    return size;
}

static struct ratp_cache_stats stats_of(ratp_cache *cache)
{
    struct ratp_cache_stats stats = {.struct_size = sizeof stats};
    REQUIRE(ratp->cache_stats(cache, &stats) == RATP_OK);
    return stats;
}

/* Without what lies between the fields. */
static bool same(const struct ratp_cache_stats *a, const struct ratp_cache_stats *b)
{
    return a->budget_bytes == b->budget_bytes && a->pool_bytes == b->pool_bytes &&
           a->used_bytes == b->used_bytes && a->state_bytes == b->state_bytes &&
           a->scratch_bytes == b->scratch_bytes && a->page_bytes == b->page_bytes &&
           a->pages_total == b->pages_total && a->pages_used == b->pages_used &&
           a->sequences == b->sequences && a->pages_free == b->pages_free &&
           a->pages_shared == b->pages_shared;
}

static void go_on(ratp_cache *cache, ratp_seq *seq, const uint8_t *data, size_t size)
{
    struct ratp_seq_stats stats = {.struct_size = sizeof stats};
    uint64_t needed = 0;
    REQUIRE(ratp->seq_stats(seq, &stats) == RATP_OK && stats.length <= MAX_TOKENS);
    REQUIRE(ratp->seq_save(seq, NULL, 0, &needed) == RATP_OK);
    uint8_t *again = malloc(needed);
    REQUIRE(again && ratp->seq_save(seq, again, needed, &needed) == RATP_OK);
    /* A ring that said to reach further back than one here can is saved shorter. */
    REQUIRE(needed <= size && (needed < size || memcmp(again, data, size) == 0));
    free(again);
    for (uint32_t i = 0; i < 2 && stats.length + i < MAX_TOKENS; i++)
        feed(cache, seq, 1);
}

static void load(const uint8_t *data, size_t size, unsigned long *accepted)
{
    for (int i = 0; i < CACHES; i++) {
        struct ratp_cache_stats before = stats_of(caches[i]), after;
        ratp_seq *seq = (ratp_seq *)&before;
        ratp_status status = ratp->seq_load(caches[i], data, size, &seq);
        char message[512];
        if (!status) {
            go_on(caches[i], seq, data, size);
            REQUIRE(ratp->seq_destroy(&seq) == RATP_OK);
            after = stats_of(caches[i]);
            REQUIRE(!after.pages_used && !after.used_bytes);
            REQUIRE(!after.state_bytes && !after.sequences);
            ++*accepted;
            continue;
        }
        REQUIRE(status == RATP_PARSE_ERROR || status == RATP_INVALID_ARGUMENT ||
                status == RATP_UNSUPPORTED);
        REQUIRE(!seq && ratp->last_error(caches[i], message, sizeof message) > 0);
        after = stats_of(caches[i]);
        REQUIRE(same(&before, &after));
        refused[status]++;
    }
}

static void put(uint8_t *at, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++)
        at[i] = (uint8_t)(value >> 8 * i);
}

static uint32_t get(const uint8_t *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

/* Checksums that are right for what stands before them. */
static void put_sums(uint8_t *data, size_t size)
{
    uint32_t runs = get(data + START + 4), stores = get(data + START + 8);
    uint32_t rope_size = get(data + START + 12 + 13 * 4);
    uint64_t tables = HEAD + (uint64_t)4 * (rope_size / 2) + (uint64_t)RUN * runs +
                      (uint64_t)STORE * stores + 8;
    const uint64_t sums[] = {START - 4, HEAD - 4, tables, size - 4};
    for (size_t i = 0; i < sizeof sums / sizeof *sums; i++)
        if (sums[i] <= size - 4)
            put(data + sums[i], crc32_z(0, data, (size_t)sums[i]), 4);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t magic[8] = {0x89, 'R', 'A', 'T', 'S', 'E', 'Q', '\n'};
    if (!ratp && !fuzz_start())
        return 0;
    load(data, size, &whole);
    if (size < LEAST)
        return 0;
    uint8_t *right = malloc(size);
    REQUIRE(right);
    memcpy(right, data, size);
    memcpy(right, magic, sizeof magic);
    put(right + sizeof magic, size, 8);
    put_sums(right, size);
    if (memcmp(right, data, size) != 0)
        load(right, size, &changed);
    free(right);
    return 0;
}

bool fuzz_report(void)
{
    printf("%lu unchanged and %lu changed snapshots loaded; refused: %lu damaged, %lu of another "
           "cache, %lu of another version\n", whole, changed, refused[RATP_PARSE_ERROR],
           refused[RATP_INVALID_ARGUMENT], refused[RATP_UNSUPPORTED]);
    return whole && changed && refused[RATP_PARSE_ERROR] && refused[RATP_INVALID_ARGUMENT] &&
           refused[RATP_UNSUPPORTED];
}
