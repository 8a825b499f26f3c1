/* Sequences saved and loaded: argument checks, and files. */
#include "api.h"

#include "cache/snapshot.h"
#include "file.h"

#include <stdlib.h>
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
        status = cache_enter(seq->cache, &err);
    if (!status)
        status = cache_leave(seq->cache, seq_save(seq, data, size, needed, &err));
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
        status = cache_enter(cache, &err);
    if (!status)
        status = cache_leave(
            cache, seq_load(cache, &(struct snapshot_source){.data = data, .size = size}, out, &err));
    return api_return(cache, status, &err);
}

/* ---- Files ---- */

static ratp_status check_path(const char *path, struct error *err)
{
    ratp_status status = api_not_null(path, "path", err);
    if (!status && !*path)
        status = fail(err, RATP_INVALID_ARGUMENT, "path is empty");
    return status;
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
        status = file_replace(path, data, size, err);
    free(data);
    return status;
}

static ratp_status load_from(ratp_cache *cache, const char *path, ratp_seq **out,
                             struct error *err)
{
    struct snapshot_source from = {.data = NULL};
    ratp_status status = file_open(path, &from.file, &from.size, err);
    if (status)
        return status;
    struct error why;
    status = seq_load(cache, &from, out, &why);
    if (status)
        fail(err, status, "path is \"%.150s\": %s", path, why.text);
    close(from.file);
    return status;
}

ratp_status api_seq_save_file(ratp_seq *seq, const char *path)
{
    struct error err = {""};
    ratp_status status = object_check(seq, OBJECT_SEQ, "seq", &err);
    if (!status)
        status = check_path(path, &err);
    if (!status)
        status = cache_enter(seq->cache, &err);
    if (!status)
        status = cache_leave(seq->cache, save_to(seq, path, &err));
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
        status = cache_enter(cache, &err);
    if (!status)
        status = cache_leave(cache, load_from(cache, path, out, &err));
    return api_return(cache, status, &err);
}
