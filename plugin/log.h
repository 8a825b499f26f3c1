/* The host's log callback. The library prints nothing by itself. */
#ifndef RATPLUS_LOG_H
#define RATPLUS_LOG_H

#include <ratplus.h>

struct log {
    void (*callback)(void *user, ratp_log_level level, const char *message); /* NULL: silent */
    void *user;
    ratp_log_level level; /* messages above it are dropped */
};

void log_write(const struct log *log, ratp_log_level level, const char *format, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 3, 4)))
#endif
    ;

#endif
