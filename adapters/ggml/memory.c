#include "memory.h"

#include <stdio.h>
#include <string.h>

bool memory_read(const cJSON *json, struct memory_options *out, char *why, size_t size)
{
    *out = (struct memory_options){.packed = false};
    if (!json)
        return true;
    if (!cJSON_IsObject(json)) {
        snprintf(why, size, "memory must be an object, such as {\"packed\": false}");
        return false;
    }
    for (const cJSON *member = json->child; member; member = member->next) {
        if (strcmp(member->string, "packed") != 0) {
            snprintf(why, size, "unknown key \"%.60s\" in memory", member->string);
            return false;
        }
        if (!cJSON_IsBool(member)) {
            snprintf(why, size, "memory.packed must be true or false");
            return false;
        }
        out->packed = cJSON_IsTrue(member);
    }
    if (!out->packed)
        return true;
    snprintf(why, size, "memory.packed is not supported by this build");
    return false;
}
