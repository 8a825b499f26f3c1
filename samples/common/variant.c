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

/* What may stand behind a word: a text with a number, in this order. */
struct part {
    const char *text;
    uint32_t *number;
    bool required;
    bool flag; /* the number is 1, and not written */
};

static bool read_parts(const char *p, const struct part *parts, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const size_t length = strlen(parts[i].text);
        if (strncmp(p, parts[i].text, length) != 0) {
            if (parts[i].required)
                return false;
            continue;
        }
        p += length;
        if (parts[i].flag)
            *parts[i].number = 1;
        else if (!read_number(&p, parts[i].number))
            return false;
    }
    return *p == '\0';
}

/* Moves `*text` past a word that it begins with. */
static bool starts(const char **text, const char *word)
{
    const size_t length = strlen(word);
    if (strncmp(*text, word, length) != 0)
        return false;
    *text += length;
    return true;
}

static bool read_variant(const char *p, struct ratp_variant *out)
{
    uint32_t group = 0, average = 0;
    const struct part window[] = {{"w", &out->window, false, false},
                                  {"s", &out->sinks, false, false}};
    const struct part dilated[] = {{"", &out->dilation, true, false}, window[0], window[1]};
    const struct part quest[] = {{"", &out->budget, true, false},
                                 {"p", &out->page, false, false},
                                 {"g", &group, false, true}};
    const struct part moba[] = {{"", &out->block, true, false},
                                {"k", &out->topk, true, false},
                                {"g", &group, false, true}};
    const struct part snapkv[] = {{"", &out->capacity, true, false},
                                  {"o", &out->observe, false, false},
                                  {"n", &out->kernel, false, false},
                                  {"avg", &average, false, true}};
    bool good = false;
    *out = (struct ratp_variant){.struct_size = sizeof *out, .kind = RATP_DENSE};
    if (starts(&p, "dense")) {
        good = *p == '\0';
    } else if (starts(&p, "stream")) {
        out->kind = RATP_STREAMING;
        good = read_parts(p, window, 2);
    } else if (starts(&p, "quest")) {
        out->kind = RATP_QUEST;
        good = read_parts(p, quest, 3);
    } else if (starts(&p, "moba")) {
        out->kind = RATP_MOBA;
        good = read_parts(p, moba, 3);
    } else if (starts(&p, "snapkv")) {
        out->kind = RATP_SNAPKV;
        good = read_parts(p, snapkv, 4);
    } else if (starts(&p, "d")) {
        out->kind = RATP_DILATED;
        good = read_parts(p, dilated, 3) && out->dilation > 0;
    }
    out->selection = (ratp_selection)group;
    out->pool = (ratp_pooling)average;
    return good;
}

bool variant_from_name(const char *text, struct ratp_variant *out, struct ratp_variant *prompt,
                       struct problem *problem)
{
    const char *colon = strchr(text, ':');
    bool good = read_variant(colon ? colon + 1 : text, out);
    if (good && colon) {
        char name[64];
        snprintf(name, sizeof name, "%.*s", (int)(colon - text), text);
        good = strlen(name) == (size_t)(colon - text) && read_variant(name, prompt);
        out->prompt = prompt;
    }
    if (!good)
        return problem_set(problem,
                           "\"%.60s\" is not a variant: dense, d16, d16w256s4 (dilation, window, "
                           "sinks), streamw256s4, quest1024 (budget), moba512k3 (block, topk), "
                           "snapkv1024 (capacity), or d16:quest1024 (prompts: decoded tokens)",
                           text);
    return true;
}

bool fixed_from_name(const char *text, struct ratp_variant *out, struct problem *problem)
{
    if (read_variant(text, out) && out->kind <= RATP_STREAMING)
        return true;
    return problem_set(problem,
                       "\"%.60s\" is not a variant whose keys can be counted beforehand: dense, d16, "
                       "d16w256s4 (dilation, window, sinks) or streamw256s4",
                       text);
}

/* Appends a text and a number that is not `usual`. */
static void append(char *text, size_t size, const char *part, uint32_t number, uint32_t usual)
{
    const size_t length = strlen(text);
    if (number != usual)
        snprintf(text + length, size - length, "%s%u", part, number);
}

static void append_variant(const struct ratp_variant *v, char *text, size_t size)
{
    static const char *const words[] = {"dense", "d", "stream", "quest", "moba", "snapkv"};
    const uint32_t never = UINT32_MAX;
    const size_t length = strlen(text);
    snprintf(text + length, size - length, "%s", words[v->kind]);
    if (v->kind == RATP_DILATED)
        append(text, size, "", v->dilation, never);
    if (v->kind == RATP_DILATED || v->kind == RATP_STREAMING) {
        append(text, size, "w", v->window, 0);
        append(text, size, "s", v->sinks, 0);
    }
    if (v->kind == RATP_QUEST) {
        append(text, size, "", v->budget, never);
        append(text, size, "p", v->page ? v->page : 16, 16);
    }
    if (v->kind == RATP_MOBA) {
        append(text, size, "", v->block ? v->block : 512, never);
        append(text, size, "k", v->topk, never);
    }
    if (v->kind == RATP_SNAPKV) {
        append(text, size, "", v->capacity, never);
        append(text, size, "o", v->observe ? v->observe : 32, 32);
        append(text, size, "n", v->kernel ? v->kernel : 7, 7);
    }
    if (v->selection == RATP_SELECT_GROUP || v->pool == RATP_POOL_AVG)
        snprintf(text + strlen(text), size - strlen(text), "%s",
                 v->kind == RATP_SNAPKV ? "avg" : "g");
}

void variant_to_name(const struct ratp_variant *variant, char *text, size_t size)
{
    text[0] = '\0';
    if (variant->prompt) {
        append_variant(variant->prompt, text, size);
        snprintf(text + strlen(text), size - strlen(text), ":");
    }
    append_variant(variant, text, size);
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
