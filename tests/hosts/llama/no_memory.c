/* Comes before libratplus: its table, but for memory of the device alone, of which there is
 * none. The backend asks for such memory to keep summaries in, and for nothing else. */
#include <dlfcn.h>
#include <ratplus.h>
#include <string.h>

static ratp_status (*create)(ratp_device *, const struct ratp_buffer_params *, ratp_buffer **);

static ratp_status refuse(ratp_device *device, const struct ratp_buffer_params *params,
                          ratp_buffer **out)
{
    return params->kind == RATP_MEMORY_DEVICE ? RATP_OUT_OF_MEMORY
                                              : create(device, params, out);
}

const struct ratp_api *ratp_get_api(uint32_t major, char *reason, size_t size)
{
    static struct ratp_api table;
    const struct ratp_api *(*real)(uint32_t, char *, size_t) = NULL;
    void *library = dlopen("libratplus.so.1", RTLD_NOW);
    void *address = library ? dlsym(library, "ratp_get_api") : NULL;
    memcpy(&real, &address, sizeof real);
    const struct ratp_api *api = real ? real(major, reason, size) : NULL;
    if (!api)
        return NULL;
    table = *api;
    create = api->buffer_create;
    table.buffer_create = refuse;
    return &table;
}
