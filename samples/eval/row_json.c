#include "row_json.h"

static bool add_score(cJSON *list, uint32_t limit, struct score score)
{
    cJSON *entry = cJSON_CreateObject();
    if (!entry || !cJSON_AddItemToArray(list, entry)) {
        cJSON_Delete(entry);
        return false;
    }
    /* The last class has no limit. */
    return (limit == UINT32_MAX ? cJSON_AddNullToObject(entry, "to") != NULL
                                : cJSON_AddNumberToObject(entry, "to", limit) != NULL) &&
           cJSON_AddNumberToObject(entry, "right", score.right) &&
           cJSON_AddNumberToObject(entry, "asked", score.asked);
}

static bool add_scores(cJSON *object, const char *name, const uint32_t *limits,
                       const struct score *scores, uint32_t count)
{
    cJSON *list = cJSON_AddArrayToObject(object, name);
    for (uint32_t i = 0; i < count; i++)
        if (!list || !add_score(list, limits[i], scores[i]))
            return false;
    return true;
}

cJSON *row_to_json(const struct eval_row *row)
{
    const struct measured *m = &row->measured;
    cJSON *object = cJSON_CreateObject();
    if (object && cJSON_AddStringToObject(object, "model", row->model) &&
        cJSON_AddStringToObject(object, "variant", row->variant) &&
        cJSON_AddNumberToObject(object, "nats", m->nats) &&
        cJSON_AddNumberToObject(object, "text_tokens", m->text_tokens) &&
        cJSON_AddNumberToObject(object, "right", m->all.right) &&
        cJSON_AddNumberToObject(object, "asked", m->all.asked) &&
        cJSON_AddNumberToObject(object, "length", m->length) &&
        cJSON_AddNumberToObject(object, "cache_bytes", (double)m->cache_bytes) &&
        cJSON_AddNumberToObject(object, "keys", m->keys) &&
        add_scores(object, "by_needles", needle_limits, m->by_needles, NEEDLE_CLASSES) &&
        add_scores(object, "by_distance", distance_limits, m->by_distance, DISTANCE_CLASSES))
        return object;
    cJSON_Delete(object);
    return NULL;
}

static bool number(const cJSON *object, const char *name, double *out)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
    *out = cJSON_IsNumber(item) ? item->valuedouble : 0;
    return cJSON_IsNumber(item) && *out >= 0;
}

static bool whole(const cJSON *object, const char *name, uint32_t *out)
{
    double value;
    const bool good = number(object, name, &value) && value <= UINT32_MAX;
    *out = good ? (uint32_t)value : 0;
    return good;
}

static bool scores(const cJSON *object, const char *name, struct score *out, uint32_t count)
{
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(object, name);
    bool good = (uint32_t)cJSON_GetArraySize(list) == count;
    for (uint32_t i = 0; i < count && good; i++) {
        const cJSON *entry = cJSON_GetArrayItem(list, (int)i);
        good = whole(entry, "right", &out[i].right) && whole(entry, "asked", &out[i].asked);
    }
    return good;
}

bool row_from_json(const cJSON *object, struct measured *out)
{
    double bytes = 0;
    *out = (struct measured){0};
    const bool good = number(object, "nats", &out->nats) &&
                      whole(object, "text_tokens", &out->text_tokens) &&
                      whole(object, "right", &out->all.right) &&
                      whole(object, "asked", &out->all.asked) &&
                      whole(object, "length", &out->length) &&
                      number(object, "cache_bytes", &bytes) && bytes < 1e18 &&
                      number(object, "keys", &out->keys) &&
                      scores(object, "by_needles", out->by_needles, NEEDLE_CLASSES) &&
                      scores(object, "by_distance", out->by_distance, DISTANCE_CLASSES);
    out->cache_bytes = good ? (uint64_t)bytes : 0;
    return good;
}
