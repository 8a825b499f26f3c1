/* Files that are written: regular ones, never a pipe or a device, which may wait for whoever
 * reads it, or be lost when it is replaced. */
#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MOST_LINKS = 40, MOST_NAMES = 100 };

static bool fails(const char *path, const char *what, struct problem *problem)
{
    return problem_set(problem, "%s: %s: %s", path, what, strerror(errno));
}

static bool is_regular(const char *path, const struct stat *info, struct problem *problem)
{
    return S_ISREG(info->st_mode) ||
           problem_set(problem, "%s: this is a folder, a pipe or a device; give the name of a file",
                       path);
}

static bool write_all(int fd, const char *data, size_t size)
{
    while (size > 0) {
        const ssize_t part = write(fd, data, size);
        if (part < 0 && errno != EINTR)
            return false;
        data += part > 0 ? part : 0;
        size -= part > 0 ? (size_t)part : 0;
    }
    return true;
}

/* Where the path's links lead at last, which need not exist; to be freed. NULL, and errno. */
static char *follow_links(const char *path)
{
    char target[PATH_MAX + 1], *at = strdup(path);
    for (int links = 0; at; links++) {
        const ssize_t length = readlink(at, target, sizeof target - 1);
        if (length < 0 && (errno == EINVAL || errno == ENOENT))
            return at; /* it is no link */
        char *next = NULL, *slash = strrchr(at, '/');
        if (length >= 0 && links < MOST_LINKS) {
            target[length] = '\0';
            const size_t folder = slash && target[0] != '/' ? (size_t)(slash - at) + 1 : 0;
            next = malloc(folder + (size_t)length + 1);
            if (next) {
                memcpy(next, at, folder);
                strcpy(next + folder, target);
            }
        } else if (length >= 0) {
            errno = ELOOP;
        }
        const int number = errno;
        free(at);
        errno = number;
        at = next;
    }
    return NULL;
}

/* A new file in the folder of `to`, under a short name that none had: *name, to be freed. */
static int make_beside(const char *to, char **name)
{
    const char *slash = strrchr(to, '/');
    const int folder = slash ? (int)(slash - to) + 1 : 0;
    const size_t room = (size_t)folder + 48;
    int fd = -1;
    *name = malloc(room);
    for (int i = 0; *name && fd < 0 && i < MOST_NAMES && (i == 0 || errno == EEXIST); i++) {
        snprintf(*name, room, "%.*s.ratplus-%ld-%d", folder, to, (long)getpid(), i);
        fd = open(*name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    }
    return fd;
}

/* Puts a file in the place of `to`; with `old`, it keeps that one's permissions. */
static bool replace(const char *path, const char *to, const struct stat *old, const void *data,
                    size_t size, struct problem *problem)
{
    char *name;
    const int fd = make_beside(to, &name);
    if (fd < 0) {
        free(name);
        return fails(path, "no file can be made beside it", problem);
    }
    bool good = write_all(fd, data, size) && (!old || fchmod(fd, old->st_mode & 0777) == 0) &&
                fsync(fd) == 0;
    if (!good)
        fails(path, "cannot be written", problem);
    if (close(fd) != 0 && good)
        good = fails(path, "cannot be written", problem);
    if (good && rename(name, to) != 0)
        good = fails(path, "cannot be replaced", problem);
    if (!good)
        unlink(name);
    free(name);
    return good;
}

bool file_write(const char *path, const void *data, size_t size, struct problem *problem)
{
    struct stat old;
    const bool there = stat(path, &old) == 0;
    if (!there && errno != ENOENT)
        return fails(path, "cannot be written", problem);
    if (there && !is_regular(path, &old, problem))
        return false;
    char *to = follow_links(path);
    if (!to)
        return fails(path, "its links cannot be followed", problem);
    const bool good = replace(path, to, there ? &old : NULL, data, size, problem);
    free(to);
    return good;
}

bool file_append(const char *path, const void *data, size_t size, struct problem *problem)
{
    struct stat info;
    if (stat(path, &info) == 0 && !is_regular(path, &info, problem))
        return false;
    /* A pipe that came there since does not have this wait. */
    const int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_NOCTTY,
                        0666);
    if (fd < 0)
        return fails(path, "cannot be written", problem);
    bool good = (fstat(fd, &info) == 0 || fails(path, "cannot be written", problem)) &&
                is_regular(path, &info, problem) &&
                (write_all(fd, data, size) || fails(path, "cannot be written", problem));
    if (close(fd) != 0 && good)
        good = fails(path, "cannot be written", problem);
    return good;
}
