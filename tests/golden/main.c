/* ratplus-golden: checks the library against golden vectors. */
#include "arguments.h"
#include "play.h"

#include <cjson/cJSON.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct tally {
    uint32_t passed, failed, skipped;
    uint32_t complaints; /* of the validation layer */
    cJSON *json;         /* NULL: print lines */
};

static const char suffix[] = ".safetensors";

static void on_log(void *user, ratp_log_level level, const char *message)
{
    struct tally *tally = user;
    if (level == RATP_LOG_ERROR)
        fprintf(stderr, "%s\n", message);
    if (strncmp(message, "validation: ", 12) == 0)
        tally->complaints++;
}

static int is_golden(const struct dirent *entry)
{
    size_t length = strlen(entry->d_name);
    return length > sizeof suffix - 1 &&
           strcmp(entry->d_name + length - (sizeof suffix - 1), suffix) == 0;
}

static void report_json(struct tally *tally, const char *device, const char *name,
                        enum golden_status status, const struct golden_errors *e,
                        const char *reason)
{
    static const char *const words[] = {"passed", "failed", "skipped"};
    cJSON *item = cJSON_CreateObject();
    cJSON_AddStringToObject(item, "file", name);
    cJSON_AddStringToObject(item, "device", device);
    cJSON_AddStringToObject(item, "result", words[status]);
    if (status != GOLDEN_PASSED)
        cJSON_AddStringToObject(item, "reason", reason);
    if (e->runs) {
        cJSON_AddNumberToObject(item, "runs", e->runs);
        cJSON_AddNumberToObject(item, "float32", e->out[RATP_F32]);
        cJSON_AddNumberToObject(item, "float16", e->out[RATP_F16]);
        cJSON_AddNumberToObject(item, "bfloat16", e->out[RATP_BF16]);
        if (e->out[RATP_Q8_0] >= 0)
            cJSON_AddNumberToObject(item, "q8_0", e->out[RATP_Q8_0]);
        if (e->lse[RATP_F32] >= 0)
            cJSON_AddNumberToObject(item, "lse", e->lse[RATP_F32]);
        if (e->state >= 0)
            cJSON_AddNumberToObject(item, "state", e->state);
    }
    cJSON_AddItemToArray(tally->json, item);
}

static void print_error(double error)
{
    if (error < 0)
        printf("  %8s", "-");
    else
        printf("  %8.1e", error);
}

static void report_line(int width, const char *name, enum golden_status status,
                        const struct golden_errors *e, const char *reason)
{
    if (status == GOLDEN_PASSED) {
        printf("  %-*s", width, name);
        print_error(e->out[RATP_F32]);
        print_error(e->out[RATP_F16]);
        print_error(e->out[RATP_BF16]);
        print_error(e->out[RATP_Q8_0]);
        print_error(e->lse[RATP_F32]);
        print_error(e->state);
        printf("  %4u\n", e->runs);
    } else {
        printf("  %-*s  %s: %s\n", width, name, status == GOLDEN_SKIPPED ? "skipped" : "FAILED",
               reason);
    }
    fflush(stdout);
}

static void check_file(const struct golden_device *device, const char *device_name,
                       const char *folder, const char *file, int width, struct tally *tally)
{
    char path[4096], name[256];
    struct problem problem = {{0}};
    struct golden_errors errors = {0};
    struct golden_layer layer;
    snprintf(path, sizeof path, "%s/%s", folder, file);
    snprintf(name, sizeof name, "%.*s", (int)(strlen(file) - (sizeof suffix - 1)), file);
    enum golden_status status = golden_load(&layer, path, &problem);
    if (status == GOLDEN_PASSED)
        status = golden_play(device, &layer, &errors, &problem);
    golden_free(&layer);
    tally->passed += status == GOLDEN_PASSED;
    tally->failed += status == GOLDEN_FAILED;
    tally->skipped += status == GOLDEN_SKIPPED;
    if (tally->json)
        report_json(tally, device_name, name, status, &errors, problem.text);
    else
        report_line(width, name, status, &errors, problem.text);
}

static bool check_device(const struct ratp_api *api, ratp_instance *instance, const char *wanted,
                         const char *folder, struct dirent **files, int count,
                         struct tally *tally)
{
    struct golden_device device = {.api = api, .instance = instance};
    struct ratp_device_params params = {.struct_size = sizeof params, .name = wanted};
    struct ratp_device_info info = {.struct_size = sizeof info};
    ratp_status status = api->device_open(instance, &params, &device.device);
    if (status) {
        char text[400];
        api->last_error(instance, text, sizeof text);
        fprintf(stderr, "ratplus-golden: device \"%s\": %s\n", wanted, text);
        return false;
    }
    int width = 10;
    for (int i = 0; i < count; i++) {
        int length = (int)strlen(files[i]->d_name) - (int)(sizeof suffix - 1);
        width = length > width ? length : width;
    }
    api->device_info(device.device, &info);
    if (!tally->json)
        printf("%s\n  %-*s  %8s  %8s  %8s  %8s  %8s  %8s  %4s\n", info.name, width, "file",
               "float32", "float16", "bfloat16", "q8_0", "lse", "state", "runs");
    for (int i = 0; i < count; i++)
        check_file(&device, info.name, folder, files[i]->d_name, width, tally);
    status = api->device_close(&device.device);
    if (status)
        fprintf(stderr, "ratplus-golden: device_close: %s\n", api->status_name(status));
    return status == RATP_OK;
}

static bool check_all(const struct ratp_api *api, ratp_instance *instance, const char *wanted,
                      const char *folder, struct dirent **files, int count, struct tally *tally)
{
    uint32_t devices = 0;
    bool ok = true;
    if (wanted)
        return check_device(api, instance, wanted, folder, files, count, tally);
    if (api->device_count(instance, &devices))
        return false;
    for (uint32_t i = 0; i < devices; i++) {
        char index[16];
        struct ratp_device_info info = {.struct_size = sizeof info};
        if (api->device_describe(instance, i, &info) || !info.usable)
            continue;
        snprintf(index, sizeof index, "%u", i);
        ok = check_device(api, instance, index, folder, files, count, tally) && ok;
    }
    return ok;
}

static void help(const struct option *options, size_t count)
{
    printf("ratplus-golden checks the library against golden vectors: files that hold the\n"
           "inputs of a layer and what must come out of it. Each is played as a prompt and\n"
           "decode steps, in chunks, and token by token; with everything kept and with only\n"
           "what is needed; with caches of float32, float16, bfloat16 and q8_0. The columns are the\n"
           "worst relative errors |out - golden| / |golden|; the bounds are 2e-5, 1e-3 and\n"
           "8e-3 by the cache's type, and 2e-5 for the memory state. Rows whose keys were chosen\n"
           "by a smaller margin than the bound are left out: rounding may choose others.\n\n"
           "Usage: ratplus-golden FOLDER [options]\n\n");
    arguments_help(options, count);
    printf("\nExamples:\n"
           "  ratplus-golden tests/golden/data\n"
           "  ratplus-golden tests/golden/data --device reference\n"
           "  ratplus-golden tests/golden/data --device software --validation\n"
           "  ratplus-golden tests/golden/data --json > golden.json\n");
}

int main(int argc, char **argv)
{
    const char *folder = NULL, *wanted = NULL;
    bool want_help = false, json = false, validation = false, ok = false;
    const struct option options[] = {
        {"FOLDER", OPTION_TEXT, NULL, &folder, 0, 0, "where the *.safetensors files are"},
        {"--device", OPTION_TEXT, "NAME", &wanted, 0, 0,
         "part of a device's name, an index, \"reference\" or \"software\"; default: all"},
        {"--json", OPTION_FLAG, NULL, &json, 0, 0, "print a JSON list of results instead"},
        {"--validation", OPTION_FLAG, NULL, &validation, 0, 0,
         "turn the Vulkan validation layer on; any message of it is a failure"},
        {"--help", OPTION_FLAG, NULL, &want_help, 0, 0, "this text"},
    };
    struct problem problem;
    struct tally tally = {0};
    struct dirent **files = NULL;
    ratp_instance *instance = NULL;
    char why[256] = "";
    if (!arguments_parse(options, sizeof options / sizeof *options, argc, argv, &problem)) {
        fprintf(stderr, "ratplus-golden: %s\n", problem.text);
        return 2;
    }
    if (want_help || !folder) {
        help(options, sizeof options / sizeof *options);
        return want_help ? 0 : 2;
    }
    const struct ratp_api *api = ratp_get_api(RATP_ABI_MAJOR, why, sizeof why);
    int count = scandir(folder, &files, is_golden, alphasort);
    struct ratp_instance_params params = {.struct_size = sizeof params,
                                          .log = on_log,
                                          .log_user = &tally,
                                          .no_vulkan = wanted && !strcmp(wanted, "reference"),
                                          .validation = validation};
    tally.json = json ? cJSON_CreateArray() : NULL;
    if (count <= 0)
        fprintf(stderr, "ratplus-golden: no *%s file in \"%s\"\n", suffix, folder);
    else if (!api || api->instance_create(&params, &instance, why, sizeof why))
        fprintf(stderr, "ratplus-golden: %s\n", why);
    else
        ok = check_all(api, instance, wanted, folder, files, count, &tally);
    if (instance && api->instance_destroy(&instance))
        ok = false;
    if (json) {
        char *text = cJSON_Print(tally.json);
        printf("%s\n", text ? text : "[]");
        cJSON_free(text);
        cJSON_Delete(tally.json);
    } else if (api && count > 0) {
        printf("%u passed, %u failed, %u skipped\n", tally.passed, tally.failed, tally.skipped);
    }
    for (int i = 0; i < count; i++)
        free(files[i]);
    free(files);
    return ok && !tally.failed && !tally.complaints ? 0 : 1;
}
