/* Has a driver compile every pipeline, and runs nothing: steps of many
 * geometries are recorded, and attention over a host's own keys, for a queue that does not run
 * them. For drivers that compile without their hardware (see tests/radv.sh). */
#include "check.h"
#include "null_device.h"

#include <stdlib.h>

enum { PROMPT = 300, ROWS = PROMPT + 1, QUERY_HEADS = 4, WIDEST = 256 };

static const struct ratp_api *ratp;
static ratp_device *device;
static ratp_buffer *buffer;
static unsigned recorded;

/* All operands lie over one another: nothing is ever run. */
static struct ratp_tensor operand(ratp_dtype dtype)
{
    return (struct ratp_tensor){.struct_size = sizeof(struct ratp_tensor), .buffer = buffer,
                                .dtype = dtype};
}

static bool good(ratp_status status, const void *object, const char *what)
{
    if (status == RATP_OK)
        return true;
    char text[512];
    ratp->last_error(object, text, sizeof text);
    fprintf(stderr, "%s: %s: %s\n", what, ratp->status_name(status), text);
    return CHECK(status == RATP_OK);
}

/* Many tokens and one in a step, every layer recorded; then the compression of a prompt.
 * The many are decoded ones as often as a prompt: variants that choose by the query do so
 * for these. */
static void record_step(ratp_cache *cache, bool memory, ratp_dtype dtype, uint32_t layers)
{
    ratp_seq *seqs[2] = {NULL, NULL};
    ratp_step *step = NULL;
    const uint32_t tokens[2] = {PROMPT, 1};
    const struct ratp_tensor any = operand(dtype), lse = operand(RATP_F32);
    const struct ratp_attend_io io = {
        .struct_size = sizeof io, .q = &any, .k = &any, .v = &any, .f = memory ? &any : NULL,
        .o = memory ? &any : NULL, .out = &any, .lse = &lse,
    };
    if (!good(ratp->seq_create(cache, &seqs[0]), cache, "seq_create") ||
        !good(ratp->seq_create(cache, &seqs[1]), cache, "seq_create"))
        return;
    const ratp_part_kind kinds[2] = {memory ? RATP_PART_PROMPT : RATP_PART_DECODE};
    const struct ratp_step_params params = {.struct_size = sizeof params, .count = 2,
                                            .seqs = seqs, .n_tokens = tokens, .kinds = kinds};
    if (good(ratp->step_begin(cache, &params, &step), cache, "step_begin")) {
        for (uint32_t layer = 0; layer < layers; layer++)
            recorded += good(ratp->step_attend(step, layer, &io), step, "step_attend");
        if (good(ratp->step_commit(&step), step, "step_commit"))
            good(ratp->seq_compress(seqs[0]), seqs[0], "seq_compress");
    }
    for (int i = 0; i < 2; i++)
        good(ratp->seq_destroy(&seqs[i]), cache, "seq_destroy");
}

static void record_model(ratp_policy *policy, uint32_t head_size, uint32_t kv_heads, bool memory,
                         ratp_dtype dtype, ratp_dtype cache_dtype)
{
    const struct ratp_rope rope = {
        .struct_size = sizeof rope,
        .style = memory ? RATP_ROPE_HALF : RATP_ROPE_INTERLEAVED,
    };
    const struct ratp_geometry geometry = {
        .struct_size = sizeof geometry, .layers = 6, .query_heads = QUERY_HEADS,
        .kv_heads = kv_heads, .head_size = head_size, .memory = memory, .max_tokens = 4096,
        .softcap = memory ? 0.0f : 30.0f, .rope = &rope,
    };
    for (ratp_retention kept = RATP_RETAIN_FULL; kept <= RATP_RETAIN_NEEDED; kept++) {
        const struct ratp_cache_params params = {
            .struct_size = sizeof params, .geometry = &geometry, .policy = policy,
            .k_dtype = cache_dtype, .v_dtype = cache_dtype, .retention = kept,
        };
        ratp_cache *cache = NULL;
        if (!good(ratp->cache_create(device, &params, &cache), device, "cache_create"))
            return;
        record_step(cache, memory, dtype, geometry.layers);
        good(ratp->cache_destroy(&cache), cache, "cache_destroy");
    }
}

/* A host's own keys: attended as a prompt's and by single queries, all and chosen. */
static void record_external(uint32_t head_size, uint32_t kv_heads, ratp_dtype dtype)
{
    static const struct ratp_variant variants[] = {
        {.struct_size = sizeof *variants},
        {.struct_size = sizeof *variants, .kind = RATP_MOBA, .block = 64, .topk = 3},
        {.struct_size = sizeof *variants, .kind = RATP_QUEST, .budget = 32}};
    const struct ratp_tensor any = operand(dtype);
    for (size_t i = 0; i < sizeof variants / sizeof *variants; i++)
        for (uint32_t tokens = 1; tokens <= PROMPT; tokens *= PROMPT) {
            const struct ratp_external params = {
                .struct_size = sizeof params, .query_tokens = tokens, .key_tokens = PROMPT,
                .query_heads = QUERY_HEADS, .kv_heads = kv_heads, .head_size = head_size,
                .causal = 1, .first_position = PROMPT - tokens, .variant = &variants[i],
                .q = &any, .k = &any, .v = &any, .out = &any};
            recorded += good(ratp->attend_external(device, &params), device, "attend_external");
        }
}

static void record_all(ratp_policy *policy)
{
    static const uint32_t head_sizes[] = {16, 32, 64, 80, 96, 128, 256};
    static const ratp_dtype types[] = {RATP_F32, RATP_F16, RATP_BF16, RATP_Q8_0};
    for (size_t h = 0; h < sizeof head_sizes / sizeof *head_sizes; h++)
        for (uint32_t kv_heads = 1; kv_heads <= QUERY_HEADS; kv_heads *= QUERY_HEADS)
            for (int t = 0; t < 3; t++) {
                record_external(head_sizes[h], kv_heads, types[t]);
                for (int c = 0; c < (head_sizes[h] % 32 ? 3 : 4); c++)
                    for (int memory = 0; memory < 2; memory++)
                        record_model(policy, head_sizes[h], kv_heads, memory, types[t], types[c]);
            }
}

static ratp_policy *make_policy(ratp_instance *instance)
{
    static const struct ratp_variant variants[] = {
        {.struct_size = sizeof(struct ratp_variant), .kind = RATP_DILATED, .dilation = 16,
         .window = 40, .sinks = 4},
        {.struct_size = sizeof(struct ratp_variant), .kind = RATP_STREAMING, .window = 32,
         .sinks = 4},
        {.struct_size = sizeof(struct ratp_variant), .kind = RATP_MOBA, .block = 64, .topk = 3},
        {.struct_size = sizeof(struct ratp_variant), .kind = RATP_QUEST, .budget = 32},
        {.struct_size = sizeof(struct ratp_variant), .kind = RATP_SNAPKV, .capacity = 64},
    };
    ratp_policy *policy = NULL;
    if (!good(ratp->policy_create(instance, &policy), instance, "policy_create"))
        return NULL;
    for (uint32_t i = 0; i < sizeof variants / sizeof *variants; i++)
        good(ratp->policy_set(policy, (struct ratp_range){i + 1, 1}, (struct ratp_range){0, 0},
                              &variants[i]),
             policy, "policy_set");
    return policy;
}

static void print_log(void *user, ratp_log_level level, const char *message)
{
    (void)user;
    fprintf(stderr, "log %d: %s\n", (int)level, message);
}

static void record_on_null_device(ratp_instance *instance)
{
    const struct ratp_vulkan_api *vk = ratp->get_extension(instance, RATP_VULKAN_EXTENSION);
    const struct ratp_buffer_params params = {
        .struct_size = sizeof params, .size = (uint64_t)ROWS * QUERY_HEADS * WIDEST * 4};
    struct ratp_vulkan_device host;
    struct ratp_device_info info = {.struct_size = sizeof info};
    const char *why = "the extension " RATP_VULKAN_EXTENSION " is missing";
    if (!vk || !null_device_make(vk->recommended_extensions, &host, &why)) {
        fprintf(stderr, "%s\n", why);
        CHECK(false);
        return;
    }
    ratp_policy *policy = make_policy(instance);
    if (policy && good(vk->device_import(instance, &host, &device), instance, "device_import")) {
        if (good(ratp->buffer_create(device, &params, &buffer), device, "buffer_create")) {
            record_all(policy);
            good(ratp->buffer_destroy(&buffer), device, "buffer_destroy");
        }
        ratp->device_info(device, &info);
        printf("%s: %u pipelines compiled for %u layers\n", info.name, null_device_pipelines(),
               recorded);
        good(ratp->device_close(&device), device, "device_close");
    }
    good(ratp->policy_destroy(&policy), instance, "policy_destroy");
}

int main(void)
{
    char reason[256] = "";
    ratp_instance *instance = NULL;
    const struct ratp_instance_params params = {
        .struct_size = sizeof params, .log = print_log, .log_level = RATP_LOG_WARNING};
    ratp = ratp_get_api(RATP_ABI_MAJOR, reason, sizeof reason);
    if (!ratp || ratp->instance_create(&params, &instance, reason, sizeof reason) != RATP_OK) {
        fprintf(stderr, "%s\n", reason);
        return 1;
    }
    record_on_null_device(instance);
    CHECK(recorded > 0 && null_device_pipelines() > 0);
    good(ratp->instance_destroy(&instance), instance, "instance_destroy");
    return check_result();
}
