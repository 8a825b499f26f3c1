#include "problem.h"

#include <stdarg.h>
#include <stdio.h>

bool problem_set(struct problem *p, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(p->text, sizeof p->text, format, args);
    va_end(args);
    /* What a file says may stand in a message; a terminal must not follow it. */
    for (char *c = p->text; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = '?';
    return false;
}

bool problem_about(struct problem *p, const char *what)
{
    const struct problem inner = *p;
    return problem_set(p, "%.200s: %.400s", what, inner.text);
}
