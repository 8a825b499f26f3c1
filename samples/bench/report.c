#include "report.h"
#include "terminal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COLUMNS 13

const char *const phase_names[PHASE_COUNT] = {"prefill",  "decode", "external",
                                             "compress", "scan",   "cache"};

static const char *const headings[COLUMNS] = {
    "phase",  "variant", "T",    "batch",   "heads",   "median ms", "min ms",
    "max ms", "cache",   "GB/s", "GFLOP/s", "of copy", "faster"};

static double row_speedup(const struct bench *b, const struct row *row)
{
    const struct row *first = b->rows;
    while (first->phase != row->phase || first->tokens != row->tokens ||
           first->batch != row->batch)
        first++;
    return first->time.median / row->time.median;
}

static double copy_share(const struct bench *b, const struct row *row)
{
    return row->work.bytes / row->time.median / b->copy_rate;
}

static void row_cells(const struct bench *b, const struct row *row, char (*cell)[CELL])
{
    const struct timing *t = &row->time;
    snprintf(cell[0], CELL, "%s", phase_names[row->phase]);
    snprintf(cell[1], CELL, "%.31s", row->variant);
    snprintf(cell[2], CELL, "%u", row->tokens);
    snprintf(cell[3], CELL, "%u", row->batch);
    snprintf(cell[4], CELL, "%u/%u", row->query_heads, row->kv_heads);
    snprintf(cell[5], CELL, "%.3f", t->median * 1e3);
    snprintf(cell[6], CELL, "%.3f", t->min * 1e3);
    snprintf(cell[7], CELL, "%.3f", t->max * 1e3);
    if (row->cache_bytes)
        bytes_print(row->cache_bytes, cell[8], CELL);
    else
        snprintf(cell[8], CELL, "-");
    snprintf(cell[9], CELL, "%.2f", row->work.bytes / t->median / 1e9);
    snprintf(cell[10], CELL, "%.2f", row->work.flops / t->median / 1e9);
    snprintf(cell[11], CELL, "%.1f%%", 100 * copy_share(b, row));
    if (row->phase == PHASE_SCAN)
        snprintf(cell[12], CELL, "-");
    else
        snprintf(cell[12], CELL, "%.1fx", row_speedup(b, row));
}

static const char *dtype_name(ratp_dtype dtype)
{
    static const char *const names[] = {
        [RATP_F32] = "f32", [RATP_F16] = "f16", [RATP_BF16] = "bf16", [RATP_Q8_0] = "q8_0"};
    return names[dtype];
}

/* What is left of a scan's time without its attention. */
static double scan_seconds(const struct row *row)
{
    const double rest = row->time.median - row->attention_seconds;
    return rest > 0 ? rest : 0;
}

static void print_scan(const struct bench *b, const struct row *row)
{
    const double copy = row->work.bytes / b->copy_rate;
    printf("scan of %u tokens, batch %u: attention like it, alone, takes %.3f ms; the other\n"
           "%.3f ms, of memory and cache, are %.1f times a plain copy that moves as many bytes\n",
           row->tokens, row->batch, row->attention_seconds * 1e3, scan_seconds(row) * 1e3,
           scan_seconds(row) / copy);
}

static double prompt_share(const struct row *row)
{
    return row->time.median / row->prompt_seconds;
}

static void print_compress(const struct row *row)
{
    printf("compress of %u tokens by %s, batch %u, takes %.2f%% of the prompt's own %.3f ms\n",
           row->tokens, row->variant, row->batch, 100 * prompt_share(row),
           row->prompt_seconds * 1e3);
}

bool cells_print(char (*cells)[CELL], size_t lines, size_t columns, struct problem *problem)
{
    const char **texts = calloc(lines * columns, sizeof *texts);
    if (!texts)
        return problem_set(problem, "out of memory");
    for (size_t i = 0; i < lines * columns; i++)
        texts[i] = cells[i];
    table_print(texts, lines, columns);
    free(texts);
    return true;
}

bool report_table(const struct bench *b, struct problem *problem)
{
    const struct bench_options *o = &b->options;
    char copied[CELL];
    bytes_print(o->copy_bytes, copied, sizeof copied);
    printf("libratplus %s on %s (%s)\n", b->ratp->version(), b->info.name, b->info.driver);
    printf("one layer of %u in a step, head size %u, operands %s, cache %s, retention %s\n",
           o->layers, o->head_size,
           dtype_name(o->dtype), dtype_name(o->cache_dtype),
           o->retention == RATP_RETAIN_FULL ? "full" : "needed");
    printf("copy of %s: %.3f ms (%.3f to %.3f), %.2f GB/s read and written\n\n", copied,
           b->copy_time.median * 1e3, b->copy_time.min * 1e3, b->copy_time.max * 1e3,
           b->copy_rate / 1e9);

    const size_t lines = b->row_count + 1;
    char(*cells)[CELL] = calloc(lines * COLUMNS, CELL);
    bool good = cells || problem_set(problem, "out of memory");
    for (uint32_t i = 0; good && i < COLUMNS; i++)
        snprintf(cells[i], CELL, "%s", headings[i]);
    for (uint32_t i = 0; good && i < b->row_count; i++)
        row_cells(b, &b->rows[i], &cells[(i + 1) * COLUMNS]);
    good = good && (b->row_count == 0 || cells_print(cells, lines, COLUMNS, problem));
    for (uint32_t i = 0; good && i < b->row_count; i++) {
        if (b->rows[i].phase == PHASE_COMPRESS)
            print_compress(&b->rows[i]);
        if (b->rows[i].attention_seconds > 0)
            print_scan(b, &b->rows[i]);
    }
    free(cells);
    if (good && b->row_count && b->line_count)
        putchar('\n');
    return good && (b->line_count == 0 || report_cache_table(b, problem));
}

static void add_row(cJSON *list, const struct bench *b, const struct row *row, bool *good)
{
    cJSON *item = cJSON_CreateObject();
    if (!cJSON_AddItemToArray(list, item)) {
        cJSON_Delete(item);
        *good = false;
        return;
    }
    json_text(item, "phase", phase_names[row->phase], good);
    json_text(item, "variant", row->variant, good);
    json_number(item, "tokens", row->tokens, good);
    json_number(item, "batch", row->batch, good);
    json_number(item, "query_heads", row->query_heads, good);
    json_number(item, "kv_heads", row->kv_heads, good);
    json_time(item, &row->time, good);
    json_number(item, "cache_bytes", (double)row->cache_bytes, good);
    json_number(item, "needed_bytes", row->work.bytes, good);
    json_number(item, "needed_flops", row->work.flops, good);
    json_number(item, "gb_per_s", row->work.bytes / row->time.median / 1e9, good);
    json_number(item, "gflop_per_s", row->work.flops / row->time.median / 1e9, good);
    json_number(item, "share_of_copy", copy_share(b, row), good);
    if (row->phase == PHASE_SCAN)
        json_number(item, "attention_milliseconds", row->attention_seconds * 1e3, good);
    else
        json_number(item, "times_faster", row_speedup(b, row), good);
    if (row->phase == PHASE_COMPRESS) {
        json_number(item, "prompt_milliseconds", row->prompt_seconds * 1e3, good);
        json_number(item, "share_of_prompt", prompt_share(row), good);
    }
}

static void add_all(cJSON *root, const struct bench *b, bool *good)
{
    const struct bench_options *o = &b->options;
    json_text(root, "version", b->ratp->version(), good);
    cJSON *device = cJSON_AddObjectToObject(root, "device");
    *good &= device != NULL;
    json_text(device, "name", b->info.name, good);
    json_text(device, "driver", b->info.driver, good);
    cJSON *settings = cJSON_AddObjectToObject(root, "settings");
    *good &= settings != NULL;
    json_number(settings, "head_size", o->head_size, good);
    json_number(settings, "layers", o->layers, good);
    json_text(settings, "dtype", dtype_name(o->dtype), good);
    json_text(settings, "cache_dtype", dtype_name(o->cache_dtype), good);
    json_text(settings, "retention", o->retention == RATP_RETAIN_FULL ? "full" : "needed", good);
    cJSON *copy = cJSON_AddObjectToObject(root, "copy");
    *good &= copy != NULL;
    json_number(copy, "bytes", (double)o->copy_bytes, good);
    json_time(copy, &b->copy_time, good);
    json_number(copy, "gb_per_s", b->copy_rate / 1e9, good);
    cJSON *list = cJSON_AddArrayToObject(root, "rows");
    *good &= list != NULL;
    for (uint32_t i = 0; i < b->row_count && *good; i++)
        add_row(list, b, &b->rows[i], good);
    report_cache_json(root, b, good);
}

char *report_json(const struct bench *b, struct problem *problem)
{
    bool good = true;
    cJSON *root = cJSON_CreateObject();
    if (root)
        add_all(root, b, &good);
    char *printed = root && good ? cJSON_Print(root) : NULL;
    cJSON_Delete(root);
    if (!printed)
        problem_set(problem, "out of memory");
    return printed;
}
