/* For programs: one JSON object. */
#include "report.h"

#include <cjson/cJSON.h>
#include <stdio.h>

/* A failed allocation shows as a NULL item, which cJSON adds nowhere; the
 * flag remembers it. */
static void number(cJSON *object, const char *name, double value, bool *good)
{
    *good &= cJSON_AddNumberToObject(object, name, value) != NULL;
}

static void text(cJSON *object, const char *name, const char *value, bool *good)
{
    *good &= cJSON_AddStringToObject(object, name, value) != NULL;
}

static void add_forms(cJSON *object, const struct device_report *d, bool *good)
{
    cJSON *list = cJSON_AddArrayToObject(object, "kernels");
    *good &= list != NULL;
    for (uint32_t i = 0; list && i < d->form_count; i++) {
        cJSON *form = cJSON_CreateObject();
        if (!cJSON_AddItemToArray(list, form)) {
            cJSON_Delete(form);
            *good = false;
            return;
        }
        text(form, "kernel", d->forms[i].kernel, good);
        text(form, "form", d->forms[i].form, good);
        text(form, "reason", d->forms[i].reason, good);
    }
}

static void add_device(cJSON *list, const struct device_report *d, bool *good)
{
    const struct ratp_device_info *info = &d->info;
    cJSON *device = cJSON_CreateObject();
    if (!cJSON_AddItemToArray(list, device)) {
        cJSON_Delete(device);
        *good = false;
        return;
    }
    char version[40];
    snprintf(version, sizeof version, "%u.%u.%u", info->api_version >> 22 & 0x7f,
             info->api_version >> 12 & 0x3ff, info->api_version & 0xfff);
    number(device, "index", d->index, good);
    text(device, "name", info->name, good);
    text(device, "kind", kind_name(info->kind), good);
    text(device, "driver", info->driver, good);
    text(device, "vulkan", info->api_version ? version : "", good);
    *good &= cJSON_AddBoolToObject(device, "usable", info->usable != 0) != NULL;
    text(device, "why_not", info->why_not, good);
    number(device, "memory_bytes", (double)info->memory_bytes, good);
    number(device, "memory_free", (double)info->memory_free, good);
    number(device, "max_allocation", (double)info->max_allocation, good);
    number(device, "shared_bytes", info->shared_bytes, good);
    number(device, "subgroup_min", info->subgroup_min, good);
    number(device, "subgroup_max", info->subgroup_max, good);
    number(device, "vendor_id", info->vendor_id, good);
    number(device, "device_id", info->device_id, good);
    cJSON *features = cJSON_AddObjectToObject(device, "features");
    *good &= features != NULL;
    for (uint32_t i = 0; features && i < feature_count; i++)
        *good &= cJSON_AddBoolToObject(features, feature_names[i].json,
                                       (info->features & feature_names[i].bit) != 0) != NULL;
    text(device, "problem", d->problem, good);
    add_forms(device, d, good);
}

bool print_json(const char *version, const struct device_report *devices, uint32_t count)
{
    bool good = true;
    cJSON *root = cJSON_CreateObject();
    if (!root)
        return false;
    text(root, "version", version, &good);
    cJSON *list = cJSON_AddArrayToObject(root, "devices");
    good &= list != NULL;
    for (uint32_t i = 0; list && i < count; i++)
        add_device(list, &devices[i], &good);
    char *printed = good ? cJSON_Print(root) : NULL;
    if (printed)
        puts(printed);
    cJSON_free(printed);
    cJSON_Delete(root);
    return printed != NULL;
}
