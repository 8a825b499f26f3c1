/* What ratplus-info found, and its two ways to print it. */
#ifndef INFO_REPORT_H
#define INFO_REPORT_H

#include <ratplus.h>
#include <stdbool.h>

enum { MAX_FORMS = 32 };

struct kernel_form {
    char kernel[64], form[200], reason[256];
};

struct device_report {
    uint32_t index;
    struct ratp_device_info info;
    struct kernel_form forms[MAX_FORMS];
    uint32_t form_count;
    char problem[512]; /* why the kernels could not be listed; "" when they were */
};

struct feature_name {
    uint32_t bit;
    const char *name, *json;
};

extern const struct feature_name feature_names[];
extern const uint32_t feature_count;

const char *kind_name(ratp_device_kind kind);

void print_table(const char *version, const struct device_report *devices, uint32_t count);
bool print_json(const char *version, const struct device_report *devices, uint32_t count);

#endif
