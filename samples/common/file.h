/* Whole files, and paths. */
#ifndef SAMPLES_FILE_H
#define SAMPLES_FILE_H

#include "problem.h"

#include <stddef.h>

/* The file's bytes with a NUL behind them, to be freed. "-" reads stdin. */
bool file_read(const char *path, char **data, size_t *size, struct problem *problem);
bool file_write(const char *path, const void *data, size_t size, struct problem *problem);
/* "folder/name", to be freed; NULL when out of memory. */
char *path_join(const char *folder, const char *name);

#endif
