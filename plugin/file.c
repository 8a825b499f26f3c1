#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MOST_LINKS = 40, PERMISSIONS = 0777, GROUP_PERMISSIONS = 0070 };

/* Short, so that there is room for it wherever there is for the file's own name. */
static const char temporary_name[] = ".ratplus-XXXXXX";

static void reason_of(int number, char *text, size_t size)
{
    if (strerror_r(number, text, size))
        snprintf(text, size, "error %d", number);
}

/* A call of the system that failed: names the path, and tells the system's reason. */
static ratp_status path_fails(const char *path, const char *what, struct error *err)
{
    int number = errno;
    char reason[128] = "";
    reason_of(number, reason, sizeof reason);
    ratp_status status = number == ENOENT   ? RATP_NOT_FOUND
                         : number == ENOMEM ? RATP_OUT_OF_MEMORY
                                            : RATP_INVALID_ARGUMENT;
    return fail(err, status, "path is \"%.300s\": %s: %s", path, what, reason);
}

static ratp_status check_regular(const char *path, const struct stat *info, struct error *err)
{
    if (S_ISREG(info->st_mode))
        return RATP_OK;
    return fail(err, RATP_INVALID_ARGUMENT,
                "path is \"%.300s\": this is a folder, a pipe or a device, a file is wanted", path);
}

/* ---- Reading ---- */

ratp_status file_open(const char *path, int *file, uint64_t *size, struct error *err)
{
    struct stat info;
    if (stat(path, &info))
        return path_fails(path, "it cannot be opened", err);
    ratp_status status = check_regular(path, &info, err);
    if (status)
        return status;
    /* Something else may have come there since: a pipe without a writer would have this wait. */
    *file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (*file < 0)
        return path_fails(path, "it cannot be opened", err);
    if (fstat(*file, &info))
        status = path_fails(path, "it cannot be read", err);
    if (!status)
        status = check_regular(path, &info, err);
    if (status)
        close(*file);
    *size = (uint64_t)info.st_size;
    return status;
}

ratp_status file_read(int file, uint64_t at, uint64_t bytes, void *to, struct error *err)
{
    unsigned char *next = to;
    while (bytes > 0) {
        ssize_t part = pread(file, next, bytes < SSIZE_MAX ? (size_t)bytes : SSIZE_MAX, (off_t)at);
        if (part < 0 && errno == EINTR)
            continue;
        if (part < 0) {
            char reason[128] = "";
            reason_of(errno, reason, sizeof reason);
            return fail(err, RATP_INVALID_ARGUMENT, "it cannot be read: %s", reason);
        }
        if (part == 0)
            return fail(err, RATP_PARSE_ERROR,
                        "byte %llu: the file ends here, it was longer when it was opened",
                        (unsigned long long)at);
        next += part;
        at += (uint64_t)part;
        bytes -= (uint64_t)part;
    }
    return RATP_OK;
}

/* ---- Replacing ---- */

/* Bytes of the folder's part of a path, the last slash included. */
static size_t folder_length(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? (size_t)(slash - path) + 1 : 0;
}

/* The first `length` bytes of `folder`, and `name`; to be freed. NULL, and errno. */
static char *join(const char *folder, size_t length, const char *name)
{
    char *path = malloc(length + strlen(name) + 1);
    if (path) {
        memcpy(path, folder, length);
        strcpy(path + length, name);
    } else {
        errno = ENOMEM;
    }
    return path;
}

/* Where the path's links lead at last, which need not exist; to be freed. NULL, and errno. */
static char *follow_links(const char *path)
{
    char *at = join("", 0, path), target[PATH_MAX + 1];
    for (int links = 0; at; links++) {
        ssize_t length = readlink(at, target, sizeof target - 1);
        if (length < 0 && (errno == EINVAL || errno == ENOENT))
            return at; /* it is no link */
        char *next = NULL;
        if (length >= 0 && links == MOST_LINKS)
            errno = ELOOP;
        else if (length >= 0) {
            target[length] = '\0';
            next = join(at, target[0] == '/' ? 0 : folder_length(at), target);
        }
        int number = errno;
        free(at);
        errno = number;
        at = next;
    }
    return NULL;
}

/* False, and errno. */
static bool write_all(int file, const unsigned char *data, uint64_t size)
{
    while (size > 0) {
        ssize_t part = write(file, data, size < SSIZE_MAX ? (size_t)size : SSIZE_MAX);
        if (part < 0 && errno != EINTR)
            return false;
        data += part > 0 ? part : 0;
        size -= part > 0 ? (uint64_t)part : 0;
    }
    return true;
}

/* Gives a new file the owner, as far as the system allows it, and the permissions of
 * the one that it replaces. Another group must not get what the old one was allowed. */
static bool keep_permissions(int file, const struct stat *old)
{
    mode_t mode = old->st_mode & PERMISSIONS;
    if (fchown(file, old->st_uid, old->st_gid) && fchown(file, (uid_t)-1, old->st_gid))
        mode &= ~(mode_t)GROUP_PERMISSIONS;
    return fchmod(file, mode) == 0;
}

/* Opens the folder of a path. False, and errno; *file is -1 where it may be written to and
 * not be read, and so not be synced. */
static bool open_folder(const char *path, int *file)
{
    size_t length = folder_length(path);
    char *folder = length ? join(path, length, "") : join("", 0, ".");
    *file = folder ? open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    int number = errno;
    free(folder);
    errno = number;
    return *file >= 0 || number == EACCES;
}

/* Writes the new file under a name that mkstemp completes. False, and errno; nothing is left. */
static bool write_beside(int file, const char *temporary, const struct stat *old, const void *data,
                         uint64_t size)
{
    bool good = write_all(file, data, size) && (!old || keep_permissions(file, old)) &&
                fsync(file) == 0;
    int number = errno;
    if (close(file) && good) {
        number = errno;
        good = false;
    }
    if (!good)
        unlink(temporary);
    errno = number;
    return good;
}

/* Writes beside `to`, which has no link left, and puts that in its place. */
static ratp_status put_file(const char *path, const char *to, const struct stat *old,
                            const void *data, uint64_t size, struct error *err)
{
    int folder, file;
    if (!open_folder(to, &folder))
        return path_fails(path, "its folder cannot be opened", err);
    ratp_status status = RATP_OK;
    char *temporary = join(to, folder_length(to), temporary_name);
    if (!temporary || (file = mkstemp(temporary)) < 0) {
        status = path_fails(path, "no file can be made beside it", err);
    } else if (!write_beside(file, temporary, old, data, size)) {
        status = path_fails(path, "it cannot be written", err);
    } else if (rename(temporary, to)) {
        status = path_fails(path, "it cannot be replaced", err);
        unlink(temporary);
    } else if (folder >= 0 && fsync(folder) && errno != EINVAL && errno != ENOTSUP) {
        /* Those two: the file system knows no such thing. */
        status = path_fails(path, "it was written, but its folder cannot be brought to the disk",
                            err);
    }
    if (folder >= 0)
        close(folder);
    free(temporary);
    return status;
}

ratp_status file_replace(const char *path, const void *data, uint64_t size, struct error *err)
{
    struct stat old, now;
    bool there = stat(path, &old) == 0;
    if (!there && errno != ENOENT)
        return path_fails(path, "it cannot be reached", err);
    ratp_status status = there ? check_regular(path, &old, err) : RATP_OK;
    if (status)
        return status;
    char *to = follow_links(path);
    if (!to)
        return path_fails(path, "its links cannot be followed", err);
    if (!to[folder_length(to)])
        status = fail(err, RATP_INVALID_ARGUMENT,
                      "path is \"%.300s\": it ends with a slash, a file is wanted", path);
    else if (there && (lstat(to, &now) || now.st_ino != old.st_ino || now.st_dev != old.st_dev))
        status = fail(err, RATP_INVALID_ARGUMENT,
                      "path is \"%.300s\": it leads to a file that no folder has under that name",
                      path);
    else
        status = put_file(path, to, there ? &old : NULL, data, size, err);
    free(to);
    return status;
}
