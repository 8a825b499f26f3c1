/* What may become of a sequence: which lengths it can be truncated to, whether it can be
 * compressed, which policies it can change to, and what a snapshot has of it, now and after
 * some of these. A step that is aborted, and a call that fails, change none of it. */
#ifndef RATPLUS_TESTS_FUTURES_H
#define RATPLUS_TESTS_FUTURES_H

#include <ratplus.h>
#include <stdbool.h>
#include <stdint.h>

enum { FUTURE_TOKENS = 200, FUTURE_POLICIES = 8, FUTURE_SAMPLES = 3 };

/* What a sequence of some length can do. */
struct future {
    ratp_status truncate; /* the way to this length */
    ratp_status compress, policy[FUTURE_POLICIES];
    uint64_t positions;                                /* hash of all that is listed */
    uint64_t saved, compressed, changed[FUTURE_POLICIES]; /* of snapshots: at once, then after
                                                             these; 0: refused */
};

struct futures {
    uint32_t tokens;
    uint64_t pages, shared, bytes;
    ratp_status truncate[FUTURE_TOKENS + 1];
    struct future now, later[FUTURE_SAMPLES]; /* at its length, and at shorter ones */
};

/* How they are looked at. */
struct future_view {
    const struct ratp_api *api;
    ratp_policy *const *policies; /* [policy_count] what it may change to */
    uint32_t policy_count, layers, kv_heads;
    uint32_t lengths;  /* the most that are tried, with the longest of them */
    uint32_t samples;  /* how many of `later` are looked at */
    uint64_t seed;     /* which */
};

/* Reads them from forks; the sequence stays as it is. Calls that fail although they must
 * not count as failures of the test. */
void futures_read(const struct future_view *view, ratp_seq *seq, struct futures *out);
/* False, and a line that says what differs. */
bool futures_equal(const struct futures *before, const struct futures *after, const char *what);

#endif
