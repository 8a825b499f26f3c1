#include "plugin.h"

#include <stdio.h>

bool plugin_check(const struct ratp_api *ratp, ratp_status status, const void *object,
                  const char *what, struct problem *problem)
{
    if (status == RATP_OK)
        return true;
    char text[512] = "";
    ratp->last_error(object, text, sizeof text);
    return problem_set(problem, "%s: %s (%s)", what, text, ratp->status_name(status));
}

static void on_log(void *user, ratp_log_level level, const char *message)
{
    (void)user;
    static const char *const names[] = {"error", "warning", "info", "debug"};
    fprintf(stderr, "libratplus: %s: %s\n", names[level & 3], message);
}

bool plugin_open(bool no_vulkan, const struct ratp_api **ratp, ratp_instance **out,
                 struct problem *problem)
{
    char why[256] = "";
    *ratp = ratp_get_api(RATP_ABI_MAJOR, why, sizeof why);
    if (!*ratp)
        return problem_set(problem, "libratplus: %s", why);
    /* The table of an older library ends before functions that the samples call. */
    if ((*ratp)->abi_minor < RATP_ABI_MINOR)
        return problem_set(problem, "libratplus %s has ABI %u.%u; this program needs %u.%u or later",
                           (*ratp)->version(), (*ratp)->abi_major, (*ratp)->abi_minor,
                           RATP_ABI_MAJOR, RATP_ABI_MINOR);
    const struct ratp_instance_params params = {
        .struct_size = sizeof params,
        .log = on_log,
        .log_level = RATP_LOG_WARNING,
        .no_vulkan = no_vulkan,
    };
    if ((*ratp)->instance_create(&params, out, why, sizeof why) != RATP_OK)
        return problem_set(problem, "libratplus: %s", why);
    return true;
}
