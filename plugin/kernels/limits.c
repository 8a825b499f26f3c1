/* How the kernels like their work cut. */
#include "attend.h"

enum {
    /* A chunk is walked by few invocations: short ones fill a GPU. */
    CHUNK_TOKENS = 128,
    CHUNK_TOKENS_SOFTWARE = 1024,
    SPLIT_KEYS = 128,
    SPLIT_KEYS_SOFTWARE = 512,
    GROUPS_A_UNIT = 8,
    GROUPS_A_THREAD = 4
};

void kernels_limits(struct backend *b, const struct layer_shape *shape, struct work_limits *out)
{
    const struct vk_caps *caps = vk_device_caps(kernel_device(b));
    struct decode_form decode = decode_form(caps, shape);
    uint32_t group = shape->query_heads / shape->kv_heads;
    *out = (struct work_limits){
        .tile_tokens = prefill_tile_tokens(caps, shape),
        .most_keys = prefill_most_keys(caps, shape),
        .chunk_tokens = caps->software ? CHUNK_TOKENS_SOFTWARE : CHUNK_TOKENS,
        .split_keys = caps->software ? SPLIT_KEYS_SOFTWARE : SPLIT_KEYS,
        .target_groups = caps->compute_units *
                         (caps->software ? GROUPS_A_THREAD : GROUPS_A_UNIT),
        .head_blocks = shape->kv_heads * groups_of(group, decode.heads),
    };
}
