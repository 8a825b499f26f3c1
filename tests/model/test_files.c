/* What the samples read from disk: special files, limits, files that are cut short while
 * they are in use, and weights in several files. */
#include "../check.h"
#include "file.h"
#include "safetensors.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[] = "/tmp/ratplus-test-XXXXXX";
static char path[128];
static struct problem problem;

static const char *in_folder(const char *name)
{
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static bool put(const char *name, const char *text)
{
    return file_write(in_folder(name), text, strlen(text), &problem);
}

/* A safetensors file of this header and `data` bytes, which count from 0. */
static bool put_tensors(const char *name, const char *header, size_t data)
{
    char bytes[2048] = {0};
    const uint64_t size = strlen(header);
    memcpy(bytes, &size, sizeof size);
    memcpy(bytes + 8, header, size);
    for (size_t i = 0; i < data; i++)
        bytes[8 + size + i] = (char)i;
    return file_write(in_folder(name), bytes, 8 + size + data, &problem);
}

static bool refused(const char *name, uint64_t max, const char *message)
{
    char *data;
    size_t size;
    problem.text[0] = '\0';
    const bool good = !file_read(name, max, &data, &size, &problem);
    CHECK_CONTAINS(problem.text, message);
    return good && strncmp(problem.text, name, strlen(name)) == 0;
}

/* Whether the path was opened since the watch was set. */
static bool was_opened(int watch)
{
    char events[512];
    return read(watch, events, sizeof events) > 0;
}

/* Each of these would block, or never end, or do something when it is opened. */
static void test_special_files(void)
{
    struct safetensors weights;
    if (!CHECK(mkfifo(in_folder("pipe"), 0600) == 0))
        return;
    const int watch = inotify_init1(IN_NONBLOCK);
    CHECK(inotify_add_watch(watch, path, IN_OPEN) >= 0);
    CHECK(refused(path, 100, "not a regular file"));
    CHECK(!safetensors_open(&weights, path, &problem));
    CHECK_CONTAINS(problem.text, "not a regular file");
    CHECK(!was_opened(watch));
    const int reader = open(path, O_RDONLY | O_NONBLOCK);
    CHECK(reader >= 0 && was_opened(watch));
    close(reader);
    close(watch);
    unlink(path);
    CHECK(refused("/dev/zero", 100, "not a regular file"));
    CHECK(refused(folder, 100, "not a regular file"));
    CHECK(refused(in_folder("none"), 100, "No such file"));
}

static void test_limits(void)
{
    char *data;
    size_t size;
    CHECK(put("text", "0123456789"));
    CHECK(refused(in_folder("text"), 9, "has 10 bytes; at most 9 are read here"));
    if (CHECK(file_read(path, 10, &data, &size, &problem))) {
        CHECK(size == 10 && strcmp(data, "0123456789") == 0);
        free(data);
    }
    /* A link is what it leads to. */
    char link[160];
    snprintf(link, sizeof link, "%s.link", path);
    CHECK(symlink(path, link) == 0);
    if (CHECK(file_read(link, 10, &data, &size, &problem)))
        free(data);
    unlink(link);
    /* Nothing of a large file is read, or kept in memory. */
    CHECK(truncate(path, (off_t)1 << 40) == 0);
    CHECK(refused(path, 1u << 30, "at most 1073741824 are read here"));
    unlink(path);
}

static void test_cut_short(void)
{
    struct safetensors weights;
    float value;
    CHECK(put_tensors("cut", "{\"t\":{\"dtype\":\"F16\",\"shape\":[8192],\"data_offsets\":"
                             "[0,16384]}}", 0));
    const off_t whole = (off_t)strlen("{\"t\":{\"dtype\":\"F16\",\"shape\":[8192],\"data_offsets\":"
                                      "[0,16384]}}") + 8 + 16384;
    CHECK(truncate(path, whole) == 0);
    if (!CHECK(safetensors_open(&weights, path, &problem)))
        return;
    const struct st_tensor *t = safetensors_find(&weights, "t");
    CHECK(t && st_read_f32(t, 8191, 1, &value, &problem) && value == 0);
    CHECK(truncate(path, 4096) == 0);
    CHECK(t && !st_read_f32(t, 8191, 1, &value, &problem));
    CHECK_CONTAINS(problem.text, "was cut short while it was in use");
    safetensors_close(&weights);
    unlink(path);
}

#define FIRST "model-00001-of-00002.safetensors"
#define SECOND "model-00002-of-00002.safetensors"
#define INDEX "model.safetensors.index.json"
#define TENSOR(name, begin, end) \
    "\"" name "\":{\"dtype\":\"I32\",\"shape\":[2],\"data_offsets\":[" begin "," end "]}"
#define A_AND_C "{" TENSOR("a", "0", "8") "," TENSOR("c", "8", "16") "}"

static void test_shards(void)
{
    struct safetensors weights;
    int64_t value = 0;
    CHECK(put_tensors(FIRST, A_AND_C, 16));
    CHECK(put_tensors(SECOND, "{" TENSOR("b", "0", "8") "}", 8));
    CHECK(put(INDEX, "{\"metadata\":{\"total_size\":24},\"weight_map\":{\"a\":\"" FIRST "\",\"b\":\""
                     SECOND "\",\"c\":\"" FIRST "\"}}"));
    if (!CHECK(safetensors_open_folder(&weights, folder, &problem)))
        return;
    CHECK(weights.count == 3 && weights.part_count == 2);
    const struct st_tensor *b = safetensors_find(&weights, "b");
    CHECK(b && st_read_int(b, 0, &value, &problem) && value == 0x03020100);
    const struct st_tensor *c = safetensors_find(&weights, "c");
    CHECK(c && st_read_int(c, 0, &value, &problem) && value == 0x0b0a0908);
    safetensors_close(&weights);

    /* model.safetensors goes before an index. */
    CHECK(put_tensors("model.safetensors", "{" TENSOR("d", "0", "8") "}", 8));
    if (CHECK(safetensors_open_folder(&weights, folder, &problem))) {
        CHECK(weights.count == 1 && safetensors_find(&weights, "d"));
        safetensors_close(&weights);
    }
    unlink(in_folder("model.safetensors"));
}

#define ALL(a, b, c) "{\"weight_map\":{\"a\":" a ",\"b\":" b ",\"c\":" c "}}"
#define ONE "\"" FIRST "\""
#define TWO "\"" SECOND "\""

static void test_shards_refused(void)
{
    static const struct {
        const char *index, *message;
    } cases[] = {
        {"[]", "weight_map"},
        {"{}", "weight_map"},
        {"{\"weight_map\":{}}", "weight_map"},
        {"{\"weight_map\":[\"a\"]}", "weight_map"},
        {"{\"weight_map\":{\"a\":", "weight_map"},
        {ALL(ONE, "7", ONE), "does not name a file of the same folder for tensor \"b\""},
        {ALL(ONE, "\"../x\"", ONE), "does not name a file of the same folder"},
        {ALL(ONE, "\"/etc/passwd\"", ONE), "does not name a file of the same folder"},
        {ALL(ONE, "\"..\"", ONE), "does not name a file of the same folder"},
        {ALL(ONE, "\"\"", ONE), "does not name a file of the same folder"},
        {ALL(ONE, "\"pipe\"", ONE), "not a regular file"},
        {ALL(ONE, "\"none\"", ONE), "No such file"},
        {ALL(ONE, ONE, ONE), "tensor \"b\" is not in "},
        {ALL(ONE, TWO, TWO), "tensor \"c\" is not in "},
        {"{\"weight_map\":{\"a\":" ONE ",\"b\":" TWO "}}", "hold 3 tensors, but the index names 2"},
        {"{\"weight_map\":{\"a\":" ONE ",\"b\":" TWO ",\"c\":" ONE ",\"c\":" ONE "}}",
         "names a tensor twice"},
    };
    struct safetensors weights;
    CHECK(mkfifo(in_folder("pipe"), 0600) == 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        CHECK(put(INDEX, cases[i].index));
        if (CHECK(!safetensors_open_folder(&weights, folder, &problem)))
            CHECK_CONTAINS(problem.text, cases[i].message);
        CHECK(!weights.parts && !weights.tensors);
    }
    /* The same tensor in two files. */
    CHECK(put_tensors(SECOND, A_AND_C, 16));
    CHECK(put(INDEX, ALL(ONE, TWO, ONE)));
    CHECK(!safetensors_open_folder(&weights, folder, &problem));
    CHECK_CONTAINS(problem.text, "is there twice");
    unlink(in_folder("pipe"));
    unlink(in_folder(FIRST));
    unlink(in_folder(SECOND));
    unlink(in_folder(INDEX));
    CHECK(!safetensors_open_folder(&weights, folder, &problem));
    CHECK_CONTAINS(problem.text, "model.safetensors: No such file");
}

int main(void)
{
    if (!mkdtemp(folder))
        return 1;
    RUN(test_special_files);
    RUN(test_limits);
    RUN(test_cut_short);
    RUN(test_shards);
    RUN(test_shards_refused);
    rmdir(folder);
    return check_result();
}
