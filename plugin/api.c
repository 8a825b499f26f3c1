/* The function table and the one exported symbol. */
#include "api.h"

#include <stdio.h>

ratp_status api_return(const void *handle, ratp_status status, const struct error *err)
{
    if (status && object_any(handle))
        object_fail((struct object *)(uintptr_t)handle, status, err);
    return status;
}

ratp_status api_not_null(const void *pointer, const char *what, struct error *err)
{
    return pointer ? RATP_OK : fail(err, RATP_INVALID_ARGUMENT, "%s is NULL", what);
}

static const char *version(void)
{
    return RATP_VERSION;
}

static const char *status_name(ratp_status status)
{
    static const char *const names[] = {
        [RATP_OK] = "RATP_OK",
        [RATP_INVALID_ARGUMENT] = "RATP_INVALID_ARGUMENT",
        [RATP_WRONG_STATE] = "RATP_WRONG_STATE",
        [RATP_OUT_OF_MEMORY] = "RATP_OUT_OF_MEMORY",
        [RATP_CACHE_FULL] = "RATP_CACHE_FULL",
        [RATP_NOT_RETAINED] = "RATP_NOT_RETAINED",
        [RATP_UNSUPPORTED] = "RATP_UNSUPPORTED",
        [RATP_NOT_FOUND] = "RATP_NOT_FOUND",
        [RATP_PARSE_ERROR] = "RATP_PARSE_ERROR",
        [RATP_DEVICE_LOST] = "RATP_DEVICE_LOST",
        [RATP_INTERNAL] = "RATP_INTERNAL",
    };
    int32_t count = (int32_t)(sizeof names / sizeof *names);
    return status >= 0 && status < count ? names[status] : "unknown status";
}

static size_t last_error(const void *object, char *text, size_t size)
{
    if (object_any(object))
        return object_message((struct object *)(uintptr_t)object, text, size);
    if (text && size > 0)
        text[0] = '\0';
    return 0;
}

static const struct ratp_api table = {
    .struct_size = sizeof table,
    .abi_major = RATP_ABI_MAJOR,
    .abi_minor = RATP_ABI_MINOR,
    .version = version,
    .status_name = status_name,
    .last_error = last_error,
    .instance_create = api_instance_create,
    .instance_destroy = api_instance_destroy,
    .get_extension = api_get_extension,
    .device_count = api_device_count,
    .device_describe = api_device_describe,
    .device_open = api_device_open,
    .device_close = api_device_close,
    .device_info = api_device_info,
    .device_kernel_form = api_device_kernel_form,
    .device_wait = api_device_wait,
    .buffer_create = api_buffer_create,
    .buffer_destroy = api_buffer_destroy,
    .buffer_write = api_buffer_write,
    .buffer_read = api_buffer_read,
    .buffer_map = api_buffer_map,
    .policy_create = api_policy_create,
    .policy_from_json = api_policy_from_json,
    .policy_set = api_policy_set,
    .policy_to_json = api_policy_to_json,
    .policy_destroy = api_policy_destroy,
    .cache_create = api_cache_create,
    .cache_destroy = api_cache_destroy,
    .cache_stats = api_cache_stats,
    .seq_create = api_seq_create,
    .seq_destroy = api_seq_destroy,
    .seq_stats = api_seq_stats,
    .seq_positions = api_seq_positions,
    .step_begin = api_step_begin,
    .step_attend = api_step_attend,
    .step_commit = api_step_commit,
    .step_abort = api_step_abort,
    .attend_external = api_attend_external,
    .merge = api_merge,
    .seq_fork = api_seq_fork,
    .seq_truncate = api_seq_truncate,
    .seq_set_policy = api_seq_set_policy,
    .seq_save = api_seq_save,
    .seq_load = api_seq_load,
    .seq_save_file = api_seq_save_file,
    .seq_load_file = api_seq_load_file,
    .seq_compress = api_seq_compress,
    .policy_variant = api_policy_variant,
};

const struct ratp_api *ratp_get_api(uint32_t abi_major, char *reason, size_t reason_size)
{
    if (abi_major == RATP_ABI_MAJOR)
        return &table;
    if (reason && reason_size > 0)
        snprintf(reason, reason_size,
                 "abi_major is %u, libratplus %s speaks ABI %d only: install the libratplus that "
                 "the program was built for",
                 abi_major, RATP_VERSION, RATP_ABI_MAJOR);
    return NULL;
}
