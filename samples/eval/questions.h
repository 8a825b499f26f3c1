/* Questions about needles: a file with one JSON object a line,
 *     {"text": "...", "needles": 2, "questions": [
 *         {"ask": "? the key of amber is ", "answer": "4821", "distance": 700}, ...]}
 * The model reads `text`, a prompt, then each `ask` and its answer in turn. An answer is
 * right when each of its tokens is the likeliest one after those before it, which
 * is what greedy decoding gives. `distance` counts the bytes since the needle. */
#ifndef EVAL_QUESTIONS_H
#define EVAL_QUESTIONS_H

#include "tokenizer.h"

struct question {
    uint32_t first, count; /* of the answer's tokens in the row */
    uint32_t distance;
};

struct question_row {
    int32_t *tokens;
    uint32_t count;
    uint32_t text_count; /* of `text`, with which the tokens begin */
    uint32_t needles;
    struct question *questions;
    uint32_t question_count;
};

struct question_list {
    struct question_row *rows;
    uint32_t count;
    uint32_t longest; /* tokens of the longest row */
};

/* Reads at most `limit` rows (0: all). */
bool questions_read(const char *path, const struct tokenizer *tokenizer, uint64_t limit,
                    struct question_list *out, struct problem *problem);
void questions_free(struct question_list *list);

#endif
