/* Whole files, and paths. Only regular files are read and written. Pipes, devices and folders
 * are refused without being opened, for that alone may wait, or do something. */
#ifndef SAMPLES_FILE_H
#define SAMPLES_FILE_H

#include "problem.h"

#include <stddef.h>
#include <stdint.h>

/* The largest files that are read, by what they hold. */
#define FILE_MAX_CONFIG (1u << 20)    /* config.json */
#define FILE_MAX_LIST (16u << 20)     /* a policy, an index of weights, a list of rows */
#define FILE_MAX_TOKENIZER (64u << 20)
#define FILE_MAX_TEXT (1u << 30)      /* texts, tokens, questions, results of earlier runs */

/* A regular file that is open for reading, and its size now. */
struct file {
    const char *path; /* as given, not copied */
    int fd;
    uint64_t size;
};

bool file_open(struct file *file, const char *path, struct problem *problem);
void file_close(struct file *file);
/* Exactly these bytes. A file that was cut short since it was opened is a problem
 * here; where it is mapped, it would be the end of the process. */
bool file_read_at(const struct file *file, uint64_t offset, void *out, size_t size,
                  struct problem *problem);

/* The file's bytes, at most `max`, with a NUL behind them, to be freed. "-" reads stdin,
 * whatever that is. */
bool file_read(const char *path, uint64_t max, char **data, size_t *size,
               struct problem *problem);
bool file_write(const char *path, const void *data, size_t size, struct problem *problem);
/* Both write where links lead. file_write() is all or nothing: what was there stays until all of
 * the new file is on the disk, which then has its permissions, and its owner and group where the
 * system allows it. file_append() adds to what is there, and makes the file if there is none. */
bool file_append(const char *path, const void *data, size_t size, struct problem *problem);
/* "folder/name", to be freed; NULL when out of memory. */
char *path_join(const char *folder, const char *name);

#endif
