/* A host for tests of the ABI: an instance, the device that the test was asked
 * to use, and a cache with one sequence. */
#ifndef RATPLUS_TESTS_API_HOST_H
#define RATPLUS_TESTS_API_HOST_H

#include "../check.h"

#include <ratplus.h>

/* The geometry of host_cache(): with memory, 2 layers of 4 query heads over 2. */
enum { LAYERS = 2, QUERY_HEADS = 4, KV_HEADS = 2, HEAD_SIZE = 16, MAX_ROWS = 64 };

extern const struct ratp_api *ratp;
extern ratp_instance *instance;
extern ratp_device *device;

/* Opens the device that argv[1] names; exits the test as skipped where there
 * is none. */
void host_open(int argc, char **argv);
void host_close(void);

ratp_cache *host_cache(void);
ratp_seq *host_seq(ratp_cache *cache);
ratp_step *host_step(ratp_cache *cache, ratp_seq *seq, uint32_t tokens);
/* Tensors over static host memory for MAX_ROWS tokens; `out` and `lse` too. */
struct ratp_attend_io host_io(void);
float *host_out(void);
/* What last_error says. Valid until the next call. */
const char *host_message(const void *object);

/* A failed call: its status, and a message on `object` that contains `part`. */
#define REFUSE(object, call, status, part)                       \
    do {                                                         \
        CHECK_EQUAL(call, status);                               \
        CHECK_CONTAINS(host_message(object), part);              \
    } while (0)

#endif
