/* Errors inside the library: a status, and a message that names the argument,
 * its value and the limit. Every function that can fail takes a
 * `struct error *` and returns what fail() returned; the API layer hands the
 * message to the host through last_error(). */
#ifndef RATPLUS_ERROR_H
#define RATPLUS_ERROR_H

#include <ratplus.h>

struct error {
    char text[512];
};

/* Writes the message and returns `status`, so that callers can write
 * `return fail(err, RATP_INVALID_ARGUMENT, "...", ...)`. `err` may be NULL. */
ratp_status fail(struct error *err, ratp_status status, const char *format, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 3, 4)))
#endif
    ;

#endif
