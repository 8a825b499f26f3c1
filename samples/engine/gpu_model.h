/* The model on the GPU: its weights, and the kernels of everything but
 * attention. */
#ifndef ENGINE_GPU_MODEL_H
#define ENGINE_GPU_MODEL_H

#include "gpu.h"
#include "model.h"

enum product_finish { FINISH_STORE, FINISH_GELU, FINISH_ADD, FINISH_GATED, FINISH_COUNT };

struct gpu_weight {
    struct gpu_buffer buffer;
    enum st_dtype dtype;
    uint32_t rows, columns;
};

struct gpu_layer {
    struct gpu_weight in_proj, out_proj, up, down;
    struct gpu_weight gate; /* without rows when the model has none */
    struct gpu_buffer attention_norm, ffn_norm; /* float32 */
};

struct gpu_model {
    struct gpu *gpu;
    const struct model_config *config;
    struct gpu_weight embedding, head; /* head is empty when tied */
    struct gpu_buffer norm;
    struct gpu_layer *layers;
    VkPipeline embed, norm_rows;
    /* [weight's dtype][finish], made on first use */
    VkPipeline product_tile[3][FINISH_COUNT];
    VkPipeline product_row[3][FINISH_COUNT];
};

/* Uploads every weight once. */
bool gpu_model_open(struct gpu_model *m, struct gpu *gpu, const struct model *model,
                    struct problem *problem);
void gpu_model_close(struct gpu_model *m);

/* These record into gpu->commands; none begins or ends with a barrier. */
void gpu_embed(struct gpu_model *m, VkDeviceAddress tokens, uint32_t rows, VkDeviceAddress y);
void gpu_norm(struct gpu_model *m, VkDeviceAddress x, uint32_t rows,
              const struct gpu_buffer *weight, VkDeviceAddress y);
/* y[row][n] = finish(x[row] . w[n]) */
bool gpu_product(struct gpu_model *m, VkDeviceAddress x, uint32_t rows,
                 const struct gpu_weight *w, VkDeviceAddress y, enum product_finish finish,
                 struct problem *problem);

#endif
