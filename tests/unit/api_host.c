#include "api_host.h"

#include <stdlib.h>

const struct ratp_api *ratp;
ratp_instance *instance;
ratp_device *device;

static void print_log(void *user, ratp_log_level level, const char *message)
{
    (void)user;
    if (level <= RATP_LOG_WARNING)
        fprintf(stderr, "log: %s\n", message);
    if (strncmp(message, "validation: ", 12) == 0)
        CHECK(!"the validation layer is silent");
}

void host_open(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "reference";
    char why[256] = "";
    ratp = ratp_get_api(RATP_ABI_MAJOR, why, sizeof why);
    bool vulkan = strcmp(name, "reference") != 0;
    struct ratp_instance_params params = {sizeof params, .log = print_log,
                                          .log_level = RATP_LOG_WARNING, .no_vulkan = !vulkan,
                                          .validation = vulkan};
    if (!ratp || ratp->instance_create(&params, &instance, why, sizeof why)) {
        fprintf(stderr, "%s\n", why);
        exit(1);
    }
    struct ratp_device_params which = {sizeof which, .name = name};
    if (ratp->device_open(instance, &which, &device)) {
        fprintf(stderr, "skipped: %s\n", host_message(instance));
        exit(CHECK_SKIPPED);
    }
}

void host_close(void)
{
    CHECK_EQUAL(ratp->device_close(&device), RATP_OK);
    CHECK_EQUAL(ratp->instance_destroy(&instance), RATP_OK);
    CHECK(!device && !instance);
}

ratp_cache *host_cache(void)
{
    struct ratp_geometry geometry = {sizeof geometry, LAYERS, QUERY_HEADS, KV_HEADS, HEAD_SIZE,
                                     .memory = 1};
    struct ratp_cache_params params = {sizeof params, .geometry = &geometry};
    ratp_cache *cache = NULL;
    if (!CHECK_EQUAL(ratp->cache_create(device, &params, &cache), RATP_OK)) {
        fprintf(stderr, "%s\n", host_message(device));
        exit(1);
    }
    return cache;
}

ratp_seq *host_seq(ratp_cache *cache)
{
    ratp_seq *seq = NULL;
    if (!CHECK_EQUAL(ratp->seq_create(cache, &seq), RATP_OK))
        exit(1);
    return seq;
}

ratp_step *host_step(ratp_cache *cache, ratp_seq *seq, uint32_t tokens)
{
    struct ratp_step_params params = {sizeof params, .count = 1, .seqs = &seq, .n_tokens = &tokens};
    ratp_step *step = NULL;
    if (!CHECK_EQUAL(ratp->step_begin(cache, &params, &step), RATP_OK)) {
        fprintf(stderr, "%s\n", host_message(cache));
        exit(1);
    }
    return step;
}

static float out[MAX_ROWS * QUERY_HEADS * HEAD_SIZE];

float *host_out(void)
{
    return out;
}

struct ratp_attend_io host_io(void)
{
    enum { SIZE = MAX_ROWS * QUERY_HEADS * HEAD_SIZE };
    static float in[SIZE], lse[MAX_ROWS * QUERY_HEADS];
    static struct ratp_tensor tensor_in = {sizeof tensor_in, .host = in};
    static struct ratp_tensor tensor_out = {sizeof tensor_out, .host = out};
    static struct ratp_tensor tensor_lse = {sizeof tensor_lse, .host = lse};
    for (int i = 0; i < SIZE; i++)
        in[i] = (float)(i % 13) / 8 - 0.7f;
    return (struct ratp_attend_io){sizeof(struct ratp_attend_io),
                                   .q = &tensor_in, .k = &tensor_in, .v = &tensor_in,
                                   .f = &tensor_in, .o = &tensor_in,
                                   .out = &tensor_out, .lse = &tensor_lse};
}

const char *host_message(const void *object)
{
    static char text[600];
    size_t length = ratp->last_error(object, text, sizeof text);
    CHECK_EQUAL(length, strlen(text));
    return text;
}
