/* The reference backend against the definition, on random work. */
#include "../check.h"
#include "../fixture.h"

#include "../../plugin/reference/reference.h"

#include <stdlib.h>

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        struct fixture_options only;
    } sets[] = {
        {"memory", {.ops = FIXTURE_MEMORY}},
        {"prompts", {.ops = FIXTURE_PROMPTS}},
        {"singles", {.ops = FIXTURE_SINGLES}},
        {"memory, prompts, singles",
         {.ops = FIXTURE_MEMORY | FIXTURE_PROMPTS | FIXTURE_SINGLES}},
        {"float32 alone",
         {.ops = FIXTURE_MEMORY | FIXTURE_PROMPTS | FIXTURE_SINGLES, .cache_dtype = RATP_F32,
          .io_dtype = RATP_F32}},
        {"external", {.ops = FIXTURE_EXTERNAL}},
        {"merge", {.ops = FIXTURE_MERGE}},
        {"not finite: memory, singles",
         {.ops = FIXTURE_MEMORY | FIXTURE_SINGLES, .spoilt = true}},
        {"not finite: prompts", {.ops = FIXTURE_PROMPTS, .spoilt = true}},
        {"not finite: external", {.ops = FIXTURE_EXTERNAL, .spoilt = true}},
        {"not finite: merge", {.ops = FIXTURE_MERGE, .spoilt = true}},
    };
    uint32_t count = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 12;
    struct log log = {0};
    struct error err;
    struct backend *reference;
    CHECK(reference_open(&log, 0, &reference, &err) == RATP_OK);
    if (check_failures)
        return check_result();
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++)
        CHECK(fixture_compare_many(reference, NULL, 1 + 1000 * i, count, &sets[i].only,
                                   sets[i].name) == 0);
    reference->ops->destroy(reference);
    return check_result();
}
