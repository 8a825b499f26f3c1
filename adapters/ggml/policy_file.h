/* The file of a policy: when it has changed, and what in it is not the library's. */
#ifndef RATPLUS_GGML_POLICY_FILE_H
#define RATPLUS_GGML_POLICY_FILE_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>

/* What tells one state of a file from another. */
struct file_state {
    int error; /* errno where it cannot be looked at */
    struct timespec changed;
    off_t size;
    ino_t inode;
};

struct file_state file_look(const char *path);
bool file_is_same(const struct file_state *a, const struct file_state *b);
/* The file's bytes with a NUL, to be freed; NULL with a sentence in `why`. */
char *file_read(const char *path, size_t *size, char *why, size_t why_size);

/* Takes the member `name` of the object that `text` is: what it held, to be deleted, NULL
 * where there is none. Its place in the text becomes blanks, so that lines and columns of
 * the rest stay. *twice: it is there more than once. Where `text` is not JSON the rest is
 * left for those who read it to say so. */
cJSON *text_take_member(char *text, const char *name, bool *twice);

#endif
