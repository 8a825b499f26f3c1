/* ratplus-bench: how fast the plugin is on a device, and what its caches hold. */
#include "bench.h"
#include "file.h"
#include "terminal.h"
#include "variant.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool holds(const struct sizes *sizes, uint32_t value)
{
    for (uint32_t i = 0; i < sizes->count; i++)
        if (sizes->list[i] == value)
            return true;
    return false;
}

static void show(const struct bench *b, const char *what, const struct ratp_variant *variant)
{
    const struct bench_options *o = &b->options;
    char name[64] = "", label[128];
    if (variant)
        variant_to_name(variant, name, sizeof name);
    snprintf(label, sizeof label, "\033[K%s %s", what, name);
    uint32_t total = o->tokens[PHASE_CACHE].count * CACHE_LINES +
                     o->tokens[PHASE_SCAN].count * o->batches.count;
    for (enum phase phase = 0; phase < PHASE_SCAN; phase++)
        for (uint32_t t = 0; t < o->tokens[phase].count; t++)
            for (uint32_t v = 0; v < o->variant_count; v++)
                if (phase_measures(o, phase, &o->variants[v], o->tokens[phase].list[t]))
                    total += o->batches.count;
    progress_show(label, b->row_count + b->line_count, total);
}

/* One phase of one variant. Prompts and decode steps of one length share a cache. */
static bool measure_phase(struct bench *b, enum phase phase, const struct ratp_variant *variant,
                          uint32_t tokens, uint32_t batch, struct problem *problem)
{
    const struct sizes *sizes = b->options.tokens;
    switch (phase) {
    case PHASE_PREFILL:
        return measure_cached(b, variant, tokens, batch, true, holds(&sizes[PHASE_DECODE], tokens),
                              problem);
    case PHASE_DECODE:
        return holds(&sizes[PHASE_PREFILL], tokens) ||
               measure_cached(b, variant, tokens, batch, false, true, problem);
    case PHASE_EXTERNAL:
        return measure_external(b, variant, tokens, batch, problem);
    default:
        return measure_compress(b, variant, tokens, batch, problem);
    }
}

static bool measure_variant(struct bench *b, const struct ratp_variant *variant, uint32_t batch,
                            struct problem *problem)
{
    const struct bench_options *o = &b->options;
    for (enum phase phase = 0; phase < PHASE_SCAN; phase++)
        for (uint32_t i = 0; i < o->tokens[phase].count; i++) {
            const uint32_t tokens = o->tokens[phase].list[i];
            if (!phase_measures(o, phase, variant, tokens))
                continue;
            show(b, phase_names[phase], variant);
            if (!measure_phase(b, phase, variant, tokens, batch, problem))
                return false;
        }
    return true;
}

static bool measure_all(struct bench *b, struct problem *problem)
{
    const struct bench_options *o = &b->options;
    const struct sizes *scan = &o->tokens[PHASE_SCAN], *cache = &o->tokens[PHASE_CACHE];
    if (!device_measure_copy(b, problem))
        return false;
    for (uint32_t i = 0; i < o->batches.count; i++)
        for (uint32_t v = 0; v < o->variant_count; v++)
            if (!measure_variant(b, &o->variants[v], o->batches.list[i], problem))
                return false;
    for (uint32_t i = 0; i < o->batches.count; i++)
        for (uint32_t t = 0; t < scan->count; t++)
            if (!measure_scan(b, scan->list[t], o->batches.list[i], problem))
                return false;
    for (uint32_t t = 0; t < cache->count; t++) {
        show(b, "cache", NULL);
        if (!measure_cache(b, cache->list[t], problem))
            return false;
    }
    progress_show("", 1, 1);
    return true;
}

static int row_order(const struct row *a, const struct row *b)
{
    if (a->phase != b->phase)
        return a->phase < b->phase ? -1 : 1;
    if (a->tokens != b->tokens)
        return a->tokens < b->tokens ? -1 : 1;
    return (a->batch > b->batch) - (a->batch < b->batch);
}

/* Variants keep their order, which qsort does not promise. */
static void sort_rows(struct bench *b)
{
    for (uint32_t i = 1; i < b->row_count; i++) {
        const struct row row = b->rows[i];
        uint32_t to = i;
        for (; to > 0 && row_order(&b->rows[to - 1], &row) > 0; to--)
            b->rows[to] = b->rows[to - 1];
        b->rows[to] = row;
    }
}

static bool report(const struct bench *b, struct problem *problem)
{
    const struct bench_options *o = &b->options;
    bool good = o->json || report_table(b, problem);
    if (!good || !(o->json || o->out))
        return good;
    char *json = report_json(b, problem);
    if (!json)
        return false;
    if (o->json)
        puts(json);
    if (o->out)
        good = file_write(o->out, json, strlen(json), problem);
    cJSON_free(json);
    return good;
}

int main(int argc, char **argv)
{
    static struct bench bench;
    struct problem problem;
    bool done;
    if (!options_parse(argc, argv, &bench.options, &done, &problem)) {
        fprintf(stderr, "ratplus-bench: %s\n", problem.text);
        return 1;
    }
    if (done)
        return 0;
    bool good = device_open(&bench, &problem) && measure_all(&bench, &problem);
    if (good) {
        sort_rows(&bench);
        good = report(&bench, &problem);
    }
    device_close(&bench);
    if (!good)
        fprintf(stderr, "ratplus-bench: %s\n", problem.text);
    return good ? 0 : 1;
}
