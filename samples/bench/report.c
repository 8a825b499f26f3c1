#include "bench.h"

#include "file.h"
#include "terminal.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <string.h>

enum { COLUMNS = 12, CELL = 32 };

static double gigabytes(const struct bench_result *r)
{
    return r->bytes / r->time.median * 1e-6;
}

static double copy_gigabytes(const struct bench *b)
{
    return b->copy_bytes / b->copy.median * 1e-6;
}

static void print_ms(char *cell, double ms)
{
    snprintf(cell, CELL, ms < 10 ? "%.3f" : ms < 1000 ? "%.1f" : "%.0f", ms);
}

void report_table(const struct bench *b)
{
    static const char *const heading[COLUMNS] = {
        "variant", "phase", "keys in", "tokens", "batch", "heads", "ms", "min", "max", "GB/s",
        "GFLOP/s", "of copy"};
    static char text[BENCH_MAX_RESULTS][COLUMNS][CELL];
    static const char *cells[(BENCH_MAX_RESULTS + 1) * COLUMNS];
    memcpy(cells, heading, sizeof heading);
    for (uint32_t i = 0; i < b->count; i++) {
        const struct bench_result *r = &b->results[i];
        char(*t)[CELL] = text[i];
        snprintf(t[0], CELL, "%s", r->variant);
        snprintf(t[1], CELL, "%s", r->phase);
        snprintf(t[2], CELL, "%s", r->keys);
        snprintf(t[3], CELL, "%llu", (unsigned long long)r->tokens);
        snprintf(t[4], CELL, "%llu", (unsigned long long)r->batch);
        snprintf(t[5], CELL, "%u/%u", r->heads, r->kv_heads);
        print_ms(t[6], r->time.median);
        print_ms(t[7], r->time.min);
        print_ms(t[8], r->time.max);
        snprintf(t[9], CELL, "%.2f", gigabytes(r));
        snprintf(t[10], CELL, r->flop ? "%.2f" : "-", r->flop / r->time.median * 1e-6);
        snprintf(t[11], CELL, "%.0f%%", 100 * gigabytes(r) / copy_gigabytes(b));
        for (uint32_t c = 0; c < COLUMNS; c++)
            cells[(i + 1) * COLUMNS + c] = t[c];
    }
    printf("%s (%s)\ncopy of %.0f MiB: %.2f ms, %.2f GB/s read and written\n\n",
           b->device.info.name, b->device.info.driver, b->copy_bytes / 2 / 1048576,
           b->copy.median, copy_gigabytes(b));
    table_print(cells, b->count + 1, COLUMNS);
    for (uint32_t i = 0; i < b->count; i++)
        if (b->results[i].attention_ms > 0)
            printf("\nmemory scan of %llu tokens: attention alone, over the caller's tensors, "
                   "takes %.1f ms\n",
                   (unsigned long long)b->results[i].tokens, b->results[i].attention_ms);
}

static void number(cJSON *object, const char *name, double value, bool *good)
{
    *good &= cJSON_AddNumberToObject(object, name, value) != NULL;
}

static void text(cJSON *object, const char *name, const char *value, bool *good)
{
    *good &= cJSON_AddStringToObject(object, name, value) != NULL;
}

static void add_time(cJSON *object, const struct bench_time *time, bool *good)
{
    number(object, "ms", time->median, good);
    number(object, "ms_min", time->min, good);
    number(object, "ms_max", time->max, good);
    number(object, "repeats", time->repeats, good);
}

static void add_result(cJSON *list, const struct bench *b, const struct bench_result *r,
                       bool *good)
{
    cJSON *o = cJSON_CreateObject();
    if (!cJSON_AddItemToArray(list, o)) {
        cJSON_Delete(o);
        *good = false;
        return;
    }
    text(o, "variant", r->variant, good);
    text(o, "phase", r->phase, good);
    text(o, "keys_in", r->keys, good);
    number(o, "tokens", (double)r->tokens, good);
    number(o, "batch", (double)r->batch, good);
    number(o, "query_heads", r->heads, good);
    number(o, "kv_heads", r->kv_heads, good);
    add_time(o, &r->time, good);
    number(o, "bytes", r->bytes, good);
    number(o, "flop", r->flop, good);
    number(o, "gb_s", gigabytes(r), good);
    number(o, "gflop_s", r->flop / r->time.median * 1e-6, good);
    number(o, "of_copy", gigabytes(r) / copy_gigabytes(b), good);
    if (r->attention_ms > 0)
        number(o, "attention_ms", r->attention_ms, good);
}

static cJSON *build(const struct bench *b, bool *good)
{
    const struct bench_options *o = &b->options;
    cJSON *root = cJSON_CreateObject();
    *good = root != NULL;
    if (!root)
        return NULL;
    text(root, "version", b->device.ratp->version(), good);
    text(root, "device", b->device.info.name, good);
    text(root, "driver", b->device.info.driver, good);
    number(root, "head_size", (double)o->head_size, good);
    text(root, "dtype", o->dtype, good);
    text(root, "cache_dtype", "f16", good);
    text(root, "retention", o->retention, good);
    cJSON *copy = cJSON_AddObjectToObject(root, "copy");
    *good &= copy != NULL;
    if (copy) {
        number(copy, "bytes_read_and_written", b->copy_bytes, good);
        add_time(copy, &b->copy, good);
        number(copy, "gb_s", copy_gigabytes(b), good);
    }
    cJSON *list = cJSON_AddArrayToObject(root, "results");
    *good &= list != NULL;
    for (uint32_t i = 0; list && i < b->count; i++)
        add_result(list, b, &b->results[i], good);
    return root;
}

bool report_json(const struct bench *b, const char *path, struct problem *problem)
{
    bool good;
    cJSON *root = build(b, &good);
    char *printed = good ? cJSON_Print(root) : NULL;
    cJSON_Delete(root);
    if (!printed)
        return problem_set(problem, "out of memory for the results");
    if (path)
        good = file_write(path, printed, strlen(printed), problem);
    else
        puts(printed);
    cJSON_free(printed);
    return good;
}
