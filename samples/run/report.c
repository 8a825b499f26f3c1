#include "report.h"
#include "terminal.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COLUMNS 5
#define CELL POLICY_NAME_SIZE

uint32_t report_equal_tokens(const struct report_run *first, const struct report_run *run)
{
    uint32_t equal = 0;
    for (uint32_t i = 0; i < first->result.count && i < run->result.count; i++)
        equal += first->result.tokens[i] == run->result.tokens[i];
    return equal;
}

static double prompt_speed(const struct report *report, const struct report_run *run)
{
    return tokens_per_second(report->prompt, run->result.prompt_seconds);
}

static double decode_speed(const struct report_run *run)
{
    return tokens_per_second(run->result.decoded, run->result.decode_seconds);
}

void report_stats(const struct report *report)
{
    const struct report_run *run = &report->runs[0];
    char bytes[32];
    bytes_print(run->result.cache_bytes, bytes, sizeof bytes);
    fprintf(stderr, "%s, %s: cache %s\n", report->device, run->name, bytes);
    fprintf(stderr, "prompt %u tokens, %.1f tokens/s; decoded %u tokens, %.1f tokens/s\n",
            report->prompt, prompt_speed(report, run), run->result.decoded, decode_speed(run));
}

bool report_compare(const struct report *report, struct problem *problem)
{
    static const char *const heading[COLUMNS] = {"variant", "cache", "prompt tok/s",
                                                 "decode tok/s", "as the first"};
    const size_t rows = report->count + 1;
    char(*cells)[CELL] = malloc(rows * COLUMNS * sizeof *cells);
    const char **pointers = malloc(rows * COLUMNS * sizeof *pointers);
    const bool good = cells && pointers;
    for (size_t i = 0; good && i < COLUMNS; i++)
        snprintf(cells[i], CELL, "%s", heading[i]);
    for (uint32_t i = 0; good && i < report->count; i++) {
        const struct report_run *run = &report->runs[i];
        char(*row)[CELL] = cells + (i + 1) * COLUMNS;
        snprintf(row[0], CELL, "%s", run->name);
        bytes_print(run->result.cache_bytes, row[1], CELL);
        snprintf(row[2], CELL, "%.1f", prompt_speed(report, run));
        snprintf(row[3], CELL, "%.1f", decode_speed(run));
        snprintf(row[4], CELL, "%u/%u", report_equal_tokens(&report->runs[0], run),
                 run->result.count);
    }
    for (size_t i = 0; good && i < rows * COLUMNS; i++)
        pointers[i] = cells[i];
    if (good) {
        printf("%s, %s, prompt of %u tokens\n\n", report->model, report->device, report->prompt);
        table_print(pointers, rows, COLUMNS);
        for (uint32_t i = 0; i < report->count; i++) {
            printf("\n--- %s\n", report->runs[i].name);
            fwrite(report->runs[i].text, 1, report->runs[i].text_size, stdout);
            putchar('\n');
        }
    }
    free(pointers);
    free(cells);
    return good || problem_set(problem, "out of memory for a table");
}

/* Bytes in the UTF-8 character at `text`, 0 when it is none. */
static size_t utf8_length(const unsigned char *text, size_t left)
{
    static const struct {
        unsigned char mask, lead;
        uint32_t least;
    } forms[] = {{0x80, 0, 1}, {0xe0, 0xc0, 0x80}, {0xf0, 0xe0, 0x800}, {0xf8, 0xf0, 0x10000}};
    for (size_t length = 1; length <= 4 && length <= left; length++) {
        if ((text[0] & forms[length - 1].mask) != forms[length - 1].lead)
            continue;
        uint32_t code = text[0] & (unsigned char)~forms[length - 1].mask;
        for (size_t i = 1; i < length; i++) {
            if ((text[i] & 0xc0) != 0x80)
                return 0;
            code = code << 6 | (text[i] & 0x3f);
        }
        const bool surrogate = code >= 0xd800 && code < 0xe000;
        return code >= forms[length - 1].least && code < 0x110000 && !surrogate ? length : 0;
    }
    return 0;
}

/* JSON text is UTF-8 without NULs, but byte tokens may be anything: what is
 * no character becomes U+FFFD. */
static cJSON *json_text(const char *text, size_t size)
{
    char *clean = malloc(size * 3 + 1);
    size_t used = 0;
    if (!clean)
        return NULL;
    for (size_t i = 0; i < size;) {
        const size_t length = utf8_length((const unsigned char *)text + i, size - i);
        memcpy(clean + used, length ? text + i : "\xef\xbf\xbd", length ? length : 3);
        used += length ? length : 3;
        i += length ? length : 1;
    }
    clean[used] = '\0';
    cJSON *item = cJSON_CreateString(clean);
    free(clean);
    return item;
}

static cJSON *json_run(const struct report *report, const struct report_run *run)
{
    cJSON *object = cJSON_CreateObject();
    cJSON *tokens = cJSON_CreateIntArray(run->result.tokens, (int)run->result.count);
    cJSON *text = json_text(run->text, run->text_size);
    bool good = cJSON_AddStringToObject(object, "variant", run->name) &&
                cJSON_AddNumberToObject(object, "cache_bytes", (double)run->result.cache_bytes) &&
                cJSON_AddNumberToObject(object, "prompt_tokens", report->prompt) &&
                cJSON_AddNumberToObject(object, "prompt_tokens_per_second",
                                        prompt_speed(report, run)) &&
                cJSON_AddNumberToObject(object, "decoded_tokens", run->result.decoded) &&
                cJSON_AddNumberToObject(object, "decode_tokens_per_second", decode_speed(run)) &&
                cJSON_AddNumberToObject(object, "tokens_as_first",
                                        report_equal_tokens(&report->runs[0], run));
    if (good && (good = cJSON_AddItemToObject(object, "tokens", tokens)))
        tokens = NULL;
    if (good && (good = cJSON_AddItemToObject(object, "text", text)))
        text = NULL;
    cJSON_Delete(tokens);
    cJSON_Delete(text);
    if (good)
        return object;
    cJSON_Delete(object);
    return NULL;
}

bool report_json(const struct report *report, struct problem *problem)
{
    cJSON *root = cJSON_CreateObject(), *runs = cJSON_CreateArray();
    char *text = NULL;
    bool good = cJSON_AddStringToObject(root, "model", report->model) &&
                cJSON_AddStringToObject(root, "device", report->device);
    for (uint32_t i = 0; good && i < report->count; i++) {
        cJSON *run = json_run(report, &report->runs[i]);
        good = run && cJSON_AddItemToArray(runs, run);
    }
    if (good && (good = cJSON_AddItemToObject(root, "runs", runs)))
        runs = NULL;
    if (good)
        text = cJSON_Print(root);
    if (text)
        puts(text);
    cJSON_free(text);
    cJSON_Delete(runs);
    cJSON_Delete(root);
    return text || problem_set(problem, "out of memory for the report");
}
