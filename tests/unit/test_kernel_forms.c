/* How decode attention is cut on devices that are not at hand: it fits, and covers the head. */
#include "../check.h"

#include "../../plugin/kernels/attend.h"

#include <vulkan/vulkan_core.h>

static void test_form(const struct vk_caps *caps, const struct layer_shape *shape)
{
    const struct decode_form form = decode_form(caps, shape);
    const uint32_t group = shape->query_heads, invocations = form.lanes * form.teams;
    CHECK(form.heads >= 1 && form.heads <= group);
    CHECK(form.keys >= 1 && form.teams >= 1);
    CHECK(form.lanes * form.k_blocks * 8 >= shape->head_size);
    CHECK(form.lanes * form.v_blocks * 8 >= shape->value_size);
    CHECK(invocations <= caps->max_invocations);
    if (form.way != TEAM_SHUFFLE)
        return;
    CHECK(form.lanes <= caps->subgroup_size && invocations % caps->subgroup_size == 0);
    CHECK_EQUAL(form.subgroups, invocations / caps->subgroup_size);
    CHECK(form.heads <= form.lanes);
    CHECK((form.keys & (form.keys - 1)) == 0 && (form.teams & (form.teams - 1)) == 0);
    CHECK(decode_block_bytes(&form, caps->subgroup_size) <= caps->shared_bytes);
}

static void test_forms(uint32_t subgroup, bool software)
{
    struct vk_caps caps = {
        .subgroup_size = subgroup,
        .subgroup_operations = VK_SUBGROUP_FEATURE_BASIC_BIT | VK_SUBGROUP_FEATURE_SHUFFLE_BIT |
                               VK_SUBGROUP_FEATURE_ARITHMETIC_BIT,
        .full_subgroups = true,
        .software = software,
        .shared_bytes = 16384, /* what Vulkan promises, as the next */
        .max_invocations = 128,
    };
    for (uint32_t head_size = 8; head_size <= 256; head_size += 8)
        for (uint32_t value_size = 8; value_size <= 256; value_size += 31 * 8)
            for (uint32_t group = 1; group <= 16; group++) {
                const struct layer_shape shape = {.query_heads = group, .kv_heads = 1,
                                                  .head_size = head_size,
                                                  .value_size = value_size};
                test_form(&caps, &shape);
            }
}

int main(void)
{
    for (uint32_t subgroup = 4; subgroup <= 128; subgroup *= 2) {
        test_forms(subgroup, false);
        test_forms(subgroup, true);
    }
    return check_result();
}
