#include "json_text.h"

struct json_place json_place_of(const char *text, size_t size, size_t offset)
{
    struct json_place place = {1, 1};
    for (size_t i = 0; i < offset && i < size; i++) {
        if (text[i] == '\n')
            place = (struct json_place){place.line + 1, 1};
        else if (((unsigned char)text[i] & 0xc0) != 0x80) /* not inside a UTF-8 character */
            place.column++;
    }
    return place;
}

struct scanner {
    const char *text;
    size_t size, at;
};

static int peek(const struct scanner *s)
{
    return s->at < s->size ? (unsigned char)s->text[s->at] : -1;
}

static void skip_space(struct scanner *s)
{
    while (peek(s) >= 0 && peek(s) <= ' ')
        s->at++;
}

static void skip_string(struct scanner *s)
{
    for (s->at++; peek(s) >= 0 && peek(s) != '"'; s->at++)
        if (peek(s) == '\\')
            s->at++;
    s->at++;
}

static void skip_value(struct scanner *s)
{
    size_t depth = 0;
    do {
        skip_space(s);
        int c = peek(s);
        if (c == '"') {
            skip_string(s);
            continue;
        }
        if (c == '{' || c == '[')
            depth++;
        else if (c == '}' || c == ']')
            depth--;
        s->at++;
        if (depth == 0)
            while (peek(s) > ' ' && peek(s) != ',' && peek(s) != '}' && peek(s) != ']')
                s->at++;
    } while (depth > 0 && s->at < s->size);
}

size_t json_locate(const char *text, size_t size, const uint32_t *path, size_t depth, bool key)
{
    struct scanner s = {text, size, 0};
    if (size >= 3 && (unsigned char)text[0] == 0xef)
        s.at = 3; /* the byte order mark, which cJSON skips */
    skip_space(&s);
    for (size_t level = 0; level < depth; level++) {
        bool object = peek(&s) == '{';
        s.at++;
        skip_space(&s);
        for (uint32_t child = 0;; child++) {
            size_t key_at = s.at;
            if (object) {
                skip_string(&s);
                skip_space(&s);
                s.at++; /* the colon */
                skip_space(&s);
            }
            if (child == path[level]) {
                if (key && object && level + 1 == depth)
                    return key_at;
                break;
            }
            skip_value(&s);
            skip_space(&s);
            s.at++; /* the comma */
            skip_space(&s);
            if (s.at >= s.size)
                return s.size;
        }
    }
    return s.at;
}

bool json_wants_key(const char *text, size_t offset)
{
    enum { DEEPEST = 1024 }; /* cJSON goes down 1000 levels */
    bool object[DEEPEST] = {false};
    size_t depth = 0;
    bool wants = false;
    struct scanner s = {text, offset, 0};
    for (skip_space(&s); s.at < offset; skip_space(&s)) {
        int c = peek(&s);
        if (c == '"') {
            skip_string(&s);
            wants = false;
            continue;
        }
        bool after_opening = c == '{' || c == '[';
        if (after_opening && depth + 1 < DEEPEST)
            object[++depth] = c == '{';
        else if ((c == '}' || c == ']') && depth > 0)
            depth--;
        wants = object[depth] && (after_opening || c == ',');
        s.at++;
    }
    return wants;
}
