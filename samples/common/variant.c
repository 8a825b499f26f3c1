#include "variant.h"

#include <stdio.h>
#include <string.h>

/* Reads decimal digits; false without any, or past 32 bits. */
static bool read_number(const char **text, uint32_t *out)
{
    const char *p = *text;
    uint64_t value = 0;
    while (*p >= '0' && *p <= '9' && value <= UINT32_MAX)
        value = value * 10 + (uint64_t)(*p++ - '0');
    if (p == *text || value > UINT32_MAX)
        return false;
    *text = p;
    *out = (uint32_t)value;
    return true;
}

/* "w256s4": each part may be left out. */
static bool read_window_and_sinks(const char *p, struct ratp_variant *out)
{
    if (*p == 'w') {
        p++;
        if (!read_number(&p, &out->window))
            return false;
    }
    if (*p == 's') {
        p++;
        if (!read_number(&p, &out->sinks))
            return false;
    }
    return *p == '\0';
}

bool variant_from_name(const char *text, struct ratp_variant *out, struct problem *problem)
{
    *out = (struct ratp_variant){.struct_size = sizeof *out, .kind = RATP_DENSE};
    const char *p = text;
    bool good = false;
    if (strcmp(p, "dense") == 0) {
        good = true;
    } else if (strncmp(p, "stream", 6) == 0) {
        out->kind = RATP_STREAMING;
        good = read_window_and_sinks(p + 6, out);
    } else if (*p == 'd') {
        out->kind = RATP_DILATED;
        p++;
        good = read_number(&p, &out->dilation) && out->dilation > 0 &&
               read_window_and_sinks(p, out);
    }
    if (!good)
        return problem_set(problem,
                           "\"%.60s\" is not a variant: dense, d16, d16w256s4 (dilation, window, "
                           "sinks) or streamw256s4",
                           text);
    return true;
}

void variant_to_name(const struct ratp_variant *variant, char *text, size_t size)
{
    char window[16] = "", sinks[16] = "";
    if (variant->window)
        snprintf(window, sizeof window, "w%u", variant->window);
    if (variant->sinks)
        snprintf(sinks, sizeof sinks, "s%u", variant->sinks);
    if (variant->kind == RATP_DILATED)
        snprintf(text, size, "d%u%s%s", variant->dilation, window, sinks);
    else if (variant->kind == RATP_STREAMING)
        snprintf(text, size, "stream%s%s", window, sinks);
    else
        snprintf(text, size, "dense");
}

bool retention_from_name(const char *text, ratp_retention *out, struct problem *problem)
{
    *out = strcmp(text, "full") == 0 ? RATP_RETAIN_FULL : RATP_RETAIN_NEEDED;
    return *out == RATP_RETAIN_FULL || strcmp(text, "needed") == 0 ||
           problem_set(problem, "--retention: \"%.40s\" is not full or needed", text);
}

bool dtype_from_name(const char *option, const char *text, ratp_dtype *out,
                     struct problem *problem)
{
    static const struct {
        const char *name;
        ratp_dtype dtype;
    } dtypes[] = {{"f32", RATP_F32}, {"f16", RATP_F16}, {"bf16", RATP_BF16}};
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++)
        if (strcmp(text, dtypes[i].name) == 0) {
            *out = dtypes[i].dtype;
            return true;
        }
    return problem_set(problem, "%s: \"%.40s\" is not f16, bf16 or f32", option, text);
}

bool cache_dtype_from_name(const char *text, ratp_dtype *out, struct problem *problem)
{
    if (strcmp(text, "q8_0") == 0)
        *out = RATP_Q8_0;
    else if (!dtype_from_name("--cache-dtype", text, out, problem))
        return problem_set(problem, "--cache-dtype: \"%.40s\" is not f16, bf16, f32 or q8_0", text);
    return true;
}
