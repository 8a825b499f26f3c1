#include "arguments.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_positional(const struct option *option)
{
    return option->name[0] != '-';
}

bool number_read(const char *name, const char *text, double min, double max, uint64_t *out,
                 struct problem *problem)
{
    char *end;
    errno = 0;
    const unsigned long long value = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end || errno || (double)value < min ||
        (double)value > max)
        return problem_set(problem, "%s: \"%.40s\" is not a whole number from %.0f to %.0f", name,
                           text, min, max);
    *out = value;
    return true;
}

bool real_read(const char *name, const char *text, double min, double max, double *out,
               struct problem *problem)
{
    char *end;
    const double value = strtod(text, &end);
    if (end == text || *end || !(value >= min && value <= max))
        return problem_set(problem, "%s: \"%.40s\" is not a number from %g to %g", name, text, min,
                           max);
    *out = value;
    return true;
}

static bool store(const struct option *option, const char *text, struct problem *problem)
{
    switch (option->kind) {
    case OPTION_FLAG:
        *(bool *)option->target = true;
        return true;
    case OPTION_TEXT:
        *(const char **)option->target = text;
        return true;
    case OPTION_NUMBER:
        return number_read(option->name, text, option->min, option->max, option->target, problem);
    case OPTION_REAL:
        return real_read(option->name, text, option->min, option->max, option->target, problem);
    }
    return problem_set(problem, "%s: unknown kind of option", option->name);
}

static const struct option *find(const struct option *options, size_t count, const char *name,
                                 size_t length)
{
    for (size_t i = 0; i < count; i++)
        if (strlen(options[i].name) == length && strncmp(options[i].name, name, length) == 0)
            return &options[i];
    return NULL;
}

bool arguments_parse(const struct option *options, size_t count, int argc, char **argv,
                     struct problem *problem)
{
    size_t positional = 0;
    for (int i = 1; i < argc; i++) {
        const char *argument = argv[i];
        if (argument[0] != '-' || argument[1] == '\0') {
            while (positional < count && !is_positional(&options[positional]))
                positional++;
            if (positional == count)
                return problem_set(problem, "\"%.80s\" is one argument too many", argument);
            if (!store(&options[positional++], argument, problem))
                return false;
            continue;
        }
        const char *equals = strchr(argument, '=');
        const size_t length = equals ? (size_t)(equals - argument) : strlen(argument);
        const struct option *option = find(options, count, argument, length);
        if (!option)
            return problem_set(problem, "unknown option \"%.80s\"; see --help", argument);
        if (option->kind == OPTION_FLAG && equals)
            return problem_set(problem, "%s takes no value", option->name);
        const char *value = equals ? equals + 1 : NULL;
        if (option->kind != OPTION_FLAG && !value) {
            if (i + 1 == argc)
                return problem_set(problem, "%s needs a value (%s)", option->name, option->value);
            value = argv[++i];
        }
        if (!store(option, value, problem))
            return false;
    }
    return true;
}

void arguments_help(const struct option *options, size_t count)
{
    int width = 0;
    for (size_t i = 0; i < count; i++) {
        const size_t value = options[i].value ? strlen(options[i].value) + 1 : 0;
        const int length = (int)(strlen(options[i].name) + value);
        width = length > width ? length : width;
    }
    for (size_t i = 0; i < count; i++) {
        const char *value = options[i].value;
        char left[64];
        snprintf(left, sizeof left, "%s%s%s", options[i].name, value ? " " : "",
                 value ? value : "");
        printf("  %-*s  %s\n", width, left, options[i].help);
    }
}
