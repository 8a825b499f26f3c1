/* For people: a block for each device, values in one column. */
#include "report.h"

#include "terminal.h"

#include <stdio.h>

static void line(const char *label, const char *value)
{
    printf("  %-12s %s\n", label, value);
}

static void print_size(const char *label, uint64_t bytes)
{
    char text[32];
    bytes_print(bytes, text, sizeof text);
    line(label, bytes ? text : "-");
}

static void print_features(uint32_t features, bool offered)
{
    const int width = 64;
    int column = 0;
    bool any = false;
    printf("  %-12s ", offered ? "offers" : "lacks");
    for (uint32_t i = 0; i < feature_count; i++) {
        if (((features & feature_names[i].bit) != 0) != offered)
            continue;
        if (any)
            printf(column > width ? ",\n  %-12s " : ", ", "");
        column = column > width ? 0 : column;
        column += printf("%s", feature_names[i].name) + 2;
        any = true;
    }
    printf("%s\n", any ? "" : "-");
}

static void print_device(const struct device_report *d)
{
    const struct ratp_device_info *info = &d->info;
    printf("%u: %s\n", d->index, info->name);
    line("kind", kind_name(info->kind));
    line("driver", info->driver[0] ? info->driver : "-");
    if (info->api_version)
        printf("  %-12s %u.%u.%u\n", "Vulkan", info->api_version >> 22 & 0x7f,
               info->api_version >> 12 & 0x3ff, info->api_version & 0xfff);
    if (!info->usable) {
        printf("  %-12s no: it %s\n", "usable", info->why_not);
        return;
    }
    print_size("memory", info->memory_bytes);
    print_size("free", info->memory_free);
    print_size("allocation", info->max_allocation);
    print_size("shared", info->shared_bytes);
    if (info->subgroup_min == info->subgroup_max)
        printf("  %-12s %u\n", "subgroup", info->subgroup_max);
    else
        printf("  %-12s %u to %u\n", "subgroup", info->subgroup_min, info->subgroup_max);
    print_features(info->features, true);
    print_features(info->features, false);
    if (d->problem[0]) {
        line("kernels", d->problem);
        return;
    }
    int width = 0;
    for (uint32_t i = 0; i < d->form_count; i++) {
        int length = snprintf(NULL, 0, "%s", d->forms[i].kernel);
        width = length > width ? length : width;
    }
    for (uint32_t i = 0; i < d->form_count; i++) {
        printf("  %-12s %-*s  %s\n", i ? "" : "kernels", width, d->forms[i].kernel,
               d->forms[i].form);
        if (d->forms[i].reason[0])
            printf("  %-12s %-*s  (%s)\n", "", width, "", d->forms[i].reason);
    }
}

void print_table(const char *version, const struct device_report *devices, uint32_t count)
{
    printf("libratplus %s, %u device%s\n", version, count, count == 1 ? "" : "s");
    for (uint32_t i = 0; i < count; i++) {
        printf("\n");
        print_device(&devices[i]);
    }
}
