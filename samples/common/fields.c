#include "fields.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* More than any model's description has; a bound on the work of fields_only. */
#define MAX_FIELDS 256

const cJSON *fields_find(const struct fields *f, const char *name)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(f->object, name);
    return cJSON_IsNull(item) ? NULL : item;
}

/* The field as messages call it. */
static void full_name(const struct fields *f, const char *name, char *out, size_t size)
{
    snprintf(out, size, "%s%s%.80s", f->name, *f->name ? "." : "", name);
}

static void refuse(struct fields *f, const char *name, const char *why, const char *more)
{
    char full[128];
    if (!f->good)
        return;
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(f->object, name);
    char *value = item ? cJSON_PrintUnformatted(item) : NULL;
    full_name(f, name, full, sizeof full);
    const bool cut = value && strlen(value) > 60;
    f->good = problem_set(f->problem, "%s: \"%s\" is %.60s%s; %s%s", f->path, full,
                          value ? value : "missing", cut ? "..." : "", why, more);
    cJSON_free(value);
}

static void wrong(struct fields *f, const char *name, const char *wanted)
{
    refuse(f, name, "it must be ", wanted);
}

struct fields fields_of(struct fields *f, const char *name, const char *wanted)
{
    struct fields inner = *f;
    inner.name = name;
    inner.object = fields_find(f, name);
    if (!cJSON_IsObject(inner.object))
        wrong(f, name, wanted);
    inner.good = f->good;
    return inner;
}

uint32_t fields_whole(struct fields *f, const char *name, uint32_t min, uint32_t max)
{
    char wanted[64];
    const cJSON *item = fields_find(f, name);
    const double value = cJSON_IsNumber(item) ? item->valuedouble : NAN;
    if (value >= min && value <= max && floor(value) == value)
        return (uint32_t)value;
    snprintf(wanted, sizeof wanted, "a whole number from %u to %u", min, max);
    wrong(f, name, wanted);
    return min;
}

double fields_number(struct fields *f, const char *name, double min, double max)
{
    char wanted[64];
    const cJSON *item = fields_find(f, name);
    if (cJSON_IsNumber(item) && item->valuedouble >= min && item->valuedouble <= max)
        return item->valuedouble;
    snprintf(wanted, sizeof wanted, "a number from %g to %g", min, max);
    wrong(f, name, wanted);
    return min;
}

bool fields_flag(struct fields *f, const char *name)
{
    const cJSON *item = fields_find(f, name);
    if (!cJSON_IsBool(item))
        wrong(f, name, "true or false");
    return cJSON_IsTrue(item);
}

int fields_choice(struct fields *f, const char *name, const char *const *names, int count,
                  const char *wanted)
{
    const char *text = cJSON_GetStringValue(fields_find(f, name));
    for (int i = 0; text && i < count; i++)
        if (strcmp(text, names[i]) == 0)
            return i;
    wrong(f, name, wanted);
    return 0;
}

void fields_refuse(struct fields *f, const char *name, const char *why)
{
    refuse(f, name, why, "");
}

void fields_refuse_other(struct fields *f, const char *name, const char *other, double value)
{
    char why[160];
    snprintf(why, sizeof why, "but \"%s\" is %.15g; they must agree", other, value);
    refuse(f, name, why, "");
}

static bool is_known(const char *name, const char *const *const *known, int lists)
{
    for (int i = 0; i < lists; i++)
        for (const char *const *text = known[i]; *text; text++)
            if (strcmp(*text, name) == 0)
                return true;
    return *name == '_';
}

void fields_only(struct fields *f, const char *const *const *known, int lists)
{
    const cJSON *item;
    int count = 0;
    cJSON_ArrayForEach(item, f->object)
    {
        if (!f->good)
            return;
        if (++count > MAX_FIELDS)
            f->good = problem_set(f->problem, "%s: more than %d fields", f->path, MAX_FIELDS);
        else if (!is_known(item->string, known, lists))
            fields_refuse(f, item->string, "this program does not know the key, and it may change "
                          "what the model computes; remove it if it does not");
        else if (cJSON_GetObjectItemCaseSensitive(f->object, item->string) != item)
            fields_refuse(f, item->string, "the key is there twice");
    }
}
