/* What the samples share: safetensors, variants' names, sampling, options. */
#include "../check.h"
#include "arguments.h"
#include "file.h"
#include "safetensors.h"
#include "sampler.h"
#include "variant.h"

#include <math.h>
#include <stdlib.h>
#include <unistd.h>

static char path[] = "/tmp/ratplus-test-XXXXXX";

/* A file of this header and `data` zero bytes; `claimed` replaces the header's
 * length when it is not 0. */
static bool open_made(const char *header, size_t data, uint64_t claimed, struct safetensors *file,
                      struct problem *problem)
{
    char bytes[2048] = {0};
    const size_t length = strlen(header);
    const uint64_t size = claimed ? claimed : length;
    memcpy(bytes, &size, sizeof size);
    memcpy(bytes + 8, header, length);
    problem->text[0] = '\0';
    return file_write(path, bytes, 8 + length + data, problem) &&
           safetensors_open(file, path, problem);
}

static void test_safetensors_reads(void)
{
    struct safetensors file;
    struct problem problem;
    int64_t value = 1;
    CHECK(open_made("{\"__metadata__\":{\"key\":\"value\"},"
                    "\"b\":{\"dtype\":\"F16\",\"shape\":[2,3],\"data_offsets\":[0,12]},"
                    "\"a\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[12,20]},"
                    "\"none\":{\"dtype\":\"F32\",\"shape\":[0,4],\"data_offsets\":[20,20]}}",
                    20, 0, &file, &problem));
    CHECK_EQUAL(file.count, 3);
    CHECK(strcmp(safetensors_metadata(&file, "key"), "value") == 0);
    CHECK(safetensors_metadata(&file, "other") == NULL);
    const struct st_tensor *b = safetensors_find(&file, "b");
    CHECK(b && b->dims == 2 && b->shape[1] == 3 && b->count == 6 && b->bytes == 12);
    const struct st_tensor *a = safetensors_find(&file, "a");
    CHECK(a && a->count == 1 && st_read_int(a, 0, &value, &problem) && value == 0);
    CHECK(safetensors_find(&file, "none")->count == 0);
    CHECK(safetensors_find(&file, "c") == NULL);
    safetensors_close(&file);
}

static void test_safetensors_refuses(void)
{
    static const struct {
        const char *header;
        uint64_t claimed;
        const char *message;
    } cases[] = {
        {"{}", 1u << 20, "the header's length"},
        {"{}", UINT64_MAX, "the header's length"},
        {"[1]", 0, "not a JSON object"},
        {"{\"t\":", 0, "not a JSON object"},
        {"{\"t\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 0, "lacks dtype"},
        {"{\"t\":{\"dtype\":\"F8\",\"shape\":[4],\"data_offsets\":[0,4]}}", 0, "\"F8\" is not read"},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", 0, "its shape needs 8"},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 0, "shape is not"},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[16,20]}}", 0, "data_offsets"},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", 0, "data_offsets"},
        {" {\"t\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}", 0, "not a JSON object"},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}} x", 0, "not a JSON object"},
        {"{\"__metadata__\":{\"k\":1}}", 0, "not an object of strings"},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]},"
         "\"u\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}", 0, "the same bytes"},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,12]},"
         "\"u\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,16]}}", 0, "the same bytes"},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
         "\"u\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,16]}}", 0,
         "4 bytes before tensor \"u\""},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[4,16]}}", 0,
         "4 bytes before tensor \"t\""},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 0,
         "8 bytes after the last tensor"},
        {"{}", 0, "16 bytes after the last tensor"},
        {"{\"\\u001b[2J\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,16]}}", 0,
         "tensor \"?[2J\""},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}", 0,
         "larger than the file"},
        {"{\"t\":{\"dtype\":\"F16\",\"shape\":[1],\"data_offsets\":[0,2]},"
         "\"t\":{\"dtype\":\"F16\",\"shape\":[7],\"data_offsets\":[2,16]}}", 0, "twice"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct safetensors file;
        struct problem problem;
        if (CHECK(!open_made(cases[i].header, 16, cases[i].claimed, &file, &problem)))
            CHECK_CONTAINS(problem.text, cases[i].message);
        CHECK_CONTAINS(problem.text, path);
    }
}

static void test_half_floats(void)
{
    CHECK(float_from_f16(0x3c00) == 1 && float_from_f16(0xc000) == -2);
    CHECK(float_from_f16(0x0001) == 0x1p-24f && float_from_f16(0x7bff) == 65504);
    CHECK(isinf(float_from_f16(0x7c00)) && isnan(float_from_f16(0x7e00)));
    CHECK(float_from_bf16(0x3f80) == 1 && float_from_bf16(0xc040) == -3);
}

static void test_variant_names(void)
{
    static const char *const good[] = {"dense", "d16", "d16w256s4", "d4s2", "stream", "streamw256s4",
                                       "quest1024", "quest64p8g", "moba512k3", "moba64k3g",
                                       "snapkv1024", "snapkv64o16n5avg", "d16:quest64",
                                       "dense:d16", "moba64k3g:snapkv64avg"};
    static const char *const bad[] = {"", "d", "d0", "d16x", "d16s4w2", "streams", "dense2",
                                      "d4294967296", "d99999999999999999999", "quest",
                                      "quest64gp8", "moba512", "mobak3", "snapkv64avgo16",
                                      ":d4", "d4:", "d4:d5:d6"};
    struct ratp_variant variant, prompt;
    struct problem problem;
    char text[64];
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        CHECK(variant_from_name(good[i], &variant, &prompt, &problem));
        variant_to_name(&variant, text, sizeof text);
        CHECK(strcmp(text, good[i]) == 0);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK(!variant_from_name(bad[i], &variant, &prompt, &problem));
    CHECK(variant_from_name("quest64p16", &variant, &prompt, &problem));
    variant_to_name(&variant, text, sizeof text);
    CHECK(strcmp(text, "quest64") == 0);
    CHECK(fixed_from_name("d16w4", &variant, &problem));
    CHECK(!fixed_from_name("moba64k3", &variant, &problem));
    CHECK_CONTAINS(problem.text, "is not a variant whose keys can be counted");
    CHECK(!fixed_from_name("d4:d8", &variant, &problem));
}

/* How often each of four tokens is picked in 4000 draws. */
static void draw(struct sampler_options options, const float *logits, int counts[4])
{
    struct sampler sampler;
    struct problem problem;
    memset(counts, 0, 4 * sizeof *counts);
    if (!CHECK(sampler_open(&sampler, &options, 4, &problem)))
        return;
    for (int i = 0; i < 4000; i++) {
        const int32_t token = sampler_pick(&sampler, logits);
        if (!CHECK(token >= 0 && token < 4))
            break;
        counts[token]++;
    }
    sampler_close(&sampler);
}

static void test_sampler(void)
{
    /* Probabilities 0.1, 0.4, 0.2, 0.3. */
    const float logits[4] = {logf(0.1f), logf(0.4f), logf(0.2f), logf(0.3f)};
    const float broken[4] = {NAN, -INFINITY, INFINITY, 1}, none[4] = {NAN, NAN, NAN, NAN};
    int counts[4], again[4];
    draw((struct sampler_options){.temperature = 0, .top_p = 1}, logits, counts);
    CHECK_EQUAL(counts[1], 4000);
    draw((struct sampler_options){.temperature = 1, .top_p = 1, .seed = 5}, logits, counts);
    CHECK(abs(counts[0] - 400) < 100 && abs(counts[1] - 1600) < 150);
    CHECK(abs(counts[2] - 800) < 120 && abs(counts[3] - 1200) < 150);
    draw((struct sampler_options){.temperature = 1, .top_p = 1, .seed = 5}, logits, again);
    CHECK(memcmp(counts, again, sizeof counts) == 0);
    draw((struct sampler_options){.temperature = 1, .top_p = 1, .top_k = 2}, logits, counts);
    CHECK(counts[0] == 0 && counts[2] == 0 && abs(counts[3] - 1714) < 150);
    draw((struct sampler_options){.temperature = 1, .top_p = 0.65}, logits, counts);
    CHECK(counts[0] == 0 && counts[2] == 0 && counts[3] > 0);
    draw((struct sampler_options){.temperature = 1, .top_p = 0}, logits, counts);
    CHECK_EQUAL(counts[1], 4000);
    draw((struct sampler_options){.temperature = 1, .top_p = 1}, broken, counts);
    CHECK_EQUAL(counts[3], 4000);

    struct sampler sampler;
    struct problem problem;
    const struct sampler_options options = {.temperature = 1, .top_p = 1};
    CHECK(sampler_open(&sampler, &options, 4, &problem));
    CHECK_EQUAL(sampler_pick(&sampler, none), -1);
    sampler_close(&sampler);
}

static void test_arguments(void)
{
    const char *name = NULL, *text = NULL;
    bool flag = false;
    uint64_t number = 7;
    double real = 0.5;
    const struct option options[] = {
        {"NAME", OPTION_TEXT, NULL, &name, 0, 0, ""},
        {"--text", OPTION_TEXT, "T", &text, 0, 0, ""},
        {"--flag", OPTION_FLAG, NULL, &flag, 0, 0, ""},
        {"--number", OPTION_NUMBER, "N", &number, 1, 100, ""},
        {"--real", OPTION_REAL, "X", &real, 0, 1, ""},
    };
    struct problem problem;
    char *good[] = {"program", "--number=12", "here", "--real", "0.25", "--flag", "--text", "--x"};
    CHECK(arguments_parse(options, 5, 8, good, &problem));
    CHECK(strcmp(name, "here") == 0 && strcmp(text, "--x") == 0);
    CHECK(flag && number == 12 && real == 0.25);

    static char *const bad[][2] = {{"--number", "0"}, {"--number", "101"}, {"--number", "-1"},
                                   {"--number", "1x"}, {"--real", "2"}, {"--real", "nan"},
                                   {"--flag=1", "a"}, {"--none", "a"}, {"a", "b"}, {"a", "--text"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char *line[] = {"program", bad[i][0], bad[i][1]};
        CHECK(!arguments_parse(options, 5, 3, line, &problem));
    }
}

int main(void)
{
    const int fd = mkstemp(path);
    if (fd < 0)
        return 1;
    close(fd);
    RUN(test_safetensors_reads);
    RUN(test_safetensors_refuses);
    RUN(test_half_floats);
    RUN(test_variant_names);
    RUN(test_sampler);
    RUN(test_arguments);
    unlink(path);
    return check_result();
}
