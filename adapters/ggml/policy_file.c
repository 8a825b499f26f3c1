#include "policy_file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The library takes no longer policy. */
enum { MAX_FILE = 1 << 20 };

struct file_state file_look(const char *path)
{
    struct stat s;
    if (stat(path, &s))
        return (struct file_state){.error = errno};
    return (struct file_state){.changed = s.st_mtim, .size = s.st_size, .inode = s.st_ino};
}

bool file_is_same(const struct file_state *a, const struct file_state *b)
{
    return a->error == b->error && a->changed.tv_sec == b->changed.tv_sec &&
           a->changed.tv_nsec == b->changed.tv_nsec && a->size == b->size &&
           a->inode == b->inode;
}

char *file_read(const char *path, size_t *size, char *why, size_t why_size)
{
    FILE *file = fopen(path, "rb");
    if (!file) {
        snprintf(why, why_size, "it cannot be opened: %s", strerror(errno));
        return NULL;
    }
    char *text = malloc(MAX_FILE + 1);
    if (!text) {
        snprintf(why, why_size, "no host memory to read it");
        fclose(file);
        return NULL;
    }
    *size = fread(text, 1, MAX_FILE + 1, file);
    bool failed = ferror(file) != 0;
    if (failed)
        snprintf(why, why_size, "it cannot be read: %s", strerror(errno));
    else if (*size > MAX_FILE)
        snprintf(why, why_size, "it has more than %d bytes", MAX_FILE);
    fclose(file);
    if (failed || *size > MAX_FILE) {
        free(text);
        return NULL;
    }
    text[*size] = '\0';
    return text;
}

static char *skip_blanks(char *p)
{
    return p + strspn(p, " \t\r\n");
}

/* From `p`, up to `end`; line ends stay. */
static void blank(char *p, const char *end)
{
    for (; p < end; p++)
        if (*p != '\n' && *p != '\r')
            *p = ' ';
}

static cJSON *parse(const char *p, const char *behind, const char **end)
{
    return cJSON_ParseWithLengthOpts(p, (size_t)(behind - p), end, false);
}

cJSON *text_take_member(char *text, const char *name, bool *twice)
{
    cJSON *taken = NULL;
    char *comma = NULL; /* the one before the member */
    char *p = skip_blanks(text);
    /* cJSON would measure the rest of the text for every member, were it not told. */
    const char *const behind = text + strlen(text) + 1;
    *twice = false;
    if (*p != '{')
        return NULL;
    for (bool more = true; more;) {
        char *const start = p = skip_blanks(p + 1);
        const char *end = NULL;
        cJSON *key = *p == '"' ? parse(p, behind, &end) : NULL;
        p = key ? skip_blanks(p + (end - p)) : p;
        cJSON *value = key && *p == ':' ? parse(p + 1, behind, &end) : NULL;
        const bool wanted = value && strcmp(key->valuestring, name) == 0;
        cJSON_Delete(key);
        if (!value)
            break;
        p = skip_blanks(p + (end - p));
        more = *p == ',';
        if (wanted) {
            *twice |= taken != NULL;
            cJSON_Delete(taken);
            taken = value;
            /* And one comma: the one after it, or the one before the last member. */
            blank(more || !comma ? start : comma, more ? p + 1 : p);
        } else {
            comma = p;
            cJSON_Delete(value);
        }
    }
    return taken;
}
