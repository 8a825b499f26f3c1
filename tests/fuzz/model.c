/* A model folder of the samples: an input is config.json, a NUL, and
 * model.safetensors. A model that opens has all its weights. */
#include "fuzz.h"

#include "file.h"
#include "folder.h"
#include "model.h"

#include <math.h>

static char folder[FOLDER_ROOM], config_path[FOLDER_ROOM + 32], weights_path[FOLDER_ROOM + 32];
static bool started;
static unsigned long accepted, refused, configs;

bool fuzz_start(void)
{
    folder_make(folder);
    snprintf(config_path, sizeof config_path, "%s/config.json", folder);
    snprintf(weights_path, sizeof weights_path, "%s/model.safetensors", folder);
    return started = true;
}

void fuzz_end(void)
{
    unlink(config_path);
    unlink(weights_path);
    rmdir(folder);
}

enum { SIZE = 8, VOCABULARY = 256 };

static const struct {
    const char *name;
    int rows, columns; /* columns 0: a vector */
} weights[] = {
    {"embedding.weight", VOCABULARY, SIZE},
    {"norm.weight", SIZE, 0},
    {"layers.0.attention_norm.weight", SIZE, 0},
    {"layers.0.in_proj.weight", 5 * SIZE, SIZE},
    {"layers.0.out_proj.weight", SIZE, SIZE},
    {"layers.0.ffn_norm.weight", SIZE, 0},
    {"layers.0.fc1.weight", SIZE, SIZE},
    {"layers.0.fc2.weight", SIZE, SIZE},
    {"head.weight", VOCABULARY, SIZE},
};

static size_t put_weights(bool tied, const char *dtype, int width, uint8_t *out)
{
    char header[2048] = "{";
    size_t used = 1, data = 0, count = sizeof weights / sizeof *weights - tied;
    for (size_t i = 0; i < count; i++) {
        char shape[24];
        const int columns = weights[i].columns;
        const size_t bytes = (size_t)(weights[i].rows * (columns ? columns : 1) * width);
        snprintf(shape, sizeof shape, columns ? "%d,%d" : "%d", weights[i].rows, columns);
        used += (size_t)snprintf(header + used, sizeof header - used,
                                 "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%s],"
                                 "\"data_offsets\":[%zu,%zu]}",
                                 i ? "," : "", weights[i].name, dtype, shape, data, data + bytes);
        data += bytes;
    }
    header[used++] = '}';
    const uint64_t length = used;
    memcpy(out, &length, sizeof length);
    memcpy(out + sizeof length, header, used);
    memset(out + sizeof length + used, 0x3c, data);
    return sizeof length + used + data;
}

size_t fuzz_seed(size_t index, uint8_t *out)
{
    static const struct {
        const char *rope, *dtype, *more;
        int width;
        bool tied;
    } seeds[] = {
        {"{\"style\": \"half\", \"theta\": 10000.0}", "F16", "", 2, true},
        {"{\"style\": \"none\"}", "F32",
         "\"sliding_window\": null, \"attn_logit_softcapping\": 50.0, \"head_dim\": 8,\n", 4, false},
        {"{\"style\": \"interleaved\", \"theta\": 1e6}", "BF16",
         "\"rope_parameters\": {\"rope_type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 1,\n"
         "\"high_freq_factor\": 4, \"original_max_position_embeddings\": 64},\n", 2, false},
        {"{\"style\": \"half\", \"theta\": 1e4}", "F16",
         "\"rope_scaling\": {\"type\": \"yarn\", \"factor\": 4.0, \"beta_fast\": 16,\n"
         "\"attention_factor\": 1.5}, \"query_pre_attn_scalar\": 64, \"hidden_act\": \"gelu\",\n",
         2, true},
    };
    if (index >= sizeof seeds / sizeof *seeds)
        return 0;
    int length = snprintf((char *)out, FUZZ_ROOM,
                          "{\"architecture\": \"ratplus\", \"block\": \"gelu\", \"layers\": 1,\n%s"
                          "\"d_model\": %d, \"heads\": 1, \"kv_heads\": 1, \"head_size\": %d,\n"
                          "\"feed_forward\": %d, \"vocabulary\": %d, \"context\": 4096,\n"
                          "\"norm_eps\": 1e-6, \"rope\": %s, \"tie_embedding\": %s,\n"
                          "\"tokenizer\": \"bytes\"}\n",
                          seeds[index].more, SIZE, SIZE, SIZE, VOCABULARY, seeds[index].rope,
                          seeds[index].tied ? "true" : "false");
    size_t config = (size_t)length + 1;
    return config + put_weights(seeds[index].tied, seeds[index].dtype, seeds[index].width,
                                out + config);
}

static void check_weight(const struct st_tensor *tensor, uint64_t count)
{
    float last;
    REQUIRE(tensor && tensor->count == count);
    struct problem problem;
    REQUIRE(st_read_f32(tensor, count - 1, 1, &last, &problem));
}

static void check_model(const struct model *model)
{
    const struct model_config *c = &model->config;
    const uint64_t d = c->d_model, ff = c->feed_forward;
    struct ratp_rope rope;
    struct ratp_geometry geometry;
    REQUIRE(c->heads * c->head_size == d && c->context && c->norm_eps >= 0);
    check_weight(model->embedding, c->vocabulary * d);
    check_weight(model->head, c->vocabulary * d);
    check_weight(model->norm, d);
    for (uint32_t i = 0; i < c->layers; i++) {
        const struct model_layer *layer = &model->layers[i];
        check_weight(layer->attention_norm, d);
        check_weight(layer->in_proj, model_parts(c) * d * d);
        check_weight(layer->out_proj, d * d);
        check_weight(layer->ffn_norm, d);
        if (layer->gate)
            check_weight(layer->gate, ff * d);
        check_weight(layer->up, ff * d);
        check_weight(layer->down, ff * d);
    }
    model_geometry(c, c->context, &rope, &geometry);
    REQUIRE(geometry.layers == c->layers && geometry.head_size % 8 == 0);
    REQUIRE(rope.size % 4 == 0 && rope.size <= c->head_size);
    REQUIRE(isfinite(rope.scale) && isfinite(rope.yarn_factor) && isfinite(geometry.scale));
    REQUIRE(isfinite(geometry.softcap) && geometry.softcap >= 0 && geometry.scale >= 0);
    const uint32_t turning = rope.size ? rope.size : c->head_size;
    for (uint32_t i = 0; rope.factors && i < turning / 2; i++)
        REQUIRE(isfinite(rope.factors[i]) && rope.factors[i] >= 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct model model;
    struct problem problem = {""};
    if (!started && !fuzz_start())
        return 0;
    const uint8_t *end = size ? memchr(data, '\0', size) : NULL;
    const size_t config = end ? (size_t)(end - data) : size;
    const size_t skipped = end ? config + 1 : size;
    REQUIRE(file_write(config_path, data, config, &problem));
    REQUIRE(file_write(weights_path, data + skipped, size - skipped, &problem));
    if (model_open(&model, folder, &problem)) {
        check_model(&model);
        model_close(&model);
        accepted++;
        return 0;
    }
    /* The message names the file that is wrong. */
    REQUIRE(strncmp(problem.text, folder, strlen(folder)) == 0);
    configs += strstr(problem.text, "safetensors: ") != NULL;
    refused++;
    return 0;
}

bool fuzz_report(void)
{
    printf("%lu models; %lu refused, %lu of them for their weights\n", accepted, refused, configs);
    return accepted && refused && configs;
}
