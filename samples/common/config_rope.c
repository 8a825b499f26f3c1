/* How a model's rotary positions are scaled beyond its trained context, in the words of
 * Hugging Face's configurations: "rope_scaling", or "rope_parameters" as newer ones call it. */
#include "config.h"

#include <math.h>
#include <stdlib.h>

static const double PI = 3.14159265358979323846;

#define MAX_CONTEXT (1u << 24)
#define MAX_FACTOR 1e6

/* Of both spellings. */
static const char *const common[] = {"rope_type", "type", "rope_theta", "partial_rotary_factor",
                                     NULL};
static const char *const linear[] = {"factor", NULL};
static const char *const yarn[] = {"factor", "original_max_position_embeddings", "beta_fast",
                                   "beta_slow", "attention_factor", "truncate", NULL};
static const char *const llama3[] = {"factor", "original_max_position_embeddings",
                                     "low_freq_factor", "high_freq_factor", NULL};
static const char *const nothing[] = {NULL};

/* `context` is the trained one, where the scaling does not say it. */
static void read_yarn(struct fields *f, uint32_t context, struct model_config *config)
{
    struct ratp_rope *rope = &config->rope;
    rope->yarn_factor = fields_number(f, "factor", 1, MAX_FACTOR);
    rope->yarn_context = context;
    if (fields_find(f, "original_max_position_embeddings"))
        rope->yarn_context = fields_whole(f, "original_max_position_embeddings", 1, MAX_CONTEXT);
    rope->yarn_beta_fast = 32;
    if (fields_find(f, "beta_fast"))
        rope->yarn_beta_fast = fields_number(f, "beta_fast", 1e-3, 1e6);
    rope->yarn_beta_slow = 1;
    if (fields_find(f, "beta_slow"))
        rope->yarn_beta_slow = fields_number(f, "beta_slow", 1e-3, 1e6);
    if (f->good && rope->yarn_beta_fast <= rope->yarn_beta_slow)
        fields_refuse(f, "beta_fast", "it must be more than \"beta_slow\"");
    if (fields_find(f, "attention_factor"))
        rope->yarn_attention = fields_number(f, "attention_factor", 1e-3, 1e3);
    if (fields_find(f, "truncate") && !fields_flag(f, "truncate"))
        fields_refuse(f, "truncate", "the bounds of the ramp are whole channels here");
}

/* Slow pairs are stretched, fast ones are not, and between two wavelengths it is a mixture. */
static void read_llama3(struct fields *f, struct model_config *config)
{
    const double factor = fields_number(f, "factor", 1, MAX_FACTOR);
    const double low = fields_number(f, "low_freq_factor", 1e-3, 1e6);
    const double high = fields_number(f, "high_freq_factor", 1e-3, 1e6);
    const double context = fields_whole(f, "original_max_position_embeddings", 1, MAX_CONTEXT);
    if (f->good && high <= low)
        fields_refuse(f, "high_freq_factor", "it must be more than \"low_freq_factor\"");
    if (!f->good)
        return;
    const uint32_t size = config->rope.size ? config->rope.size : config->head_size;
    for (uint32_t i = 0; i < size / 2; i++) {
        const double frequency = pow(config->rope.theta, -2.0 * i / size);
        const double turns = context * frequency / (2 * PI);
        const double share = fmin(fmax((turns - low) / (high - low), 0), 1);
        config->factors[i] = (float)(1 / ((1 - share) / factor + share));
    }
    config->has_factors = true;
}

/* Whether the field is there, which must not be where nothing turns. */
static bool has_turning(struct fields *f, const char *name, const struct model_config *config)
{
    if (fields_find(f, name) && config->rope.style == RATP_ROPE_NONE)
        fields_refuse(f, name, "\"rope.style\" is \"none\", so nothing turns");
    return f->good && fields_find(f, name);
}

/* What part of each head turns. *given is the part that the outermost object gives, 0 for none. */
static void read_part(struct fields *f, struct model_config *config, double *given)
{
    if (!has_turning(f, "partial_rotary_factor", config))
        return;
    const double part = fields_number(f, "partial_rotary_factor", 1e-3, 1);
    if (*given && part != *given)
        fields_refuse_other(f, "partial_rotary_factor", "partial_rotary_factor", *given);
    *given = part;
    const uint32_t size = (uint32_t)(config->head_size * part);
    if (size < 4 || size % 4 != 0)
        fields_refuse(f, "partial_rotary_factor",
                      "that part of \"head_size\" is not a multiple of 4 channels");
    config->rope.size = size;
}

static void check_theta(struct fields *f, const struct model_config *config)
{
    if (has_turning(f, "rope_theta", config) &&
        fields_number(f, "rope_theta", 1, CONFIG_MAX_THETA) != config->rope.theta)
        fields_refuse_other(f, "rope_theta", "rope.theta", config->rope.theta);
}

/* `context` and `part` are what the outermost object says of them. */
static void read_scaling(struct fields *f, uint32_t context, double part,
                         struct model_config *config)
{
    static const char *const types[] = {"default", "linear", "yarn", "llama3"};
    static const char *const *const known[] = {nothing, linear, yarn, llama3};
    const char *key = fields_find(f, "rope_type") ? "rope_type" : "type";
    const char *other = key[0] == 'r' ? "type" : "rope_type";
    int type = 0;
    if (fields_find(f, key))
        type = fields_choice(f, key, types, 4, "\"default\", \"linear\", \"yarn\" or \"llama3\"; "
                                               "other kinds of scaling are not supported here");
    else
        fields_refuse(f, "rope_type", "it says how the angles are scaled");
    if (f->good && fields_find(f, other) && !cJSON_Compare(fields_find(f, other),
                                                           fields_find(f, key), true))
        fields_refuse(f, other, "\"rope_type\" says otherwise");
    if (!f->good)
        return;
    fields_only(f, (const char *const *const[]){common, known[type]}, 2);
    check_theta(f, config);
    read_part(f, config, &part);
    if (type == 1)
        config->rope.scale = fields_number(f, "factor", 1, MAX_FACTOR);
    else if (type == 2)
        read_yarn(f, context, config);
    else if (type == 3)
        read_llama3(f, config);
}

void config_read_rope(struct fields *f, struct model_config *config)
{
    static const char *const keys[] = {"rope_scaling", "rope_parameters"};
    uint32_t context = config->context;
    double part = 0;
    if (fields_find(f, "max_position_embeddings"))
        context = fields_whole(f, "max_position_embeddings", 1, MAX_CONTEXT);
    check_theta(f, config);
    read_part(f, config, &part);
    if (fields_find(f, keys[0]) && fields_find(f, keys[1]))
        fields_refuse(f, keys[0], "give it or \"rope_parameters\", not both");
    for (int i = 0; i < 2 && f->good; i++) {
        if (!has_turning(f, keys[i], config))
            continue;
        struct fields scaling = fields_of(f, keys[i], "an object with \"rope_type\"");
        read_scaling(&scaling, context, part, config);
        f->good = scaling.good;
    }
}
