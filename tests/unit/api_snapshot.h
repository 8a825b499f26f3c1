/* What the tests of snapshots share. */
#ifndef RATPLUS_TESTS_API_SNAPSHOT_H
#define RATPLUS_TESTS_API_SNAPSHOT_H

#include "api_host.h"

#include <dirent.h>
#include <stdlib.h>
#include <unistd.h>

/* A cache, where it differs from host_cache(). */
struct snapshot_model {
    const char *policy;
    ratp_retention retention;
    uint32_t page_slots, value_size, first_kv_head, max_tokens;
    uint64_t budget;
    ratp_dtype k_dtype, v_dtype;
    const struct ratp_rope *rope;
    bool no_memory;
};

static inline ratp_cache *snapshot_cache(ratp_device *on, const struct snapshot_model *model)
{
    struct ratp_geometry geometry = {sizeof geometry, LAYERS, QUERY_HEADS, KV_HEADS, HEAD_SIZE,
                                     .value_size = model->value_size, .rope = model->rope,
                                     .memory = !model->no_memory, .max_tokens = model->max_tokens,
                                     .first_kv_head = model->first_kv_head,
                                     .total_kv_heads = model->first_kv_head + KV_HEADS};
    struct ratp_cache_params params = {sizeof params, .geometry = &geometry,
                                       .budget = model->budget, .page_slots = model->page_slots,
                                       .k_dtype = model->k_dtype, .v_dtype = model->v_dtype,
                                       .retention = model->retention};
    ratp_policy *policy = NULL;
    ratp_cache *cache = NULL;
    CHECK_EQUAL(ratp->policy_from_json(instance, model->policy, strlen(model->policy), &policy),
                RATP_OK);
    params.policy = policy;
    if (!CHECK_EQUAL(ratp->cache_create(on, &params, &cache), RATP_OK)) {
        fprintf(stderr, "%s\n", host_message(on));
        exit(1);
    }
    CHECK_EQUAL(ratp->policy_destroy(&policy), RATP_OK);
    return cache;
}

static inline struct ratp_cache_stats snapshot_stats(ratp_cache *cache)
{
    struct ratp_cache_stats stats = {.struct_size = sizeof stats};
    CHECK_EQUAL(ratp->cache_stats(cache, &stats), RATP_OK);
    return stats;
}

/* The cache has nothing left. */
static inline void snapshot_close(ratp_cache **cache)
{
    struct ratp_cache_stats stats = snapshot_stats(*cache);
    CHECK(!stats.pages_used && !stats.used_bytes && !stats.state_bytes && !stats.sequences);
    CHECK_EQUAL(ratp->cache_destroy(cache), RATP_OK);
}

static inline uint64_t snapshot_length(ratp_seq *seq)
{
    struct ratp_seq_stats stats = {.struct_size = sizeof stats};
    CHECK_EQUAL(ratp->seq_stats(seq, &stats), RATP_OK);
    return stats.length;
}

/* The same tokens always; caches without memory take no forget gates. */
static inline void snapshot_feed(ratp_cache *cache, ratp_seq *seq, uint32_t tokens)
{
    ratp_step *step = host_step(cache, seq, tokens);
    struct ratp_attend_io io = host_io();
    if (ratp->step_attend(step, 0, &io)) {
        io.f = NULL;
        CHECK_EQUAL(ratp->step_attend(step, 0, &io), RATP_OK);
    }
    for (uint32_t layer = 1; layer < LAYERS; layer++)
        CHECK_EQUAL(ratp->step_attend(step, layer, &io), RATP_OK);
    CHECK_EQUAL(ratp->step_commit(&step), RATP_OK);
}

struct bytes {
    unsigned char *data;
    uint64_t size;
};

/* In memory of its exact size. */
static inline struct bytes snapshot_save(ratp_seq *seq)
{
    struct bytes saved = {NULL, 0};
    uint64_t again = 0;
    CHECK_EQUAL(ratp->seq_save(seq, NULL, 0, &saved.size), RATP_OK);
    saved.data = malloc(saved.size);
    CHECK_EQUAL(ratp->seq_save(seq, saved.data, saved.size, &again), RATP_OK);
    CHECK_EQUAL(again, saved.size);
    return saved;
}

static inline struct bytes snapshot_read(const char *path)
{
    struct bytes read = {malloc(1 << 20), 0};
    FILE *file = fopen(path, "rb");
    if (CHECK(file != NULL)) {
        read.size = fread(read.data, 1, 1 << 20, file);
        fclose(file);
    }
    return read;
}

static inline void snapshot_folder(char folder[64])
{
    strcpy(folder, "/tmp/ratplus-snapshot-XXXXXX");
    if (!CHECK(mkdtemp(folder) != NULL))
        exit(1);
}

static inline int snapshot_files(const char *folder)
{
    int count = 0;
    DIR *entries = opendir(folder);
    for (struct dirent *entry; entries && (entry = readdir(entries));)
        count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    if (CHECK(entries != NULL))
        closedir(entries);
    return count;
}

#endif
