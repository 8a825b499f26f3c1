#include "layer.h"

#include "safetensors.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A setting of the metadata, which is JSON text; NULL when it is absent or malformed. */
static cJSON *setting(const struct safetensors *file, const char *key)
{
    const char *text = safetensors_metadata(file, key);
    return text ? cJSON_Parse(text) : NULL;
}

static double number(const struct safetensors *file, const char *key, double missing)
{
    cJSON *item = setting(file, key);
    double value = cJSON_IsNumber(item) ? item->valuedouble : missing;
    cJSON_Delete(item);
    return value;
}

/* A tensor [batch][head][token][channel] as [batch][token][head][channel]. */
static bool read_tokens(const struct st_tensor *from, const struct golden_layer *layer,
                        uint32_t heads, uint32_t channels, float *to, struct problem *problem)
{
    bool good = true;
    for (uint32_t b = 0; b < layer->batch; b++)
        for (uint32_t h = 0; h < heads; h++)
            for (uint32_t t = 0; t < layer->tokens && good; t++) {
                uint64_t row = ((uint64_t)b * heads + h) * layer->tokens + t;
                uint64_t place = ((uint64_t)b * layer->tokens + t) * heads + h;
                good = st_read_f32(from, row * channels, channels, to + place * channels, problem);
            }
    return good;
}

static bool read_tensor(const struct safetensors *file, const struct golden_layer *layer,
                        const char *name, uint32_t heads, uint32_t channels, bool per_token,
                        float **to, struct problem *problem)
{
    const struct st_tensor *from = safetensors_find(file, name);
    if (!from)
        return true;
    uint64_t count = (uint64_t)layer->batch * heads * channels * (per_token ? layer->tokens : 1);
    if (from->count != count || from->dtype == ST_I32 || from->dtype == ST_I64)
        return problem_set(problem, "tensor %s: %llu elements of type %s, not %llu numbers", name,
                           (unsigned long long)from->count, st_dtype_name(from->dtype),
                           (unsigned long long)count);
    *to = malloc((size_t)count * sizeof **to);
    if (!*to)
        return problem_set(problem, "no memory for tensor %s", name);
    return per_token ? read_tokens(from, layer, heads, channels, *to, problem)
                     : st_read_f32(from, 0, count, *to, problem);
}

static bool read_attended(const struct safetensors *file, struct golden_layer *layer,
                          struct problem *problem)
{
    const struct st_tensor *from = safetensors_find(file, "attended");
    uint64_t count = (uint64_t)layer->batch * layer->tokens * layer->query_heads;
    if (!from)
        return true;
    if (from->count != count || from->dtype != ST_I32)
        return problem_set(problem, "tensor attended: not %llu 32-bit integers",
                           (unsigned long long)count);
    layer->attended = malloc((size_t)count * sizeof *layer->attended);
    if (!layer->attended)
        return problem_set(problem, "no memory for tensor attended");
    for (uint64_t n = 0; n < count; n++) {
        uint64_t t = n % layer->tokens, row = n / layer->tokens;
        uint64_t h = row % layer->query_heads, b = row / layer->query_heads;
        int64_t value;
        if (!st_read_int(from, n, &value, problem))
            return false;
        layer->attended[(b * layer->tokens + t) * layer->query_heads + h] = (uint32_t)value;
    }
    return true;
}

/* kept.b.h, for sequence b and key/value head h. */
static bool read_kept(const struct safetensors *file, struct golden_layer *layer,
                      struct problem *problem)
{
    const struct st_tensor *first = safetensors_find(file, "kept.0.0");
    if (!first)
        return true;
    size_t rows = (size_t)layer->batch * layer->kv_heads;
    layer->capacity = (uint32_t)first->count;
    layer->kept = malloc(rows * layer->capacity * sizeof *layer->kept);
    if (!layer->kept)
        return problem_set(problem, "no memory for tensors kept");
    for (size_t row = 0; row < rows; row++) {
        char name[64];
        snprintf(name, sizeof name, "kept.%zu.%zu", row / layer->kv_heads, row % layer->kv_heads);
        const struct st_tensor *from = safetensors_find(file, name);
        if (!from || from->count != layer->capacity || from->dtype != ST_I32)
            return problem_set(problem, "tensor %s: not %u 32-bit integers", name,
                               layer->capacity);
        for (uint32_t i = 0; i < layer->capacity; i++) {
            int64_t value;
            if (!st_read_int(from, i, &value, problem))
                return false;
            layer->kept[row * layer->capacity + i] = (uint32_t)value;
        }
    }
    return true;
}

static uint32_t field(const cJSON *object, const char *name)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
    return cJSON_IsNumber(item) && item->valuedouble > 0 ? (uint32_t)item->valuedouble : 0;
}

static enum golden_status read_variants(struct golden_layer *layer, const cJSON *list,
                                        struct problem *problem)
{
    static const char *const kinds[] = {"dense", "dilated", "streaming", "quest", "moba", "snapkv"};
    const int32_t count = sizeof kinds / sizeof *kinds;
    const cJSON *item;
    cJSON_ArrayForEach(item, list) {
        const char *kind = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(item, "kind"));
        int32_t known = -1;
        for (int32_t i = 0; i < count && kind; i++)
            if (strcmp(kind, kinds[i]) == 0)
                known = i;
        if (known < 0 || layer->variants == GOLDEN_VARIANTS) {
            problem_set(problem, "variant \"%.20s\" is not in this library", kind ? kind : "");
            return GOLDEN_SKIPPED;
        }
        const char *pool = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(item, "pool"));
        layer->variant[layer->variants++] = (struct ratp_variant){
            .struct_size = sizeof(struct ratp_variant),
            .kind = known,
            .dilation = field(item, "dilation"),
            .window = field(item, "window"),
            .sinks = field(item, "sinks"),
            .page = field(item, "page"),
            .budget = field(item, "budget"),
            .block = field(item, "block"),
            .topk = field(item, "topk"),
            .observe = field(item, "observe"),
            .capacity = field(item, "capacity"),
            .kernel = field(item, "kernel"),
            .pool = pool && strcmp(pool, "avg") == 0 ? RATP_POOL_AVG : RATP_POOL_MAX,
        };
    }
    return layer->variants ? GOLDEN_PASSED : GOLDEN_FAILED;
}

static enum golden_status read_settings(struct golden_layer *layer, const struct safetensors *file,
                                        struct problem *problem)
{
    const struct st_tensor *q = safetensors_find(file, "q"), *k = safetensors_find(file, "k");
    if (!q || !k || q->dims != 4 || k->dims != 4) {
        problem_set(problem, "it has no tensors q and k of 4 dimensions");
        return GOLDEN_FAILED;
    }
    layer->batch = (uint32_t)q->shape[0];
    layer->query_heads = (uint32_t)q->shape[1];
    layer->tokens = (uint32_t)q->shape[2];
    layer->head_size = (uint32_t)q->shape[3];
    layer->kv_heads = (uint32_t)k->shape[1];
    layer->prefill = (uint32_t)number(file, "prefill", layer->tokens);
    layer->scale = number(file, "softmax_scale", 1 / sqrt(layer->head_size));
    layer->softcap = number(file, "softcap", 0);
    layer->rope = (struct ratp_rope){.struct_size = sizeof layer->rope,
                                     .style = RATP_ROPE_HALF,
                                     .theta = number(file, "rope_theta", 10000)};
    cJSON *style = setting(file, "rope_style");
    const char *name = cJSON_GetStringValue(style);
    if (name && strcmp(name, "interleaved") == 0)
        layer->rope.style = RATP_ROPE_INTERLEAVED;
    else if (name && strcmp(name, "none") == 0)
        layer->rope.style = RATP_ROPE_NONE;
    cJSON_Delete(style);

    cJSON *list = setting(file, "variants");
    if (list) {
        enum golden_status status = read_variants(layer, list, problem);
        cJSON_Delete(list);
        return status;
    }
    double dilation = number(file, "dilation", 1);
    layer->variants = 1;
    layer->variant[0] = (struct ratp_variant){
        .struct_size = sizeof layer->variant[0],
        .kind = dilation < 0 ? RATP_STREAMING : RATP_DILATED,
        .dilation = dilation < 0 ? 0 : (uint32_t)dilation,
        .window = (uint32_t)number(file, "window", 0),
        .sinks = (uint32_t)number(file, "sinks", 0),
    };
    return GOLDEN_PASSED;
}

/* The first group of files gives the gate after its sigmoid. */
static void gates_to_logits(struct golden_layer *layer)
{
    size_t count = (size_t)layer->batch * layer->tokens * layer->kv_heads * layer->head_size;
    for (size_t n = 0; n < count; n++) {
        double g = (double)layer->f[n];
        double logit = log(g) - log1p(-g);
        layer->f[n] = (float)fmin(fmax(logit, -80), 80);
    }
}

static bool read_tensors(struct golden_layer *layer, const struct safetensors *file,
                         struct problem *problem)
{
    uint32_t d = layer->head_size, hq = layer->query_heads, hkv = layer->kv_heads;
    cJSON *recurrence = setting(file, "recurrence");
    bool memory = !cJSON_IsFalse(recurrence);
    cJSON_Delete(recurrence);
    bool ok = read_tensor(file, layer, "q", hq, d, true, &layer->q, problem) &&
              read_tensor(file, layer, "k", hkv, d, true, &layer->k, problem) &&
              read_tensor(file, layer, "v", hkv, d, true, &layer->v, problem) &&
              read_tensor(file, layer, "o", hq, d, true, &layer->o, problem) &&
              read_tensor(file, layer, "out", hq, d, true, &layer->out, problem) &&
              read_tensor(file, layer, "lse", hq, 1, true, &layer->lse, problem) &&
              read_tensor(file, layer, "last_k", hkv, d, false, &layer->last_k, problem) &&
              read_tensor(file, layer, "last_v", hkv, d, false, &layer->last_v, problem) &&
              read_attended(file, layer, problem) && read_kept(file, layer, problem);
    if (ok && memory && safetensors_find(file, "f"))
        ok = read_tensor(file, layer, "f", hkv, d, true, &layer->f, problem);
    else if (ok && memory && safetensors_find(file, "g"))
        ok = read_tensor(file, layer, "g", hkv, d, true, &layer->f, problem);
    if (ok && layer->f && !safetensors_find(file, "f"))
        gates_to_logits(layer);
    if (ok && (!layer->v || !layer->out))
        return problem_set(problem, "it has no tensors v and out");
    return ok;
}

bool golden_has_prompt(const struct golden_layer *layer)
{
    for (uint32_t i = 0; i < layer->variants; i++)
        if (layer->variant[i].kind == RATP_QUEST || layer->variant[i].kind == RATP_SNAPKV)
            return true;
    return false;
}

enum golden_status golden_load(struct golden_layer *layer, const char *path,
                               struct problem *problem)
{
    struct safetensors file;
    memset(layer, 0, sizeof *layer);
    if (!safetensors_open(&file, path, problem))
        return GOLDEN_FAILED;
    enum golden_status status = read_settings(layer, &file, problem);
    if (status == GOLDEN_PASSED && !read_tensors(layer, &file, problem))
        status = GOLDEN_FAILED;
    safetensors_close(&file);
    return status;
}

void golden_free(struct golden_layer *layer)
{
    free(layer->q);
    free(layer->k);
    free(layer->v);
    free(layer->o);
    free(layer->f);
    free(layer->out);
    free(layer->lse);
    free(layer->attended);
    free(layer->kept);
    free(layer->last_k);
    free(layer->last_v);
    memset(layer, 0, sizeof *layer);
}
