#include "log.h"

#include <stdarg.h>
#include <stdio.h>

void log_write(const struct log *log, ratp_log_level level, const char *format, ...)
{
    if (!log->callback || level > log->level)
        return;
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    log->callback(log->user, level, text);
}
