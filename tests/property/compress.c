/* SnapKV in random worlds on every device: prompts in pieces, decoded tokens, steps that
 * are aborted, compression by itself and when asked, forks and snapshots. What a sequence
 * gave and what it holds are checked at the end against the naive program. A choice that
 * is too close for rounding is taken from the device, where it is one of those that
 * rounding allows; worlds.h has the arguments. */
#include "compress.h"
#include "worlds.h"

static struct world world; /* large, and one at a time */
static uint64_t worlds, complete; /* `complete`: each choice was that of the definition */
static uint64_t choices, taken, rows, left_out; /* of all worlds */

/* ---- Drawing ---- */

static struct ratp_variant draw_snapkv(struct random *r)
{
    struct ratp_variant v = {.struct_size = sizeof v, .kind = RATP_SNAPKV};
    v.observe = random_chance(r, 10) ? 0 : random_in(r, 1, 20);
    v.capacity = (v.observe ? v.observe : 32) + random_in(r, 1, random_chance(r, 30) ? 5 : 50);
    v.kernel = random_chance(r, 10) ? 0 : 2 * random_in(r, 0, random_chance(r, 10) ? 127 : 7) + 1;
    v.pool = (ratp_pooling)random_in(r, 0, 1);
    return v;
}

/* Blocks of 8 go with pages of any size. */
static struct ratp_variant draw_other(struct random *r, bool of_prompt)
{
    struct ratp_variant v = {.struct_size = sizeof v};
    v.kind = random_chance(r, 40) ? RATP_DENSE
                                  : (ratp_variant_kind)random_in(r, 1, of_prompt ? 3 : 4);
    if (of_prompt && v.kind == RATP_QUEST)
        v.kind = RATP_MOBA;
    if (v.kind == RATP_DILATED)
        v.dilation = random_in(r, 1, 12);
    if (v.kind == RATP_DILATED || v.kind == RATP_STREAMING) {
        v.window = random_in(r, 0, 30);
        v.sinks = random_in(r, 0, 6);
    }
    if (v.kind == RATP_QUEST) {
        v.page = 8;
        v.budget = 8 * random_in(r, 1, 6);
    }
    if (v.kind == RATP_MOBA) {
        v.block = 8;
        v.topk = random_in(r, 1, 6);
    }
    return v;
}

static void draw_policy(struct world *w, uint32_t p)
{
    struct random *r = &w->random;
    host_ok(w->host, w->host->instance, w->api->policy_create(w->host->instance, &w->policies[p]),
            "policy_create");
    for (uint32_t l = 0; l < w->geometry.layers; l++)
        for (uint32_t h = 0; h < w->geometry.kv_heads; h++) {
            struct ratp_variant *v = &w->variants[p][l][h];
            bool first = !l && !h;
            if (!first && random_chance(r, 40))
                *v = h ? v[-1] : w->variants[p][l - 1][0];
            else
                *v = first || random_chance(r, 60) ? draw_snapkv(r) : draw_other(r, false);
            if (random_chance(r, 20)) {
                w->prompts[p][l][h] = draw_other(r, true);
                v->prompt = &w->prompts[p][l][h];
            }
            host_ok(w->host, w->policies[p],
                    w->api->policy_set(w->policies[p], (struct ratp_range){l, 1},
                                       (struct ratp_range){h, 1}, v),
                    "policy_set");
        }
}

static void draw(struct world *w)
{
    static const uint32_t sizes[] = {8, 16, 24, 32, 40, 64, 96, 128};
    static const ratp_dtype dtypes[] = {RATP_F32, RATP_F16, RATP_BF16, RATP_Q8_0};
    struct random *r = &w->random;
    struct ratp_geometry *g = &w->geometry;
    *g = (struct ratp_geometry){.struct_size = sizeof *g, .max_tokens = 4096, .rope = &w->rope};
    g->layers = random_in(r, 1, LAYERS);
    g->kv_heads = random_in(r, 1, HEADS);
    g->query_heads = g->kv_heads * random_in(r, 1, 4);
    g->head_size = g->value_size = sizes[random_in(r, 0, 7)];
    g->memory = random_chance(r, 60);
    if (!g->memory && random_chance(r, 50))
        g->value_size = sizes[random_in(r, 0, 7)];
    g->softcap = random_chance(r, 20) ? 10 : 0;
    g->scale = random_chance(r, 20) ? 0.2f : 0;
    w->rope = (struct ratp_rope){.struct_size = sizeof w->rope,
                                 .style = (ratp_rope_style)random_in(r, 0, 2)};
    if (random_chance(r, 30))
        w->rope.size = 4 * random_in(r, 1, g->head_size / 4);
    w->params = (struct ratp_cache_params){
        .struct_size = sizeof w->params,
        .geometry = g,
        .page_slots = random_in(r, 1, 6) * 8,
        .k_dtype = dtypes[random_in(r, 0, g->head_size % 32 ? 2 : 3)],
        .v_dtype = dtypes[random_in(r, 0, g->value_size % 32 ? 2 : 3)],
        .retention = (ratp_retention)random_in(r, 0, 1),
    };
    if (random_chance(r, 30))
        w->params.k_dtype = w->params.v_dtype = RATP_F32;
    w->output_gate = random_chance(r, 40);
    w->sunk = random_chance(r, 30);
    w->buffers = random_chance(r, 50);
    for (uint32_t l = 0; l < LAYERS; l++)
        for (uint32_t h = 0; h < QUERY_HEADS; h++)
            w->sinks[l][h] = 3 * random_normal(r);
    w->max_tokens = random_in(r, 50, TOKENS);
    w->count = random_in(r, 1, SEQS);
}

static bool open_cache(struct world *w, uint32_t page_slots, ratp_cache **cache)
{
    struct ratp_cache_params params = w->params;
    params.page_slots = page_slots;
    params.policy = w->policies[0];
    return host_ok(w->host, w->device, w->api->cache_create(w->device, &params, cache),
                   "cache_create");
}

static void open_seq(struct world *w, struct sequence *s)
{
    memset(s, 0, sizeof *s);
    s->id = ++w->next_id;
    s->policy = random_in(&w->random, 0, POLICIES - 1);
    s->goal = random_in(&w->random, 1, w->max_tokens * 4 / 5);
    s->fed = MOST_OBSERVE;
    host_ok(w->host, w->cache, w->api->seq_create(w->cache, &s->seq), "seq_create");
    host_ok(w->host, s->seq, w->api->seq_set_policy(s->seq, w->policies[s->policy]),
            "seq_set_policy");
}

/* ---- Between steps ---- */

static void destroy_seq(struct world *w, ratp_seq **seq)
{
    host_ok(w->host, *seq, w->api->seq_destroy(seq), "seq_destroy");
}

/* The sequence becomes what a cache loads of its snapshot. */
static void pass(struct world *w, ratp_seq **seq, ratp_cache *to)
{
    uint64_t size = 0;
    ratp_seq *loaded = NULL;
    host_ok(w->host, *seq, w->api->seq_save(*seq, NULL, 0, &size), "seq_save");
    void *data = malloc(size);
    host_ok(w->host, *seq, w->api->seq_save(*seq, data, size, &size), "seq_save");
    if (!host_ok(w->host, to, w->api->seq_load(to, data, size, &loaded), "seq_load"))
        exit(1);
    destroy_seq(w, seq);
    *seq = loaded;
    free(data);
}

static struct futures before; /* of a call that may be refused */

static void check_refusal(struct world *w, const struct sequence *s)
{
    static struct futures after;
    read_futures(w, s, &after);
    if (!futures_equal(&before, &after, "after a refusal"))
        fprintf(stderr, "  seed %llu\n", (unsigned long long)w->seed);
}

static void compress(struct world *w, struct sequence *s)
{
    read_futures(w, s, &before);
    ratp_status status = w->api->seq_compress(s->seq);
    if (status)
        check_refusal(w, s);
    if (status != RATP_NOT_RETAINED || s->fed >= MOST_OBSERVE || !is_over(w, s))
        host_ok(w->host, s->seq, status, "seq_compress");
    if (!status)
        note_compression(w, s, s->tokens);
}

static bool any_thin(const struct world *w, const struct sequence *s)
{
    for (uint32_t l = 0; l < w->geometry.layers; l++)
        for (uint32_t h = 0; h < w->geometry.kv_heads; h++)
            if (is_thin(w, s, l, h))
                return true;
    return false;
}

/* Not below what was compressed, and where heads forget, only as far as they remember. */
static void lose_end(struct world *w, struct sequence *s)
{
    struct random *r = &w->random;
    uint32_t near = s->tokens < 9 ? s->tokens : 9;
    uint32_t length = s->tokens - random_in(r, 0, random_chance(r, 80) ? near : s->tokens);
    read_futures(w, s, &before);
    ratp_status status = w->api->seq_truncate(s->seq, length);
    if (status)
        check_refusal(w, s);
    if (length && length < s->least)
        CHECK(status == RATP_NOT_RETAINED);
    else if (status != RATP_NOT_RETAINED || !any_thin(w, s))
        host_ok(w->host, s->seq, status, "seq_truncate");
    if (status || length == s->tokens)
        return;
    s->tokens = length;
    s->fed = 0;
    s->id = ++w->next_id;
    while (s->compressions && s->lengths[s->compressions - 1] > length)
        s->compressions--;
    if (length)
        return;
    memset(s->dropped, 0, sizeof s->dropped);
    s->compressions = s->least = 0;
    s->decoded = false;
}

static void change(struct world *w)
{
    struct random *r = &w->random;
    struct sequence *s = &w->seqs[random_in(r, 0, w->count - 1)];
    struct sequence *other = &w->seqs[random_in(r, 0, w->count - 1)];
    uint32_t what = random_in(r, 0, 99);
    if (what < 5 && s->compressions < COMPRESSIONS - 2) {
        compress(w, s);
    } else if (what < 10 && s != other) {
        destroy_seq(w, &other->seq);
        *other = *s;
        if (!host_ok(w->host, s->seq, w->api->seq_fork(s->seq, &other->seq), "seq_fork"))
            exit(1);
        other->id = ++w->next_id;
    } else if (what < 14) {
        if (random_chance(r, 50))
            pass(w, &s->seq, w->spare);
        pass(w, &s->seq, w->cache);
    } else if (what < 15) {
        destroy_seq(w, &s->seq);
        open_seq(w, s);
    } else if (what < 20) {
        lose_end(w, s);
    }
}

/* ---- Worlds ---- */

static void close_cache(struct world *w, ratp_cache **cache)
{
    struct ratp_cache_stats stats = {.struct_size = sizeof stats};
    host_ok(w->host, *cache, w->api->cache_stats(*cache, &stats), "cache_stats");
    CHECK(!stats.pages_used && !stats.used_bytes && !stats.state_bytes && !stats.sequences);
    host_ok(w->host, *cache, w->api->cache_destroy(cache), "cache_destroy");
}

static bool is_full(const struct world *w)
{
    for (uint32_t i = 0; i < w->count; i++)
        if (w->seqs[i].tokens < w->max_tokens)
            return false;
    return true;
}

static void run(struct host *host, ratp_device *device, uint64_t seed)
{
    struct world *w = &world;
    memset(w, 0, sizeof *w);
    w->host = host;
    w->api = host->api;
    w->device = device;
    w->random.state = w->seed = seed;
    w->hypothetical.state = ~seed;
    struct ratp_device_info info = {.struct_size = sizeof info};
    host_ok(host, device, host->api->device_info(device, &info), "device_info");
    bool quick = info.kind == RATP_DEVICE_REFERENCE;
    w->future_lengths = quick ? FUTURE_TOKENS + 1 : 12;
    w->future_samples = quick ? FUTURE_SAMPLES : 1;
    draw(w);
    for (uint32_t p = 0; p < POLICIES; p++)
        draw_policy(w, p);
    if (!open_cache(w, w->params.page_slots, &w->cache) ||
        !open_cache(w, random_in(&w->random, 1, 6) * 8, &w->spare))
        exit(1);
    for (uint32_t i = 0; i < w->count; i++)
        open_seq(w, &w->seqs[i]);
    bool good = true;
    while (good && !is_full(w)) {
        change(w);
        good = step_once(w, !random_chance(&w->random, 12));
    }
    for (uint32_t i = 0; i < w->count; i++) {
        for (uint32_t l = 0; l < w->geometry.layers && w->seqs[i].tokens; l++)
            check_seq(w, &w->seqs[i], l);
        destroy_seq(w, &w->seqs[i].seq);
    }
    close_cache(w, &w->cache);
    close_cache(w, &w->spare);
    for (uint32_t p = 0; p < POLICIES; p++)
        host_ok(host, w->policies[p], host->api->policy_destroy(&w->policies[p]), "policy_destroy");
    worlds++;
    complete += w->choices && !w->taken;
    choices += w->choices;
    taken += w->taken;
    rows += w->rows;
    left_out += w->left_out;
}

/* A few worlds, as when a failure is looked at, may hold little. */
int main(int count, char **arguments)
{
    if (!worlds_run(count, arguments, run))
        return CHECK_SKIPPED;
    printf("heads were compressed %llu times, %llu times the choice was the device's, in %llu "
           "worlds each was the definition's; of %llu rows %llu were left out\n",
           (unsigned long long)choices, (unsigned long long)taken, (unsigned long long)complete,
           (unsigned long long)rows, (unsigned long long)left_out);
    CHECK(worlds < 8 || (choices >= 3 * worlds && complete * 2 >= worlds));
    CHECK(worlds < 8 || (taken * 10 <= choices && left_out * 20 <= rows));
    return check_result();
}
