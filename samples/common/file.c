#include "file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool file_read(const char *path, char **data, size_t *size, struct problem *problem)
{
    FILE *file = strcmp(path, "-") == 0 ? stdin : fopen(path, "rb");
    if (!file)
        return problem_set(problem, "%s: %s", path, strerror(errno));
    char *bytes = NULL;
    size_t used = 0, room = 0;
    bool good = true;
    do {
        if (used + 1 >= room) {
            room = room ? 2 * room : 65536;
            char *grown = realloc(bytes, room);
            if (!grown) {
                good = problem_set(problem, "%s: out of memory after %zu bytes", path, used);
                break;
            }
            bytes = grown;
        }
        used += fread(bytes + used, 1, room - used - 1, file);
    } while (!feof(file) && !ferror(file));
    if (good && ferror(file))
        good = problem_set(problem, "%s: cannot be read: %s", path, strerror(errno));
    if (file != stdin)
        fclose(file);
    if (!good) {
        free(bytes);
        return false;
    }
    bytes[used] = '\0';
    *data = bytes;
    *size = used;
    return true;
}

char *path_join(const char *folder, const char *name)
{
    const size_t size = strlen(folder) + strlen(name) + 2;
    char *path = malloc(size);
    if (path)
        snprintf(path, size, "%s/%s", folder, name);
    return path;
}
