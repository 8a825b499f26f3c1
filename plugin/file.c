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
    return fail(err, number == ENOENT ? RATP_NOT_FOUND : RATP_INVALID_ARGUMENT,
                "path is \"%.300s\": %s: %s", path, what, reason);
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

/* A name outlives a loss of power when the folder that has it is on the disk. */
static bool sync_folder(const char *path)
{
    size_t length = folder_length(path);
    char *folder = length ? join(path, length, "") : join("", 0, ".");
    int file = folder ? open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    free(folder);
    if (file < 0)
        return errno == EACCES; /* may be written and not read */
    bool good = fsync(file) == 0 || errno == EINVAL || errno == ENOTSUP; /* not on this system */
    int number = errno;
    close(file);
    errno = number;
    return good;
}

/* Writes beside `to`, which has no link left, and puts that in its place. */
static ratp_status put_file(const char *path, const char *to, const struct stat *old,
                            const void *data, uint64_t size, struct error *err)
{
    char *temporary = join(to, folder_length(to), temporary_name);
    if (!temporary)
        return fail(err, RATP_OUT_OF_MEMORY, "no host memory for a path of %zu bytes", strlen(to));
    ratp_status status = RATP_OK;
    int file = mkstemp(temporary);
    if (file < 0) {
        status = path_fails(path, "no file can be made beside it", err);
        goto done;
    }
    if (!write_all(file, data, size) || (old && !keep_permissions(file, old)) || fsync(file))
        status = path_fails(path, "it cannot be written", err);
    if (close(file) && !status)
        status = path_fails(path, "it cannot be written", err);
    if (!status && rename(temporary, to))
        status = path_fails(path, "it cannot be replaced", err);
    if (status)
        unlink(temporary);
    else if (!sync_folder(to))
        status = path_fails(path, "it was written, but its folder cannot be brought to the disk",
                            err);
done:
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
