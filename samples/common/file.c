#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool check_regular(const char *path, const struct stat *info, struct problem *problem)
{
    return S_ISREG(info->st_mode) ||
           problem_set(problem, "%s: not a regular file; folders, pipes and devices are not read",
                       path);
}

bool file_open(struct file *file, const char *path, struct problem *problem)
{
    struct stat info;
    *file = (struct file){.path = path, .fd = -1};
    if (stat(path, &info) != 0)
        return problem_set(problem, "%s: %s", path, strerror(errno));
    if (!check_regular(path, &info, problem))
        return false;
    /* Something else may have come there since: a pipe without a writer would have this wait. */
    file->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (file->fd < 0)
        return problem_set(problem, "%s: %s", path, strerror(errno));
    const bool good = fstat(file->fd, &info) == 0 ||
                      problem_set(problem, "%s: cannot be read: %s", path, strerror(errno));
    if (good && check_regular(path, &info, problem)) {
        file->size = (uint64_t)info.st_size;
        return true;
    }
    file_close(file);
    return false;
}

void file_close(struct file *file)
{
    if (file->fd >= 0)
        close(file->fd);
    file->fd = -1;
}

bool file_read_at(const struct file *file, uint64_t offset, void *out, size_t size,
                  struct problem *problem)
{
    for (size_t done = 0; done < size;) {
        const ssize_t got = pread(file->fd, (char *)out + done, size - done,
                                  (off_t)(offset + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return problem_set(problem, "%s: cannot be read: %s", file->path, strerror(errno));
        if (got == 0)
            return problem_set(problem, "%s: was cut short while it was in use: it ends at byte "
                               "%" PRIu64 ", and had %" PRIu64, file->path, offset + done,
                               file->size);
        done += (size_t)got;
    }
    return true;
}

static bool read_stdin(uint64_t max, char **data, size_t *size, struct problem *problem)
{
    char *bytes = NULL;
    size_t used = 0, room = 0;
    bool good = true;
    do {
        if (used + 1 >= room) {
            room = room ? 2 * room : 65536;
            char *grown = realloc(bytes, room);
            if (!grown) {
                good = problem_set(problem, "-: out of memory after %zu bytes", used);
                break;
            }
            bytes = grown;
        }
        used += fread(bytes + used, 1, room - used - 1, stdin);
        if (used > max)
            good = problem_set(problem, "-: more than %" PRIu64 " bytes, the limit of what is read "
                               "here", max);
    } while (good && !feof(stdin) && !ferror(stdin));
    if (good && ferror(stdin))
        good = problem_set(problem, "-: cannot be read: %s", strerror(errno));
    if (!good) {
        free(bytes);
        return false;
    }
    bytes[used] = '\0';
    *data = bytes;
    *size = used;
    return true;
}

bool file_read(const char *path, uint64_t max, char **data, size_t *size,
               struct problem *problem)
{
    struct file file;
    if (strcmp(path, "-") == 0)
        return read_stdin(max, data, size, problem);
    if (!file_open(&file, path, problem))
        return false;
    bool good = file.size <= max ||
                problem_set(problem, "%s: has %" PRIu64 " bytes; at most %" PRIu64 " are read here",
                            path, file.size, max);
    char *bytes = good ? malloc((size_t)file.size + 1) : NULL;
    if (good && !bytes)
        good = problem_set(problem, "%s: out of memory for %" PRIu64 " bytes", path, file.size);
    good = good && file_read_at(&file, 0, bytes, (size_t)file.size, problem);
    file_close(&file);
    if (!good) {
        free(bytes);
        return false;
    }
    bytes[file.size] = '\0';
    *data = bytes;
    *size = (size_t)file.size;
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
