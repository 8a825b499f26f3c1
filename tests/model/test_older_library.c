/* The samples on a library that is older than the headers they were compiled with: its tables end
 * before functions that they would call, and what lies behind must not be taken for one. */
#include "../check.h"
#include "gpu.h"
#include "plugin.h"

#include <ratplus_vulkan.h>

static int calls;

static const char *version(void)
{
    return "0.0.9";
}

static ratp_status beyond_create(const struct ratp_instance_params *params, ratp_instance **out,
                                 char *reason, size_t reason_size)
{
    (void)params;
    (void)out;
    calls++;
    snprintf(reason, reason_size, "called");
    return RATP_UNSUPPORTED;
}

static const struct ratp_vulkan_feature *beyond_table(uint32_t *count)
{
    calls++;
    *count = 0;
    return NULL;
}

static struct ratp_api table;

/* In the place of the library's. */
const struct ratp_api *ratp_get_api(uint32_t abi_major, char *reason, size_t reason_size)
{
    (void)reason;
    (void)reason_size;
    CHECK_EQUAL(abi_major, RATP_ABI_MAJOR);
    return &table;
}

static void test_table(void)
{
    const struct ratp_api *ratp = NULL;
    ratp_instance *instance = NULL;
    struct problem problem = {""};
    calls = 0;
    table = (struct ratp_api){.struct_size = offsetof(struct ratp_api, seq_fork), .abi_major = 1,
                              .version = version, .instance_create = beyond_create};
    CHECK(!plugin_open(true, &ratp, &instance, &problem));
    CHECK_CONTAINS(problem.text, "libratplus 0.0.9 has ABI 1.0; this program needs 1.1 or later");
    CHECK_EQUAL(calls, 0);
    table.abi_minor = RATP_ABI_MINOR;
    CHECK(!plugin_open(true, &ratp, &instance, &problem));
    CHECK_CONTAINS(problem.text, "called");
    CHECK_EQUAL(calls, 1);
}

static void test_extension(void)
{
    static struct gpu gpu;
    struct problem problem = {""};
    const struct ratp_vulkan_api plugin = {
        .struct_size = offsetof(struct ratp_vulkan_api, features), .features = beyond_table};
    calls = 0;
    CHECK(!gpu_choose_features(&gpu, &plugin, &problem));
    CHECK_CONTAINS(problem.text, "does not say which features it needs");
    CHECK_CONTAINS(problem.text, "ABI 1.1");
    CHECK_EQUAL(calls, 0);
    CHECK(!gpu.features.pNext && gpu.extension_count == 0);
}

int main(void)
{
    RUN(test_table);
    RUN(test_extension);
    return check_result();
}
