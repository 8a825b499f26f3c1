/* A machine without a Vulkan loader, or without a driver: the library loads,
 * says so through the log, and works on the reference device.
 *
 *     test-no-vulkan "words that the log must have"
 */
#include "check.h"

#include <ratplus.h>

static char logged[4096];

static void keep(void *user, ratp_log_level level, const char *message)
{
    (void)user, (void)level;
    strncat(logged, message, sizeof logged - strlen(logged) - 1);
    strncat(logged, "\n", sizeof logged - strlen(logged) - 1);
}

int main(int count, char **arguments)
{
    const struct ratp_api *api = ratp_get_api(RATP_ABI_MAJOR, NULL, 0);
    if (!CHECK(api != NULL))
        return check_result();
    char why[256] = "";
    struct ratp_instance_params params = {sizeof params, .log = keep, .log_level = RATP_LOG_INFO};
    ratp_instance *instance = NULL;
    if (!CHECK(api->instance_create(&params, &instance, why, sizeof why) == RATP_OK))
        return check_result();
    for (int i = 1; i < count; i++)
        CHECK(strstr(logged, arguments[i]) != NULL);
    fputs(logged, stdout);

    uint32_t devices = 0;
    CHECK(api->device_count(instance, &devices) == RATP_OK && devices == 1);
    ratp_device *device = NULL;
    CHECK(api->device_open(instance, NULL, &device) == RATP_OK);
    struct ratp_device_info info = {.struct_size = sizeof info};
    CHECK(api->device_info(device, &info) == RATP_OK && info.kind == RATP_DEVICE_REFERENCE);
    CHECK(api->device_close(&device) == RATP_OK);

    /* Who asked for a Vulkan device, or for validation, is told that there is none. */
    struct ratp_device_params software = {sizeof software, .name = "software"};
    CHECK(api->device_open(instance, &software, &device) == RATP_NOT_FOUND && !device);
    CHECK(api->instance_destroy(&instance) == RATP_OK);
    params.validation = 1;
    CHECK(api->instance_create(&params, &instance, why, sizeof why) == RATP_NOT_FOUND && !instance);
    CHECK(why[0] != 0);
    return check_result();
}
