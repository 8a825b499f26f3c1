#include "json_text.h"
#include "lock.h"
#include "policy.h"

#include <cjson/cJSON.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TEXT = 1 << 20, MAX_DEPTH = 5 };

/* ---- Reading ---- */

/* A place in the document: the children that lead to it, and its name. */
struct node {
    const cJSON *json;
    uint32_t path[MAX_DEPTH];
    uint32_t depth;
    char name[80];
};

struct reader {
    const char *text;
    size_t size;
    struct error *err;
};

struct ranges {
    struct ratp_range range[POLICY_RANGES];
    uint32_t count;
};

static ratp_status fail_at(struct reader *r, size_t offset, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static ratp_status fail_at(struct reader *r, size_t offset, const char *format, ...)
{
    struct json_place place = json_place_of(r->text, r->size, offset);
    char text[sizeof r->err->text - 48];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return fail(r->err, RATP_PARSE_ERROR, "line %" PRIu32 ", column %" PRIu32 ": %s", place.line,
                place.column, text);
}

static size_t offset_of(const struct reader *r, const struct node *n, bool key)
{
    return json_locate(r->text, r->size, n->path, n->depth, key);
}

static ratp_status fail_node(struct reader *r, const struct node *n, const char *must)
{
    const cJSON *json = n->json;
    char value[64] = "null";
    if (cJSON_IsNumber(json))
        snprintf(value, sizeof value, "%.10g", json->valuedouble);
    else if (cJSON_IsString(json))
        snprintf(value, sizeof value, "\"%.50s\"", json->valuestring);
    else if (cJSON_IsBool(json))
        snprintf(value, sizeof value, cJSON_IsTrue(json) ? "true" : "false");
    else if (cJSON_IsObject(json) || cJSON_IsArray(json))
        snprintf(value, sizeof value, cJSON_IsObject(json) ? "an object" : "a list");
    return fail_at(r, offset_of(r, n, false), "%s is %s, it must be %s", n->name, value, must);
}

static struct node child_of(const struct node *n, const cJSON *json, uint32_t index)
{
    struct node child = *n;
    child.json = json;
    child.path[child.depth++] = index;
    if (json->string)
        snprintf(child.name, sizeof child.name, "%.50s%s%.20s", n->depth ? n->name : "",
                 n->depth ? "." : "", json->string);
    else
        snprintf(child.name, sizeof child.name, "%.60s[%" PRIu32 "]", n->name, index);
    return child;
}

/* Finds the children of an object by name, and refuses others and duplicates. */
static ratp_status read_object(struct reader *r, const struct node *n, const char *const *keys,
                               uint32_t key_count, struct node *children)
{
    for (uint32_t k = 0; k < key_count; k++)
        children[k].json = NULL;
    uint32_t index = 0;
    for (const cJSON *json = n->json->child; json; json = json->next, index++) {
        struct node child = child_of(n, json, index);
        uint32_t k = 0;
        while (k < key_count && strcmp(keys[k], json->string) != 0)
            k++;
        if (k == key_count)
            return fail_at(r, offset_of(r, &child, true), "unknown key \"%.60s\" in %s",
                           json->string, n->name);
        if (children[k].json)
            return fail_at(r, offset_of(r, &child, true), "%s is given twice", child.name);
        children[k] = child;
    }
    return RATP_OK;
}

static ratp_status read_number(struct reader *r, const struct node *n, uint32_t limit,
                               uint32_t *out)
{
    double value = cJSON_IsNumber(n->json) ? n->json->valuedouble : -1.0;
    if (!(value >= 0.0 && value <= (double)limit) || value != (double)(uint32_t)value) {
        char must[64];
        snprintf(must, sizeof must, "a whole number from 0 to %" PRIu32, limit);
        return fail_node(r, n, must);
    }
    *out = (uint32_t)value;
    return RATP_OK;
}

/* One of a few words; its index. */
static ratp_status read_word(struct reader *r, const struct node *n, const char *const *words,
                             uint32_t count, const char *must, uint32_t *out)
{
    for (*out = 0; cJSON_IsString(n->json) && *out < count; ++*out)
        if (strcmp(n->json->valuestring, words[*out]) == 0)
            return RATP_OK;
    return fail_node(r, n, must);
}

static ratp_status read_variant_number(struct reader *r, const struct node *n, uint32_t number,
                                       uint32_t *out)
{
    static const char *const selections[] = {"head", "group"}, *const pools[] = {"max", "avg"};
    if (number == NUMBER_SELECTION)
        return read_word(r, n, selections, 2, "\"head\" or \"group\"", out);
    if (number == NUMBER_POOL)
        return read_word(r, n, pools, 2, "\"max\" or \"avg\"", out);
    return read_number(r, n, UINT32_MAX, out);
}

/* An object with a kind and its numbers. *prompt gets what the object has of that
 * name; NULL: it may have none. */
static ratp_status read_variant(struct reader *r, const struct node *n, struct variant *out,
                                struct node *prompt)
{
    enum { KIND = VARIANT_NUMBERS, PROMPT, KEYS };
    const char *keys[KEYS] = {[KIND] = "kind", [PROMPT] = "prompt"};
    memcpy(keys, variant_number_name, sizeof variant_number_name);
    struct node at[KEYS];
    struct error inner;
    ratp_status status = read_object(r, n, keys, prompt ? KEYS : PROMPT, at);
    if (status)
        return status;
    if (!at[KIND].json)
        return fail_at(r, offset_of(r, n, false), "%s has no \"kind\"", n->name);
    uint32_t kind, numbers[VARIANT_NUMBERS] = {0};
    status = read_word(r, &at[KIND], variant_kind_name, VARIANT_KINDS,
                       "\"dense\", \"dilated\", \"streaming\", \"quest\", \"moba\" or \"snapkv\"",
                       &kind);
    for (uint32_t i = 0; i < VARIANT_NUMBERS && !status; i++)
        if (at[i].json)
            status = read_variant_number(r, &at[i], i, &numbers[i]);
    if (status)
        return status;
    int wrong = -1;
    if (variant_make((ratp_variant_kind)kind, numbers, n->name, out, &wrong, &inner)) {
        const struct node *where = wrong >= 0 && at[wrong].json ? &at[wrong] : n;
        return fail_at(r, offset_of(r, where, false), "%s", inner.text);
    }
    if (prompt)
        *prompt = at[PROMPT];
    return RATP_OK;
}

static ratp_status read_prompt(struct reader *r, const struct node *n, struct variant *out)
{
    struct error inner;
    ratp_status status = RATP_OK;
    if (cJSON_IsObject(n->json))
        status = read_variant(r, n, out, NULL);
    else if (!cJSON_IsString(n->json))
        status = fail_node(r, n, "a name such as \"d16w256s4\", or an object with \"kind\"");
    else if (variant_parse(n->json->valuestring, n->name, out, &inner))
        status = fail_at(r, offset_of(r, n, false), "%s", inner.text);
    if (!status && choice_check_prompt(out, n->name, &inner))
        status = fail_at(r, offset_of(r, n, false), "%s", inner.text);
    return status;
}

static ratp_status read_choice(struct reader *r, const struct node *n, struct choice *out)
{
    struct error inner;
    struct variant decode;
    struct node prompt;
    if (cJSON_IsString(n->json)) {
        if (choice_parse(n->json->valuestring, n->name, out, &inner))
            return fail_at(r, offset_of(r, n, false), "%s", inner.text);
        return RATP_OK;
    }
    if (!cJSON_IsObject(n->json))
        return fail_node(r, n, "a name such as \"d16w256s4\", or an object with \"kind\"");
    ratp_status status = read_variant(r, n, &decode, &prompt);
    if (status)
        return status;
    *out = choice_of(&decode);
    return prompt.json ? read_prompt(r, &prompt, &out->prompt) : RATP_OK;
}

static bool read_digits(const char **p, uint32_t *out)
{
    uint32_t value = 0;
    const char *start = *p;
    for (; **p >= '0' && **p <= '9'; (*p)++) {
        value = value * 10 + (uint32_t)(**p - '0');
        if (value > POLICY_LAST)
            return false;
    }
    *out = value;
    return *p > start;
}

/* "0-3,7,12-": the ranges of a string. */
static bool read_range_text(const char *p, struct ranges *out)
{
    for (;; p++) {
        uint32_t first, last;
        if (out->count == POLICY_RANGES || !read_digits(&p, &first))
            return false;
        struct ratp_range range = {first, 1};
        if (*p == '-') {
            p++;
            if (*p == '\0' || *p == ',')
                range.count = 0;
            else if (read_digits(&p, &last) && last >= first)
                range.count = last - first + 1;
            else
                return false;
        }
        out->range[out->count++] = range;
        if (*p != ',')
            return *p == '\0';
    }
}

static ratp_status read_ranges(struct reader *r, const struct node *n, struct ranges *out)
{
    uint32_t first = 0, last = 0;
    out->count = 0;
    if (!n->json) {
        out->range[out->count++] = (struct ratp_range){0, 0};
        return RATP_OK;
    }
    if (cJSON_IsNumber(n->json)) {
        ratp_status status = read_number(r, n, POLICY_LAST, &first);
        out->range[out->count++] = (struct ratp_range){first, 1};
        return status;
    }
    if (cJSON_IsArray(n->json) && cJSON_GetArraySize(n->json) == 2) {
        struct node a = child_of(n, n->json->child, 0);
        struct node b = child_of(n, n->json->child->next, 1);
        ratp_status status = read_number(r, &a, POLICY_LAST, &first);
        if (!status)
            status = read_number(r, &b, POLICY_LAST, &last);
        if (!status && last < first)
            return fail_at(r, offset_of(r, &b, false),
                           "%s is %" PRIu32 ", it must not be below %s, %" PRIu32, b.name, last,
                           a.name, first);
        out->range[out->count++] = (struct ratp_range){first, last - first + 1};
        return status;
    }
    if (cJSON_IsString(n->json) && read_range_text(n->json->valuestring, out))
        return RATP_OK;
    return fail_node(r, n, "a number, [first, last], or ranges such as \"0-3,7,12-\" "
                           "(numbers up to 65535)");
}

static ratp_status read_rule(struct reader *r, const struct node *n, struct ratp_policy *out)
{
    static const char *const keys[] = {"layers", "heads", "variant"};
    struct node at[3];
    struct ranges layers, heads;
    struct choice choice;
    if (!cJSON_IsObject(n->json))
        return fail_node(r, n, "an object with \"layers\", \"heads\" and \"variant\"");
    ratp_status status = read_object(r, n, keys, 3, at);
    if (!status)
        status = read_ranges(r, &at[0], &layers);
    if (!status)
        status = read_ranges(r, &at[1], &heads);
    if (!status && !at[2].json)
        return fail_at(r, offset_of(r, n, false), "%s has no \"variant\"", n->name);
    if (!status)
        status = read_choice(r, &at[2], &choice);
    if (!status)
        status = policy_add(out, layers.range, layers.count, heads.range, heads.count, &choice,
                            r->err);
    return status;
}

static ratp_status read_policy(struct reader *r, const cJSON *json, struct ratp_policy *out)
{
    static const char *const keys[] = {"default", "rules"};
    struct node root = {.json = json, .name = "the policy"}, at[2];
    if (!cJSON_IsObject(json))
        return fail_node(r, &root, "an object with \"default\" and \"rules\"");
    ratp_status status = read_object(r, &root, keys, 2, at);
    if (!status && at[0].json) {
        struct choice choice;
        struct choice none = policy_at(out, 0, 0); /* needs no rule */
        status = read_choice(r, &at[0], &choice);
        if (!status && !choice_equal(&choice, &none))
            status = policy_add(out, &(struct ratp_range){0, 0}, 1, &(struct ratp_range){0, 0}, 1,
                                &choice, r->err);
    }
    if (status || !at[1].json)
        return status;
    if (!cJSON_IsArray(at[1].json))
        return fail_node(r, &at[1], "a list of rules");
    uint32_t index = 0;
    for (const cJSON *rule = at[1].json->child; rule && !status; rule = rule->next, index++) {
        struct node n = child_of(&at[1], rule, index);
        status = read_rule(r, &n, out);
    }
    return status;
}

ratp_status policy_parse(const char *text, size_t size, struct ratp_policy *out,
                         struct error *err)
{
    /* cJSON keeps its last error position in a global. */
    static struct lock parsing = LOCK_INITIALIZER;
    if (size > MAX_TEXT)
        return fail(err, RATP_INVALID_ARGUMENT, "size is %zu, a policy has at most %d bytes", size,
                    MAX_TEXT);
    /* With a NUL after it cJSON reports an early end where it is. */
    char *copy = malloc(size + 1);
    if (!copy)
        return fail(err, RATP_OUT_OF_MEMORY, "no host memory for a policy text of %zu bytes",
                    size);
    memcpy(copy, text, size);
    copy[size] = '\0';

    struct reader r = {copy, size, err};
    const char *end = copy;
    lock_take(&parsing);
    cJSON *json = cJSON_ParseWithLengthOpts(copy, size + 1, &end, false);
    lock_give(&parsing);
    size_t used = (size_t)(end - copy);
    ratp_status status;
    if (!json) {
        if (used > 0 && json_wants_key(copy, used - 1) && copy[used - 1] != '"')
            used--; /* cJSON steps over the character that should have begun a key */
        status = used < size
                     ? fail_at(&r, used, "not JSON, or too deeply nested")
                     : fail_at(&r, used, "the JSON text ends early");
        goto error;
    }
    while (used < size && (unsigned char)copy[used] <= ' ')
        used++;
    if (used < size) {
        status = fail_at(&r, used, "text after the policy's closing brace");
        goto error;
    }
    status = read_policy(&r, json, out);

error:
    cJSON_Delete(json);
    free(copy);
    if (status) {
        free(out->rules);
        out->rules = NULL;
        out->count = out->room = 0;
    }
    return status;
}

/* ---- Writing ---- */

struct writer {
    char *text;
    size_t size, length;
};

static void append(struct writer *w, const char *piece)
{
    for (; *piece; piece++, w->length++)
        if (w->length + 1 < w->size)
            w->text[w->length] = *piece;
}

static void append_range(struct writer *w, const char *key, struct ratp_range r)
{
    char piece[64] = "";
    if (r.count > 1)
        snprintf(piece, sizeof piece, "\"%s\": \"%" PRIu32 "-%" PRIu32 "\", ", key, r.first,
                 r.first + r.count - 1);
    else if (r.count == 1)
        snprintf(piece, sizeof piece, "\"%s\": %" PRIu32 ", ", key, r.first);
    else if (r.first > 0)
        snprintf(piece, sizeof piece, "\"%s\": \"%" PRIu32 "-\", ", key, r.first);
    append(w, piece);
}

static void append_choice(struct writer *w, const char *key, const struct choice *choice)
{
    char name[VARIANT_NAME_SIZE];
    choice_name(choice, name, sizeof name);
    append(w, "\"");
    append(w, key);
    append(w, "\": \"");
    append(w, name);
    append(w, "\"");
}

size_t policy_print(const struct ratp_policy *p, char *text, size_t size)
{
    struct writer w = {text, size, 0};
    struct choice dense = choice_of(&(struct variant){.kind = RATP_DENSE, .dilation = 1});
    const struct policy_rule *first = p->count ? &p->rules[0] : NULL;
    bool whole = first && !first->layers.first && !first->layers.count &&
                 !first->kv_heads.first && !first->kv_heads.count;
    append(&w, "{");
    append_choice(&w, "default", whole ? &first->choice : &dense);
    append(&w, ", \"rules\": [");
    for (uint32_t i = whole; i < p->count; i++) {
        append(&w, i > whole ? ", {" : "{");
        append_range(&w, "layers", p->rules[i].layers);
        append_range(&w, "heads", p->rules[i].kv_heads);
        append_choice(&w, "variant", &p->rules[i].choice);
        append(&w, "}");
    }
    append(&w, "]}");
    if (size > 0)
        text[w.length < size ? w.length : size - 1] = '\0';
    return w.length;
}
