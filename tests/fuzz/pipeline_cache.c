/* A saved pipeline cache that was changed: every change is refused, and what
 * was saved is still read afterwards. On the software device. */
#include "fuzz.h"

#include <ratplus_vulkan.h>

#include <string.h>

static const struct ratp_api *ratp;
static const struct ratp_vulkan_api *vulkan;
static ratp_instance *instance;
static ratp_device *device;
static uint8_t *saved;
static size_t saved_size;
static unsigned long accepted, refused;

/* Something is compiled, so that there is something to save. */
static void compile(void)
{
    float q[8] = {1}, k[8] = {1}, v[8] = {1}, out[8];
    const struct ratp_tensor tq = {sizeof tq, .host = q}, tk = {sizeof tk, .host = k},
                             tv = {sizeof tv, .host = v}, to = {sizeof to, .host = out};
    const struct ratp_external params = {
        .struct_size = sizeof params, .query_tokens = 1, .key_tokens = 1, .query_heads = 1,
        .kv_heads = 1, .head_size = 8, .q = &tq, .k = &tk, .v = &tv, .out = &to,
    };
    REQUIRE(ratp->attend_external(device, &params) == RATP_OK);
}

bool fuzz_start(void)
{
    struct ratp_device_params params = {sizeof params, .name = "software"};
    ratp = ratp_get_api(RATP_ABI_MAJOR, NULL, 0);
    REQUIRE(ratp && ratp->instance_create(NULL, &instance, NULL, 0) == RATP_OK);
    vulkan = ratp->get_extension(instance, RATP_VULKAN_EXTENSION);
    if (!vulkan || ratp->device_open(instance, &params, &device)) {
        REQUIRE(ratp->instance_destroy(&instance) == RATP_OK);
        printf("no Vulkan device in software\n");
        return false;
    }
    compile();
    REQUIRE(vulkan->pipeline_cache_save(device, NULL, &saved_size) == RATP_OK);
    saved = malloc(saved_size);
    REQUIRE(saved && vulkan->pipeline_cache_save(device, saved, &saved_size) == RATP_OK);
    return true;
}

void fuzz_end(void)
{
    REQUIRE(vulkan->pipeline_cache_load(device, saved, saved_size) == RATP_OK);
    compile();
    free(saved);
    REQUIRE(ratp->device_close(&device) == RATP_OK);
    REQUIRE(ratp->instance_destroy(&instance) == RATP_OK);
}

/* A large cache is longer than inputs are: they replace its start. */
size_t fuzz_seed(size_t index, uint8_t *out)
{
    if (index > 0)
        return 0;
    size_t size = saved_size < FUZZ_ROOM ? saved_size : FUZZ_ROOM;
    memcpy(out, saved, size);
    return size;
}

static void load(const uint8_t *data, size_t size)
{
    bool same = size == saved_size && memcmp(data, saved, size) == 0;
    ratp_status status = vulkan->pipeline_cache_load(device, data, size);
    char message[512];
    REQUIRE(status == (same ? RATP_OK : RATP_PARSE_ERROR));
    REQUIRE(same || ratp->last_error(device, message, sizeof message) > 0);
    accepted += same;
    refused += !same;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!ratp && !fuzz_start())
        exit(0);
    load(data, size);
    if (saved_size <= FUZZ_ROOM || size == 0)
        return 0;
    uint8_t *whole = malloc(saved_size);
    REQUIRE(whole);
    memcpy(whole, saved, saved_size);
    memcpy(whole, data, size);
    load(whole, saved_size);
    free(whole);
    return 0;
}

bool fuzz_report(void)
{
    printf("%zu bytes saved; %lu loads refused, %lu unchanged\n", saved_size, refused, accepted);
    return refused && accepted;
}
