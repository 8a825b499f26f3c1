/* Sequences saved and loaded: argument checks, and files. */
#include "api.h"

#include "cache/cache.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

ratp_status api_seq_save(ratp_seq *seq, void *data, uint64_t size, uint64_t *needed)
{
    struct error err = {""};
    ratp_status status = object_check(seq, OBJECT_SEQ, "seq", &err);
    if (!status)
        status = api_not_null(needed, "needed", &err);
    if (!status && !data && size > 0)
        status = fail(&err, RATP_INVALID_ARGUMENT, "data is NULL and size is %llu",
                      (unsigned long long)size);
    if (!status)
        status = seq_save(seq, data, size, needed, &err);
    return api_return(seq, status, &err);
}

ratp_status api_seq_load(ratp_cache *cache, const void *data, uint64_t size, ratp_seq **out)
{
    struct error err = {""};
    ratp_status status = api_not_null(out, "out", &err);
    if (!status) {
        *out = NULL;
        status = object_check(cache, OBJECT_CACHE, "cache", &err);
    }
    if (!status)
        status = api_not_null(data, "data", &err);
    if (!status)
        status = seq_load(cache, data, size, out, &err);
    return api_return(cache, status, &err);
}

/* ---- Files ---- */

/* A call of the system that failed: names the path, and tells the system's reason. */
static ratp_status path_fails(const char *path, const char *what, struct error *err)
{
    int number = errno;
    char reason[128] = "";
    if (strerror_r(number, reason, sizeof reason))
        snprintf(reason, sizeof reason, "error %d", number);
    return fail(err, number == ENOENT ? RATP_NOT_FOUND : RATP_INVALID_ARGUMENT,
                "path is \"%.300s\": %s: %s", path, what, reason);
}

static ratp_status check_path(const char *path, struct error *err)
{
    ratp_status status = api_not_null(path, "path", err);
    if (!status && !*path)
        status = fail(err, RATP_INVALID_ARGUMENT, "path is empty");
    return status;
}

/* False, and errno. */
static bool write_all(int file, const unsigned char *data, uint64_t size)
{
    while (size > 0) {
        ssize_t part = write(file, data, (size_t)size);
        if (part < 0 && errno != EINTR)
            return false;
        data += part > 0 ? part : 0;
        size -= part > 0 ? (uint64_t)part : 0;
    }
    return true;
}

/* As many bytes as there are, at most `size`. False, and errno. */
static bool read_all(int file, unsigned char *data, uint64_t size, uint64_t *got)
{
    ssize_t part = 1;
    for (*got = 0; *got < size && part; *got += part > 0 ? (uint64_t)part : 0) {
        part = read(file, data + *got, (size_t)(size - *got));
        if (part < 0 && errno != EINTR)
            return false;
    }
    return true;
}

/* What was under that name stays until all of the new file is on the disk. */
static ratp_status write_file(const char *path, const unsigned char *data, uint64_t size,
                              struct error *err)
{
    static const char suffix[] = ".XXXXXX";
    size_t length = strlen(path);
    char *temporary = malloc(length + sizeof suffix);
    if (!temporary)
        return fail(err, RATP_OUT_OF_MEMORY, "no host memory for a path of %zu bytes", length);
    memcpy(temporary, path, length);
    memcpy(temporary + length, suffix, sizeof suffix);
    ratp_status status = RATP_OK;
    int file = mkstemp(temporary);
    if (file < 0) {
        status = path_fails(path, "no file can be made beside it", err);
        goto done;
    }
    if (!write_all(file, data, size) || fsync(file))
        status = path_fails(path, "it cannot be written", err);
    if (close(file) && !status)
        status = path_fails(path, "it cannot be written", err);
    if (!status && rename(temporary, path))
        status = path_fails(path, "it cannot be replaced", err);
    if (status)
        unlink(temporary);
done:
    free(temporary);
    return status;
}

/* The whole file; one that cannot be a snapshot is refused by its start. */
static ratp_status read_file(const char *path, int file, unsigned char **out, uint64_t *size,
                             struct error *err)
{
    struct stat info;
    unsigned char start[SNAPSHOT_START] = {0};
    uint64_t got = 0;
    if (fstat(file, &info))
        return path_fails(path, "it cannot be read", err);
    if (!S_ISREG(info.st_mode))
        return fail(err, RATP_INVALID_ARGUMENT,
                    "path is \"%.300s\": this is a folder, a pipe or a device, a file is wanted",
                    path);
    if (!read_all(file, start, sizeof start, &got))
        return path_fails(path, "it cannot be read", err);
    *size = (uint64_t)info.st_size;
    struct error why;
    ratp_status status = snapshot_check_start(start, *size, &why);
    if (status)
        return fail(err, status, "path is \"%.150s\": %s", path, why.text);
    *out = *size <= SIZE_MAX ? malloc((size_t)*size) : NULL;
    if (!*out)
        return fail(err, RATP_OUT_OF_MEMORY,
                    "path is \"%.300s\": no host memory for its %llu bytes", path,
                    (unsigned long long)*size);
    memcpy(*out, start, sizeof start);
    if (!read_all(file, *out + sizeof start, *size - sizeof start, &got))
        return path_fails(path, "it cannot be read", err);
    *size = sizeof start + got;
    return RATP_OK;
}

static ratp_status save_to(ratp_seq *seq, const char *path, struct error *err)
{
    uint64_t size = 0;
    ratp_status status = seq_save(seq, NULL, 0, &size, err);
    if (status)
        return status;
    unsigned char *data = size <= SIZE_MAX ? malloc((size_t)size) : NULL;
    if (!data)
        return fail(err, RATP_OUT_OF_MEMORY, "no host memory for a snapshot of %llu bytes",
                    (unsigned long long)size);
    status = seq_save(seq, data, size, &size, err);
    if (!status)
        status = write_file(path, data, size, err);
    free(data);
    return status;
}

static ratp_status load_from(ratp_cache *cache, const char *path, ratp_seq **out,
                             struct error *err)
{
    unsigned char *data = NULL;
    uint64_t size = 0;
    struct error why;
    /* A pipe without a writer would have this wait. */
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0)
        return path_fails(path, "it cannot be opened", err);
    ratp_status status = read_file(path, file, &data, &size, err);
    close(file);
    if (!status) {
        status = seq_load(cache, data, size, out, &why);
        if (status)
            fail(err, status, "path is \"%.150s\": %s", path, why.text);
    }
    free(data);
    return status;
}

ratp_status api_seq_save_file(ratp_seq *seq, const char *path)
{
    struct error err = {""};
    ratp_status status = object_check(seq, OBJECT_SEQ, "seq", &err);
    if (!status)
        status = check_path(path, &err);
    if (!status)
        status = save_to(seq, path, &err);
    return api_return(seq, status, &err);
}

ratp_status api_seq_load_file(ratp_cache *cache, const char *path, ratp_seq **out)
{
    struct error err = {""};
    ratp_status status = api_not_null(out, "out", &err);
    if (!status) {
        *out = NULL;
        status = object_check(cache, OBJECT_CACHE, "cache", &err);
    }
    if (!status)
        status = check_path(path, &err);
    if (!status)
        status = load_from(cache, path, out, &err);
    return api_return(cache, status, &err);
}
