/* The keys of Hugging Face's configurations that may stand beside our own: those that mean
 * the same must agree, those that the library can follow are followed, and those that would
 * change the numbers in another way must have the value that changes nothing. */
#include "config.h"

#include <math.h>
#include <string.h>

/* These say nothing about what the model computes. */
static const char *const harmless[] = {
    "architectures", "attention_dropout", "auto_map", "bos_token_id", "dtype", "eos_token_id",
    "initializer_range", "max_window_layers", "model_type", "pad_token_id", "torch_dtype",
    "transformers_version", "use_cache", NULL};

/* These are read below, or in config_rope.c. */
static const char *const read_here[] = {
    "attention_multiplier", "attn_logit_softcapping", "head_dim", "hidden_act", "hidden_activation",
    "hidden_size", "intermediate_size", "layer_types", "max_position_embeddings",
    "num_attention_heads", "num_hidden_layers", "num_key_value_heads", "partial_rotary_factor",
    "query_pre_attn_scalar", "rms_norm_eps", "rope_parameters", "rope_scaling", "rope_theta",
    "sliding_window", "tie_word_embeddings", "use_sliding_window", "vocab_size", NULL};

/* These have one value, besides null, that changes nothing. */
static const char *const fixed[] = {
    "alibi", "attention_bias", "clip_qkv", "embedding_multiplier", "final_logit_softcapping",
    "logits_scaling", "mlp_bias", "no_rope_layers", "pretraining_tp", "qk_layernorm", "qk_norm",
    "qkv_bias", "quantization_config", "residual_multiplier", "use_parallel_residual",
    "use_qk_norm", NULL};
static const char *const fixed_values[] = {
    "false", "false", "null", "1", "null", "1", "false", "null", "1", "false", "false",
    "false", "null", "1", "false", "false"};

const char *const *const config_foreign_keys[CONFIG_FOREIGN_LISTS] = {harmless, read_here, fixed};

static void check_fixed(struct fields *f)
{
    for (int i = 0; fixed[i]; i++) {
        const cJSON *item = fields_find(f, fixed[i]);
        cJSON *wanted = item ? cJSON_Parse(fixed_values[i]) : NULL;
        if (item && !cJSON_Compare(item, wanted, true)) {
            char why[80] = "this program computes as if it were ";
            strcat(why, fixed_values[i]);
            fields_refuse(f, fixed[i], why);
        }
        cJSON_Delete(wanted);
    }
}

static void check_same(struct fields *f, const char *name, const char *own, double value)
{
    const cJSON *item = fields_find(f, name);
    if (item && !(cJSON_IsNumber(item) && item->valuedouble == value))
        fields_refuse_other(f, name, own, value);
}

static void check_sizes(struct fields *f, const struct model_config *c, double norm_eps)
{
    check_same(f, "hidden_size", "d_model", c->d_model);
    check_same(f, "num_hidden_layers", "layers", c->layers);
    check_same(f, "num_attention_heads", "heads", c->heads);
    check_same(f, "num_key_value_heads", "kv_heads", c->heads);
    check_same(f, "head_dim", "head_size", c->head_size);
    check_same(f, "intermediate_size", "feed_forward", c->feed_forward);
    check_same(f, "vocab_size", "vocabulary", c->vocabulary);
    check_same(f, "rms_norm_eps", "norm_eps", norm_eps);
    const cJSON *tie = fields_find(f, "tie_word_embeddings");
    if (tie && (!cJSON_IsBool(tie) || cJSON_IsTrue(tie) != c->tie_embedding))
        fields_refuse(f, "tie_word_embeddings", "\"tie_embedding\" says otherwise");
}

static void check_activation(struct fields *f, const char *name, enum model_block block)
{
    static const char *const wanted[][3] = {
        [MODEL_BLOCK_GELU] = {"gelu", "gelu", "\"block\" is \"gelu\", which is the exact GELU"},
        [MODEL_BLOCK_LLAMA] = {"silu", "swish", "\"block\" is \"llama\", which has SiLU"}};
    const cJSON *item = fields_find(f, name);
    const char *text = cJSON_GetStringValue(item);
    if (item && (!text || (strcmp(text, wanted[block][0]) != 0 &&
                           strcmp(text, wanted[block][1]) != 0)))
        fields_refuse(f, name, wanted[block][2]);
}

/* A window for all layers is what a variant is for. */
static void check_windows(struct fields *f)
{
    static const char why[] = "a model does not choose its window here; remove the key and run the "
                              "model with a variant, such as --variant streamw4095 for a window of "
                              "4096";
    const cJSON *used = fields_find(f, "use_sliding_window"), *item;
    if (used && !cJSON_IsFalse(used) && !cJSON_IsTrue(used))
        fields_flag(f, "use_sliding_window");
    if (cJSON_IsTrue(used))
        fields_refuse(f, "use_sliding_window", why);
    if (fields_find(f, "sliding_window") && !cJSON_IsFalse(used))
        fields_refuse(f, "sliding_window", why);
    const cJSON *types = fields_find(f, "layer_types");
    if (types && !cJSON_IsArray(types))
        fields_refuse(f, "layer_types", "it must be a list of \"full_attention\"");
    cJSON_ArrayForEach(item, types)
    {
        const char *type = cJSON_GetStringValue(item);
        if (!type || strcmp(type, "full_attention") != 0)
            fields_refuse(f, "layer_types", why);
    }
}

/* The factor on q . k, and its cap. */
static void read_scores(struct fields *f, struct model_config *config)
{
    static const char *const keys[] = {"query_pre_attn_scalar", "attention_multiplier"};
    if (fields_find(f, keys[0]))
        config->scale = (float)(1 / sqrt(fields_number(f, keys[0], 1e-6, 1e6)));
    if (fields_find(f, keys[0]) && fields_find(f, keys[1]))
        fields_refuse(f, keys[1], "give it or \"query_pre_attn_scalar\", not both");
    else if (fields_find(f, keys[1]))
        config->scale = (float)fields_number(f, keys[1], 1e-6, 1e6);
    if (fields_find(f, "attn_logit_softcapping"))
        config->softcap = (float)fields_number(f, "attn_logit_softcapping", 1e-3, 1e6);
}

void config_read_foreign(struct fields *f, struct model_config *config, double norm_eps)
{
    check_sizes(f, config, norm_eps);
    check_activation(f, "hidden_act", config->block);
    check_activation(f, "hidden_activation", config->block);
    check_windows(f);
    check_fixed(f);
    read_scores(f, config);
}
