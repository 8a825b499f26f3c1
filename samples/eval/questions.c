#include "questions.h"
#include "file.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Where the reader is, for its messages. */
struct reader {
    const char *path;
    uint32_t line;
    const struct tokenizer *tokenizer;
    struct problem *problem;
};

static bool wrong(const struct reader *r, const char *what)
{
    return problem_set(r->problem, "%s: line %u: %s", r->path, r->line, what);
}

static bool append(struct reader *r, struct question_row *row, const char *text)
{
    int32_t *tokens = NULL;
    uint32_t count = 0;
    if (!tokenizer_encode(r->tokenizer, text, strlen(text), &tokens, &count, r->problem))
        return false;
    int32_t *grown = realloc(row->tokens, ((size_t)row->count + count + 1) * sizeof *grown);
    if (grown) {
        memcpy(grown + row->count, tokens, count * sizeof *tokens);
        row->tokens = grown;
        row->count += count;
    }
    free(tokens);
    return grown || wrong(r, "out of memory");
}

static bool read_whole(const cJSON *item, uint32_t max, uint32_t *out)
{
    const double value = cJSON_IsNumber(item) ? item->valuedouble : -1;
    if (value < 0 || value > max || value != (uint32_t)value)
        return false;
    *out = (uint32_t)value;
    return true;
}

static bool read_question(struct reader *r, const cJSON *from, struct question_row *row)
{
    const char *ask = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(from, "ask"));
    const char *answer = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(from, "answer"));
    struct question *to = &row->questions[row->question_count];
    if (!ask || !answer || !*answer)
        return wrong(r, "a question needs the texts \"ask\" and \"answer\"");
    if (!read_whole(cJSON_GetObjectItemCaseSensitive(from, "distance"), 1u << 24, &to->distance))
        return wrong(r, "\"distance\" must be a whole number from 0 to 16777216");
    if (!append(r, row, ask))
        return false;
    to->first = row->count;
    if (!append(r, row, answer))
        return false;
    to->count = row->count - to->first;
    if (to->first == 0)
        return wrong(r, "nothing stands before the first answer");
    row->question_count++;
    return true;
}

static bool read_row(struct reader *r, const cJSON *from, struct question_row *row)
{
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(from, "text"));
    const cJSON *questions = cJSON_GetObjectItemCaseSensitive(from, "questions"), *question;
    const int count = cJSON_GetArraySize(questions);
    if (!text)
        return wrong(r, "\"text\" must be a text");
    if (!read_whole(cJSON_GetObjectItemCaseSensitive(from, "needles"), 1u << 20, &row->needles))
        return wrong(r, "\"needles\" must be a whole number from 0 to 1048576");
    if (!cJSON_IsArray(questions) || count < 1)
        return wrong(r, "\"questions\" must be a list with at least one question");
    row->questions = calloc((size_t)count, sizeof *row->questions);
    if (!row->questions)
        return wrong(r, "out of memory");
    if (!append(r, row, text))
        return false;
    row->text_count = row->count;
    cJSON_ArrayForEach(question, questions)
        if (!read_question(r, question, row))
            return false;
    return true;
}

static bool read_line(struct reader *r, const char *line, struct question_list *out)
{
    cJSON *root = cJSON_Parse(line);
    struct question_row *grown =
        realloc(out->rows, ((size_t)out->count + 1) * sizeof *out->rows);
    bool good = grown || wrong(r, "out of memory");
    if (good) {
        out->rows = grown;
        struct question_row *row = &grown[out->count++];
        *row = (struct question_row){0};
        good = (cJSON_IsObject(root) || wrong(r, "not a JSON object")) && read_row(r, root, row);
        out->longest = row->count > out->longest ? row->count : out->longest;
    }
    cJSON_Delete(root);
    return good;
}

bool questions_read(const char *path, const struct tokenizer *tokenizer, uint64_t limit,
                    struct question_list *out, struct problem *problem)
{
    struct reader r = {.path = path, .tokenizer = tokenizer, .problem = problem};
    char *text, *rest = NULL;
    size_t size;
    *out = (struct question_list){0};
    if (!file_read(path, FILE_MAX_TEXT, &text, &size, problem))
        return false;
    bool good = true;
    for (char *line = strtok_r(text, "\n", &rest); line && good; line = strtok_r(NULL, "\n", &rest)) {
        if (limit && out->count == limit)
            break;
        r.line++;
        good = read_line(&r, line, out);
    }
    free(text);
    if (good && out->count == 0)
        good = problem_set(problem, "%s: there is no question in it", path);
    if (!good)
        questions_free(out);
    return good;
}

void questions_free(struct question_list *list)
{
    for (uint32_t i = 0; i < list->count; i++) {
        free(list->rows[i].tokens);
        free(list->rows[i].questions);
    }
    free(list->rows);
    *list = (struct question_list){0};
}
