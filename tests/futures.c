#include "futures.h"

#include "check.h"
#include "random.h"

#include <stdlib.h>

static uint64_t hash(uint64_t sum, const void *data, uint64_t size)
{
    const unsigned char *bytes = data;
    for (uint64_t i = 0; i < size; i++)
        sum = (sum ^ bytes[i]) * 0x100000001b3u;
    return sum;
}

static const uint64_t start = 0xcbf29ce484222325u;

static uint64_t saved(const struct future_view *view, ratp_seq *seq)
{
    uint64_t size = 0;
    CHECK(view->api->seq_save(seq, NULL, 0, &size) == RATP_OK);
    unsigned char *data = malloc(size);
    CHECK(view->api->seq_save(seq, data, size, &size) == RATP_OK);
    /* The last word is a checksum of all others. */
    uint64_t sum = hash(start, data + size - 4, 4) ^ size << 32;
    free(data);
    return sum;
}

static uint64_t listed(const struct future_view *view, ratp_seq *seq)
{
    static uint32_t positions[FUTURE_TOKENS];
    uint64_t sum = start, count = 0;
    for (uint32_t layer = 0; layer < view->layers; layer++)
        for (uint32_t head = 0; head < view->kv_heads; head++) {
            CHECK(view->api->seq_positions(seq, layer, head, positions, FUTURE_TOKENS, &count) ==
                  RATP_OK);
            sum = hash(sum, &count, sizeof count);
            sum = hash(sum, positions, count * sizeof *positions);
        }
    return sum;
}

static ratp_seq *fork_of(const struct future_view *view, ratp_seq *seq)
{
    ratp_seq *fork = NULL;
    if (!CHECK(view->api->seq_fork(seq, &fork) == RATP_OK))
        exit(1);
    return fork;
}

static void destroy(const struct future_view *view, ratp_seq *seq)
{
    CHECK(view->api->seq_destroy(&seq) == RATP_OK);
}

static void read_future(const struct future_view *view, ratp_seq *seq, struct future *out)
{
    out->positions = listed(view, seq);
    out->saved = saved(view, seq);
    ratp_seq *fork = fork_of(view, seq);
    out->compress = view->api->seq_compress(fork);
    out->compressed = out->compress ? 0 : saved(view, fork);
    destroy(view, fork);
    for (uint32_t p = 0; p < view->policy_count; p++) {
        fork = fork_of(view, seq);
        out->policy[p] = view->api->seq_set_policy(fork, view->policies[p]);
        out->changed[p] = out->policy[p] ? 0 : saved(view, fork);
        destroy(view, fork);
    }
}

void futures_read(const struct future_view *view, ratp_seq *seq, struct futures *out)
{
    struct ratp_seq_stats stats = {.struct_size = sizeof stats};
    struct random random = {view->seed};
    memset(out, 0, sizeof *out);
    CHECK(view->api->seq_stats(seq, &stats) == RATP_OK);
    out->tokens = (uint32_t)stats.length;
    out->pages = stats.pages;
    out->shared = stats.pages_shared;
    out->bytes = stats.bytes;
    read_future(view, seq, &out->now);
    uint32_t tokens = out->tokens, near = tokens < 9 ? tokens : 9;
    for (uint32_t i = 0; i < view->samples && tokens; i++) {
        uint32_t length = tokens - random_in(&random, 1, random_chance(&random, 50) ? near : tokens);
        ratp_seq *fork = fork_of(view, seq);
        out->later[i].truncate = view->api->seq_truncate(fork, length);
        if (!out->later[i].truncate)
            read_future(view, fork, &out->later[i]);
        destroy(view, fork);
    }
    /* One fork, shorter and shorter. */
    ratp_seq *fork = fork_of(view, seq);
    for (uint32_t n = 0; n < view->lengths && n <= tokens && n <= FUTURE_TOKENS; n++)
        out->truncate[n] = view->api->seq_truncate(fork, tokens - n);
    destroy(view, fork);
}

static bool same(uint64_t before, uint64_t after, const char *what, const char *of,
                 uint32_t number)
{
    if (before == after)
        return true;
    fprintf(stderr, "  %s: %s %u was %llx and is %llx\n", what, of, number,
            (unsigned long long)before, (unsigned long long)after);
    return false;
}

static bool same_status(ratp_status before, ratp_status after, const char *what, const char *of,
                        uint32_t number)
{
    return same((uint64_t)before, (uint64_t)after, what, of, number);
}

static bool same_future(const struct future *before, const struct future *after, const char *what,
                        uint32_t number)
{
    bool good = same_status(before->truncate, after->truncate, what, "truncation to sample", number) &
                same_status(before->compress, after->compress, what, "compression at sample", number) &
                same(before->positions, after->positions, what, "what is listed at sample", number) &
                same(before->saved, after->saved, what, "what is saved at sample", number) &
                same(before->compressed, after->compressed, what,
                     "what is saved after compression at sample", number);
    for (uint32_t p = 0; p < FUTURE_POLICIES && good; p++)
        good = same_status(before->policy[p], after->policy[p], what, "change to policy", p) &
               same(before->changed[p], after->changed[p], what, "what is saved after policy", p);
    return good;
}

bool futures_equal(const struct futures *before, const struct futures *after, const char *what)
{
    bool good = same(before->tokens, after->tokens, what, "length", 0) &
                same(before->pages, after->pages, what, "number of pages", 0) &
                same(before->shared, after->shared, what, "number of shared pages", 0) &
                same(before->bytes, after->bytes, what, "number of bytes", 0);
    good = good && same_future(&before->now, &after->now, what, 0);
    for (uint32_t i = 0; i < FUTURE_SAMPLES && good; i++)
        good = same_future(&before->later[i], &after->later[i], what, i + 1);
    for (uint32_t n = 0; n <= FUTURE_TOKENS && good; n++)
        good = same_status(before->truncate[n], after->truncate[n], what, "truncation by", n);
    return CHECK(good);
}
