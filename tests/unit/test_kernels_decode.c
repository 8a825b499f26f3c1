/* Memory, ring moves, decode attention and merges on every Vulkan device
 * against the reference, on random work. Arguments: scenes a set (half as many with numbers that
 * are not finite), first seed. */
#include "../fixture.h"
#include "../kernel_devices.h"

#include "../../plugin/dtype.h"

#include <stdlib.h>

static uint32_t scenes = 3;
static uint64_t first_seed = 1;

static void test_device(struct backend *vulkan, struct backend *reference)
{
    static const struct {
        const char *name;
        struct fixture_options only;
    } sets[] = {
        {"memory", {.ops = FIXTURE_MEMORY}},
        {"memory, long", {.ops = FIXTURE_MEMORY, .max_tokens = 3000, .sequences = 2}},
        {"memory, longest chunks",
         {.ops = FIXTURE_MEMORY, .max_tokens = 40000, .sequences = 1, .kv_heads = 4,
          .head_size = 64}},
        {"singles", {.ops = FIXTURE_SINGLES, .max_tokens = 1}},
        {"singles, long past",
         {.ops = FIXTURE_SINGLES, .max_tokens = 1, .max_past = 3000, .sequences = 2}},
        {"singles, head size 128", {.ops = FIXTURE_SINGLES, .max_tokens = 1, .head_size = 128}},
        {"memory, singles", {.ops = FIXTURE_MEMORY | FIXTURE_SINGLES, .max_tokens = 1}},
        {"memory, 8-bit", {.ops = FIXTURE_MEMORY, .cache_dtype = RATP_Q8_0, .max_tokens = 600}},
        {"memory, singles, 8-bit",
         {.ops = FIXTURE_MEMORY | FIXTURE_SINGLES, .max_tokens = 1, .cache_dtype = RATP_Q8_0,
          .head_size = 128}},
        {"external", {.ops = FIXTURE_EXTERNAL, .max_tokens = 1}},
        {"external, q8_0",
         {.ops = FIXTURE_EXTERNAL, .max_tokens = 1, .cache_dtype = DTYPE_Q8_0_BLOCKS, .head_size = 96}},
        {"external, q4_0",
         {.ops = FIXTURE_EXTERNAL, .max_tokens = 1, .cache_dtype = RATP_Q4_0, .head_size = 64}},
        {"merge", {.ops = FIXTURE_MERGE}},
        {"not finite: memory, singles",
         {.ops = FIXTURE_MEMORY | FIXTURE_SINGLES, .max_tokens = 1, .spoilt = true}},
        {"not finite: memory, 8-bit",
         {.ops = FIXTURE_MEMORY | FIXTURE_SINGLES, .max_tokens = 1, .cache_dtype = RATP_Q8_0,
          .head_size = 64, .spoilt = true}},
        {"not finite: singles", {.ops = FIXTURE_SINGLES, .max_tokens = 1, .spoilt = true}},
        {"not finite: external", {.ops = FIXTURE_EXTERNAL, .max_tokens = 1, .spoilt = true}},
        {"not finite: external, q8_0",
         {.ops = FIXTURE_EXTERNAL, .max_tokens = 1, .cache_dtype = DTYPE_Q8_0_BLOCKS,
          .head_size = 96, .spoilt = true}},
        {"not finite: merge", {.ops = FIXTURE_MERGE, .spoilt = true}},
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
