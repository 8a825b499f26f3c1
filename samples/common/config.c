#include "config.h"
#include "file.h"

#include <stdlib.h>

static const char *const own_keys[] = {
    "architecture", "block", "context", "d_model", "feed_forward", "head_size", "heads",
    "kv_heads", "layers", "memory", "norm_eps", "rope", "tie_embedding", "tokenizer",
    "vocabulary", NULL};

static void read_sizes(struct fields *f, struct model_config *config)
{
    config->layers = fields_whole(f, "layers", 1, 4096);
    config->d_model = fields_whole(f, "d_model", 1, 65536);
    config->heads = fields_whole(f, "heads", 1, 1024);
    const uint32_t kv_heads = fields_whole(f, "kv_heads", 1, 1024);
    config->head_size = fields_whole(f, "head_size", 1, MODEL_MAX_HEAD_SIZE);
    config->feed_forward = fields_whole(f, "feed_forward", 1, 1u << 20);
    config->vocabulary = fields_whole(f, "vocabulary", 1, 1u << 18);
    config->context = fields_whole(f, "context", 1, 1u << 24);

    if (f->good && kv_heads != config->heads)
        f->good = problem_set(f->problem,
                              "%s: \"kv_heads\" is %u, but this block needs as many as \"heads\" "
                              "(%u)",
                              f->path, kv_heads, config->heads);
    if (f->good && (uint64_t)config->heads * config->head_size != config->d_model)
        f->good = problem_set(f->problem,
                              "%s: \"heads\" (%u) times \"head_size\" (%u) is not \"d_model\" (%u)",
                              f->path, config->heads, config->head_size, config->d_model);
    /* The shaders read weights sixteen bytes at a time. */
    if (f->good && (config->head_size % 8 != 0 || config->feed_forward % 8 != 0))
        f->good = problem_set(f->problem,
                              "%s: \"head_size\" (%u) and \"feed_forward\" (%u) must be multiples "
                              "of 8",
                              f->path, config->head_size, config->feed_forward);
}

static void read_own_rope(struct fields *f, struct ratp_rope *rope)
{
    static const char *const keys[] = {"style", "theta", NULL};
    static const char *const styles[] = {"none", "half", "interleaved"};
    struct fields own = fields_of(f, "rope", "an object with \"style\" and \"theta\"");
    *rope = (struct ratp_rope){.struct_size = sizeof *rope};
    fields_only(&own, (const char *const *const[]){keys}, 1);
    rope->style = fields_choice(&own, "style", styles, 3, "\"half\", \"interleaved\" or \"none\"");
    if (rope->style != RATP_ROPE_NONE)
        rope->theta = fields_number(&own, "theta", 1, CONFIG_MAX_THETA);
    f->good = own.good;
}

static void read_fields(struct fields *f, struct model_config *config)
{
    static const char *const architectures[] = {"ratplus"};
    static const char *const blocks[] = {"gelu", "llama"};
    static const char *const tokens[] = {"bytes", "sentencepiece"};

    fields_choice(f, "architecture", architectures, 1, "\"ratplus\"");
    fields_only(f, (const char *const *const[]){own_keys, config_foreign_keys[0],
                                                config_foreign_keys[1], config_foreign_keys[2]},
                1 + CONFIG_FOREIGN_LISTS);
    config->block =
        (enum model_block)fields_choice(f, "block", blocks, 2, "\"gelu\" or \"llama\"");
    read_sizes(f, config);
    const double norm_eps = fields_number(f, "norm_eps", 1e-30, 1);
    config->norm_eps = (float)norm_eps;
    read_own_rope(f, &config->rope);
    config->tie_embedding = fields_flag(f, "tie_embedding");
    config->memory = !fields_find(f, "memory") || fields_flag(f, "memory");
    config->tokens = (enum model_tokens)fields_choice(f, "tokenizer", tokens, 2,
                                                      "\"bytes\" or \"sentencepiece\"");
    if (f->good && config->tokens == MODEL_TOKENS_BYTES && config->vocabulary < 256)
        f->good = problem_set(f->problem, "%s: byte tokens need a \"vocabulary\" of 256, not %u",
                              f->path, config->vocabulary);
    config_read_foreign(f, config, norm_eps);
    config_read_rope(f, config);
}

static int line_of(const char *text, const char *end)
{
    int line = 1;
    for (; text < end; text++)
        line += *text == '\n';
    return line;
}

bool config_read(const char *path, struct model_config *config, struct problem *problem)
{
    char *text;
    size_t size;
    const char *end = NULL;
    *config = (struct model_config){0};
    if (!file_read(path, FILE_MAX_CONFIG, &text, &size, problem))
        return false;
    struct fields fields = {.path = path, .name = "", .problem = problem, .good = true};
    cJSON *root = cJSON_ParseWithLengthOpts(text, size + 1, &end, true);
    if (!cJSON_IsObject(root))
        fields.good = problem_set(problem, "%s: not a JSON object (line %d)", path,
                                  line_of(text, end ? end : text));
    fields.object = root;
    if (fields.good)
        read_fields(&fields, config);
    cJSON_Delete(root);
    free(text);
    return fields.good;
}
