/* A model folder: config.json and model.safetensors, or the files that
 * model.safetensors.index.json names (and, for SentencePiece tokens,
 * tokenizer.model).
 *
 * A layer is x += out_proj(attend(norm(x))), then the feed-forward, without
 * biases. The feed-forward is the RAT+ authors', x += fc2(gelu(fc1(norm(x)))), or
 * Llama's, x += down_proj(silu(gate_proj(norm(x))) * up_proj(norm(x))). in_proj
 * gives the rows o, q, k, v, f, each d_model long; without a memory, which then
 * has no gates either, q, k, v. */
#ifndef SAMPLES_MODEL_H
#define SAMPLES_MODEL_H

#include "safetensors.h"

#include <ratplus.h>

enum model_block { MODEL_BLOCK_GELU, MODEL_BLOCK_LLAMA };
enum model_tokens { MODEL_TOKENS_BYTES, MODEL_TOKENS_SENTENCEPIECE };

#define MODEL_MAX_HEAD_SIZE 256

struct model_config {
    uint32_t layers, d_model, heads, head_size, feed_forward, vocabulary;
    uint32_t context; /* the trained one, in tokens */
    float norm_eps;
    /* The rotary position and the factor and cap of scores, as the library takes them; its
     * rope.factors stand in `factors` where there are any. */
    struct ratp_rope rope;
    float factors[MODEL_MAX_HEAD_SIZE / 2];
    bool has_factors;
    float scale, softcap;
    bool tie_embedding;
    bool memory; /* RAT+; false: plain attention */
    enum model_block block;
    enum model_tokens tokens;
};

/* Weights are [rows][columns], F32, F16 or BF16. */
struct model_layer {
    const struct st_tensor *attention_norm; /* [d_model] */
    const struct st_tensor *in_proj;        /* [5 * d_model][d_model]; 3 without memory */
    const struct st_tensor *out_proj;       /* [d_model][d_model] */
    const struct st_tensor *ffn_norm;       /* [d_model] */
    const struct st_tensor *gate;           /* gate_proj, [feed_forward][d_model]; or NULL */
    const struct st_tensor *up;             /* fc1 or up_proj, [feed_forward][d_model] */
    const struct st_tensor *down;           /* fc2 or down_proj, [d_model][feed_forward] */
};

struct model {
    char *folder;
    struct model_config config;
    struct safetensors weights;
    const struct st_tensor *embedding; /* [vocabulary][d_model] */
    const struct st_tensor *norm;      /* [d_model] */
    const struct st_tensor *head;      /* [vocabulary][d_model]; `embedding` when tied */
    struct model_layer *layers;
};

/* How many rows of d_model in_proj gives. */
uint32_t model_parts(const struct model_config *config);

bool model_open(struct model *model, const char *folder, struct problem *problem);
void model_close(struct model *model);

/* The attention of this model; `config` and `rope` must outlive `geometry`. */
void model_geometry(const struct model_config *config, uint32_t max_tokens, struct ratp_rope *rope,
                    struct ratp_geometry *geometry);

#endif
