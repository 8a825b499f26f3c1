/* The short names of variants. */
#include "variant.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum manner { PART_NONE, PART_ALWAYS, PART_UNLESS_DEFAULT, PART_FLAG };
enum { MAX_PARTS = 4 };

/* A word, and parts in this order: a text, and for all but flags a number behind it. */
static const struct form {
    const char *word;
    struct {
        const char *text;
        enum variant_number number;
        enum manner manner;
    } part[MAX_PARTS];
} forms[VARIANT_KINDS] = {
    [RATP_DENSE] = {.word = "dense"},
    [RATP_DILATED] = {"d",
                      {{"", NUMBER_DILATION, PART_ALWAYS},
                       {"w", NUMBER_WINDOW, PART_UNLESS_DEFAULT},
                       {"s", NUMBER_SINKS, PART_UNLESS_DEFAULT}}},
    [RATP_STREAMING] = {"stream",
                        {{"w", NUMBER_WINDOW, PART_UNLESS_DEFAULT},
                         {"s", NUMBER_SINKS, PART_UNLESS_DEFAULT}}},
    [RATP_QUEST] = {"quest",
                    {{"", NUMBER_BUDGET, PART_ALWAYS},
                     {"p", NUMBER_PAGE, PART_UNLESS_DEFAULT},
                     {"g", NUMBER_SELECTION, PART_FLAG}}},
    [RATP_MOBA] = {"moba",
                   {{"", NUMBER_BLOCK, PART_ALWAYS},
                    {"k", NUMBER_TOPK, PART_ALWAYS},
                    {"g", NUMBER_SELECTION, PART_FLAG}}},
    [RATP_SNAPKV] = {"snapkv",
                     {{"", NUMBER_CAPACITY, PART_ALWAYS},
                      {"o", NUMBER_OBSERVE, PART_UNLESS_DEFAULT},
                      {"n", NUMBER_KERNEL, PART_UNLESS_DEFAULT},
                      {"avg", NUMBER_POOL, PART_FLAG}}},
};

void variant_name(const struct variant *v, char *text, size_t size)
{
    const struct form *form = &forms[v->kind];
    char name[VARIANT_NAME_SIZE];
    uint32_t numbers[VARIANT_NUMBERS];
    variant_numbers(v, numbers);
    int length = snprintf(name, sizeof name, "%s", form->word);
    for (int i = 0; i < MAX_PARTS; i++) {
        enum manner manner = form->part[i].manner;
        uint32_t number = numbers[form->part[i].number];
        bool is_default = number == variant_default(v->kind, form->part[i].number);
        if (manner == PART_ALWAYS || (manner == PART_UNLESS_DEFAULT && !is_default))
            length += snprintf(name + length, sizeof name - (size_t)length, "%s%" PRIu32,
                               form->part[i].text, number);
        else if (manner == PART_FLAG && number)
            length += snprintf(name + length, sizeof name - (size_t)length, "%s",
                               form->part[i].text);
    }
    snprintf(text, size, "%s", name);
}

static bool read_digits(const char **text, uint32_t *value)
{
    const char *p = *text;
    uint64_t sum = 0;
    for (; *p >= '0' && *p <= '9'; p++) {
        sum = sum * 10 + (uint64_t)(*p - '0');
        if (sum > UINT32_MAX)
            return false;
    }
    if (p == *text)
        return false;
    *value = (uint32_t)sum;
    *text = p;
    return true;
}

static bool read_parts(const char *p, const struct form *form, uint32_t numbers[VARIANT_NUMBERS])
{
    for (int i = 0; i < MAX_PARTS && form->part[i].manner != PART_NONE; i++) {
        size_t length = strlen(form->part[i].text);
        uint32_t *number = &numbers[form->part[i].number];
        if (strncmp(p, form->part[i].text, length) != 0) {
            if (form->part[i].manner == PART_ALWAYS)
                return false;
            continue;
        }
        p += length;
        if (form->part[i].manner == PART_FLAG)
            *number = 1;
        else if (!read_digits(&p, number))
            return false;
    }
    return *p == '\0';
}

ratp_status variant_parse(const char *text, const char *what, struct variant *out,
                          struct error *err)
{
    /* "dense" begins with the word of dilated, which comes last. */
    static const ratp_variant_kind order[VARIANT_KINDS] = {
        RATP_DENSE, RATP_STREAMING, RATP_QUEST, RATP_MOBA, RATP_SNAPKV, RATP_DILATED};
    uint32_t numbers[VARIANT_NUMBERS] = {0};
    int i = 0;
    while (i < VARIANT_KINDS &&
           strncmp(text, forms[order[i]].word, strlen(forms[order[i]].word)) != 0)
        i++;
    if (i == VARIANT_KINDS ||
        !read_parts(text + strlen(forms[order[i]].word), &forms[order[i]], numbers))
        return fail(err, RATP_INVALID_ARGUMENT,
                    "%s is \"%.60s\", it must read like dense, d16, d16w256s4, streamw256s4, "
                    "quest1024, moba512k3 or snapkv1024",
                    what, text);
    int wrong;
    return variant_make(order[i], numbers, what, out, &wrong, err);
}

void choice_name(const struct choice *choice, char *text, size_t size)
{
    struct choice usual = choice_of(&choice->decode);
    char prompt[VARIANT_NAME_SIZE], decode[VARIANT_NAME_SIZE];
    variant_name(&choice->prompt, prompt, sizeof prompt);
    variant_name(&choice->decode, decode, sizeof decode);
    if (choice_equal(choice, &usual))
        snprintf(text, size, "%s", decode);
    else
        snprintf(text, size, "%s:%s", prompt, decode);
}

ratp_status choice_parse(const char *text, const char *what, struct choice *out,
                         struct error *err)
{
    const char *colon = strchr(text, ':');
    struct variant decode;
    ratp_status status = variant_parse(colon ? colon + 1 : text, what, &decode, err);
    if (status)
        return status;
    *out = choice_of(&decode);
    if (!colon)
        return RATP_OK;
    char name[96], prompt[VARIANT_NAME_SIZE];
    snprintf(name, sizeof name, "%.80s.prompt", what);
    snprintf(prompt, sizeof prompt, "%.*s", (int)(colon - text), text);
    if (strlen(prompt) < (size_t)(colon - text))
        return fail(err, RATP_INVALID_ARGUMENT,
                    "%s is \"%s...\", a name has at most %zu characters", name, prompt,
                    sizeof prompt - 1);
    status = variant_parse(prompt, name, &out->prompt, err);
    return status ? status : choice_check_prompt(&out->prompt, name, err);
}
