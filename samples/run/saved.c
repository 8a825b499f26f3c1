#include "saved.h"
#include "file.h"
#include "plugin.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VERSION 1
#define MODEL_SAMPLES 4096

static const char magic[8] = {'R', 'A', 'T', 'P', 'T', 'E', 'X', 'T'};

/* What a file begins with, in the machine's byte order; the tokens and then the
 * plugin's snapshot, which has a checksum of its own, follow. */
struct head {
    char magic[8];
    uint32_t version;
    uint32_t count;    /* tokens */
    uint64_t model;    /* its fingerprint */
    uint64_t snapshot; /* bytes */
    uint64_t checksum; /* of the head up to here, the variant and the tokens */
    char variant[POLICY_NAME_SIZE];
};
_Static_assert(sizeof(struct head) == 40 + POLICY_NAME_SIZE, "the head has no padding");

/* FNV-1a */
static uint64_t hash(uint64_t sum, const void *data, size_t size)
{
    const unsigned char *bytes = data;
    for (size_t i = 0; i < size; i++)
        sum = (sum ^ bytes[i]) * 0x100000001b3u;
    return sum;
}

static uint64_t hash_text(const struct head *head, const char *tokens)
{
    uint64_t sum = hash(0xcbf29ce484222325u, head, offsetof(struct head, checksum));
    sum = hash(sum, head->variant, sizeof head->variant);
    return hash(sum, tokens, head->count * sizeof(int32_t));
}

/* Keys and values mean nothing to other weights, also where the sizes are equal.
 * Bytes from all over the file tell models apart without reading all of it. */
static uint64_t fingerprint(const struct model *model)
{
    const size_t size = model->weights.map_size, stride = size / MODEL_SAMPLES + 1;
    uint64_t sum = hash(0xcbf29ce484222325u, &size, sizeof size);
    for (size_t at = 0; at < size; at += stride)
        sum = hash(sum, (const char *)model->weights.map + at, size - at < 8 ? size - at : 8);
    return sum;
}

bool saved_write(const struct interactive *it, const char *path, struct problem *problem)
{
    const struct ratp_api *ratp = it->engine->ratp;
    const struct conversation *now = conversations_now(&it->conversations);
    struct head head = {.version = VERSION, .count = now->count,
                        .model = fingerprint(it->engine->model)};
    if (!plugin_check(ratp, ratp->seq_save(now->seq, NULL, 0, &head.snapshot), now->seq,
                      "the snapshot", problem))
        return false;
    const size_t tokens = now->count * sizeof *now->tokens;
    const size_t size = sizeof head + tokens + head.snapshot;
    char *data = malloc(size);
    if (!data)
        return problem_set(problem, "out of memory for a snapshot of %zu bytes", size);
    memcpy(head.magic, magic, sizeof magic);
    memcpy(head.variant, now->variant, sizeof head.variant);
    if (tokens > 0)
        memcpy(data + sizeof head, now->tokens, tokens);
    head.checksum = hash_text(&head, data + sizeof head);
    memcpy(data, &head, sizeof head);
    const bool good =
        plugin_check(ratp, ratp->seq_save(now->seq, data + sizeof head + tokens, head.snapshot,
                                          &head.snapshot), now->seq, "the snapshot", problem) &&
        file_write(path, data, size, problem);
    free(data);
    return good;
}

/* The head of a file whose parts are all there, and undamaged. */
static bool read_head(const struct interactive *it, const char *path, const char *data,
                      size_t size, struct head *head, struct problem *problem)
{
    if (size < sizeof *head || memcmp(data, magic, sizeof magic) != 0)
        return problem_set(problem, "%s: not a conversation that /save wrote", path);
    memcpy(head, data, sizeof *head);
    if (head->version != VERSION)
        return problem_set(problem, "%s: of version %u; this program reads %d", path,
                           head->version, VERSION);
    const uint64_t rest = size - sizeof *head, tokens = head->count * (uint64_t)sizeof(int32_t);
    if (rest < tokens || rest - tokens != head->snapshot)
        return problem_set(problem, "%s: damaged: %zu bytes, but it begins with the sizes of "
                           "%" PRIu64 " of tokens and %" PRIu64 " of cache", path, size, tokens,
                           head->snapshot);
    if (hash_text(head, data + sizeof *head) != head->checksum)
        return problem_set(problem, "%s: damaged: its tokens are not those that were saved", path);
    if (head->model != fingerprint(it->engine->model))
        return problem_set(problem, "%s: saved with another model than %s", path,
                           it->engine->model->folder);
    if (head->count > it->conversations.limit || !memchr(head->variant, '\0', sizeof head->variant))
        return problem_set(problem, "%s: %u tokens, of at most %u", path, head->count,
                           it->conversations.limit);
    return true;
}

static bool read_tokens(const struct interactive *it, const char *path, const char *data,
                        struct conversation *out, struct problem *problem)
{
    const uint32_t vocabulary = it->engine->model->config.vocabulary;
    out->tokens = malloc(((size_t)out->count + 1) * sizeof *out->tokens);
    if (!out->tokens)
        return problem_set(problem, "out of memory for %u tokens", out->count);
    memcpy(out->tokens, data, out->count * sizeof *out->tokens);
    out->room = out->count + 1;
    for (uint32_t i = 0; i < out->count; i++)
        if (out->tokens[i] < 0 || (uint32_t)out->tokens[i] >= vocabulary)
            return problem_set(problem, "%s: token %d is outside the vocabulary of %u", path,
                               out->tokens[i], vocabulary);
    return true;
}

/* The sequence, which lacks at most the last token of the text. */
static bool read_sequence(const struct interactive *it, const char *path, const char *data,
                          uint64_t size, struct conversation *out, struct problem *problem)
{
    const struct ratp_api *ratp = it->engine->ratp;
    struct ratp_seq_stats stats;
    if (!plugin_check(ratp, ratp->seq_load(it->session.cache, data, size, &out->seq),
                      it->session.cache, path, problem) ||
        !conversation_stats(&it->conversations, out, &stats, problem))
        return false;
    return stats.length == out->count || stats.length + 1 == out->count ||
           problem_set(problem, "%s: %u tokens, but a cache of %" PRIu64, path, out->count,
                       stats.length);
}

bool saved_read(struct interactive *it, const char *path, struct problem *problem)
{
    struct conversation loaded = {0};
    struct head head;
    char *data;
    size_t size;
    if (!file_read(path, &data, &size, problem))
        return false;
    bool good = read_head(it, path, data, size, &head, problem);
    if (good) {
        const char *tokens = data + sizeof head;
        loaded.count = head.count;
        memcpy(loaded.variant, head.variant, sizeof loaded.variant);
        good = read_tokens(it, path, tokens, &loaded, problem) &&
               read_sequence(it, path, tokens + head.count * sizeof(int32_t), head.snapshot,
                             &loaded, problem);
    }
    free(data);
    if (good) {
        conversations_replace(&it->conversations, &loaded);
        return true;
    }
    if (loaded.seq)
        it->engine->ratp->seq_destroy(&loaded.seq);
    free(loaded.tokens);
    return false;
}
