/* What the backend says of the device's memory, and how it refuses a buffer.
 * Usage: memory PLUGIN counted|told. Counted: what is taken is missing in what is free. A driver
 * may tell what the system has, which counts late and counts others too: there it is told alone. */
#include <ggml-backend.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { MEBIBYTE = 1 << 20, TAKEN = 256, TRIES = 5, LOOKS = 30 };

static char logged[4096];

static void keep(enum ggml_log_level level, const char *text, void *user)
{
    (void)user;
    const size_t length = strlen(logged);
    if (level == GGML_LOG_LEVEL_ERROR)
        snprintf(logged + length, sizeof logged - length, "%s", text);
}

static int refuse(const char *what)
{
    printf("%s\n", what);
    return 1;
}

/* Others take and give memory meanwhile, and some systems count it once a second or so. */
static int is_counted(ggml_backend_dev_t device)
{
    for (int i = 0; i < TRIES; i++) {
        size_t before = 0, after = 0, total = 0;
        ggml_backend_dev_memory(device, &before, &total);
        ggml_backend_buffer_t buffer = ggml_backend_buft_alloc_buffer(
            ggml_backend_dev_buffer_type(device), (size_t)TAKEN * MEBIBYTE);
        if (!buffer)
            return 0;
        ggml_backend_buffer_clear(buffer, 1);
        int counted = 0;
        for (int look = 0; look < LOOKS && !counted; look++) {
            usleep(100000);
            ggml_backend_dev_memory(device, &after, &total);
            counted = before < total && after + (size_t)TAKEN / 2 * MEBIBYTE < before;
        }
        ggml_backend_buffer_free(buffer);
        printf("free %zu MiB of %zu MiB, then %zu MiB\n", before / MEBIBYTE, total / MEBIBYTE,
               after / MEBIBYTE);
        if (counted)
            return 1;
        sleep(1);
    }
    return 0;
}

int main(int argc, char **argv)
{
    char asked[32], most[32];
    size_t left = 0, total = 0;
    ggml_backend_reg_t registration = argc == 3 ? ggml_backend_load(argv[1]) : NULL;
    if (!registration)
        return refuse("the backend cannot be loaded");
    ggml_backend_dev_t device = ggml_backend_reg_dev_get(registration, 0);
    ggml_backend_dev_memory(device, &left, &total);
    if (left == 0 || left > total)
        return refuse("the free memory is not between 0 and all");
    if (strcmp(argv[2], "counted") == 0 && !is_counted(device))
        return refuse("a buffer is not missing in the free memory");
    ggml_backend_buffer_type_t type = ggml_backend_dev_buffer_type(device);
    const size_t limit = ggml_backend_buft_get_max_size(type), size = limit + 1;
    snprintf(asked, sizeof asked, "%zu bytes", size);
    snprintf(most, sizeof most, "%zu bytes", limit);
    ggml_log_set(keep, NULL);
    if (ggml_backend_buft_alloc_buffer(type, size))
        return refuse("a buffer beyond the limit is made");
    printf("%s", logged);
    const char *end = strchr(logged, '\n');
    if (!end || end[1] || strncmp(logged, "ratplus: RATPLUS0: no buffer of ", 32) != 0 ||
        !strstr(logged, asked) || !strstr(logged, most) || !strstr(logged, "(-c)"))
        return refuse("the refusal has not one line with what was asked, the limit and a way out");
    return 0;
}
