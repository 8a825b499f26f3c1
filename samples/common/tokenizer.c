#include "tokenizer.h"
#include "file.h"
#ifdef HAVE_SENTENCEPIECE
#include "sentencepiece_shim.h"
#endif

#include <stdlib.h>

static bool open_pieces(struct tokenizer *tokenizer, const struct model *model,
                        struct problem *problem)
{
#ifdef HAVE_SENTENCEPIECE
    char *path = path_join(model->folder, "tokenizer.model");
    if (!path)
        return problem_set(problem, "out of memory");
    char *data = NULL;
    size_t size;
    bool good = file_read(path, FILE_MAX_TOKENIZER, &data, &size, problem) &&
                pieces_open(path, data, size, &tokenizer->pieces, problem);
    free(data);
    if (good && pieces_count(tokenizer->pieces) > tokenizer->vocabulary)
        good = problem_set(problem, "%s: has %u tokens, \"vocabulary\" in config.json is %u", path,
                           pieces_count(tokenizer->pieces), tokenizer->vocabulary);
    if (good) {
        tokenizer->begin = pieces_begin(tokenizer->pieces);
        tokenizer->end = pieces_end(tokenizer->pieces);
    }
    free(path);
    return good;
#else
    (void)tokenizer;
    return problem_set(problem,
                       "%s/config.json: \"tokenizer\" is \"sentencepiece\", which this build "
                       "does not have (libsentencepiece was not found)",
                       model->folder);
#endif
}

bool tokenizer_open(struct tokenizer *tokenizer, const struct model *model,
                    struct problem *problem)
{
    *tokenizer = (struct tokenizer){
        .kind = model->config.tokens,
        .vocabulary = model->config.vocabulary,
        .begin = -1,
        .end = -1,
    };
    if (tokenizer->kind == MODEL_TOKENS_BYTES)
        return true;
    if (open_pieces(tokenizer, model, problem))
        return true;
    tokenizer_close(tokenizer);
    return false;
}

void tokenizer_close(struct tokenizer *tokenizer)
{
#ifdef HAVE_SENTENCEPIECE
    pieces_close(tokenizer->pieces);
#endif
    *tokenizer = (struct tokenizer){.begin = -1, .end = -1};
}

bool tokenizer_encode(const struct tokenizer *tokenizer, const char *text, size_t size,
                      int32_t **tokens, uint32_t *count, struct problem *problem)
{
#ifdef HAVE_SENTENCEPIECE
    if (tokenizer->kind == MODEL_TOKENS_SENTENCEPIECE)
        return pieces_encode(tokenizer->pieces, text, size, tokens, count, problem);
#endif
    (void)tokenizer;
    if (size > UINT32_MAX)
        return problem_set(problem, "a text of %zu bytes is too long", size);
    *tokens = malloc((size + 1) * sizeof **tokens);
    if (!*tokens)
        return problem_set(problem, "out of memory for %zu tokens", size);
    for (size_t i = 0; i < size; i++)
        (*tokens)[i] = (uint8_t)text[i];
    *count = (uint32_t)size;
    return true;
}

char *tokenizer_decode(const struct tokenizer *tokenizer, const int32_t *tokens, uint32_t count,
                       size_t *size)
{
#ifdef HAVE_SENTENCEPIECE
    if (tokenizer->kind == MODEL_TOKENS_SENTENCEPIECE)
        return pieces_decode(tokenizer->pieces, tokens, count, size);
#endif
    (void)tokenizer;
    char *text = malloc((size_t)count + 1);
    if (!text)
        return NULL;
    for (uint32_t i = 0; i < count; i++)
        text[i] = tokens[i] < 256 ? (char)tokens[i] : '?';
    text[count] = '\0';
    *size = count;
    return text;
}
