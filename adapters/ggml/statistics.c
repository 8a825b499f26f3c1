#include "statistics.h"

#include "adapter.h"
#include "layers.h"
#include "policy.h"
#include "summaries.h"

#include <cjson/cJSON.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_SIZE = 64 };

static const char *const reasons[FALLBACK_REASONS] = {
    [FALLBACK_NONE] = "none",
    [FALLBACK_COPY] = "K is a copy of the cache in another type (-ctk f32)",
    [FALLBACK_NO_MASK] = "there is no mask: every query sees every key",
    [FALLBACK_MASK_HEADS] = "query heads have masks of their own",
    [FALLBACK_MASK_VALUES] = "the mask adds to the logits",
    [FALLBACK_MASK_GAPS] = "the mask hides cells before the query's own",
    [FALLBACK_MASK_STEPS] = "the mask is not causal",
    [FALLBACK_ORDER] = "cells are not known to be in order of position",
    [FALLBACK_SUMMARIES] = "the device has no memory for summaries of K",
    [FALLBACK_SUMMARY_FORM] = "no summaries can be made of a K like this",
    [FALLBACK_SNAPKV] = "snapkv needs a cache of the library's own",
};

const char *statistics_reason(enum fallback why)
{
    return reasons[why];
}

struct way {
    struct ratp_variant variant;
    char name[NAME_SIZE];
    uint64_t nodes, bytes;
};

struct counts {
    struct way way[WAYS];
    uint32_t ways;
    uint64_t fallbacks[FALLBACK_REASONS];
    uint64_t nodes, writes, written;
    double attention_seconds, write_seconds;
};

static struct {
    pthread_mutex_t lock;
    struct counts counts;
    const struct ratp_api *ratp;
    ratp_instance *instance;
} all = {
    .lock = PTHREAD_MUTEX_INITIALIZER,
    .counts = {.way = {[WAY_DENSE] = {.name = "dense"}, [WAY_MASK] = {.name = "dense by the mask"}},
               .ways = WAY_FIRST},
};

static volatile sig_atomic_t asked;

/* ---- Counting ---- */

/* The library's own name for it, from a policy that has nothing else. */
static void name_variant(const struct ratp_variant *variant, char *name)
{
    const struct ratp_range everything = {0, 0};
    char text[256] = "";
    ratp_policy *policy = NULL;
    snprintf(name, NAME_SIZE, "a variant of kind %d", variant->kind);
    if (all.ratp->policy_create(all.instance, &policy))
        return;
    if (!all.ratp->policy_set(policy, everything, everything, variant) &&
        !all.ratp->policy_to_json(policy, text, sizeof text, NULL)) {
        cJSON *json = cJSON_Parse(text);
        const char *said = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "default"));
        if (said)
            snprintf(name, NAME_SIZE, "%s", said);
        cJSON_Delete(json);
    }
    all.ratp->policy_destroy(&policy);
}

uint32_t statistics_way(const struct ratp_variant *variant)
{
    struct counts *c = &all.counts;
    if (variant->kind == RATP_DENSE)
        return WAY_DENSE;
    pthread_mutex_lock(&all.lock);
    uint32_t i = WAY_FIRST;
    while (i < c->ways && i < WAYS - 1 && !variant_is_same(&c->way[i].variant, variant))
        i++;
    if (i == c->ways) {
        c->ways++;
        c->way[i].variant = *variant;
        if (i == WAYS - 1)
            snprintf(c->way[i].name, NAME_SIZE, "further variants");
        else
            name_variant(variant, c->way[i].name);
    }
    pthread_mutex_unlock(&all.lock);
    return i;
}

void statistics_read(uint32_t way, uint64_t bytes)
{
    pthread_mutex_lock(&all.lock);
    all.counts.way[way].bytes += bytes;
    pthread_mutex_unlock(&all.lock);
}

void statistics_attention(const struct node_ways *node)
{
    pthread_mutex_lock(&all.lock);
    all.counts.nodes++;
    for (uint32_t i = 0; i < WAYS; i++)
        all.counts.way[i].nodes += node->ways >> i & 1;
    for (uint32_t i = 1; i < FALLBACK_REASONS; i++)
        all.counts.fallbacks[i] += node->fallbacks >> i & 1;
    pthread_mutex_unlock(&all.lock);
}

void statistics_rows(uint64_t bytes, double seconds)
{
    pthread_mutex_lock(&all.lock);
    all.counts.writes++;
    all.counts.written += bytes;
    all.counts.write_seconds += seconds;
    pthread_mutex_unlock(&all.lock);
}

void statistics_seconds(double seconds)
{
    pthread_mutex_lock(&all.lock);
    all.counts.attention_seconds += seconds;
    pthread_mutex_unlock(&all.lock);
}

static void read_counts(struct counts *out)
{
    pthread_mutex_lock(&all.lock);
    *out = all.counts;
    pthread_mutex_unlock(&all.lock);
}

/* ---- Printing ---- */

/* Of the policy in force. */
static void count_layers(struct layers_tally *tally)
{
    struct adapter_policy *policy = policy_now();
    layers_count(policy, tally);
    policy_give(policy);
}

static void print_layers(void)
{
    struct layers_tally tally;
    count_layers(&tally);
    if (!tally.asked)
        return;
    fprintf(stderr, "  %-52s %10s\n", "layers that the policy asks to be other than dense", "layers");
    fprintf(stderr, "  %-52s %10u\n", "follow it", tally.following);
    for (uint32_t i = 0; i < AWAY_REASONS; i++)
        if (tally.away[i])
            fprintf(stderr, "  %-52s %10u\n", layers_reason((enum away)i), tally.away[i]);
    for (uint32_t i = 1; i < FALLBACK_REASONS; i++)
        if (tally.fallbacks[i])
            fprintf(stderr, "  %-52s %10u\n", reasons[i], tally.fallbacks[i]);
}

static void print_table(void)
{
    struct counts c;
    uint64_t read = 0;
    bool any = false;
    read_counts(&c);
    complain("ran %" PRIu64 " attention nodes and %" PRIu64 " cache writes", c.nodes, c.writes);
    fprintf(stderr, "  %-52s %10s %16s\n", "attention", "nodes", "K and V, MiB");
    for (uint32_t i = 0; i < c.ways; i++) {
        read += c.way[i].bytes;
        if (c.way[i].nodes)
            fprintf(stderr, "  %-52s %10" PRIu64 " %16.3f\n", c.way[i].name, c.way[i].nodes,
                    (double)c.way[i].bytes / 0x1p20);
    }
    for (uint32_t i = 1; i < FALLBACK_REASONS; i++) {
        if (c.fallbacks[i] && !any)
            fprintf(stderr, "  %-52s %10s\n", "dense in place of a variant, because", "nodes");
        any |= c.fallbacks[i] > 0;
        if (c.fallbacks[i])
            fprintf(stderr, "  %-52s %10" PRIu64 "\n", reasons[i], c.fallbacks[i]);
    }
    print_layers();
    fprintf(stderr, "  %-52s %10s %16s\n", "all", "seconds", "MiB");
    fprintf(stderr, "  %-52s %10.3f %16.3f\n", "attention, read", c.attention_seconds,
            (double)read / 0x1p20);
    fprintf(stderr, "  %-52s %10.3f %16.3f\n", "cache writes, written", c.write_seconds,
            (double)c.written / 0x1p20);
    fprintf(stderr, "  %-52s %10s %16.3f\n", "summaries of K, held now", "",
            (double)summaries_held() / 0x1p20);
}

static cJSON *add_ways(cJSON *json, const struct counts *c)
{
    cJSON *list = cJSON_AddObjectToObject(json, "attention");
    for (uint32_t i = 0; i < c->ways; i++) {
        cJSON *way = c->way[i].nodes ? cJSON_AddObjectToObject(list, c->way[i].name) : NULL;
        cJSON_AddNumberToObject(way, "nodes", (double)c->way[i].nodes);
        cJSON_AddNumberToObject(way, "bytes", (double)c->way[i].bytes);
    }
    return list;
}

static void add_layers(cJSON *json)
{
    struct layers_tally tally;
    count_layers(&tally);
    cJSON *layers = cJSON_AddObjectToObject(json, "layers");
    cJSON_AddNumberToObject(layers, "asked", tally.asked);
    cJSON_AddNumberToObject(layers, "following", tally.following);
    cJSON *list = cJSON_AddObjectToObject(layers, "away");
    for (uint32_t i = 0; i < AWAY_REASONS; i++)
        if (tally.away[i])
            cJSON_AddNumberToObject(list, layers_reason((enum away)i), tally.away[i]);
    list = cJSON_AddObjectToObject(layers, "dense");
    for (uint32_t i = 1; i < FALLBACK_REASONS; i++)
        if (tally.fallbacks[i])
            cJSON_AddNumberToObject(list, reasons[i], tally.fallbacks[i]);
}

/* To be freed by cJSON_free; NULL without memory. */
static char *make_json(void)
{
    struct counts c;
    cJSON *json = cJSON_CreateObject();
    read_counts(&c);
    cJSON_AddNumberToObject(json, "attention_nodes", (double)c.nodes);
    cJSON_AddNumberToObject(json, "cache_writes", (double)c.writes);
    add_ways(json, &c);
    cJSON *list = cJSON_AddObjectToObject(json, "fallbacks");
    for (uint32_t i = 1; i < FALLBACK_REASONS; i++)
        if (c.fallbacks[i])
            cJSON_AddNumberToObject(list, reasons[i], (double)c.fallbacks[i]);
    add_layers(json);
    cJSON_AddNumberToObject(json, "bytes_written", (double)c.written);
    cJSON_AddNumberToObject(json, "summary_bytes", (double)summaries_held());
    cJSON_AddNumberToObject(json, "attention_seconds", c.attention_seconds);
    cJSON_AddNumberToObject(json, "write_seconds", c.write_seconds);
    char *text = cJSON_PrintUnformatted(json);
    cJSON_Delete(json);
    return text;
}

static bool wants_json(void)
{
    const char *form = getenv("RATPLUS_STATS");
    return form && strcmp(form, "json") == 0;
}

static void print(void)
{
    char *text = wants_json() ? make_json() : NULL;
    if (text)
        fprintf(stderr, "%s\n", text);
    else
        print_table();
    cJSON_free(text);
}

size_t statistics_text(char *text, size_t size)
{
    char *json = make_json();
    const size_t length = json ? strlen(json) : 0;
    if (size > 0)
        snprintf(text, size, "%s", json ? json : "");
    cJSON_free(json);
    return length;
}

/* ---- When ---- */

static void ask(int number)
{
    (void)number;
    asked = 1;
}

void statistics_poll(void)
{
    if (!asked)
        return;
    asked = 0;
    print();
}

void statistics_start(const struct ratp_api *ratp, ratp_instance *instance)
{
    all.ratp = ratp;
    all.instance = instance;
    if (!getenv("RATPLUS_STATS"))
        return;
    atexit(print);
    struct sigaction action;
    if (sigaction(SIGUSR1, NULL, &action) || (action.sa_flags & SA_SIGINFO) ||
        action.sa_handler != SIG_DFL)
        return;
    action = (struct sigaction){.sa_handler = ask, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(SIGUSR1, &action, NULL);
}
