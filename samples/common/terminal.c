#include "terminal.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define BAR 40

void progress_show(const char *label, uint64_t done, uint64_t total)
{
    if (!isatty(STDERR_FILENO) || total == 0)
        return;
    char bar[BAR + 1];
    const size_t full = (size_t)(done * BAR / total);
    memset(bar, '#', full);
    memset(bar + full, '.', BAR - full);
    bar[BAR] = '\0';
    if (done < total)
        fprintf(stderr, "\r%s [%s] %llu/%llu", label, bar, (unsigned long long)done,
                (unsigned long long)total);
    else
        fprintf(stderr, "\r\033[K");
    fflush(stderr);
}

void bytes_print(uint64_t bytes, char *text, size_t size)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double value = (double)bytes;
    size_t unit = 0;
    while (value >= 1024 && unit + 1 < sizeof units / sizeof *units) {
        value /= 1024;
        unit++;
    }
    snprintf(text, size, unit == 0 ? "%.0f %s" : "%.1f %s", value, units[unit]);
}

void table_print_to(FILE *file, const char *const *cells, size_t rows, size_t columns)
{
    for (size_t row = 0; row < rows; row++) {
        for (size_t column = 0; column < columns; column++) {
            size_t width = 0;
            for (size_t r = 0; r < rows; r++) {
                const size_t length = strlen(cells[r * columns + column]);
                width = length > width ? length : width;
            }
            const char *cell = cells[row * columns + column];
            if (column == 0)
                fprintf(file, "%-*s", (int)width, cell);
            else
                fprintf(file, "  %*s", (int)width, cell);
        }
        fputc('\n', file);
    }
}

void table_print(const char *const *cells, size_t rows, size_t columns)
{
    table_print_to(stdout, cells, rows, columns);
}

double seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}
