/* Files that the samples write. */
#include "../check.h"
#include "file.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[] = "/tmp/ratplus-writing-XXXXXX", path[64], other[64];
static struct problem problem;

static int folders_synced, files_synced;

/* In the place of the C library's, to see what is brought to the disk. */
int fsync(int fd)
{
    struct stat info;
    if (fstat(fd, &info) == 0) {
        folders_synced += S_ISDIR(info.st_mode);
        files_synced += S_ISREG(info.st_mode);
    }
    return fdatasync(fd);
}

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

/* Who may change the owner of a file leaves it with its own, and who may not keeps from another
 * group what the old one was allowed. */
static void test_owner(void)
{
    enum { USER = 12345, GROUP = 23456, OTHER = 34567 };
    struct stat info = {0};
    CHECK(file_write(path, "one", 3, &problem));
    CHECK_EQUAL(chmod(path, 0664), 0);
    if (geteuid() != 0 || chown(path, USER, GROUP) != 0) {
        printf("only root, where the system has other users, can give a file to one\n");
        unlink(path);
        return;
    }
    CHECK(file_write(path, "two", 3, &problem));
    CHECK_EQUAL(lstat(path, &info), 0);
    CHECK_EQUAL(info.st_uid, USER);
    CHECK_EQUAL(info.st_gid, GROUP);
    CHECK_EQUAL(info.st_mode & 07777, 0664);
    CHECK_EQUAL(chmod(folder, 0777), 0);
    CHECK_EQUAL(setegid(OTHER), 0);
    CHECK_EQUAL(seteuid(OTHER), 0);
    CHECK(file_write(path, "three", 5, &problem));
    CHECK_EQUAL(seteuid(0), 0);
    CHECK_EQUAL(setegid(0), 0);
    CHECK_EQUAL(chmod(folder, 0700), 0);
    CHECK_EQUAL(lstat(path, &info), 0);
    CHECK_EQUAL(info.st_uid, OTHER);
    CHECK_EQUAL(info.st_mode & 07777, 0604);
    check_text(path, "three");
    unlink(path);
}

/* The new name of a file is on the disk when the call returns, and not the file alone. */
static void test_synced(void)
{
    files_synced = folders_synced = 0;
    CHECK(file_write(path, "one", 3, &problem));
    CHECK_EQUAL(files_synced, 1);
    CHECK_EQUAL(folders_synced, 1);
    unlink(path);
}

/* A link to an open file whose name is gone: nothing is made in its stead. */
static void test_nameless(void)
{
    char link[96], text[8] = "";
    const int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    CHECK(fd >= 0 && write(fd, "one", 3) == 3);
    unlink(path);
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    CHECK(!file_write(link, "two", 3, &problem));
    CHECK_CONTAINS(problem.text, "no folder has under that name");
    CHECK(pread(fd, text, sizeof text, 0) == 3 && strcmp(text, "one") == 0);
    close(fd);
    snprintf(link, sizeof link, "%s/", path);
    CHECK(!file_write(link, "two", 3, &problem));
    CHECK_CONTAINS(problem.text, "ends with a slash");
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
    RUN(test_owner);
    RUN(test_synced);
    RUN(test_nameless);
    RUN(test_names);
    CHECK_EQUAL(rmdir(folder), 0); /* nothing else was left there */
    return check_result();
}
