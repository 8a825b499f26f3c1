#include "problem.h"

#include <stdarg.h>
#include <stdio.h>

bool problem_set(struct problem *p, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(p->text, sizeof p->text, format, args);
    va_end(args);
    return false;
}

bool problem_about(struct problem *p, const char *what)
{
    const struct problem inner = *p;
    return problem_set(p, "%.200s: %.400s", what, inner.text);
}
