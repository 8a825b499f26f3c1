#include "policy_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

/* A pipe or a device may make its reader wait, or never end, and to open one may do something:
 * so it is looked at before it is opened, and what was opened is looked at again. Not waiting
 * matters for pipes that come in between, and for the files of /proc. */
static int open_regular(const char *path, char *why, size_t why_size)
{
    struct stat s;
    int file = -1;
    bool found = stat(path, &s) == 0;
    if (found && S_ISREG(s.st_mode)) {
        file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
        found = file >= 0 && fstat(file, &s) == 0;
    }
    if (found && S_ISREG(s.st_mode) && s.st_size <= MAX_FILE)
        return file;
    if (!found)
        snprintf(why, why_size, "it cannot be opened: %s", strerror(errno));
    else if (!S_ISREG(s.st_mode))
        snprintf(why, why_size, "it is a folder, a pipe or a device, and must be a regular file");
    else
        snprintf(why, why_size, "it has %lld bytes, and a policy has at most %d",
                 (long long)s.st_size, MAX_FILE);
    if (file >= 0)
        close(file);
    return -1;
}

/* Up to `size` bytes; -1 and errno when they cannot be read. */
static ssize_t read_bytes(int file, char *bytes, size_t size)
{
    size_t count = 0;
    while (count < size) {
        const ssize_t some = read(file, bytes + count, size - count);
        if (some == 0)
            break;
        if (some < 0 && errno != EINTR)
            return -1;
        count += some > 0 ? (size_t)some : 0;
    }
    return (ssize_t)count;
}

char *file_read(const char *path, size_t *size, char *why, size_t why_size)
{
    const int file = open_regular(path, why, why_size);
    if (file < 0)
        return NULL;
    char *text = malloc(MAX_FILE + 2);
    const ssize_t count = text ? read_bytes(file, text, MAX_FILE + 1) : -1;
    if (!text)
        snprintf(why, why_size, "no host memory to read it");
    else if (count < 0)
        snprintf(why, why_size, "it cannot be read: %s", strerror(errno));
    else if (count > MAX_FILE)
        snprintf(why, why_size, "it has more than %d bytes, which is the most that a policy has",
                 MAX_FILE);
    close(file);
    if (count < 0 || count > MAX_FILE) {
        free(text);
        return NULL;
    }
    text[count] = '\0';
    *size = (size_t)count;
    return text;
}

static char *skip_blanks(char *p)
{
    while (*p == ' ' || *p == '\t' || *p == '\r' || *p == '\n')
        p++;
    return p;
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
