/* The engine on its own VkDevice. A forward pass is one command buffer, in
 * which the plugin records its attention between this engine's kernels, and
 * one submission. */
#include "engine.h"
#include "gpu_model.h"
#include "plugin.h"

#include <ratplus_vulkan.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct vulkan_engine {
    struct engine base;
    const struct ratp_vulkan_api *ratp_vulkan;
    struct gpu gpu;
    struct gpu_model model;
    struct gpu_buffer tokens;    /* [chunk], mapped */
    struct gpu_buffer x;         /* [chunk][d_model]: the residual stream */
    struct gpu_buffer normed;    /* [chunk][d_model] */
    struct gpu_buffer projected; /* [chunk][parts * d_model]: as in_proj gives them */
    struct gpu_buffer attended;  /* [chunk][d_model] */
    struct gpu_buffer hidden;    /* [chunk][feed_forward] */
    struct gpu_buffer logits;    /* [all_logits ? chunk : 1][vocabulary], mapped */
    ratp_buffer *ratp_projected, *ratp_attended;
};

static bool attend(struct vulkan_engine *e, ratp_step *step, uint32_t layer,
                   struct problem *problem)
{
    const struct model_config *config = &e->base.model->config;
    const uint64_t part = (uint64_t)config->d_model * sizeof(float);
    const uint32_t count = model_parts(config), q = config->memory ? 1 : 0; /* o stands before */
    struct ratp_tensor parts[5], out = {.struct_size = sizeof out, .buffer = e->ratp_attended};
    for (uint32_t i = 0; i < count; i++)
        parts[i] = (struct ratp_tensor){
            .struct_size = sizeof *parts,
            .buffer = e->ratp_projected,
            .offset = i * part,
            .token_stride = count * part,
        };
    const struct ratp_attend_io io = {
        .struct_size = sizeof io,
        .o = config->memory ? &parts[0] : NULL,
        .q = &parts[q],
        .k = &parts[q + 1],
        .v = &parts[q + 2],
        .f = config->memory ? &parts[q + 3] : NULL,
        .out = &out,
    };
    return plugin_check(e->base.ratp, e->base.ratp->step_attend(step, layer, &io), step, "attend",
                        problem);
}

static bool record_layer(struct vulkan_engine *e, ratp_step *step, uint32_t i, uint32_t rows,
                         struct problem *problem)
{
    struct gpu_model *m = &e->model;
    const struct gpu_layer *layer = &m->layers[i];
    gpu_norm(m, e->x.address, rows, &layer->attention_norm, e->normed.address);
    gpu_barrier(&e->gpu);
    if (!gpu_product(m, e->normed.address, rows, &layer->in_proj, e->projected.address,
                     FINISH_STORE, problem))
        return false;
    /* The plugin's own barriers stand around what it records. */
    if (!attend(e, step, i, problem) ||
        !gpu_product(m, e->attended.address, rows, &layer->out_proj, e->x.address, FINISH_ADD,
                     problem))
        return false;
    gpu_barrier(&e->gpu);
    gpu_norm(m, e->x.address, rows, &layer->ffn_norm, e->normed.address);
    gpu_barrier(&e->gpu);
    const bool gated = layer->gate.rows > 0;
    if (gated && !gpu_product(m, e->normed.address, rows, &layer->gate, e->hidden.address,
                              FINISH_STORE, problem))
        return false;
    if (gated)
        gpu_barrier(&e->gpu);
    if (!gpu_product(m, e->normed.address, rows, &layer->up, e->hidden.address,
                     gated ? FINISH_GATED : FINISH_GELU, problem))
        return false;
    gpu_barrier(&e->gpu);
    if (!gpu_product(m, e->hidden.address, rows, &layer->down, e->x.address, FINISH_ADD, problem))
        return false;
    gpu_barrier(&e->gpu);
    return true;
}

static bool record(struct vulkan_engine *e, const struct engine_step *step, ratp_step *open,
                   struct problem *problem)
{
    const struct model_config *config = &e->base.model->config;
    const uint32_t first = step->all_logits ? 0 : step->count - 1;
    struct gpu_model *m = &e->model;
    if (!plugin_check(e->base.ratp, e->ratp_vulkan->step_record(open, e->gpu.commands), open,
                      "record a step", problem))
        return false;
    gpu_barrier(&e->gpu);
    gpu_embed(m, e->tokens.address, step->count, e->x.address);
    gpu_barrier(&e->gpu);
    for (uint32_t i = 0; i < config->layers; i++)
        if (!record_layer(e, open, i, step->count, problem))
            return false;
    gpu_norm(m, e->x.address + (uint64_t)first * config->d_model * sizeof(float),
             step->count - first, &m->norm, e->normed.address);
    gpu_barrier(&e->gpu);
    if (!gpu_product(m, e->normed.address, step->count - first,
                     config->tie_embedding ? &m->embedding : &m->head, e->logits.address,
                     FINISH_STORE, problem))
        return false;
    gpu_barrier(&e->gpu);
    return true;
}

static bool forward(struct engine *engine, const struct engine_step *step,
                    struct problem *problem)
{
    struct vulkan_engine *e = (struct vulkan_engine *)engine;
    const struct ratp_api *ratp = engine->ratp;
    const struct ratp_step_params params = {.struct_size = sizeof params,
                                            .count = 1,
                                            .seqs = &step->seq,
                                            .n_tokens = &step->count,
                                            .kinds = &step->kind};
    ratp_step *open = NULL;
    if (!plugin_check(ratp, ratp->step_begin(step->cache, &params, &open), step->cache,
                      "begin a step", problem))
        return false;
    memcpy(e->tokens.map, step->tokens, step->count * sizeof *step->tokens);

    bool submitted = false;
    bool good = gpu_begin(&e->gpu, problem) && record(e, step, open, problem);
    if (good)
        submitted = good = gpu_submit(&e->gpu, problem);
    if (good) {
        const struct ratp_vulkan_point done = {e->gpu.timeline, e->gpu.point};
        good = plugin_check(ratp, e->ratp_vulkan->step_recorded(open, done), open,
                            "hand over a step", problem) &&
               plugin_check(ratp, ratp->step_commit(&open), open, "commit a step", problem);
    }
    /* Nothing that was submitted may be in use when the step is aborted. */
    struct problem second;
    const bool waited = !submitted || gpu_wait(&e->gpu, good ? problem : &second);
    if (!good) {
        ratp->step_abort(&open);
        return false;
    }
    if (!waited)
        return false;
    const uint32_t rows = step->all_logits ? step->count : 1;
    memcpy(step->logits, e->logits.map,
           (size_t)rows * engine->model->config.vocabulary * sizeof(float));
    return true;
}

static void close_vulkan(struct engine *engine)
{
    struct vulkan_engine *e = (struct vulkan_engine *)engine;
    const struct ratp_api *ratp = engine->ratp;
    if (e->ratp_projected)
        ratp->buffer_destroy(&e->ratp_projected);
    if (e->ratp_attended)
        ratp->buffer_destroy(&e->ratp_attended);
    if (engine->device)
        ratp->device_close(&engine->device);
    ratp->instance_destroy(&engine->instance);

    struct gpu_buffer *buffers[] = {&e->tokens,   &e->x,      &e->normed, &e->projected,
                                    &e->attended, &e->hidden, &e->logits};
    gpu_model_close(&e->model);
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++)
        gpu_buffer_destroy(&e->gpu, buffers[i]);
    gpu_close(&e->gpu);
    free(e);
}

static const struct engine_kind vulkan_kind = {.forward = forward, .close = close_vulkan};

static bool open_buffers(struct vulkan_engine *e, struct problem *problem)
{
    const struct model_config *config = &e->base.model->config;
    const uint64_t chunk = e->base.options.chunk, row = chunk * config->d_model * sizeof(float);
    const struct {
        struct gpu_buffer *buffer;
        uint64_t size;
        enum gpu_memory memory;
    } list[] = {
        {&e->tokens, chunk * sizeof(int32_t), GPU_UPLOAD},
        {&e->x, row, GPU_DEVICE},
        {&e->normed, row, GPU_DEVICE},
        {&e->projected, model_parts(config) * row, GPU_DEVICE},
        {&e->attended, row, GPU_DEVICE},
        {&e->hidden, chunk * config->feed_forward * sizeof(float), GPU_DEVICE},
        {&e->logits, (e->base.options.all_logits ? chunk : 1) * config->vocabulary * sizeof(float),
         GPU_READBACK},
    };
    for (size_t i = 0; i < sizeof list / sizeof *list; i++)
        if (!gpu_buffer_create(&e->gpu, list[i].size, list[i].memory, list[i].buffer, problem))
            return false;
    return true;
}

static bool import(struct vulkan_engine *e, struct problem *problem)
{
    const struct ratp_api *ratp = e->base.ratp;
    if (!gpu_lend(&e->gpu, ratp, e->base.instance, &e->base.device, problem))
        return false;
    const struct {
        const struct gpu_buffer *from;
        ratp_buffer **to;
    } list[] = {{&e->projected, &e->ratp_projected}, {&e->attended, &e->ratp_attended}};
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        const struct ratp_vulkan_buffer buffer = {
            .struct_size = sizeof buffer, .buffer = list[i].from->buffer,
            .size = list[i].from->size};
        if (!plugin_check(ratp, e->ratp_vulkan->buffer_import(e->base.device, &buffer, list[i].to),
                          e->base.device, "import a buffer", problem))
            return false;
    }
    return true;
}

bool engine_open_vulkan(const struct engine *base, struct engine **out, bool *none,
                        struct problem *problem)
{
    struct vulkan_engine *e = calloc(1, sizeof *e);
    *none = false;
    if (!e)
        return problem_set(problem, "out of memory");
    e->base = *base;
    e->base.kind = &vulkan_kind;
    e->ratp_vulkan = base->ratp->get_extension(base->instance, RATP_VULKAN_EXTENSION);
    if (!e->ratp_vulkan) {
        free(e);
        return problem_set(problem, "this libratplus has no %s", RATP_VULKAN_EXTENSION);
    }
    if (!gpu_open(&e->gpu, base->options.device, base->options.validate, base->messages,
                  e->ratp_vulkan, none, problem)) {
        free(e);
        return false;
    }
    snprintf(e->base.name, sizeof e->base.name, "%s", e->gpu.properties.deviceName);
    *out = &e->base;
    if (open_buffers(e, problem) && import(e, problem) &&
        gpu_model_open(&e->model, &e->gpu, base->model, problem))
        return true;
    /* The caller still owns the instance. */
    e->base.instance = NULL;
    engine_close(out);
    return false;
}
