/* The lines of the phase "cache". */
#include "report.h"
#include "terminal.h"

#include <stdio.h>
#include <stdlib.h>

#define COLUMNS 13

const char *const line_names[LINE_KINDS] = {"held", "fork", "decode", "switch", "batch"};

static const char *const headings[COLUMNS] = {
    "cache",  "variant", "kept",  "T",     "batch", "heads", "size",
    "median ms", "min ms", "max ms", "bytes", "GB/s",  "ratio"};

static const char *kept_name(const struct line *line)
{
    return line->retention == RATP_RETAIN_FULL ? "full" : "needed";
}

static void bytes_cell(const struct line *line, char *cell)
{
    char pages[CELL], states[CELL];
    bytes_print(line->page_bytes, pages, sizeof pages);
    bytes_print(line->state_bytes, states, sizeof states);
    snprintf(cell, CELL, "%.14s + %.14s", pages, states);
}

static void line_cells(const struct line *line, char (*cell)[CELL])
{
    const struct timing *t = &line->time;
    for (int i = 0; i < COLUMNS; i++)
        snprintf(cell[i], CELL, "-");
    snprintf(cell[0], CELL, "%s", line_names[line->kind]);
    snprintf(cell[1], CELL, "%.31s", line->variant);
    snprintf(cell[2], CELL, "%s", kept_name(line));
    snprintf(cell[3], CELL, "%u", line->tokens);
    snprintf(cell[4], CELL, "%u", line->batch);
    snprintf(cell[5], CELL, "%u/%u", line->query_heads, line->kv_heads);
    snprintf(cell[6], CELL, "%u", line->head_size);
    if (t->runs) {
        snprintf(cell[7], CELL, "%.3f", t->median * 1e3);
        snprintf(cell[8], CELL, "%.3f", t->min * 1e3);
        snprintf(cell[9], CELL, "%.3f", t->max * 1e3);
    }
    if (line->page_bytes)
        bytes_cell(line, cell[10]);
    if (line->needed_bytes > 0)
        snprintf(cell[11], CELL, "%.2f", line->needed_bytes / t->median / 1e9);
    if (line->ratio > 0)
        snprintf(cell[12], CELL, line->ratio < 0.1 ? "%.4f" : "%.2f", line->ratio);
}

bool report_cache_table(const struct bench *b, struct problem *problem)
{
    const size_t lines = b->line_count + 1;
    char(*cells)[CELL] = calloc(lines * COLUMNS, CELL);
    if (!cells)
        return problem_set(problem, "out of memory");
    for (uint32_t i = 0; i < COLUMNS; i++)
        snprintf(cells[i], CELL, "%s", headings[i]);
    for (uint32_t i = 0; i < b->line_count; i++)
        line_cells(&b->lines[i], &cells[(i + 1) * COLUMNS]);
    const bool good = cells_print(cells, lines, COLUMNS, problem);
    free(cells);
    return good;
}

static void add_line(cJSON *list, const struct line *line, bool *good)
{
    cJSON *item = cJSON_CreateObject();
    if (!cJSON_AddItemToArray(list, item)) {
        cJSON_Delete(item);
        *good = false;
        return;
    }
    json_text(item, "line", line_names[line->kind], good);
    json_text(item, "variant", line->variant, good);
    json_text(item, "retention", kept_name(line), good);
    json_number(item, "tokens", line->tokens, good);
    json_number(item, "batch", line->batch, good);
    json_number(item, "query_heads", line->query_heads, good);
    json_number(item, "kv_heads", line->kv_heads, good);
    json_number(item, "head_size", line->head_size, good);
    if (line->time.runs)
        json_time(item, &line->time, good);
    if (line->page_bytes) {
        json_number(item, "page_bytes", (double)line->page_bytes, good);
        json_number(item, "state_bytes", (double)line->state_bytes, good);
    }
    if (line->needed_bytes > 0) {
        json_number(item, "needed_bytes", line->needed_bytes, good);
        json_number(item, "gb_per_s", line->needed_bytes / line->time.median / 1e9, good);
    }
    if (line->ratio > 0)
        json_number(item, "ratio", line->ratio, good);
}

void report_cache_json(cJSON *root, const struct bench *b, bool *good)
{
    cJSON *list = cJSON_AddArrayToObject(root, "cache");
    *good &= list != NULL;
    for (uint32_t i = 0; i < b->line_count && *good; i++)
        add_line(list, &b->lines[i], good);
}

void json_number(cJSON *object, const char *name, double value, bool *good)
{
    *good &= cJSON_AddNumberToObject(object, name, value) != NULL;
}

void json_text(cJSON *object, const char *name, const char *value, bool *good)
{
    *good &= cJSON_AddStringToObject(object, name, value) != NULL;
}

void json_time(cJSON *object, const struct timing *t, bool *good)
{
    cJSON *time = cJSON_AddObjectToObject(object, "milliseconds");
    *good &= time != NULL;
    json_number(time, "median", t->median * 1e3, good);
    json_number(time, "min", t->min * 1e3, good);
    json_number(time, "max", t->max * 1e3, good);
    json_number(object, "runs", t->runs, good);
}
