#include "model.h"
#include "config.h"
#include "file.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Finds weights by name, and counts them so that none is left over. */
struct finder {
    struct model *model;
    struct problem *problem;
    bool *used; /* [weights.count] */
    bool good;
};

/* columns 0: a vector of `rows`. */
static const struct st_tensor *take(struct finder *f, const char *name, uint64_t rows,
                                    uint64_t columns)
{
    const struct safetensors *file = &f->model->weights;
    const struct st_tensor *tensor = safetensors_find(file, name);
    if (!f->good)
        return NULL;
    if (!tensor) {
        f->good = problem_set(f->problem, "%s: tensor \"%s\" is missing", file->path, name);
        return NULL;
    }
    const uint32_t dims = columns ? 2 : 1;
    if (tensor->dims != dims || tensor->shape[0] != rows ||
        (columns && tensor->shape[1] != columns)) {
        char wanted[48], found[ST_MAX_DIMS * 22] = "";
        size_t length = 0;
        snprintf(wanted, sizeof wanted, columns ? "%" PRIu64 ", %" PRIu64 : "%" PRIu64, rows,
                 columns);
        for (uint32_t i = 0; i < tensor->dims; i++)
            length += (size_t)snprintf(found + length, sizeof found - length, "%s%" PRIu64,
                                       i ? ", " : "", tensor->shape[i]);
        f->good = problem_set(f->problem, "%s: tensor \"%s\" has the shape [%s], config.json "
                              "wants [%s]", file->path, name, found, wanted);
        return NULL;
    }
    if (tensor->dtype != ST_F32 && tensor->dtype != ST_F16 && tensor->dtype != ST_BF16) {
        f->good = problem_set(f->problem, "%s: tensor \"%s\" is %s, not F32, F16 or BF16",
                              file->path, name, st_dtype_name(tensor->dtype));
        return NULL;
    }
    f->used[tensor - file->tensors] = true;
    return tensor;
}

static const struct st_tensor *take_layer(struct finder *f, uint32_t layer, const char *part,
                                          uint64_t rows, uint64_t columns)
{
    char name[96];
    snprintf(name, sizeof name, "layers.%u.%s.weight", layer, part);
    return take(f, name, rows, columns);
}

uint32_t model_parts(const struct model_config *config)
{
    return config->memory ? 5 : 3;
}

static bool find_weights(struct model *model, struct problem *problem)
{
    const struct model_config *config = &model->config;
    const uint64_t d = config->d_model, ff = config->feed_forward;
    struct finder f = {.model = model, .problem = problem, .good = true};
    f.used = calloc((size_t)model->weights.count + 1, sizeof *f.used);
    model->layers = calloc(config->layers, sizeof *model->layers);
    if (!f.used || !model->layers) {
        free(f.used);
        return problem_set(problem, "out of memory for %u layers", config->layers);
    }

    model->embedding = take(&f, "embedding.weight", config->vocabulary, d);
    model->norm = take(&f, "norm.weight", d, 0);
    model->head = config->tie_embedding ? model->embedding
                                        : take(&f, "head.weight", config->vocabulary, d);
    for (uint32_t i = 0; i < config->layers && f.good; i++) {
        struct model_layer *layer = &model->layers[i];
        layer->attention_norm = take_layer(&f, i, "attention_norm", d, 0);
        layer->in_proj = take_layer(&f, i, "in_proj", model_parts(config) * d, d);
        layer->out_proj = take_layer(&f, i, "out_proj", d, d);
        layer->ffn_norm = take_layer(&f, i, "ffn_norm", d, 0);
        const bool llama = config->block == MODEL_BLOCK_LLAMA;
        layer->gate = llama ? take_layer(&f, i, "gate_proj", ff, d) : NULL;
        layer->up = take_layer(&f, i, llama ? "up_proj" : "fc1", ff, d);
        layer->down = take_layer(&f, i, llama ? "down_proj" : "fc2", d, ff);
    }
    for (uint32_t i = 0; i < model->weights.count && f.good; i++)
        if (!f.used[i])
            f.good = problem_set(problem,
                                 "%s: tensor \"%.80s\" has no place in this model; does "
                                 "config.json belong to it?",
                                 model->weights.path, model->weights.tensors[i].name);
    free(f.used);
    return f.good;
}

bool model_open(struct model *model, const char *folder, struct problem *problem)
{
    *model = (struct model){0};
    char *config_path = path_join(folder, "config.json");
    model->folder = strdup(folder);
    bool good = config_path && model->folder;
    if (!good)
        problem_set(problem, "out of memory");
    good = good && config_read(config_path, &model->config, problem) &&
           safetensors_open_folder(&model->weights, folder, problem) &&
           find_weights(model, problem);
    free(config_path);
    if (!good)
        model_close(model);
    return good;
}

void model_close(struct model *model)
{
    safetensors_close(&model->weights);
    free(model->layers);
    free(model->folder);
    *model = (struct model){0};
}

void model_geometry(const struct model_config *config, uint32_t max_tokens, struct ratp_rope *rope,
                    struct ratp_geometry *geometry)
{
    *rope = config->rope;
    rope->factors = config->has_factors ? config->factors : NULL;
    *geometry = (struct ratp_geometry){
        .struct_size = sizeof *geometry,
        .layers = config->layers,
        .query_heads = config->heads,
        .kv_heads = config->heads,
        .head_size = config->head_size,
        .memory = config->memory,
        .scale = config->scale,
        .softcap = config->softcap,
        .max_tokens = max_tokens,
        .rope = rope->style == RATP_ROPE_NONE ? NULL : rope,
    };
}
