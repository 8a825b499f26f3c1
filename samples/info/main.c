/* ratplus-info: the devices, their features, and which form of each kernel
 * they would run. */
#include "report.h"

#include "arguments.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct feature_name feature_names[] = {
    {RATP_FEATURE_STORAGE_16BIT, "16-bit storage", "storage_16bit"},
    {RATP_FEATURE_FLOAT16, "float16 arithmetic", "float16"},
    {RATP_FEATURE_SUBGROUP_SIZE_CONTROL, "subgroup size control", "subgroup_size_control"},
    {RATP_FEATURE_INTEGER_DOT_PRODUCT, "integer dot product", "integer_dot_product"},
    {RATP_FEATURE_COOPERATIVE_MATRIX, "cooperative matrix", "cooperative_matrix"},
    {RATP_FEATURE_HOST_IMPORT, "host memory import", "host_import"},
    {RATP_FEATURE_MEMORY_BUDGET, "memory budget", "memory_budget"},
};
const uint32_t feature_count = sizeof feature_names / sizeof *feature_names;

static const char usage[] =
    "usage: ratplus-info [options]\n"
    "\n"
    "Lists the devices that libratplus can use, what they offer, which form of each\n"
    "kernel they would run, and why not a faster one.\n"
    "\n";

static const char examples[] =
    "\n"
    "examples:\n"
    "  ratplus-info                       all devices\n"
    "  ratplus-info --device software     Vulkan on the CPU\n"
    "  ratplus-info --device 0 --json     the first one, for a program\n";

const char *kind_name(ratp_device_kind kind)
{
    static const char *const names[] = {"discrete", "integrated", "other", "software",
                                        "reference"};
    return kind >= 0 && kind <= RATP_DEVICE_REFERENCE ? names[kind] : "unknown";
}

static void on_log(void *user, ratp_log_level level, const char *message)
{
    (void)user;
    (void)level;
    fprintf(stderr, "ratplus-info: %s\n", message);
}

static void list_forms(const struct ratp_api *ratp, ratp_device *device, struct device_report *d)
{
    for (d->form_count = 0; d->form_count < MAX_FORMS; d->form_count++) {
        struct ratp_kernel_form form = {.struct_size = sizeof form};
        struct kernel_form *to = &d->forms[d->form_count];
        if (ratp->device_kernel_form(device, d->form_count, &form) != RATP_OK)
            return;
        snprintf(to->kernel, sizeof to->kernel, "%s", form.kernel);
        snprintf(to->form, sizeof to->form, "%s", form.form);
        snprintf(to->reason, sizeof to->reason, "%s", form.reason);
    }
}

/* Opens the device that `name` means and tells of its kernels. */
static bool report_open(const struct ratp_api *ratp, ratp_instance *instance, const char *name,
                        struct device_report *d)
{
    struct ratp_device_params params = {.struct_size = sizeof params, .name = name};
    ratp_device *device = NULL;
    d->info.struct_size = sizeof d->info;
    if (ratp->device_open(instance, &params, &device) != RATP_OK) {
        ratp->last_error(instance, d->problem, sizeof d->problem);
        return false;
    }
    ratp->device_info(device, &d->info);
    list_forms(ratp, device, d);
    ratp->device_close(&device);
    return true;
}

/* The index in the list of the device that was opened by name. */
static uint32_t index_of(const struct ratp_api *ratp, ratp_instance *instance,
                         const struct ratp_device_info *wanted)
{
    uint32_t count = 0;
    ratp->device_count(instance, &count);
    for (uint32_t i = 0; i < count; i++) {
        struct ratp_device_info info = {.struct_size = sizeof info};
        if (ratp->device_describe(instance, i, &info) == RATP_OK && info.kind == wanted->kind &&
            !strcmp(info.name, wanted->name) && info.device_id == wanted->device_id)
            return i;
    }
    return 0;
}

static int report_one(const struct ratp_api *ratp, ratp_instance *instance, const char *name,
                      bool json)
{
    static struct device_report d;
    if (!report_open(ratp, instance, name, &d)) {
        fprintf(stderr, "ratplus-info: %s\n", d.problem);
        return 1;
    }
    d.index = index_of(ratp, instance, &d.info);
    if (json)
        return print_json(ratp->version(), &d, 1) ? 0 : 1;
    print_table(ratp->version(), &d, 1);
    return 0;
}

static int report_all(const struct ratp_api *ratp, ratp_instance *instance, bool json)
{
    uint32_t count = 0;
    if (ratp->device_count(instance, &count) != RATP_OK)
        return 1;
    struct device_report *devices = calloc(count, sizeof *devices);
    if (!devices) {
        fprintf(stderr, "ratplus-info: out of memory\n");
        return 1;
    }
    for (uint32_t i = 0; i < count; i++) {
        char name[16];
        snprintf(name, sizeof name, "%u", i);
        devices[i].index = i;
        devices[i].info.struct_size = sizeof devices[i].info;
        ratp->device_describe(instance, i, &devices[i].info);
        if (devices[i].info.usable)
            report_open(ratp, instance, name, &devices[i]);
    }
    bool good = true;
    if (json)
        good = print_json(ratp->version(), devices, count);
    else
        print_table(ratp->version(), devices, count);
    free(devices);
    return good ? 0 : 1;
}

int main(int argc, char **argv)
{
    const char *device = NULL;
    bool json = false, help = false, version = false;
    const struct option options[] = {
        {"--device", OPTION_TEXT, "NAME", &device, 0, 0,
         "only this one: part of its name, its index, \"software\" or \"reference\""},
        {"--json", OPTION_FLAG, NULL, &json, 0, 0, "print JSON"},
        {"--version", OPTION_FLAG, NULL, &version, 0, 0, "print the library's version"},
        {"--help", OPTION_FLAG, NULL, &help, 0, 0, "print this"},
    };
    const size_t option_count = sizeof options / sizeof *options;
    struct problem problem;
    char why[512];
    if (!arguments_parse(options, option_count, argc, argv, &problem)) {
        fprintf(stderr, "ratplus-info: %s\n", problem.text);
        return 2;
    }
    if (help) {
        fputs(usage, stdout);
        arguments_help(options, option_count);
        fputs(examples, stdout);
        return 0;
    }
    const struct ratp_api *ratp = ratp_get_api(RATP_ABI_MAJOR, why, sizeof why);
    if (!ratp) {
        fprintf(stderr, "ratplus-info: %s\n", why);
        return 1;
    }
    if (version) {
        printf("ratplus %s\n", ratp->version());
        return 0;
    }
    const struct ratp_instance_params params = {
        .struct_size = sizeof params, .log = on_log, .log_level = RATP_LOG_WARNING};
    ratp_instance *instance = NULL;
    if (ratp->instance_create(&params, &instance, why, sizeof why) != RATP_OK) {
        fprintf(stderr, "ratplus-info: %s\n", why);
        return 1;
    }
    int result = device ? report_one(ratp, instance, device, json)
                        : report_all(ratp, instance, json);
    ratp->instance_destroy(&instance);
    return result;
}
