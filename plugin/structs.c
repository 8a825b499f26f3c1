#include "structs.h"

#include <string.h>

static ratp_status check_size(const void *in, size_t min_size, const char *what,
                              size_t *size, struct error *err)
{
    if (!in)
        return fail(err, RATP_INVALID_ARGUMENT, "%s is NULL", what);
    memcpy(size, in, sizeof *size);
    if (*size < min_size)
        return fail(err, RATP_INVALID_ARGUMENT, "%s->struct_size is %zu, at least %zu is needed",
                    what, *size, min_size);
    if (*size > STRUCT_LIMIT)
        return fail(err, RATP_INVALID_ARGUMENT, "%s->struct_size is %zu, at most %d is allowed",
                    what, *size, STRUCT_LIMIT);
    return RATP_OK;
}

ratp_status struct_read(void *copy, size_t size, const void *in, size_t min_size,
                        const char *what, struct error *err)
{
    size_t given = 0;
    ratp_status status = check_size(in, min_size, what, &given, err);
    if (status)
        return status;
    const unsigned char *bytes = in;
    for (size_t i = size; i < given; i++)
        if (bytes[i] != 0)
            return fail(err, RATP_UNSUPPORTED,
                        "%s->struct_size is %zu, this library knows %zu, and byte %zu beyond is "
                        "not zero: a field of a newer version is in use",
                        what, given, size, i);
    memset(copy, 0, size);
    memcpy(copy, in, given < size ? given : size);
    return RATP_OK;
}

ratp_status struct_read_optional(void *copy, size_t size, const void *in, size_t min_size,
                                 const char *what, struct error *err)
{
    if (in)
        return struct_read(copy, size, in, min_size, what, err);
    memset(copy, 0, size);
    return RATP_OK;
}

ratp_status struct_check_out(const void *out, size_t min_size, const char *what,
                             struct error *err)
{
    size_t given = 0;
    return check_size(out, min_size, what, &given, err);
}

void struct_write(void *out, const void *full, size_t size)
{
    size_t given = 0;
    memcpy(&given, out, sizeof given);
    size_t copied = given < size ? given : size;
    unsigned char *bytes = out;
    memcpy(bytes + sizeof given, (const unsigned char *)full + sizeof given,
           copied - sizeof given);
    memset(bytes + copied, 0, given - copied);
}
