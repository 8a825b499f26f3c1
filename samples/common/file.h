/* Whole files, and paths. */
#ifndef SAMPLES_FILE_H
#define SAMPLES_FILE_H

#include "problem.h"

#include <stddef.h>

/* The file's bytes with a NUL behind them, to be freed. "-" reads stdin. */
bool file_read(const char *path, char **data, size_t *size, struct problem *problem);
bool file_write(const char *path, const void *data, size_t size, struct problem *problem);
/* Both write regular files alone, and where links lead. file_write() is all or nothing: what
 * was there stays until all is written, and its permissions stay then. file_append() adds to
 * what is there, and makes the file if there is none. */
bool file_append(const char *path, const void *data, size_t size, struct problem *problem);
/* "folder/name", to be freed; NULL when out of memory. */
char *path_join(const char *folder, const char *name);

#endif
