#include "memory.h"

#include <stdio.h>
#include <string.h>

bool memory_read(const cJSON *json, struct memory_options *out, char *why, size_t size)
{
    *out = (struct memory_options){.packed = false, .theta = 10000};
    if (!json)
        return true;
    if (!cJSON_IsObject(json)) {
        snprintf(why, size, "memory must be an object, such as {\"packed\": true}");
        return false;
    }
    for (const cJSON *member = json->child; member; member = member->next) {
        const bool packed = strcmp(member->string, "packed") == 0;
        if (!packed && strcmp(member->string, "theta") != 0) {
            snprintf(why, size, "unknown key \"%.60s\" in memory", member->string);
            return false;
        }
        if (packed && !cJSON_IsBool(member)) {
            snprintf(why, size, "memory.packed must be true or false");
            return false;
        }
        if (!packed && !(cJSON_IsNumber(member) && member->valuedouble > 1 &&
                         member->valuedouble < 1e15)) {
            snprintf(why, size, "memory.theta must be a number above 1, such as 10000");
            return false;
        }
        if (packed)
            out->packed = cJSON_IsTrue(member);
        else
            out->theta = member->valuedouble;
    }
    return true;
}

bool memory_is_same(const struct memory_options *a, const struct memory_options *b)
{
    return a->packed == b->packed && (!a->packed || a->theta == b->theta);
}
