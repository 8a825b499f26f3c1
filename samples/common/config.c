#include "config.h"
#include "file.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Reads the fields of one file; the first that is wrong is the problem. */
struct reader {
    const char *path;
    const cJSON *root;
    struct problem *problem;
    bool good;
};

static void wrong(struct reader *r, const char *name, const char *wanted)
{
    if (r->good)
        r->good = problem_set(r->problem, "%s: \"%s\" must be %s", r->path, name, wanted);
}

static uint32_t whole(struct reader *r, const char *name, uint32_t max)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(r->root, name);
    const double value = cJSON_IsNumber(item) ? item->valuedouble : 0;
    if (value >= 1 && value <= max && floor(value) == value)
        return (uint32_t)value;
    if (r->good)
        r->good = problem_set(r->problem, "%s: \"%s\" must be a whole number from 1 to %u",
                              r->path, name, max);
    return 1;
}

static double positive(struct reader *r, const cJSON *object, const char *name)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
    if (cJSON_IsNumber(item) && item->valuedouble > 0 && item->valuedouble < 1e30)
        return item->valuedouble;
    wrong(r, name, "a positive number");
    return 1;
}

/* The index of the field's text in `names`. */
static int choice(struct reader *r, const cJSON *object, const char *name,
                  const char *const *names, int count, const char *wanted)
{
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, name));
    for (int i = 0; text && i < count; i++)
        if (strcmp(text, names[i]) == 0)
            return i;
    wrong(r, name, wanted);
    return 0;
}

static void read_fields(struct reader *r, struct model_config *config)
{
    static const char *const architectures[] = {"ratplus"};
    static const char *const blocks[] = {"gelu", "llama"};
    static const char *const styles[] = {"none", "half", "interleaved"};
    static const char *const tokens[] = {"bytes", "sentencepiece"};

    choice(r, r->root, "architecture", architectures, 1, "\"ratplus\"");
    config->block = (enum model_block)choice(r, r->root, "block", blocks, 2,
                                             "\"gelu\" or \"llama\"");
    config->layers = whole(r, "layers", 4096);
    config->d_model = whole(r, "d_model", 65536);
    config->heads = whole(r, "heads", 1024);
    const uint32_t kv_heads = whole(r, "kv_heads", 1024);
    config->head_size = whole(r, "head_size", 256);
    config->feed_forward = whole(r, "feed_forward", 1u << 20);
    config->vocabulary = whole(r, "vocabulary", 1u << 18);
    config->context = whole(r, "context", 1u << 24);
    config->norm_eps = (float)positive(r, r->root, "norm_eps");

    const cJSON *rope = cJSON_GetObjectItemCaseSensitive(r->root, "rope");
    if (!cJSON_IsObject(rope))
        wrong(r, "rope", "an object with \"style\" and \"theta\"");
    config->rope_style = choice(r, rope, "style", styles, 3,
                                "\"half\", \"interleaved\" or \"none\" (in \"rope\")");
    if (config->rope_style != RATP_ROPE_NONE)
        config->rope_theta = positive(r, rope, "theta");

    const cJSON *tie = cJSON_GetObjectItemCaseSensitive(r->root, "tie_embedding");
    if (!cJSON_IsBool(tie))
        wrong(r, "tie_embedding", "true or false");
    config->tie_embedding = cJSON_IsTrue(tie);
    const cJSON *memory = cJSON_GetObjectItemCaseSensitive(r->root, "memory");
    if (memory && !cJSON_IsBool(memory))
        wrong(r, "memory", "true (the default) or false");
    config->memory = !cJSON_IsFalse(memory);
    config->tokens = (enum model_tokens)choice(r, r->root, "tokenizer", tokens, 2,
                                               "\"bytes\" or \"sentencepiece\"");

    if (r->good && kv_heads != config->heads)
        r->good = problem_set(r->problem,
                              "%s: \"kv_heads\" is %u, but this block needs as many as \"heads\" "
                              "(%u)",
                              r->path, kv_heads, config->heads);
    if (r->good && (uint64_t)config->heads * config->head_size != config->d_model)
        r->good = problem_set(r->problem,
                              "%s: \"heads\" (%u) times \"head_size\" (%u) is not \"d_model\" (%u)",
                              r->path, config->heads, config->head_size, config->d_model);
    /* The shaders read weights sixteen bytes at a time. */
    if (r->good && (config->head_size % 8 != 0 || config->feed_forward % 8 != 0))
        r->good = problem_set(r->problem,
                              "%s: \"head_size\" (%u) and \"feed_forward\" (%u) must be multiples "
                              "of 8",
                              r->path, config->head_size, config->feed_forward);
    if (r->good && config->tokens == MODEL_TOKENS_BYTES && config->vocabulary < 256)
        r->good = problem_set(r->problem, "%s: byte tokens need a \"vocabulary\" of 256, not %u",
                              r->path, config->vocabulary);
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
    struct reader reader = {.path = path, .problem = problem, .good = true};
    cJSON *root = cJSON_ParseWithLengthOpts(text, size + 1, &end, true);
    if (!cJSON_IsObject(root))
        reader.good = problem_set(problem, "%s: not a JSON object (line %d)", path,
                                  line_of(text, end ? end : text));
    reader.root = root;
    if (reader.good)
        read_fields(&reader, config);
    cJSON_Delete(root);
    free(text);
    return reader.good;
}
