/* SentencePiece, a C++ library, as C functions. No exception leaves them. */
#ifndef SAMPLES_SENTENCEPIECE_SHIM_H
#define SAMPLES_SENTENCEPIECE_SHIM_H

#ifdef __cplusplus
extern "C" {
#endif

#include "problem.h"

#include <stddef.h>
#include <stdint.h>

/* `data` is what the file at `path` holds. */
bool pieces_open(const char *path, const char *data, size_t size, void **out,
                 struct problem *problem);
void pieces_close(void *pieces); /* NULL is accepted */
uint32_t pieces_count(const void *pieces);
int32_t pieces_begin(const void *pieces); /* -1: the model has none */
int32_t pieces_end(const void *pieces);   /* likewise */
bool pieces_encode(const void *pieces, const char *text, size_t size, int32_t **tokens,
                   uint32_t *count, struct problem *problem);
char *pieces_decode(const void *pieces, const int32_t *tokens, uint32_t count, size_t *size);

#ifdef __cplusplus
}
#endif

#endif
