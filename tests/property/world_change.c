/* What happens to sequences between steps. */
#include "../naive.h"
#include "world.h"

static void fork_seq(struct world *w, struct world_seq *from, struct world_seq *to)
{
    const struct ratp_api *api = w->host->api;
    host_ok(w->host, to->seq, api->seq_destroy(&to->seq), "seq_destroy");
    if (!host_ok(w->host, from->seq, api->seq_fork(from->seq, &to->seq), "seq_fork"))
        exit(1);
    size_t rows = (size_t)from->tokens * w->geometry.query_heads;
    for (uint32_t l = 0; l < w->geometry.layers; l++) {
        memcpy(to->out[l], from->out[l], rows * w->geometry.value_size * sizeof(float));
        memcpy(to->lse[l], from->lse[l], rows * sizeof(float));
    }
    memcpy(to->ids, from->ids, from->tokens * sizeof *to->ids);
    memcpy(to->policies, from->policies, from->tokens * sizeof *to->policies);
    memcpy(to->prompt, from->prompt, from->tokens);
    to->policy = from->policy;
    to->tokens = from->tokens;
}

/* Whether a head lists all that a sequence of `length` tokens under a variant
 * needs, and its last token. */
static bool lists(struct world *w, const struct world_seq *s, uint32_t layer, uint32_t head,
                  const struct ratp_variant *variant, uint32_t length, bool last)
{
    uint32_t positions[MAX_TOKENS];
    uint64_t count = 0;
    bool held[MAX_TOKENS] = {false};
    host_ok(w->host, s->seq,
            w->host->api->seq_positions(s->seq, layer, head, positions, MAX_TOKENS, &count),
            "seq_positions");
    for (uint64_t i = 0; i < count; i++)
        held[positions[i]] = true;
    for (uint32_t p = 0; p < length; p++)
        if (!held[p] && (naive_attends(variant, length, p) || (last && p == length - 1)))
            return false;
    return true;
}

static const struct ratp_variant dense = {.struct_size = sizeof dense};

static const struct ratp_variant *keeps(const struct world *w, uint32_t policy, uint32_t layer,
                                        uint32_t head)
{
    const struct ratp_variant *v = &w->variants[policy][layer][head];
    const struct ratp_variant *prompt = v->prompt ? v->prompt : v;
    /* Blocks are chosen among all, and two variants may want different tokens. */
    bool thin = v->kind <= RATP_STREAMING && prompt->kind == v->kind &&
                prompt->dilation == v->dilation && prompt->window == v->window &&
                prompt->sinks == v->sinks;
    return w->params.retention == RATP_RETAIN_NEEDED && thin ? v : &dense;
}

/* Whether all is still listed that the sequence needs under a policy. */
static bool is_retained(struct world *w, const struct world_seq *s, uint32_t policy,
                        uint32_t length, bool last)
{
    for (uint32_t l = 0; l < w->geometry.layers; l++)
        for (uint32_t h = 0; h < w->geometry.kv_heads; h++)
            if (!lists(w, s, l, h, keeps(w, policy, l, h), length, last))
                return false;
    return true;
}

static void truncate_seq(struct world *w, struct world_seq *s, uint32_t length)
{
    bool must = is_retained(w, s, s->policy, length, w->geometry.memory && length);
    ratp_status status = w->host->api->seq_truncate(s->seq, length);
    if (must)
        host_ok(w->host, s->seq, status, "seq_truncate");
    CHECK(status == RATP_OK || status == RATP_NOT_RETAINED);
    if (status == RATP_OK)
        s->tokens = length;
    struct ratp_seq_stats stats = {.struct_size = sizeof stats};
    host_ok(w->host, s->seq, w->host->api->seq_stats(s->seq, &stats), "seq_stats");
    CHECK(stats.length == s->tokens);
    if (status == RATP_OK)
        world_check_slots(w, s);
}

static void switch_seq(struct world *w, struct world_seq *s, uint32_t policy)
{
    bool must = is_retained(w, s, policy, s->tokens, false);
    ratp_status status = w->host->api->seq_set_policy(s->seq, w->policies[policy]);
    if (must)
        host_ok(w->host, s->seq, status, "seq_set_policy");
    CHECK(status == RATP_OK || status == RATP_NOT_RETAINED);
    if (status != RATP_OK)
        return;
    s->policy = policy;
    world_check_slots(w, s);
    CHECK(is_retained(w, s, policy, s->tokens, false));
}

static void destroy_seq(struct world *w, ratp_seq **seq)
{
    host_ok(w->host, *seq, w->host->api->seq_destroy(seq), "seq_destroy");
}

static void remove_seq(struct world *w, struct world_seq *s)
{
    destroy_seq(w, &s->seq);
    if (!host_ok(w->host, w->cache, w->host->api->seq_create(w->cache, &s->seq), "seq_create"))
        exit(1);
    s->tokens = s->policy = 0;
}

static void *save_seq(struct world *w, ratp_seq *seq, uint64_t *size)
{
    host_ok(w->host, seq, w->host->api->seq_save(seq, NULL, 0, size), "seq_save");
    void *data = malloc(*size);
    host_ok(w->host, seq, w->host->api->seq_save(seq, data, *size, size), "seq_save");
    return data;
}

static ratp_seq *load_seq(struct world *w, ratp_cache *cache, const void *data, uint64_t size)
{
    ratp_seq *seq = NULL;
    if (!host_ok(w->host, cache, w->host->api->seq_load(cache, data, size, &seq), "seq_load"))
        exit(1);
    return seq;
}

/* The sequence becomes its loaded copy; now and then by way of the spare cache. */
static void reload_seq(struct world *w, struct world_seq *s)
{
    uint64_t size = 0;
    void *data = save_seq(w, s->seq, &size);
    bool early = random_chance(&w->random, 50);
    if (early)
        destroy_seq(w, &s->seq);
    if (random_chance(&w->random, 50)) {
        uint64_t other_size = 0;
        ratp_seq *other = load_seq(w, w->spare, data, size);
        void *other_data = save_seq(w, other, &other_size);
        destroy_seq(w, &other);
        /* Only rings depend on the pages. */
        if (w->params.retention == RATP_RETAIN_FULL)
            CHECK(other_size == size && memcmp(other_data, data, size) == 0);
        free(data);
        data = other_data;
        size = other_size;
    }
    if (!early)
        destroy_seq(w, &s->seq);
    s->seq = load_seq(w, w->cache, data, size);
    free(data);
    struct ratp_seq_stats stats = {.struct_size = sizeof stats};
    host_ok(w->host, s->seq, w->host->api->seq_stats(s->seq, &stats), "seq_stats");
    CHECK(stats.length == s->tokens);
    world_check_slots(w, s);
    CHECK(is_retained(w, s, s->policy, s->tokens, false));
}

void world_futures(struct world *w, struct world_seq *s, struct futures *out)
{
    const struct future_view view = {
        .api = w->host->api, .policies = w->policies, .policy_count = w->future_policies,
        .layers = w->geometry.layers, .kv_heads = w->geometry.kv_heads,
        .lengths = w->future_lengths, .samples = w->future_samples,
        .seed = w->hypothetical.state + s->id};
    futures_read(&view, s->seq, out);
}

void world_change(struct world *w)
{
    struct random *r = &w->random;
    if (w->changes == MAX_CHANGES || !random_chance(r, 30))
        return;
    w->changes++;
    struct world_seq *s = &w->seqs[random_in(r, 0, w->count - 1)];
    struct world_seq *other = &w->seqs[random_in(r, 0, w->count - 1)];
    if (random_chance(r, 30))
        switch_seq(w, s, random_in(r, 0, MAX_POLICIES - 1));
    else if (random_chance(r, 35))
        reload_seq(w, s);
    else if (random_chance(r, 10))
        remove_seq(w, s);
    else if (s != other && random_chance(r, 60))
        fork_seq(w, s, other);
    else if (s->tokens)
        truncate_seq(w, s, random_chance(r, 50) ? s->tokens - random_in(r, 0, s->tokens < 9 ? s->tokens : 9)
                                                : random_in(r, 0, s->tokens));
    s->id = ++w->next_id;
    other->id = ++w->next_id;
}

/* ---- What must fail ---- */

/* A batch of which the last part is refused. */
static void refuse_step(struct world *w)
{
    struct random *r = &w->hypothetical;
    uint32_t count = w->count, last = count, n[MAX_SEQS + 1];
    ratp_seq *seqs[MAX_SEQS + 1], *foreign = NULL;
    ratp_part_kind kinds[MAX_SEQS + 1] = {RATP_PART_AUTO};
    for (uint32_t i = 0; i < count; i++) {
        seqs[i] = w->seqs[i].seq;
        n[i] = random_chance(r, 50) ? 1 : random_in(r, 1, 70);
        kinds[i] = (ratp_part_kind)random_in(r, 0, 2);
    }
    host_ok(w->host, w->spare, w->host->api->seq_create(w->spare, &foreign), "seq_create");
    seqs[last] = random_chance(r, 50) ? seqs[0] : foreign;
    n[last] = 1;
    if (random_chance(r, 60)) {
        last--;
        static const uint32_t wrong[] = {0, 5000, UINT32_MAX};
        n[last] = wrong[random_in(r, 0, 2)];
    } else if (random_chance(r, 30)) {
        last--;
        kinds[last] = random_chance(r, 50) ? -1 : 3;
    }
    const struct ratp_step_params params = {.struct_size = sizeof params, .count = last + 1,
                                            .seqs = seqs, .n_tokens = n, .kinds = kinds};
    ratp_step *step = NULL;
    CHECK(w->host->api->step_begin(w->cache, &params, &step) == RATP_INVALID_ARGUMENT);
    CHECK(!step);
    destroy_seq(w, &foreign);
}

static void refuse_load(struct world *w, struct world_seq *s)
{
    uint64_t size = 0;
    ratp_seq *loaded = NULL;
    unsigned char *data = save_seq(w, s->seq, &size);
    data[random_in(&w->hypothetical, 0, (uint32_t)size - 1)] ^= 64;
    CHECK(w->host->api->seq_load(w->cache, data, size, &loaded) != RATP_OK && !loaded);
    free(data);
}

/* What a fork refuses, the sequence refuses, too; what is granted is not asked of it. */
static void refuse_change(struct world *w, struct world_seq *s)
{
    const struct ratp_api *api = w->host->api;
    uint32_t length = random_in(&w->hypothetical, 0, s->tokens + 3);
    uint32_t policy = random_in(&w->hypothetical, 0, MAX_POLICIES - 1);
    int what = (int)random_in(&w->hypothetical, 0, 2);
    ratp_seq *fork = NULL;
    if (!host_ok(w->host, s->seq, api->seq_fork(s->seq, &fork), "seq_fork"))
        exit(1);
    ratp_status status = RATP_OK;
    for (ratp_seq *seq = fork; seq; seq = seq == fork && status ? s->seq : NULL) {
        ratp_status again = what == 0 ? api->seq_truncate(seq, length)
                          : what == 1 ? api->seq_set_policy(seq, w->policies[policy])
                                      : api->seq_compress(seq);
        CHECK(seq == fork || again == status);
        status = again;
    }
    destroy_seq(w, &fork);
}

void world_refuse(struct world *w)
{
    static struct futures before[MAX_SEQS], after;
    struct random *r = &w->hypothetical;
    r->state += w->next_id;
    if (!random_chance(r, 6))
        return;
    struct random kept = *r;
    for (uint32_t i = 0; i < w->count; i++)
        world_futures(w, &w->seqs[i], &before[i]);
    struct world_seq *s = &w->seqs[random_in(r, 0, w->count - 1)];
    uint32_t what = random_in(r, 0, 9);
    if (what < 4)
        refuse_step(w);
    else if (what < 5)
        refuse_load(w, s);
    else
        refuse_change(w, s);
    *r = kept;
    for (uint32_t i = 0; i < w->count; i++) {
        world_futures(w, &w->seqs[i], &after);
        if (!futures_equal(&before[i], &after, "after a call that failed"))
            fprintf(stderr, "  seed %llu, sequence %u, call %u\n", (unsigned long long)w->seed,
                    w->seqs[i].id, what);
    }
}
