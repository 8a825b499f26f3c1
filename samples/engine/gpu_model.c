#include "gpu_model.h"
#include "terminal.h"

#include <stdlib.h>

#include "embed.spv.h"
#include "norm.spv.h"
#include "product_row.spv.h"
#include "product_tile.spv.h"

#define STAGING_BYTES (16u << 20)
/* Up to here, reading the weights anew for each row is no slower than tiles. */
#define ROW_FORM_MAX 4
/* As in product_tile.comp and product_row.comp. */
#define TILE 64
#define ROW_OUTPUTS 4

static const struct gpu_shader embed_shader = {"embed", embed_spv, sizeof embed_spv};
static const struct gpu_shader norm_shader = {"norm", norm_spv, sizeof norm_spv};
static const struct gpu_shader row_shader = {"product_row", product_row_spv,
                                             sizeof product_row_spv};
static const struct gpu_shader tile_shader = {"product_tile", product_tile_spv,
                                              sizeof product_tile_spv};

/* From the file into `staging`, and from there to the device, a piece at a time. */
static bool upload_weight(struct gpu_model *m, const struct st_tensor *tensor,
                          struct gpu_weight *out, struct gpu_buffer *staging,
                          struct problem *problem)
{
    out->dtype = tensor->dtype;
    out->rows = (uint32_t)tensor->shape[0];
    out->columns = (uint32_t)tensor->shape[1];
    bool good = gpu_buffer_create(m->gpu, tensor->bytes, GPU_DEVICE, &out->buffer, problem);
    for (uint64_t done = 0; done < tensor->bytes && good;) {
        const uint64_t rest = tensor->bytes - done;
        const size_t part = (size_t)(rest < staging->size ? rest : staging->size);
        good = st_read(tensor, done, part, staging->map, problem) &&
               gpu_upload(m->gpu, &out->buffer, done, part, staging, problem);
        done += part;
    }
    return good || problem_about(problem, tensor->name);
}

/* A vector of d_model numbers, which fits into `staging`. */
static bool upload_vector(struct gpu_model *m, const struct st_tensor *tensor,
                          struct gpu_buffer *out, struct gpu_buffer *staging,
                          struct problem *problem)
{
    const uint64_t bytes = tensor->count * sizeof(float);
    return (gpu_buffer_create(m->gpu, bytes, GPU_DEVICE, out, problem) &&
            st_read_f32(tensor, 0, tensor->count, staging->map, problem) &&
            gpu_upload(m->gpu, out, 0, bytes, staging, problem)) ||
           problem_about(problem, tensor->name);
}

static bool upload_all(struct gpu_model *m, const struct model *model, struct gpu_buffer *staging,
                       struct problem *problem)
{
    bool good = upload_weight(m, model->embedding, &m->embedding, staging, problem) &&
                upload_vector(m, model->norm, &m->norm, staging, problem);
    if (good && !model->config.tie_embedding)
        good = upload_weight(m, model->head, &m->head, staging, problem);
    for (uint32_t i = 0; i < model->config.layers && good; i++) {
        const struct model_layer *from = &model->layers[i];
        struct gpu_layer *to = &m->layers[i];
        good = upload_vector(m, from->attention_norm, &to->attention_norm, staging, problem) &&
               upload_weight(m, from->in_proj, &to->in_proj, staging, problem) &&
               upload_weight(m, from->out_proj, &to->out_proj, staging, problem) &&
               upload_vector(m, from->ffn_norm, &to->ffn_norm, staging, problem) &&
               (!from->gate || upload_weight(m, from->gate, &to->gate, staging, problem)) &&
               upload_weight(m, from->up, &to->up, staging, problem) &&
               upload_weight(m, from->down, &to->down, staging, problem);
        progress_show("weights", i + 1, model->config.layers);
    }
    return good;
}

bool gpu_model_open(struct gpu_model *m, struct gpu *gpu, const struct model *model,
                    struct problem *problem)
{
    struct gpu_buffer staging = {0};
    *m = (struct gpu_model){.gpu = gpu, .config = &model->config};
    m->layers = calloc(model->config.layers, sizeof *m->layers);
    if (!m->layers)
        return problem_set(problem, "out of memory for %u layers", model->config.layers);
    const uint32_t embedding_type = model->embedding->dtype;
    const bool good =
        gpu_buffer_create(gpu, STAGING_BYTES, GPU_UPLOAD, &staging, problem) &&
        upload_all(m, model, &staging, problem) &&
        gpu_pipeline_create(gpu, &embed_shader, &embedding_type, 1, &m->embed, problem) &&
        gpu_pipeline_create(gpu, &norm_shader, NULL, 0, &m->norm_rows, problem);
    gpu_buffer_destroy(gpu, &staging);
    if (!good)
        gpu_model_close(m);
    return good;
}

void gpu_model_close(struct gpu_model *m)
{
    struct gpu *gpu = m->gpu;
    if (!gpu)
        return;
    for (uint32_t i = 0; m->layers && i < m->config->layers; i++) {
        struct gpu_layer *layer = &m->layers[i];
        gpu_buffer_destroy(gpu, &layer->attention_norm);
        gpu_buffer_destroy(gpu, &layer->in_proj.buffer);
        gpu_buffer_destroy(gpu, &layer->out_proj.buffer);
        gpu_buffer_destroy(gpu, &layer->ffn_norm);
        gpu_buffer_destroy(gpu, &layer->gate.buffer);
        gpu_buffer_destroy(gpu, &layer->up.buffer);
        gpu_buffer_destroy(gpu, &layer->down.buffer);
    }
    free(m->layers);
    gpu_buffer_destroy(gpu, &m->embedding.buffer);
    gpu_buffer_destroy(gpu, &m->head.buffer);
    gpu_buffer_destroy(gpu, &m->norm);
    gpu->vk.vkDestroyPipeline(gpu->device, m->embed, NULL);
    gpu->vk.vkDestroyPipeline(gpu->device, m->norm_rows, NULL);
    for (int type = 0; type < 3; type++)
        for (int finish = 0; finish < FINISH_COUNT; finish++) {
            gpu->vk.vkDestroyPipeline(gpu->device, m->product_tile[type][finish], NULL);
            gpu->vk.vkDestroyPipeline(gpu->device, m->product_row[type][finish], NULL);
        }
    *m = (struct gpu_model){0};
}

void gpu_embed(struct gpu_model *m, VkDeviceAddress tokens, uint32_t rows, VkDeviceAddress y)
{
    const struct {
        VkDeviceAddress tokens, weights, y;
        uint32_t size, vocabulary;
    } push = {tokens, m->embedding.buffer.address, y, m->embedding.columns, m->embedding.rows};
    gpu_dispatch(m->gpu, m->embed, &push, sizeof push, rows, 1);
}

void gpu_norm(struct gpu_model *m, VkDeviceAddress x, uint32_t rows,
              const struct gpu_buffer *weight, VkDeviceAddress y)
{
    const struct {
        VkDeviceAddress x, weight, y;
        uint32_t size;
        float eps;
    } push = {x, weight->address, y, m->config->d_model, m->config->norm_eps};
    gpu_dispatch(m->gpu, m->norm_rows, &push, sizeof push, rows, 1);
}

bool gpu_product(struct gpu_model *m, VkDeviceAddress x, uint32_t rows,
                 const struct gpu_weight *w, VkDeviceAddress y, enum product_finish finish,
                 struct problem *problem)
{
    const bool by_row = rows <= ROW_FORM_MAX;
    VkPipeline *pipeline =
        by_row ? &m->product_row[w->dtype][finish] : &m->product_tile[w->dtype][finish];
    const uint32_t constants[] = {w->dtype, finish};
    if (!*pipeline && !gpu_pipeline_create(m->gpu, by_row ? &row_shader : &tile_shader, constants,
                                           2, pipeline, problem))
        return false;
    const struct {
        VkDeviceAddress x, w, y;
        uint32_t rows, outer, inner, unused;
    } push = {x, w->buffer.address, y, rows, w->rows, w->columns, 0};
    const uint32_t per_group = by_row ? ROW_OUTPUTS : TILE;
    gpu_dispatch(m->gpu, *pipeline, &push, sizeof push, (w->rows + per_group - 1) / per_group,
                 by_row ? rows : (rows + TILE - 1) / TILE);
    return true;
}
