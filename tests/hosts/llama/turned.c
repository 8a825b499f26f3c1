/* A host that turns K in its cache, as a context shift does, under a policy that chooses by
 * summaries of K: then a token has the same logits as in a context that was given the turned
 * cache, and made its summaries from it.
 * Usage, with GGML_BACKEND_PATH and RATPLUS_POLICY set: turned MODEL.gguf */
#include <ggml-backend.h>
#include <llama.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { PROMPT = 200, DECODED = 20, TURN = 64, TOKENS = 259 };

static void fail(const char *what)
{
    printf("%s\n", what);
    exit(1);
}

static void quiet(enum ggml_log_level level, const char *text, void *user_data)
{
    (void)user_data;
    if (level == GGML_LOG_LEVEL_ERROR)
        fputs(text, stderr);
}

static struct llama_context *open_context(struct llama_model *model)
{
    struct llama_context_params params = llama_context_default_params();
    params.n_ctx = 512;
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
    struct llama_context *context = llama_init_from_model(model, params);
    if (!context)
        fail("no context");
    return context;
}

/* The logits of the last token. */
static const float *decode(struct llama_context *context, llama_token *tokens, int count)
{
    if (llama_decode(context, llama_batch_get_one(tokens, count)))
        fail("a batch is not decoded");
    return llama_get_logits_ith(context, -1);
}

static llama_token best(const float *logits)
{
    llama_token token = 3;
    for (llama_token i = 4; i < TOKENS; i++)
        if (logits[i] > logits[token])
            token = i;
    return token;
}

int main(int argc, char **argv)
{
    llama_token tokens[PROMPT];
    struct llama_model_params params = llama_model_default_params();
    params.n_gpu_layers = 99;
    llama_log_set(quiet, NULL);
    ggml_backend_load_all();
    struct llama_model *model = argc == 2 ? llama_model_load_from_file(argv[1], params) : NULL;
    if (!model)
        fail("usage: turned MODEL.gguf");
    struct llama_context *first = open_context(model), *second = open_context(model);
    for (int i = 0; i < PROMPT; i++)
        tokens[i] = 3 + (i * i + i / 7) % 256;
    llama_token token = best(decode(first, tokens, PROMPT));
    for (int i = 0; i < DECODED; i++)
        token = best(decode(first, &token, 1));
    llama_memory_seq_add(llama_get_memory(first), 0, 0, -1, TURN);
    token = best(decode(first, &token, 1));

    const size_t size = llama_state_seq_get_size(first, 0);
    uint8_t *state = malloc(size);
    if (!state || llama_state_seq_get_data(first, state, size, 0) != size ||
        llama_state_seq_set_data(second, state, size, 0) != size)
        fail("the state is not taken over");
    float apart = 0;
    const float *a = decode(first, &token, 1), *b = decode(second, &token, 1);
    for (int i = 0; i < TOKENS; i++)
        apart = fmaxf(apart, fabsf(a[i] - b[i]));
    printf("logits are %g apart\n", (double)apart);
    free(state);
    llama_free(first);
    llama_free(second);
    llama_model_free(model);
    return apart > 1e-4f;
}
