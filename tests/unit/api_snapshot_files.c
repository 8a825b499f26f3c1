/* Snapshots in files: which paths are taken, what becomes of what stands there, and how
 * much of a file is read before it is refused. */
#include "api_snapshot_forged.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

static void write_text(const char *path, const char *text)
{
    FILE *file = fopen(path, "wb");
    if (CHECK(file != NULL)) {
        fputs(text, file);
        fclose(file);
    }
}

/* The permissions of a file, and what kind it is. */
static mode_t mode_of(const char *path)
{
    struct stat info = {0};
    CHECK_EQUAL(lstat(path, &info), 0);
    return info.st_mode;
}

static void test_files(void)
{
    char folder[64], path[96], inside[128];
    snapshot_folder(folder);
    snprintf(path, sizeof path, "%s/seq", folder);
    snprintf(inside, sizeof inside, "%s/none/seq", folder);
    ratp_cache *cache = snapshot_cache(device, &needed);
    ratp_seq *seq = host_seq(cache), *out = seq;
    snapshot_feed(cache, seq, 9);
    REFUSE(cache, ratp->seq_load_file(cache, path, &out), RATP_NOT_FOUND, "No such file");
    CHECK_CONTAINS(host_message(cache), path);
    CHECK(!out);
    REFUSE(seq, ratp->seq_save_file(seq, inside), RATP_NOT_FOUND, "No such file or directory");
    CHECK_CONTAINS(host_message(seq), inside);
    REFUSE(cache, ratp->seq_load_file(cache, folder, &out), RATP_INVALID_ARGUMENT,
           "this is a folder, a pipe or a device, a file is wanted");
    REFUSE(seq, ratp->seq_save_file(seq, folder), RATP_INVALID_ARGUMENT,
           "this is a folder, a pipe or a device, a file is wanted");
    REFUSE(cache, ratp->seq_load_file(cache, "/dev/null", &out), RATP_INVALID_ARGUMENT,
           "a folder, a pipe or a device");
    CHECK_EQUAL(mkfifo(path, 0600), 0);
    REFUSE(cache, ratp->seq_load_file(cache, path, &out), RATP_INVALID_ARGUMENT,
           "a folder, a pipe or a device");
    remove(path);
    write_text(path, "");
    REFUSE(cache, ratp->seq_load_file(cache, path, &out), RATP_PARSE_ERROR, "ends at byte 0");
    write_text(path, "This is a text, and long enough to be a snapshot.");
    REFUSE(cache, ratp->seq_load_file(cache, path, &out), RATP_PARSE_ERROR, "no snapshot");
    CHECK_CONTAINS(host_message(cache), path);

    /* A disk that is full: the older file stays, and nothing lies beside it. */
    CHECK_EQUAL(ratp->seq_save_file(seq, path), RATP_OK);
    snapshot_feed(cache, seq, 1);
    struct rlimit limit, small;
    CHECK_EQUAL(getrlimit(RLIMIT_FSIZE, &limit), 0);
    small = (struct rlimit){.rlim_cur = 100, .rlim_max = limit.rlim_max};
    signal(SIGXFSZ, SIG_IGN);
    CHECK_EQUAL(setrlimit(RLIMIT_FSIZE, &small), 0);
    ratp_status status = ratp->seq_save_file(seq, path);
    CHECK_EQUAL(setrlimit(RLIMIT_FSIZE, &limit), 0);
    REFUSE(seq, status, RATP_INVALID_ARGUMENT, "it cannot be written: File too large");
    CHECK_EQUAL(snapshot_files(folder), 1);
    CHECK_EQUAL(ratp->seq_load_file(cache, path, &out), RATP_OK);
    CHECK_EQUAL(snapshot_length(out), 9);
    CHECK_EQUAL(ratp->seq_destroy(&out), RATP_OK);
    struct bytes file = snapshot_read(path);
    CHECK_EQUAL(truncate(path, (off_t)file.size - 1), 0);
    REFUSE(cache, ratp->seq_load_file(cache, path, &out), RATP_PARSE_ERROR, "says that it has");
    free(file.data);
    CHECK_EQUAL(ratp->seq_destroy(&seq), RATP_OK);
    snapshot_close(&cache);
    remove(path);
    remove(folder);
}

/* The only thing in the folder is still what it was, and of that kind. */
static void check_left(const char *folder, const char *path, mode_t mode)
{
    CHECK_EQUAL(mode_of(path), mode);
    CHECK_EQUAL(snapshot_files(folder), 1);
}

/* What is no file is not replaced by one, nor opened: without a reader that would wait. */
static void test_special(void)
{
    char folder[64], path[96], slash[96];
    snapshot_folder(folder);
    snprintf(path, sizeof path, "%s/seq", folder);
    snprintf(slash, sizeof slash, "%s/seq/", folder);
    ratp_cache *cache = snapshot_cache(device, &needed);
    ratp_seq *seq = host_seq(cache), *out = NULL;
    snapshot_feed(cache, seq, 9);
    static const char wanted[] = "this is a folder, a pipe or a device, a file is wanted";
    alarm(60);
    CHECK_EQUAL(mkfifo(path, 0640), 0);
    mode_t mode = mode_of(path);
    REFUSE(seq, ratp->seq_save_file(seq, path), RATP_INVALID_ARGUMENT, wanted);
    CHECK_CONTAINS(host_message(seq), path);
    check_left(folder, path, mode);
    remove(path);
    /* A link to a device: the device is not there to be lost, should it be replaced. */
    CHECK_EQUAL(symlink("/dev/null", path), 0);
    REFUSE(seq, ratp->seq_save_file(seq, path), RATP_INVALID_ARGUMENT, wanted);
    REFUSE(cache, ratp->seq_load_file(cache, path, &out), RATP_INVALID_ARGUMENT, wanted);
    check_left(folder, path, mode_of(path));
    CHECK(S_ISLNK(mode_of(path)));
    remove(path);
    CHECK_EQUAL(mkdir(path, 0700), 0);
    REFUSE(seq, ratp->seq_save_file(seq, path), RATP_INVALID_ARGUMENT, wanted);
    REFUSE(seq, ratp->seq_save_file(seq, slash), RATP_INVALID_ARGUMENT, wanted);
    check_left(folder, path, mode_of(path));
    remove(path);
    REFUSE(seq, ratp->seq_save_file(seq, slash), RATP_INVALID_ARGUMENT, "it ends with a slash");
    CHECK_EQUAL(symlink("seq", path), 0);
    REFUSE(seq, ratp->seq_save_file(seq, path), RATP_INVALID_ARGUMENT, "Too many levels");
    REFUSE(cache, ratp->seq_load_file(cache, path, &out), RATP_INVALID_ARGUMENT, "Too many levels");
    remove(path);
    CHECK_EQUAL(snapshot_files(folder), 0);
    alarm(0);
    CHECK_EQUAL(ratp->seq_destroy(&seq), RATP_OK);
    snapshot_close(&cache);
    remove(folder);
}

/* A link stays one, and what it leads to is replaced, or made; permissions stay. */
static void test_links(void)
{
    char folder[64], path[96], file[96], beside[128];
    snapshot_folder(folder);
    snprintf(path, sizeof path, "%s/link", folder);
    snprintf(beside, sizeof beside, "%s/beside", folder);
    snprintf(file, sizeof file, "%s/beside/seq", folder);
    ratp_cache *cache = snapshot_cache(device, &needed);
    ratp_seq *seq = host_seq(cache), *out = NULL;
    snapshot_feed(cache, seq, 9);
    CHECK_EQUAL(mkdir(beside, 0700), 0);
    CHECK_EQUAL(symlink("beside/seq", path), 0);
    CHECK_EQUAL(ratp->seq_save_file(seq, path), RATP_OK);
    CHECK(S_ISLNK(mode_of(path)));
    CHECK_EQUAL(mode_of(file), S_IFREG | 0600);
    CHECK_EQUAL(chmod(file, 0644), 0);
    snapshot_feed(cache, seq, 1);
    CHECK_EQUAL(ratp->seq_save_file(seq, path), RATP_OK);
    CHECK(S_ISLNK(mode_of(path)));
    CHECK_EQUAL(mode_of(file), S_IFREG | 0644);
    CHECK_EQUAL(ratp->seq_load_file(cache, path, &out), RATP_OK);
    CHECK_EQUAL(snapshot_length(out), 10);
    CHECK_EQUAL(snapshot_files(folder), 2);
    CHECK_EQUAL(snapshot_files(beside), 1);
    CHECK_EQUAL(ratp->seq_destroy(&out), RATP_OK);
    CHECK_EQUAL(ratp->seq_destroy(&seq), RATP_OK);
    snapshot_close(&cache);
    remove(file);
    remove(path);
    remove(beside);
    remove(folder);
}

/* As long as a name may be, and from inside of the folder. */
static void test_names(void)
{
    enum { LONGEST = 255 };
    char folder[64], name[LONGEST + 2];
    snapshot_folder(folder);
    ratp_cache *cache = snapshot_cache(device, &needed);
    ratp_seq *seq = host_seq(cache), *out = NULL;
    snapshot_feed(cache, seq, 9);
    int before = open(".", O_RDONLY | O_DIRECTORY);
    CHECK(before >= 0 && chdir(folder) == 0);
    memset(name, 'n', sizeof name);
    name[LONGEST + 1] = '\0';
    REFUSE(seq, ratp->seq_save_file(seq, name), RATP_INVALID_ARGUMENT, "File name too long");
    name[LONGEST] = '\0';
    CHECK_EQUAL(ratp->seq_save_file(seq, name), RATP_OK);
    CHECK_EQUAL(ratp->seq_save_file(seq, name), RATP_OK);
    CHECK_EQUAL(ratp->seq_load_file(cache, name, &out), RATP_OK);
    CHECK_EQUAL(snapshot_files("."), 1);
    remove(name);
    CHECK(fchdir(before) == 0);
    close(before);
    CHECK_EQUAL(ratp->seq_destroy(&out), RATP_OK);
    CHECK_EQUAL(ratp->seq_destroy(&seq), RATP_OK);
    snapshot_close(&cache);
    remove(folder);
}

/* Bytes that this process has read, where the system counts them. */
static unsigned long long bytes_read(void)
{
    unsigned long long bytes = 0;
    FILE *file = fopen("/proc/self/io", "r");
    if (file) {
        if (fscanf(file, "rchar: %llu", &bytes) != 1)
            bytes = 0;
        fclose(file);
    }
    return bytes;
}

/* Refused by its size, before more than a head was read or memory for more taken. */
static void refuse_unread(ratp_cache *cache, const char *path, ratp_status status,
                          const char *part)
{
    enum { MOST_READ = 1 << 16, MOST_TAKEN = 64 << 10 /* KiB */ };
    ratp_seq *out = NULL;
    struct rusage first, last;
    unsigned long long before = bytes_read();
    getrusage(RUSAGE_SELF, &first);
    REFUSE(cache, ratp->seq_load_file(cache, path, &out), status, part);
    getrusage(RUSAGE_SELF, &last);
    CHECK(bytes_read() - before < MOST_READ);
    CHECK(last.ru_maxrss - first.ru_maxrss < MOST_TAKEN);
    CHECK(!out);
}

/* Files without blocks on the disk that say they are snapshots of 3 GiB. */
static void test_large(void)
{
    enum { TOKEN = LAYERS * KV_HEADS * 2 * HEAD_SIZE * 2, MORE = (3u << 30) / TOKEN };
    char folder[64], path[96];
    snapshot_folder(folder);
    snprintf(path, sizeof path, "%s/seq", folder);
    const struct snapshot_model model = {"{}", .max_tokens = 1 << 24, .budget = 1 << 20};
    ratp_cache *cache = snapshot_cache(device, &model);
    ratp_seq *seq = host_seq(cache);
    snapshot_feed(cache, seq, 1);
    struct bytes saved = snapshot_save(seq);
    uint64_t rows = saved.size - 4 - TOKEN - LAYERS * KV_HEADS * 2 * HEAD_SIZE * 4;
    uint64_t size = saved.size + (uint64_t)MORE * TOKEN;
    for (int right = 0; right < 2; right++) {
        put_number(saved.data + SIZE, size, 8);
        if (right) {
            put_number(saved.data + LENGTH, 1 + MORE, 4);
            put_number(saved.data + rows - 4 - 8 - STORE + 4, 1 + MORE, 4);
        }
        forge_sums(saved, rows);
        FILE *file = fopen(path, "wb");
        CHECK(file && fwrite(saved.data, 1, rows, file) == rows && fclose(file) == 0);
        CHECK_EQUAL(truncate(path, (off_t)size), 0);
        refuse_unread(cache, path, right ? RATP_CACHE_FULL : RATP_PARSE_ERROR,
                      right ? "tokens of the snapshot take" : "of rows and state are to follow");
        CHECK_CONTAINS(host_message(cache), path);
    }
    /* Bytes of nothing, behind a head that is right. */
    put_number(saved.data + SIZE, saved.size, 8);
    forge_sums(saved, rows);
    FILE *file = fopen(path, "wb");
    CHECK(file && fwrite(saved.data, 1, rows, file) == rows && fclose(file) == 0);
    CHECK_EQUAL(truncate(path, (off_t)size), 0);
    refuse_unread(cache, path, RATP_PARSE_ERROR, "says that it has");
    free(saved.data);
    remove(path);
    remove(folder);
    CHECK_EQUAL(ratp->seq_destroy(&seq), RATP_OK);
    snapshot_close(&cache);
}

int main(int argc, char **argv)
{
    host_open(argc, argv);
    RUN(test_files);
    RUN(test_special);
    RUN(test_links);
    RUN(test_names);
    RUN(test_large);
    host_close();
    return check_result();
}
