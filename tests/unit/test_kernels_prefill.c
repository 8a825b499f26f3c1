/* Attention of prompts on every Vulkan device against the reference, on random
 * work: as the device runs it (half as much with numbers that are not finite), and a fifth as
 * much in each form that it could.
 * Arguments: scenes a set, first seed. */
#include "../fixture.h"
#include "../kernel_devices.h"

#include "../../plugin/dtype.h"
#include "../../plugin/kernels/attend.h"

#include <stdio.h>
#include <stdlib.h>

static uint32_t scenes = 5;
static uint64_t first_seed = 1;

static void test_form(struct backend *vulkan, struct backend *reference, const char *form)
{
    static const struct {
        const char *name;
        struct fixture_options only;
    } sets[] = {
        {"prompts", {.ops = FIXTURE_PROMPTS, .cache_dtype = RATP_F16}},
        {"prompts, head size 128",
         {.ops = FIXTURE_PROMPTS, .cache_dtype = RATP_F16, .head_size = 128, .value_size = 128}},
        {"prompts, 96 channels, long",
         {.ops = FIXTURE_PROMPTS, .cache_dtype = RATP_F16, .head_size = 96, .value_size = 64,
          .max_tokens = 700, .sequences = 1}},
        {"external",
         {.ops = FIXTURE_EXTERNAL, .cache_dtype = RATP_F16, .head_size = 64, .value_size = 64}},
        {"not finite",
         {.ops = FIXTURE_PROMPTS, .cache_dtype = RATP_F16, .head_size = 128, .value_size = 128,
          .spoilt = true}},
        {"not finite, external",
         {.ops = FIXTURE_EXTERNAL, .cache_dtype = RATP_F16, .head_size = 64, .value_size = 64,
          .spoilt = true}},
    };
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        char name[80];
        snprintf(name, sizeof name, "%s, %s", form, sets[i].name);
        CHECK(fixture_compare_many(vulkan, reference, first_seed + 1000 * i, (scenes + 4) / 5,
                                   &sets[i].only, name) == 0);
    }
}

static void test_forms(struct backend *vulkan, struct backend *reference)
{
    static const char *const names[PREFILL_WAYS] = {
        [PREFILL_SHARED] = "shared memory",
        [PREFILL_EACH] = "a row each",
        [PREFILL_ROWS] = "rows",
        [PREFILL_MATRIX] = "matrices",
    };
    static const struct layer_shape shape = {
        .query_heads = 1, .kv_heads = 1, .head_size = 128, .value_size = 128,
        .k_dtype = RATP_F16, .v_dtype = RATP_F16};
    struct kernel_backend *k = (struct kernel_backend *)vulkan;
    for (int way = PREFILL_BEST + 1; way < PREFILL_WAYS; way++) {
        if (!prefill_runs(vk_device_caps(k->vk), &shape, (enum prefill_way)way))
            continue;
        k->wanted_prefill = (enum prefill_way)way;
        test_form(vulkan, reference, names[way]);
    }
    k->wanted_prefill = PREFILL_BEST;
}

static void test_device(struct backend *vulkan, struct backend *reference)
{
    test_forms(vulkan, reference);
    static const struct {
        const char *name;
        struct fixture_options only;
    } sets[] = {
        {"prompts", {.ops = FIXTURE_PROMPTS}},
        {"prompts, head size 128", {.ops = FIXTURE_PROMPTS, .head_size = 128}},
        {"prompts, long", {.ops = FIXTURE_PROMPTS, .max_tokens = 700, .sequences = 1}},
        {"memory, prompts, singles",
         {.ops = FIXTURE_MEMORY | FIXTURE_PROMPTS | FIXTURE_SINGLES}},
        {"prompts, 8-bit", {.ops = FIXTURE_PROMPTS, .cache_dtype = RATP_Q8_0, .head_size = 64}},
        {"external", {.ops = FIXTURE_EXTERNAL}},
        {"external, q8_0",
         {.ops = FIXTURE_EXTERNAL, .cache_dtype = DTYPE_Q8_0_BLOCKS, .head_size = 96}},
        {"external, q4_0",
         {.ops = FIXTURE_EXTERNAL, .cache_dtype = RATP_Q4_0, .head_size = 64}},
        {"not finite: memory, prompts",
         {.ops = FIXTURE_MEMORY | FIXTURE_PROMPTS, .spoilt = true}},
        {"not finite: prompts", {.ops = FIXTURE_PROMPTS, .spoilt = true}},
        {"not finite: external", {.ops = FIXTURE_EXTERNAL, .spoilt = true}},
    };
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++)
        CHECK(fixture_compare_many(vulkan, reference, first_seed + 1000 * i,
                                   sets[i].only.spoilt ? (scenes + 1) / 2 : scenes, &sets[i].only,
                                   sets[i].name) == 0);
}

int main(int argc, char **argv)
{
    if (argc > 1)
        scenes = (uint32_t)strtoul(argv[1], NULL, 10);
    if (argc > 2)
        first_seed = strtoull(argv[2], NULL, 10);
    CHECK(kernel_devices_each(test_device) > 0);
    return check_result();
}
