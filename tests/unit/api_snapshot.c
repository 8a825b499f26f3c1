/* Sequences saved and loaded: they go on as if nothing had been, on any device and
 * with pages of any size. api_snapshot_refused.c has what is refused. */
#include "api_snapshot.h"

#include <math.h>

static const char *const policies[] = {
    "{}",
    "{\"default\": \"d16w4s2\"}",
    "{\"default\": \"streamw20s3\"}",
    "{\"default\": \"d4w9s5\", \"rules\": [{\"layers\": 1, \"variant\": \"dense\"}]}",
    "{\"default\": \"d3w2\", \"rules\": [{\"heads\": 1, \"variant\": \"stream\"},"
    " {\"layers\": 0, \"heads\": 0, \"variant\": \"streamw70s1\"}]}",
};
enum { POLICIES = sizeof policies / sizeof *policies, MOST = 64 * QUERY_HEADS * HEAD_SIZE };

/* Whether two sequences go on alike: with pages of one size bit for bit; of different
 * sizes a device may add the keys in another order, and the answers differ by rounding. */
static void compare(ratp_cache *cache, ratp_seq *seq, ratp_cache *other_cache, ratp_seq *other,
                    bool same_pages)
{
    static const uint32_t steps[] = {1, 5, 1, 30, 1, 1};
    static float wanted[MOST], got[MOST];
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        size_t bytes = steps[i] * sizeof(float) * QUERY_HEADS * HEAD_SIZE;
        snapshot_feed(cache, seq, steps[i]);
        memcpy(wanted, host_out(), bytes);
        snapshot_feed(other_cache, other, steps[i]);
        memcpy(got, host_out(), bytes);
        CHECK(!same_pages || memcmp(wanted, got, bytes) == 0);
        float most = 0;
        for (size_t v = 0; v < bytes / sizeof(float); v++)
            most = fmaxf(most, fabsf(wanted[v] - got[v]));
        CHECK(most < 1e-6f);
    }
}

/* A sequence with a past of prompts and single tokens, and one shorter than its
 * windows. */
static ratp_seq *lived(ratp_cache *cache, bool longer)
{
    ratp_seq *seq = host_seq(cache);
    snapshot_feed(cache, seq, longer ? 40 : 3);
    for (int i = 0; i < 3 && longer; i++)
        snapshot_feed(cache, seq, 1);
    if (longer)
        snapshot_feed(cache, seq, 30);
    return seq;
}

static void round_trip(const char *json, ratp_retention retention, bool longer, uint32_t slots)
{
    struct snapshot_model model = {json, .retention = retention, .page_slots = 8};
    struct snapshot_model other_model = {"{}", .retention = retention, .page_slots = slots};
    ratp_cache *cache = snapshot_cache(device, &model);
    ratp_cache *other_cache = snapshot_cache(device, &other_model);
    ratp_seq *seq = lived(cache, longer), *other = NULL, *copy = NULL;
    struct bytes saved = snapshot_save(seq), again;
    CHECK_EQUAL(ratp->seq_load(other_cache, saved.data, saved.size, &other), RATP_OK);
    CHECK_EQUAL(ratp->seq_load(cache, saved.data, saved.size, &copy), RATP_OK);
    again = snapshot_save(copy);
    CHECK(again.size == saved.size && memcmp(again.data, saved.data, saved.size) == 0);
    free(again.data);
    compare(cache, seq, other_cache, other, slots == 8);
    /* What the loaded one has become is saved and loaded as well. What is kept does
     * not depend on the pages. */
    again = snapshot_save(other);
    if (retention == RATP_RETAIN_FULL) {
        struct bytes original = snapshot_save(seq);
        CHECK(again.size == original.size &&
              memcmp(again.data, original.data, original.size) == 0);
        free(original.data);
    }
    CHECK_EQUAL(ratp->seq_destroy(&other), RATP_OK);
    CHECK_EQUAL(ratp->seq_load(cache, again.data, again.size, &other), RATP_OK);
    free(again.data);
    compare(cache, seq, cache, other, true);
    CHECK_EQUAL(ratp->seq_destroy(&other), RATP_OK);
    CHECK_EQUAL(ratp->seq_destroy(&seq), RATP_OK);

    /* With pages of one size a copy has all of the ring that the original had. */
    CHECK_EQUAL(ratp->seq_load(cache, saved.data, saved.size, &seq), RATP_OK);
    uint64_t length = snapshot_length(seq);
    ratp_status status = ratp->seq_truncate(seq, length - 2);
    CHECK_EQUAL(ratp->seq_truncate(copy, length - 2), status);
    compare(cache, seq, cache, copy, true);
    CHECK_EQUAL(ratp->seq_destroy(&copy), RATP_OK);
    CHECK_EQUAL(ratp->seq_destroy(&seq), RATP_OK);
    free(saved.data);
    snapshot_close(&cache);
    snapshot_close(&other_cache);
}

static void test_round_trips(void)
{
    for (int p = 0; p < POLICIES; p++)
        for (ratp_retention r = RATP_RETAIN_FULL; r <= RATP_RETAIN_NEEDED; r++) {
            round_trip(policies[p], r, true, 8);
            round_trip(policies[p], r, true, 24);
            round_trip(policies[p], r, false, 64);
        }
}

/* Saved with long pages, whose rings reach far back, and loaded with short ones. */
static void test_shorter_pages(void)
{
    struct snapshot_model model = {policies[1], .retention = RATP_RETAIN_NEEDED, .page_slots = 64};
    struct snapshot_model other_model = {policies[1], .retention = RATP_RETAIN_NEEDED,
                                         .page_slots = 8};
    ratp_cache *cache = snapshot_cache(device, &model);
    ratp_cache *other_cache = snapshot_cache(device, &other_model);
    ratp_seq *seq = host_seq(cache), *other = NULL;
    snapshot_feed(cache, seq, 1);
    for (int i = 0; i < 50; i++)
        snapshot_feed(cache, seq, 1);
    struct bytes saved = snapshot_save(seq);
    CHECK_EQUAL(ratp->seq_load(other_cache, saved.data, saved.size, &other), RATP_OK);
    REFUSE(other, ratp->seq_truncate(other, 40), RATP_NOT_RETAINED, "no longer holds token");
    CHECK_EQUAL(ratp->seq_truncate(other, 48), RATP_OK);
    CHECK_EQUAL(ratp->seq_truncate(seq, 48), RATP_OK);
    compare(cache, seq, other_cache, other, false);
    free(saved.data);
    CHECK_EQUAL(ratp->seq_destroy(&seq), RATP_OK);
    CHECK_EQUAL(ratp->seq_destroy(&other), RATP_OK);
    snapshot_close(&cache);
    snapshot_close(&other_cache);
}

/* Every rotation, dtype and kind of model has its snapshots. */
static void test_models(void)
{
    static const float factors[HEAD_SIZE / 2] = {1, 1.5f, 2, 2, 3, 3, 4, 4};
    struct ratp_rope half = {sizeof half, .style = RATP_ROPE_HALF, .factors = factors};
    struct ratp_rope yarn = {sizeof yarn, .style = RATP_ROPE_INTERLEAVED, .size = 8,
                             .yarn_factor = 4, .yarn_context = 32};
    const struct snapshot_model models[] = {
        {policies[3], .retention = RATP_RETAIN_NEEDED, .rope = &half, .k_dtype = RATP_F32},
        {policies[4], .retention = RATP_RETAIN_NEEDED, .rope = &yarn, .v_dtype = RATP_BF16},
        {policies[1], .rope = &yarn, .value_size = 24, .no_memory = true},
        {policies[4], .first_kv_head = 1},
    };
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        ratp_cache *cache = snapshot_cache(device, &models[i]);
        ratp_seq *seq = host_seq(cache), *copy = NULL;
        struct bytes empty = snapshot_save(seq), saved;
        snapshot_feed(cache, seq, 40);
        saved = snapshot_save(seq);
        CHECK_EQUAL(ratp->seq_load(cache, saved.data, saved.size, &copy), RATP_OK);
        if (!models[i].no_memory)
            compare(cache, seq, cache, copy, true);
        CHECK_EQUAL(ratp->seq_destroy(&copy), RATP_OK);
        CHECK_EQUAL(ratp->seq_load(cache, empty.data, empty.size, &copy), RATP_OK);
        CHECK_EQUAL(snapshot_length(copy), 0);
        snapshot_feed(cache, copy, 40);
        struct bytes same = snapshot_save(copy);
        CHECK(same.size == saved.size && memcmp(same.data, saved.data, saved.size) == 0);
        free(same.data);
        free(saved.data);
        free(empty.data);
        CHECK_EQUAL(ratp->seq_destroy(&copy), RATP_OK);
        CHECK_EQUAL(ratp->seq_destroy(&seq), RATP_OK);
        snapshot_close(&cache);
    }
}

/* A file that this device wrote, loaded on the reference device, and back: the same
 * file, and nearly the same answers. */
static void test_devices(void)
{
    char folder[64], path[96];
    snapshot_folder(folder);
    snprintf(path, sizeof path, "%s/seq", folder);
    struct ratp_device_params which = {sizeof which, .name = "reference"};
    ratp_device *reference = NULL;
    CHECK_EQUAL(ratp->device_open(instance, &which, &reference), RATP_OK);
    struct snapshot_model model = {policies[4], .retention = RATP_RETAIN_NEEDED, .page_slots = 8};
    ratp_cache *caches[2] = {snapshot_cache(device, &model), NULL};
    model.page_slots = 16;
    caches[1] = snapshot_cache(reference, &model);
    for (int from = 0; from < 2; from++) {
        ratp_cache *cache = caches[from], *other_cache = caches[!from];
        ratp_seq *seq = lived(cache, true), *other = NULL;
        static float wanted[MOST];
        CHECK_EQUAL(ratp->seq_save_file(seq, path), RATP_OK);
        CHECK_EQUAL(ratp->seq_load_file(other_cache, path, &other), RATP_OK);
        /* Again over what is there. */
        CHECK_EQUAL(ratp->seq_save_file(seq, path), RATP_OK);
        struct bytes saved = snapshot_save(seq), file = snapshot_read(path);
        CHECK(file.size == saved.size && memcmp(file.data, saved.data, saved.size) == 0);
        snapshot_feed(cache, seq, 7);
        memcpy(wanted, host_out(), sizeof wanted);
        snapshot_feed(other_cache, other, 7);
        for (int i = 0; i < 7 * QUERY_HEADS * HEAD_SIZE; i++)
            CHECK(fabsf(wanted[i] - host_out()[i]) < 2e-3f);
        CHECK_EQUAL(ratp->seq_destroy(&other), RATP_OK);
        CHECK_EQUAL(ratp->seq_destroy(&seq), RATP_OK);
        free(saved.data);
        free(file.data);
    }
    CHECK_EQUAL(snapshot_files(folder), 1);
    snapshot_close(&caches[0]);
    snapshot_close(&caches[1]);
    CHECK_EQUAL(ratp->device_close(&reference), RATP_OK);
    remove(path);
    remove(folder);
}

int main(int argc, char **argv)
{
    host_open(argc, argv);
    RUN(test_round_trips);
    RUN(test_shorter_pages);
    RUN(test_models);
    RUN(test_devices);
    host_close();
    return check_result();
}
