/* Text to tokens and back: bytes, or SentencePiece where the build has it. */
#ifndef SAMPLES_TOKENIZER_H
#define SAMPLES_TOKENIZER_H

#include "model.h"

struct tokenizer {
    enum model_tokens kind;
    uint32_t vocabulary;
    int32_t begin, end; /* of a text; -1: none */
    void *pieces; /* SentencePiece's processor */
};

bool tokenizer_open(struct tokenizer *tokenizer, const struct model *model,
                    struct problem *problem);
void tokenizer_close(struct tokenizer *tokenizer);
/* The tokens of a prompt, to be freed; SentencePiece puts its begin token first. */
bool tokenizer_encode(const struct tokenizer *tokenizer, const char *text, size_t size,
                      int32_t **tokens, uint32_t *count, struct problem *problem);
/* The text of tokens, with a NUL, to be freed; NULL when out of memory. */
char *tokenizer_decode(const struct tokenizer *tokenizer, const int32_t *tokens, uint32_t count,
                       size_t *size);

#endif
