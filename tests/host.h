/* What a test does as a host of the library: an instance with the validation
 * layer on, whose messages count as failures. */
#ifndef RATPLUS_TESTS_HOST_H
#define RATPLUS_TESTS_HOST_H

#include "check.h"

#include <ratplus.h>
#include <stdlib.h>

struct host {
    const struct ratp_api *api;
    ratp_instance *instance;
    uint32_t devices;
    unsigned validation_messages;
};

static inline void host_log(void *user, ratp_log_level level, const char *message)
{
    struct host *host = user;
    if (strncmp(message, "validation: ", 12) == 0)
        host->validation_messages++;
    if (level <= RATP_LOG_WARNING)
        fprintf(stderr, "%s\n", message);
}

/* Without any Vulkan driver only the reference device is there; a driver
 * without the validation layer is a failure. */
static inline bool host_open(struct host *host)
{
    char why[512] = "";
    *host = (struct host){.api = ratp_get_api(RATP_ABI_MAJOR, why, sizeof why)};
    struct ratp_instance_params params = {
        .struct_size = sizeof params,
        .log = host_log,
        .log_user = host,
        .log_level = RATP_LOG_WARNING,
        .validation = 1,
    };
    if (!host->api || host->api->instance_create(&params, &host->instance, why, sizeof why)) {
        fprintf(stderr, "instance_create: %s\n", why);
        check_failures++;
        return false;
    }
    CHECK(host->api->device_count(host->instance, &host->devices) == RATP_OK);
    return true;
}

static inline void host_close(struct host *host)
{
    CHECK(host->validation_messages == 0);
    CHECK(host->api->instance_destroy(&host->instance) == RATP_OK);
}

/* Opens device `index`; NULL, with *info filled, where it is not usable. */
static inline ratp_device *host_device(struct host *host, uint32_t index,
                                       struct ratp_device_info *info)
{
    *info = (struct ratp_device_info){.struct_size = sizeof *info};
    CHECK(host->api->device_describe(host->instance, index, info) == RATP_OK);
    if (!info->usable)
        return NULL;
    char number[16];
    snprintf(number, sizeof number, "%u", index);
    struct ratp_device_params params = {.struct_size = sizeof params, .name = number};
    ratp_device *device = NULL;
    if (host->api->device_open(host->instance, &params, &device)) {
        char why[512];
        host->api->last_error(host->instance, why, sizeof why);
        fprintf(stderr, "device_open %s: %s\n", info->name, why);
        check_failures++;
    }
    return device;
}

/* CHECK that a call succeeded, and print the object's message if not. */
static inline bool host_ok(const struct host *host, const void *object, ratp_status status,
                           const char *what)
{
    char why[512] = "";
    if (status)
        host->api->last_error(object, why, sizeof why);
    if (status)
        fprintf(stderr, "%s: %s: %s\n", what, host->api->status_name(status), why);
    CHECK(status == RATP_OK);
    return status == RATP_OK;
}

#endif
