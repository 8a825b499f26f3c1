/* How the kernels like their work cut. */
#include "attend.h"
#include "memory.h"

enum {
    /* A chunk is walked by few invocations: short ones fill a GPU. They cost a
     * second pass over the tokens, which a CPU need not pay when one chunk has
     * work for all its threads. Then it is as long as lavapipe's 65535 passes
     * through the loops of an invocation allow: memory_apply.comp takes at
     * most two a token. */
    CHUNK_TOKENS = 128,
    CHUNK_TOKENS_SOFTWARE = 1024,
    CHUNK_TOKENS_LONG = 32768,
    SPLIT_KEYS = 128,
    SPLIT_KEYS_SOFTWARE = 512,
    WAVE_BYTES = 128 << 20, /* of a wave's partial results */
    /* Of a key/value head in a wave: an invocation of bucket.comp may have to write the
     * tiles of all of them, which loops of lavapipe allow at 8 rows a tile. */
    WAVE_ROWS = 1 << 18,
    GROUPS_A_UNIT = 4,
    GROUPS_A_THREAD = 4
};

static uint32_t wave_partials(const struct layer_shape *shape)
{
    uint32_t row = shape->query_heads * (shape->value_size + 2) * (uint32_t)sizeof(float);
    uint32_t bytes = WAVE_BYTES / row;
    uint32_t rows = WAVE_ROWS / (shape->query_heads / shape->kv_heads);
    return bytes < rows ? bytes : rows;
}

static uint32_t chunk_tokens(const struct vk_caps *caps, const struct layer_shape *shape)
{
    if (!caps->software)
        return CHUNK_TOKENS;
    return memory_form(caps, shape).groups >= caps->compute_units ? CHUNK_TOKENS_LONG
                                                                  : CHUNK_TOKENS_SOFTWARE;
}

void kernels_limits(struct backend *b, const struct layer_shape *shape, struct work_limits *out)
{
    const struct kernel_backend *k = (const struct kernel_backend *)b;
    const struct vk_caps *caps = vk_device_caps(k->vk);
    struct decode_form decode = decode_form(caps, shape);
    uint32_t group = shape->query_heads / shape->kv_heads;
    *out = (struct work_limits){
        .tile_tokens = prefill_form(k, shape).tokens,
        .most_keys = prefill_most_keys(caps, shape),
        .chunk_tokens = chunk_tokens(caps, shape),
        .split_keys = caps->software ? SPLIT_KEYS_SOFTWARE : SPLIT_KEYS,
        .target_groups = caps->compute_units *
                         (caps->software ? GROUPS_A_THREAD : GROUPS_A_UNIT),
        .head_blocks = shape->kv_heads * groups_of(group, decode.heads),
        .wave_partials = wave_partials(shape),
    };
}
