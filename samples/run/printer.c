#include "printer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Enough of the past for a piece to know what it follows. */
#define CONTEXT_TOKENS 8

bool printer_open(struct printer *printer, const struct tokenizer *tokenizer, const int32_t *past,
                  uint32_t past_count, uint32_t room, struct problem *problem)
{
    const uint32_t context = past_count < CONTEXT_TOKENS ? past_count : CONTEXT_TOKENS;
    *printer = (struct printer){.tokenizer = tokenizer, .count = context};
    printer->tokens = malloc(((size_t)context + room + 1) * sizeof *printer->tokens);
    if (!printer->tokens)
        return problem_set(problem, "out of memory for a text of %u tokens", room);
    memcpy(printer->tokens, past + past_count - context, context * sizeof *printer->tokens);
    free(tokenizer_decode(tokenizer, printer->tokens, context, &printer->printed));
    return true;
}

void printer_token(struct printer *printer, int32_t token)
{
    size_t size = 0;
    printer->tokens[printer->count++] = token;
    char *text = tokenizer_decode(printer->tokenizer, printer->tokens, printer->count, &size);
    if (!text)
        return;
    /* A character may be spread over several tokens; until the last it shows
     * as U+FFFD, and is held back. */
    const bool unfinished = printer->tokenizer->kind == MODEL_TOKENS_SENTENCEPIECE && size >= 3 &&
                            memcmp(text + size - 3, "\xef\xbf\xbd", 3) == 0;
    if (!unfinished && size > printer->printed) {
        fwrite(text + printer->printed, 1, size - printer->printed, stdout);
        fflush(stdout);
        printer->printed = size;
    }
    free(text);
}

void printer_close(struct printer *printer)
{
    free(printer->tokens);
    *printer = (struct printer){0};
}
