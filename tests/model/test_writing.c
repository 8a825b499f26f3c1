/* Files that the samples write. */
#include "../check.h"
#include "file.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[] = "/tmp/ratplus-writing-XXXXXX", path[64], other[64];
static struct problem problem;

static mode_t mode_of(const char *name)
{
    struct stat info = {0};
    CHECK_EQUAL(lstat(name, &info), 0);
    return info.st_mode;
}

static void check_text(const char *name, const char *wanted)
{
    char text[64] = "";
    FILE *file = fopen(name, "rb");
    if (!CHECK(file != NULL))
        return;
    CHECK_EQUAL(fread(text, 1, sizeof text - 1, file), strlen(wanted));
    CHECK(strcmp(text, wanted) == 0);
    fclose(file);
}

static void test_replaced(void)
{
    CHECK_EQUAL(symlink("other", path), 0);
    CHECK(file_write(path, "one", 3, &problem));
    CHECK(S_ISLNK(mode_of(path)));
    check_text(other, "one");
    CHECK_EQUAL(chmod(other, 0640), 0);
    CHECK(file_write(path, "two", 3, &problem));
    CHECK(S_ISREG(mode_of(other)));
    CHECK_EQUAL(mode_of(other) & 07777, 0640);
    CHECK(file_append(path, "three", 5, &problem));
    check_text(other, "twothree");
    CHECK(S_ISLNK(mode_of(path)));
    unlink(path);
    unlink(other);
    CHECK(file_append(path, "new", 3, &problem));
    check_text(path, "new");
    unlink(path);
}

/* Neither waits for whoever reads a pipe, nor takes its place. */
static void test_special(void)
{
    static const char wanted[] = "this is a folder, a pipe or a device";
    const char *const names[] = {path, folder, "/dev/null"};
    CHECK_EQUAL(mkfifo(path, 0600), 0);
    alarm(60);
    for (int i = 0; i < 3; i++) {
        const mode_t mode = mode_of(names[i]);
        CHECK(!file_write(names[i], "x", 1, &problem));
        CHECK_CONTAINS(problem.text, wanted);
        CHECK(!file_append(names[i], "x", 1, &problem));
        CHECK_CONTAINS(problem.text, wanted);
        CHECK_EQUAL(mode_of(names[i]), mode);
    }
    alarm(0);
    unlink(path);
}

static void test_names(void)
{
    char name[64 + 256];
    snprintf(name, sizeof name, "%s/%0255d", folder, 0);
    CHECK(file_write(name, "long", 4, &problem));
    check_text(name, "long");
    CHECK_EQUAL(unlink(name), 0);
    snprintf(name, sizeof name, "%s/none/file", folder);
    CHECK(!file_write(name, "x", 1, &problem));
    CHECK_CONTAINS(problem.text, "No such file or directory");
}

int main(void)
{
    if (!mkdtemp(folder))
        return 1;
    snprintf(path, sizeof path, "%s/file", folder);
    snprintf(other, sizeof other, "%s/other", folder);
    RUN(test_replaced);
    RUN(test_special);
    RUN(test_names);
    CHECK_EQUAL(rmdir(folder), 0); /* nothing else was left there */
    return check_result();
}
