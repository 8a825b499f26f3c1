/* Files that are written, by the rule that the library has for its own: regular ones, never a
 * pipe or a device, which may wait for whoever reads it, or be lost when it is replaced. */
#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MOST_LINKS = 40, MOST_NAMES = 100, PERMISSIONS = 0777, GROUP_PERMISSIONS = 0070 };

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

/* Bytes of the folder's part of a path, the last slash included. */
static size_t folder_length(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? (size_t)(slash - path) + 1 : 0;
}

/* Where the path's links lead at last, which need not exist; to be freed. NULL, and errno. */
static char *follow_links(const char *path)
{
    char target[PATH_MAX + 1], *at = strdup(path);
    for (int links = 0; at; links++) {
        const ssize_t length = readlink(at, target, sizeof target - 1);
        if (length < 0 && (errno == EINVAL || errno == ENOENT))
            return at; /* it is no link */
        char *next = NULL;
        if (length >= 0 && links < MOST_LINKS) {
            target[length] = '\0';
            const size_t folder = target[0] == '/' ? 0 : folder_length(at);
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

/* Opens the folder of a path. False, and errno; *fd is -1 where it may be written to and not be
 * read, and so not be synced. */
static bool open_folder(const char *path, int *fd)
{
    const size_t length = folder_length(path);
    char *folder = length ? strndup(path, length) : strdup(".");
    *fd = folder ? open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    const int number = errno;
    free(folder);
    errno = number;
    return *fd >= 0 || number == EACCES;
}

/* A new file in the folder of `to`, under a short name that none had: *name, to be freed. */
static int make_beside(const char *to, mode_t mode, char **name)
{
    const int folder = (int)folder_length(to);
    const size_t room = (size_t)folder + 48;
    int fd = -1;
    *name = malloc(room);
    for (int i = 0; *name && fd < 0 && i < MOST_NAMES && (i == 0 || errno == EEXIST); i++) {
        snprintf(*name, room, "%.*s.ratplus-%ld-%d", folder, to, (long)getpid(), i);
        fd = open(*name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    }
    return fd;
}

/* Gives a new file the owner, as far as the system allows it, and the permissions of the one that
 * it replaces. Another group must not get what the old one was allowed. */
static bool keep_permissions(int fd, const struct stat *old)
{
    mode_t mode = old->st_mode & PERMISSIONS;
    if (fchown(fd, old->st_uid, old->st_gid) && fchown(fd, (uid_t)-1, old->st_gid))
        mode &= ~(mode_t)GROUP_PERMISSIONS;
    return fchmod(fd, mode) == 0;
}

/* Writes beside `to`, which has no link left, and puts that in its place; `folder` is open. With
 * `old`, the new file is its owner's alone until it has that one's permissions. */
static bool replace(const char *path, const char *to, int folder, const struct stat *old,
                    const void *data, size_t size, struct problem *problem)
{
    char *name;
    const int fd = make_beside(to, old ? 0600 : 0666, &name);
    if (fd < 0) {
        fails(path, "no file can be made beside it", problem);
        free(name);
        return false;
    }
    bool good = (write_all(fd, data, size) && (!old || keep_permissions(fd, old)) &&
                 fsync(fd) == 0) || fails(path, "cannot be written", problem);
    if (close(fd) != 0 && good)
        good = fails(path, "cannot be written", problem);
    if (good && rename(name, to) != 0)
        good = fails(path, "cannot be replaced", problem);
    if (!good)
        unlink(name);
    free(name);
    /* Those two: the file system knows no such thing. */
    if (good && folder >= 0 && fsync(folder) != 0 && errno != EINVAL && errno != ENOTSUP)
        good = fails(path, "was written, but its folder cannot be brought to the disk", problem);
    return good;
}

/* Whether `to` is the file `old`, or where none is yet. A link of /proc leads to an open file that
 * may have lost its name: what is put where it had been would be another file. */
static bool check_target(const char *path, const char *to, const struct stat *old,
                         struct problem *problem)
{
    struct stat now;
    if (!to[folder_length(to)])
        return problem_set(problem, "%s: ends with a slash; give the name of a file", path);
    if (old && (lstat(to, &now) != 0 || now.st_ino != old->st_ino || now.st_dev != old->st_dev))
        return problem_set(problem, "%s: leads to a file that no folder has under that name", path);
    return true;
}

bool file_write(const char *path, const void *data, size_t size, struct problem *problem)
{
    struct stat old;
    int folder = -1;
    const bool there = stat(path, &old) == 0;
    if (!there && errno != ENOENT)
        return fails(path, "cannot be written", problem);
    if (there && !is_regular(path, &old, problem))
        return false;
    char *to = follow_links(path);
    if (!to)
        return fails(path, "its links cannot be followed", problem);
    bool good = check_target(path, to, there ? &old : NULL, problem) &&
                (open_folder(to, &folder) || fails(path, "its folder cannot be opened", problem));
    good = good && replace(path, to, folder, there ? &old : NULL, data, size, problem);
    if (folder >= 0)
        close(folder);
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
