#include "oracle.h"

#include <stdlib.h>
#include <string.h>

/* Of sequence `b`: [token][head][channel]. */
static const float *rows_of(const struct golden_layer *layer, const float *all, uint32_t heads,
                            uint32_t b)
{
    return all ? all + (size_t)b * layer->tokens * heads * layer->head_size : NULL;
}

bool golden_oracle(const struct golden_layer *layer, uint32_t b, const struct naive_answer *answer)
{
    const struct naive_layer naive = {.query_heads = layer->query_heads,
                                      .kv_heads = layer->kv_heads,
                                      .head_size = layer->head_size,
                                      .scale = layer->scale,
                                      .softcap = layer->softcap,
                                      .rope = &layer->rope};
    unsigned char *prompt = calloc(layer->tokens, 1);
    if (!prompt)
        return false;
    memset(prompt, 1, layer->prefill);
    const struct naive_tokens tokens = {.count = layer->tokens,
                                        .q = rows_of(layer, layer->q, layer->query_heads, b),
                                        .k = rows_of(layer, layer->k, layer->kv_heads, b),
                                        .v = rows_of(layer, layer->v, layer->kv_heads, b),
                                        .f = rows_of(layer, layer->f, layer->kv_heads, b),
                                        .o = rows_of(layer, layer->o, layer->query_heads, b),
                                        .prompt = prompt,
                                        .compress = &layer->prefill,
                                        .compressions = 1};
    bool ok = naive_sequence(&naive, layer->variant, layer->variants, &tokens, answer);
    free(prompt);
    return ok;
}

double *golden_gaps(const struct golden_layer *layer)
{
    size_t rows = (size_t)layer->tokens * layer->query_heads;
    double *gaps = malloc(layer->batch * rows * sizeof *gaps);
    double *out = malloc(rows * layer->head_size * sizeof *out);
    bool ok = gaps && out;
    for (uint32_t b = 0; b < layer->batch && ok; b++)
        ok = golden_oracle(layer, b, &(struct naive_answer){.out = out, .gap = gaps + b * rows});
    free(out);
    if (ok)
        return gaps;
    free(gaps);
    return NULL;
}
