/* Files that the library reads and replaces, by one rule: a path leads, over links, to
 * a regular file, or to where none is yet. Pipes, devices and folders are refused
 * without being opened, for that alone may wait, or do something. */
#ifndef RATPLUS_FILE_H
#define RATPLUS_FILE_H

#include "error.h"

#include <stdint.h>

/* RATP_NOT_FOUND where nothing is, else RATP_INVALID_ARGUMENT; the message has the path
 * and the system's reason. To be closed with close(). */
ratp_status file_open(const char *path, int *file, uint64_t *size, struct error *err);
/* RATP_PARSE_ERROR where the file ends before: it has become shorter. */
ratp_status file_read(int file, uint64_t at, uint64_t bytes, void *to, struct error *err);
/* Puts a file of these bytes where the path leads. It keeps the permissions of the one
 * that stood there, which stays until all of the new one is on the disk; a new one is
 * its owner's alone. */
ratp_status file_replace(const char *path, const void *data, uint64_t size, struct error *err);

#endif
