/* What the samples show: a progress bar, tables, sizes for people. */
#ifndef SAMPLES_TERMINAL_H
#define SAMPLES_TERMINAL_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* A bar on stderr, only when that is a terminal. done == total ends it. */
void progress_show(const char *label, uint64_t done, uint64_t total);

/* "1.5 MiB" */
void bytes_print(uint64_t bytes, char *text, size_t size);

/* Rows of columns, the first row being the heading, to stdout. The first
 * column is flush left, the others right. */
void table_print(const char *const *cells, size_t rows, size_t columns);
void table_print_to(FILE *file, const char *const *cells, size_t rows, size_t columns);

/* Seconds on a clock that only goes forward. */
double seconds_now(void);

#endif
