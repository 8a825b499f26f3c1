/* What ggml loads: one exported function, and the list of devices. */
#include "adapter.h"
#include "layers.h"
#include "policy.h"
#include "statistics.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static struct adapter_device devices[MAX_DEVICES];
static size_t device_count;

void complain(const char *format, ...)
{
    va_list args;
    char line[512];
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    fprintf(stderr, "ratplus: %s\n", line);
}

void complain_in_log(const char *format, ...)
{
    va_list args;
    char line[512], text[528];
    ggml_log_callback log = NULL;
    void *user = NULL;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    snprintf(text, sizeof text, "ratplus: %s\n", line);
    ggml_log_get(&log, &user);
    if (log)
        log(GGML_LOG_LEVEL_ERROR, text, user);
    else
        fputs(text, stderr);
}

static const char *registration_name(ggml_backend_reg_t registration)
{
    (void)registration;
    return "RATPLUS";
}

static size_t registration_count(ggml_backend_reg_t registration)
{
    (void)registration;
    return device_count;
}

static ggml_backend_dev_t registration_device(ggml_backend_reg_t registration, size_t index)
{
    (void)registration;
    return index < device_count ? &devices[index].ggml : NULL;
}

/* What a host may ask for by name; the README tells their types. */
static void *registration_function(ggml_backend_reg_t registration, const char *name)
{
    (void)registration;
    size_t (*const text)(char *, size_t) = statistics_text;
    void *found = NULL;
    if (strcmp(name, "ratplus_statistics") == 0)
        memcpy(&found, &text, sizeof found);
    return found;
}

static struct ggml_backend_reg registration = {
    .api_version = BACKEND_API_VERSION,
    .get_name = registration_name,
    .get_device_count = registration_count,
    .get_device = registration_device,
    .get_proc_address = registration_function,
};

/* GPUs; else Vulkan on the CPU; else the reference. Never a mixture: llama.cpp
 * spreads a model's layers over all devices that it is shown. */
static int rank_of(const struct ratp_device_info *info)
{
    return info->kind == RATP_DEVICE_REFERENCE ? 0 : info->kind == RATP_DEVICE_SOFTWARE ? 1 : 2;
}

static bool describe(const struct ratp_api *ratp, ratp_instance *instance, uint32_t index,
                     struct ratp_device_info *info)
{
    *info = (struct ratp_device_info){.struct_size = sizeof *info};
    return ratp->device_describe(instance, index, info) == RATP_OK && info->usable;
}

static void list_devices(const struct ratp_api *ratp, ratp_instance *instance)
{
    uint32_t count = 0;
    int best = 0;
    struct ratp_device_info info;
    if (ratp->device_count(instance, &count))
        return;
    for (uint32_t i = 0; i < count; i++)
        if (describe(ratp, instance, i, &info) && rank_of(&info) > best)
            best = rank_of(&info);
    for (uint32_t i = 0; i < count && device_count < MAX_DEVICES; i++) {
        if (!describe(ratp, instance, i, &info) || rank_of(&info) != best)
            continue;
        struct adapter_device *d = &devices[device_count];
        d->ratp = ratp;
        d->instance = instance;
        d->info = info;
        d->index = i;
        snprintf(d->name, sizeof d->name, "RATPLUS%zu", device_count);
        device_init(d, &registration);
        device_count++;
    }
}

__attribute__((visibility("default"))) ggml_backend_reg_t ggml_backend_init(void);

/* NULL: ggml goes on without this backend. */
ggml_backend_reg_t ggml_backend_init(void)
{
    char why[256];
    ratp_instance *instance = NULL;
    if (device_count)
        return &registration;
    if (!version_is_known())
        return NULL;
    const struct ratp_api *ratp = ratp_get_api(RATP_ABI_MAJOR, why, sizeof why);
    if (!ratp || ratp->instance_create(NULL, &instance, why, sizeof why)) {
        complain("libratplus cannot be used: %s", why);
        return NULL;
    }
    list_devices(ratp, instance);
    if (device_count) {
        statistics_start(ratp, instance);
        policy_start(ratp, instance);
        layers_start();
        return &registration;
    }
    complain("libratplus finds no device that it can use; llama.cpp goes on without this backend");
    ratp->instance_destroy(&instance);
    return NULL;
}
