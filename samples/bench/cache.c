/* What sequences hold, what a fork and a switch cost, and batches of unlike sequences. */
#include "cached.h"
#include "plugin.h"
#include "terminal.h"
#include "variant.h"

#include <stdio.h>

#define FEED_TOKENS 1024u /* of a step that feeds: operands have room for so many */
#define MIXED_COUNT 4u    /* variants of the mixed batch */

static const struct ratp_variant dense = {.struct_size = sizeof dense, .kind = RATP_DENSE};
static const struct ratp_variant d16 = {
    .struct_size = sizeof d16, .kind = RATP_DILATED, .dilation = 16};
static const struct ratp_variant d64 = {
    .struct_size = sizeof d64, .kind = RATP_DILATED, .dilation = 64};
static const struct ratp_variant d16w256s4 = {.struct_size = sizeof d16w256s4,
                                              .kind = RATP_DILATED,
                                              .dilation = 16,
                                              .window = 256,
                                              .sinks = 4};
static const struct ratp_variant streamw256s4 = {
    .struct_size = sizeof streamw256s4, .kind = RATP_STREAMING, .window = 256, .sinks = 4};
/* Under retention full a prompt that attends little leaves the same cache as any other. */
static const struct ratp_variant cheap = {
    .struct_size = sizeof cheap, .kind = RATP_STREAMING, .window = 64};
static const struct ratp_variant *const mixed[MIXED_COUNT] = {&dense, &d16, &d16w256s4,
                                                              &streamw256s4};

static bool check(struct bench *b, ratp_status status, const void *object, const char *what,
                  struct problem *problem)
{
    return plugin_check(b->ratp, status, object, what, problem);
}

static struct line *line_add(struct bench *b, enum line_kind kind, const struct shape *shape,
                             const char *variant, struct problem *problem)
{
    if (b->line_count == MAX_LINES) {
        problem_set(problem, "more than %d lines of the cache", MAX_LINES);
        return NULL;
    }
    struct line *line = &b->lines[b->line_count++];
    *line = (struct line){
        .kind = kind,
        .tokens = shape->tokens,
        .batch = 1,
        .query_heads = shape->query_heads,
        .kv_heads = shape->kv_heads,
        .head_size = shape->head_size,
        .retention = shape->retention,
    };
    snprintf(line->variant, sizeof line->variant, "%.63s", variant);
    return line;
}

static bool switch_to(struct bench *b, ratp_seq *seq, const struct ratp_variant *variant,
                      struct problem *problem)
{
    ratp_policy *policy = NULL;
    const bool good =
        policy_make(b, variant, &policy, problem) &&
        check(b, b->ratp->seq_set_policy(seq, policy), seq, "switch a sequence", problem);
    if (policy)
        b->ratp->policy_destroy(&policy);
    return good;
}

static bool feed(struct cached *c, uint32_t index, uint32_t tokens, struct problem *problem)
{
    double seconds;
    for (uint32_t part; tokens; tokens -= part) {
        part = tokens < FEED_TOKENS ? tokens : FEED_TOKENS;
        if (!timed_step(c, index, 1, part, &seconds, problem))
            return false;
    }
    return true;
}

/* A cache with one sequence of shape->tokens tokens. */
static bool open_fed(struct bench *b, const struct shape *shape, struct cached *c,
                     struct problem *problem)
{
    if (!cached_open(b, shape, c, problem))
        return false;
    if (seqs_create(c, problem) && feed(c, 0, shape->tokens, problem))
        return true;
    cached_close(c);
    return false;
}

/* ---- Bytes ---- */

static bool add_held(struct cached *c, const struct shape *shape,
                     const struct ratp_variant *variant, const struct line *whole,
                     struct problem *problem)
{
    struct bench *b = c->bench;
    struct ratp_cache_stats stats = {.struct_size = sizeof stats};
    char name[64];
    variant_to_name(variant, name, sizeof name);
    struct line *line = line_add(b, LINE_HELD, shape, name, problem);
    if (!line || !check(b, b->ratp->cache_stats(c->cache, &stats), c->cache,
                        "the cache's statistics", problem))
        return false;
    line->page_bytes = stats.used_bytes;
    line->state_bytes = stats.state_bytes;
    if (whole)
        line->ratio = (double)(whole->page_bytes + whole->state_bytes) /
                      (double)(line->page_bytes + line->state_bytes);
    return true;
}

/* Pages are counted in tokens, so a small head shows what a large one holds, and the long
 * prompts are affordable. */
static bool measure_held(struct bench *b, uint32_t tokens, struct problem *problem)
{
    static const struct ratp_variant *const needed[] = {&d16, &d64};
    struct shape shape = {&cheap, 1, 1, 8, tokens, 1, 1, FEED_TOKENS, RATP_RETAIN_FULL};
    struct cached c;
    if (!open_fed(b, &shape, &c, problem))
        return false;
    bool good = switch_to(b, c.seqs[0], &dense, problem) &&
                add_held(&c, &shape, &dense, NULL, problem);
    cached_close(&c);
    const struct line *whole = &b->lines[b->line_count - 1];
    shape.retention = RATP_RETAIN_NEEDED;
    for (size_t i = 0; good && i < sizeof needed / sizeof *needed; i++) {
        shape.variant = needed[i];
        if (!open_fed(b, &shape, &c, problem))
            return false;
        good = add_held(&c, &shape, needed[i], whole, problem);
        cached_close(&c);
    }
    return good;
}

/* ---- Forks and switches ---- */

/* A fork, until the device is done; the fork is then dropped. */
static bool time_fork(struct cached *c, double *seconds, struct problem *problem)
{
    struct bench *b = c->bench;
    ratp_seq *fork = NULL;
    const double start = seconds_now();
    const bool good =
        check(b, b->ratp->seq_fork(c->seqs[0], &fork), c->seqs[0], "fork", problem) &&
        check(b, b->ratp->device_wait(b->device), b->device, "wait", problem);
    *seconds = seconds_now() - start;
    if (fork)
        b->ratp->seq_destroy(&fork);
    return good;
}

static bool measure_forks(struct cached *c, const struct shape *shape, struct problem *problem)
{
    struct stopwatch *watch;
    double seconds;
    struct line *line = line_add(c->bench, LINE_FORK, shape, "any", problem);
    if (!line || !stopwatch_open(c->bench->options.repeat, &watch, problem))
        return false;
    bool good = time_fork(c, &seconds, problem);
    while (good && stopwatch_wants_more(watch)) {
        good = time_fork(c, &seconds, problem);
        stopwatch_add(watch, seconds);
    }
    if (good)
        line->time = stopwatch_read(watch);
    stopwatch_close(watch);
    return good;
}

/* The first sequence changes to `to` and back to `from`: the way there is timed. Under
 * retention needed there is no way back, and a fork changes instead. */
static bool time_switch(struct cached *c, const struct shape *shape,
                        const struct ratp_variant *from, ratp_policy *to, double *seconds,
                        struct problem *problem)
{
    struct bench *b = c->bench;
    const bool in_fork = shape->retention == RATP_RETAIN_NEEDED;
    ratp_seq *seq = c->seqs[0];
    bool good =
        !in_fork || check(b, b->ratp->seq_fork(c->seqs[0], &seq), c->seqs[0], "fork", problem);
    good = good && check(b, b->ratp->device_wait(b->device), b->device, "wait", problem);
    const double start = seconds_now();
    good = good &&
           check(b, b->ratp->seq_set_policy(seq, to), seq, "switch a sequence", problem) &&
           check(b, b->ratp->device_wait(b->device), b->device, "wait", problem);
    *seconds = seconds_now() - start;
    if (!in_fork)
        return good && switch_to(b, seq, from, problem);
    if (seq)
        b->ratp->seq_destroy(&seq);
    return good;
}

/* One decode step under `from`, and the switch from there to `to`. */
static bool measure_switch(struct cached *c, const struct shape *shape,
                           const struct ratp_variant *from, const struct ratp_variant *to,
                           struct problem *problem)
{
    struct bench *b = c->bench;
    const struct bench_options *o = &b->options;
    struct stopwatch *steps = NULL, *switches = NULL;
    ratp_policy *policy = NULL;
    double seconds;
    char from_name[64], to_name[64], both[132];
    variant_to_name(from, from_name, sizeof from_name);
    variant_to_name(to, to_name, sizeof to_name);
    snprintf(both, sizeof both, "%s to %s", from_name, to_name);
    struct line *step = line_add(b, LINE_DECODE, shape, from_name, problem);
    struct line *change = step ? line_add(b, LINE_SWITCH, shape, both, problem) : NULL;
    bool good = change && policy_make(b, to, &policy, problem) &&
                stopwatch_open(o->repeat, &steps, problem) &&
                stopwatch_open(o->repeat, &switches, problem) &&
                switch_to(b, c->seqs[0], from, problem) && time_tokens(c, steps, problem) &&
                time_switch(c, shape, from, policy, &seconds, problem);
    while (good && stopwatch_wants_more(switches)) {
        good = time_switch(c, shape, from, policy, &seconds, problem);
        stopwatch_add(switches, seconds);
    }
    if (good) {
        struct bench_options like = *o;
        like.query_heads = shape->query_heads;
        like.kv_heads = shape->kv_heads;
        like.head_size = shape->head_size;
        step->time = stopwatch_read(steps);
        step->needed_bytes =
            work_decode(&like, from, shape->tokens + WARM_STEPS + step->time.runs / 2, 1).bytes;
        change->time = stopwatch_read(switches);
        change->ratio = change->time.median / step->time.median;
    }
    stopwatch_close(steps);
    stopwatch_close(switches);
    if (policy)
        b->ratp->policy_destroy(&policy);
    return good;
}

static bool measure_changes(struct bench *b, uint32_t tokens, struct problem *problem)
{
    const struct bench_options *o = &b->options;
    const struct shape full = {&cheap, o->query_heads, o->kv_heads, o->head_size,
                               tokens, 1, 1, FEED_TOKENS, RATP_RETAIN_FULL};
    struct cached c;
    if (!open_fed(b, &full, &c, problem))
        return false;
    bool good = measure_forks(&c, &full, problem) &&
                measure_switch(&c, &full, &dense, &d16, problem) &&
                measure_switch(&c, &full, &d16, &dense, problem);
    cached_close(&c);
    if (!good)
        return false;
    /* Here the prompt is dense in earnest, which one small head makes bearable. */
    const struct shape needed = {&dense, 1, 1, o->head_size < 64 ? o->head_size : 64,
                                 tokens, 1, 1, FEED_TOKENS, RATP_RETAIN_NEEDED};
    if (!open_fed(b, &needed, &c, problem))
        return false;
    good = measure_switch(&c, &needed, &dense, &d16, problem);
    cached_close(&c);
    return good;
}

/* ---- Batches ---- */

/* Short and long ones in no order, as they come to an engine. */
static uint32_t mixed_length(uint32_t longest, uint32_t i)
{
    const uint32_t shortest = longest / 16;
    const uint32_t place = i * 13 % CACHE_BATCH;
    const uint32_t length = shortest + (longest - shortest) * place / (CACHE_BATCH - 1);
    return length ? length : 1;
}

/* Unlike sequences, and then as many equal ones that need as many bytes. */
static bool fill_batches(struct cached *c, uint32_t longest, uint32_t *equal,
                         struct problem *problem)
{
    uint64_t keys = 0;
    for (uint32_t i = 0; i < CACHE_BATCH; i++) {
        const struct ratp_variant *variant = mixed[i % MIXED_COUNT];
        const uint32_t length = mixed_length(longest, i);
        keys += attended_keys(variant, length);
        if (!feed(c, i, length, problem) || !switch_to(c->bench, c->seqs[i], variant, problem))
            return false;
    }
    *equal = (uint32_t)(keys / CACHE_BATCH);
    for (uint32_t i = CACHE_BATCH; i < 2 * CACHE_BATCH; i++)
        if (!feed(c, i, *equal, problem) || !switch_to(c->bench, c->seqs[i], &dense, problem))
            return false;
    return true;
}

/* The two batches in turns, so that a change of the machine's pace meets both. */
static bool time_batches(struct cached *c, struct stopwatch *watches[2], struct problem *problem)
{
    double seconds;
    for (int i = 0; i < WARM_STEPS || stopwatch_wants_more(watches[1]); i++)
        for (uint32_t which = 0; which < 2; which++) {
            if (!timed_step(c, which * CACHE_BATCH, CACHE_BATCH, 1, &seconds, problem))
                return false;
            if (i >= WARM_STEPS)
                stopwatch_add(watches[which], seconds);
        }
    return true;
}

static void finish_batches(struct bench *b, struct line *lines[2], uint32_t longest,
                           uint32_t equal)
{
    const struct bench_options *o = &b->options;
    const uint32_t more = WARM_STEPS + lines[0]->time.runs / 2;
    for (uint32_t i = 0; i < CACHE_BATCH; i++)
        lines[0]->needed_bytes +=
            work_decode(o, mixed[i % MIXED_COUNT], mixed_length(longest, i) + more, 1).bytes;
    lines[1]->tokens = equal;
    lines[1]->needed_bytes = work_decode(o, &dense, equal + more, CACHE_BATCH).bytes;
    lines[0]->ratio = lines[0]->time.median / lines[0]->needed_bytes * lines[1]->needed_bytes /
                      lines[1]->time.median;
    for (int which = 0; which < 2; which++)
        lines[which]->batch = CACHE_BATCH;
}

static bool measure_batches(struct bench *b, uint32_t longest, struct problem *problem)
{
    const struct bench_options *o = &b->options;
    const struct shape shape = {&cheap, o->query_heads, o->kv_heads, o->head_size, longest,
                                2 * CACHE_BATCH, 1, FEED_TOKENS, RATP_RETAIN_FULL};
    struct stopwatch *watches[2] = {NULL};
    struct line *lines[2] = {NULL};
    struct cached c;
    uint32_t equal = 0;
    if (!cached_open(b, &shape, &c, problem))
        return false;
    lines[0] = line_add(b, LINE_BATCH, &shape, "mixed", problem);
    lines[1] = lines[0] ? line_add(b, LINE_BATCH, &shape, "dense", problem) : NULL;
    const bool good = lines[1] && stopwatch_open(o->repeat, &watches[0], problem) &&
                      stopwatch_open(o->repeat, &watches[1], problem) &&
                      seqs_create(&c, problem) && fill_batches(&c, longest, &equal, problem) &&
                      time_batches(&c, watches, problem);
    for (int which = 0; good && which < 2; which++)
        lines[which]->time = stopwatch_read(watches[which]);
    if (good)
        finish_batches(b, lines, longest, equal);
    for (int which = 0; which < 2; which++)
        stopwatch_close(watches[which]);
    cached_close(&c);
    return good;
}

static uint32_t part_of(uint32_t tokens, uint32_t parts)
{
    return tokens < parts ? 1 : tokens / parts;
}

bool measure_cache(struct bench *b, uint32_t tokens, struct problem *problem)
{
    return measure_held(b, tokens, problem) &&
           measure_changes(b, part_of(tokens, 4), problem) &&
           measure_batches(b, part_of(tokens, 32), problem);
}
