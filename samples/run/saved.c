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
static bool fingerprint(const struct model *model, uint64_t *out, struct problem *problem)
{
    uint64_t sum = 0xcbf29ce484222325u;
    for (uint32_t i = 0; i < model->weights.part_count; i++) {
        const struct file *file = &model->weights.parts[i].file;
        const uint64_t size = file->size, stride = size / MODEL_SAMPLES + 1;
        char bytes[8];
        sum = hash(sum, &size, sizeof size);
        for (uint64_t at = 0; at < size; at += stride) {
            const size_t some = size - at < sizeof bytes ? (size_t)(size - at) : sizeof bytes;
            if (!file_read_at(file, at, bytes, some, problem))
                return false;
            sum = hash(sum, bytes, some);
        }
    }
    *out = sum;
    return true;
}

bool saved_write(const struct interactive *it, const char *path, struct problem *problem)
{
    const struct ratp_api *ratp = it->engine->ratp;
    const struct conversation *now = conversations_now(&it->conversations);
    struct head head = {.version = VERSION, .count = now->count};
    if (!fingerprint(it->engine->model, &head.model, problem) ||
        !plugin_check(ratp, ratp->seq_save(now->seq, NULL, 0, &head.snapshot), now->seq,
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

/* More than any snapshot of this model's cache takes for so many tokens: keys and values as
 * float32 four times over, and what is there of no tokens. */
static uint64_t largest_snapshot(const struct model_config *config, uint32_t tokens)
{
    const uint64_t token = 8 * (uint64_t)config->layers * config->d_model;
    return 4 * token * ((uint64_t)tokens + 64) + (16u << 20);
}

/* The head of a file whose parts are all there. */
static bool read_head(const struct interactive *it, const struct file *file, struct head *head,
                      struct problem *problem)
{
    const char *path = file->path;
    if (file->size < sizeof *head)
        return problem_set(problem, "%s: not a conversation that /save wrote", path);
    if (!file_read_at(file, 0, head, sizeof *head, problem))
        return false;
    if (memcmp(head->magic, magic, sizeof magic) != 0)
        return problem_set(problem, "%s: not a conversation that /save wrote", path);
    if (head->version != VERSION)
        return problem_set(problem, "%s: of version %u; this program reads %d", path,
                           head->version, VERSION);
    const uint64_t rest = file->size - sizeof *head;
    const uint64_t tokens = head->count * (uint64_t)sizeof(int32_t);
    if (rest < tokens || rest - tokens != head->snapshot)
        return problem_set(problem, "%s: damaged: %" PRIu64 " bytes, but it begins with the sizes "
                           "of %" PRIu64 " of tokens and %" PRIu64 " of cache", path, file->size,
                           tokens, head->snapshot);
    return (head->count <= it->conversations.limit &&
            memchr(head->variant, '\0', sizeof head->variant)) ||
           problem_set(problem, "%s: %u tokens, of at most %u", path, head->count,
                       it->conversations.limit);
}

/* Whether the head is what was saved, with this model; `tokens` follow it. */
static bool check_head(const struct interactive *it, const char *path, const struct head *head,
                       const char *tokens, struct problem *problem)
{
    const struct model *model = it->engine->model;
    const uint64_t most = largest_snapshot(&model->config, head->count);
    uint64_t sum;
    if (hash_text(head, tokens) != head->checksum)
        return problem_set(problem, "%s: damaged: its tokens are not those that were saved", path);
    if (!fingerprint(model, &sum, problem))
        return false;
    if (head->model != sum)
        return problem_set(problem, "%s: saved with another model than %s", path, model->folder);
    return head->snapshot <= most ||
           problem_set(problem, "%s: damaged: %" PRIu64 " bytes of cache for %u tokens; no cache "
                       "of this model has more than %" PRIu64, path, head->snapshot, head->count,
                       most);
}

/* `size` bytes of the file, to be freed. */
static bool read_part(const struct file *file, uint64_t offset, uint64_t size, char **out,
                      struct problem *problem)
{
    *out = malloc((size_t)size + 1);
    if (!*out)
        return problem_set(problem, "%s: out of memory for %" PRIu64 " bytes", file->path, size);
    return file_read_at(file, offset, *out, (size_t)size, problem);
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
    struct file file;
    char *tokens = NULL, *snapshot = NULL;
    if (!file_open(&file, path, problem))
        return false;
    /* Each part is read when what comes before it has said that it is worth its memory. */
    bool good = read_head(it, &file, &head, problem);
    const uint64_t size = good ? head.count * (uint64_t)sizeof(int32_t) : 0;
    good = good && read_part(&file, sizeof head, size, &tokens, problem) &&
           check_head(it, path, &head, tokens, problem) &&
           read_part(&file, sizeof head + size, head.snapshot, &snapshot, problem);
    file_close(&file);
    if (good) {
        loaded.count = head.count;
        memcpy(loaded.variant, head.variant, sizeof loaded.variant);
        good = read_tokens(it, path, tokens, &loaded, problem) &&
               read_sequence(it, path, snapshot, head.snapshot, &loaded, problem);
    }
    free(tokens);
    free(snapshot);
    if (good) {
        conversations_replace(&it->conversations, &loaded);
        return true;
    }
    if (loaded.seq)
        it->engine->ratp->seq_destroy(&loaded.seq);
    free(loaded.tokens);
    return false;
}
