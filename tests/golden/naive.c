/* Holds the naive program against the golden files, its outputs, how many keys each
 * query attends, and what snapkv keeps; and against sequences worked out by hand. */
#include "../check.h"

#include "oracle.h"

#include <dirent.h>
#include <math.h>
#include <stdlib.h>

static const char *folder;
static uint32_t files_with[RATP_SNAPKV + 1]; /* by kind */

static double distance(const double *got, const float *wanted, size_t count)
{
    double difference = 0, size = 0;
    for (size_t i = 0; i < count; i++) {
        difference += (got[i] - (double)wanted[i]) * (got[i] - (double)wanted[i]);
        size += (double)wanted[i] * (double)wanted[i];
    }
    return sqrt(difference / size);
}

static void check_kept(const struct golden_layer *layer, uint32_t b, const unsigned char *held)
{
    for (uint32_t h = 0; h < layer->kv_heads; h++) {
        const uint32_t *kept = layer->kept + ((size_t)b * layer->kv_heads + h) * layer->capacity;
        uint32_t count = 0;
        for (uint32_t t = 0; t < layer->prefill; t++) {
            bool wanted = count < layer->capacity && kept[count] == t;
            CHECK_EQUAL(held[(size_t)h * layer->tokens + t] != 0, wanted);
            count += wanted;
        }
        CHECK_EQUAL(count, layer->capacity);
    }
}

/* Sequence `b`. Returns the smallest gap of a choice. */
static double check_sequence(const struct golden_layer *layer, uint32_t b)
{
    uint32_t hq = layer->query_heads, d = layer->head_size;
    size_t rows = (size_t)layer->tokens * hq;
    unsigned char *held = malloc((size_t)layer->tokens * layer->kv_heads);
    double *out = malloc(rows * d * sizeof *out), *lse = malloc(rows * sizeof *lse);
    double *gap = malloc(rows * sizeof *gap), least = INFINITY;
    uint32_t *attended = malloc(rows * sizeof *attended);
    if (!CHECK(held && out && lse && gap && attended))
        exit(1);
    const struct naive_answer answer = {.out = out, .lse = lse, .attended = attended, .gap = gap,
                                        .held = held};
    CHECK(golden_oracle(layer, b, &answer));
    CHECK(distance(out, layer->out + b * rows * d, rows * d) < 1e-6);
    if (layer->lse)
        CHECK(distance(lse, layer->lse + b * rows, rows) < 1e-6);
    for (size_t i = 0; i < rows; i++) {
        if (layer->attended)
            CHECK_EQUAL(attended[i], layer->attended[b * rows + i]);
        least = fmin(least, gap[i]);
    }
    if (layer->kept)
        check_kept(layer, b, held);
    free(held);
    free(out);
    free(lse);
    free(gap);
    free(attended);
    return least;
}

static void check_file(const char *name)
{
    char path[4096];
    struct golden_layer layer;
    struct problem problem = {{0}};
    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (!CHECK_EQUAL(golden_load(&layer, path, &problem), GOLDEN_PASSED))
        fprintf(stderr, "    %s: %s\n", name, problem.text);
    double least = INFINITY;
    for (uint32_t b = 0; b < layer.batch && !problem.text[0]; b++)
        least = fmin(least, check_sequence(&layer, b));
    for (uint32_t i = 0; i < layer.variants; i++)
        files_with[layer.variant[i].kind]++;
    printf("%-44s closest choice %.1e\n", name, least);
    golden_free(&layer);
}

static int is_golden(const struct dirent *entry)
{
    const char *end = strrchr(entry->d_name, '.');
    return end && strcmp(end, ".safetensors") == 0;
}

static void test_files(void)
{
    struct dirent **files = NULL;
    int count = scandir(folder, &files, is_golden, alphasort);
    CHECK(count > 0);
    for (int i = 0; i < count; i++) {
        check_file(files[i]->d_name);
        free(files[i]);
    }
    free(files);
    for (int kind = 0; kind <= RATP_SNAPKV; kind++)
        CHECK(files_with[kind] > 0);
}

/* Keys without a size: every weight is the same, so that a row's output times the
 * number of its keys is a sum of powers of two that tells which they were. */
static uint32_t keys_of(const double *out, uint32_t attended, uint32_t row)
{
    return (uint32_t)lround(out[row] * attended);
}

/* What no file has: two query heads that choose apart, and together. */
static void test_group(void)
{
    static const float q[5][2] = {{1, 1}, {1, 1}, {1, 1}, {1, 1}, {1, -3}};
    static const float k[5] = {1, 1, 2, 2, 7}, v[5] = {1, 2, 4, 8, 16};
    const struct naive_layer layer = {2, 1, .head_size = 1, .scale = 1e-30};
    const struct naive_tokens tokens = {.count = 5, .q = q[0], .k = k, .v = v};
    double out[10], gap[10];
    uint32_t attended[10];
    const struct naive_answer answer = {.out = out, .attended = attended, .gap = gap};
    struct ratp_variant moba = {sizeof moba, RATP_MOBA, .block = 2, .topk = 2};
    CHECK(naive_sequence(&layer, &moba, 1, &tokens, &answer));
    CHECK_EQUAL(keys_of(out, attended[8], 8), 4 + 8 + 16);
    CHECK_EQUAL(keys_of(out, attended[9], 9), 1 + 2 + 16);
    CHECK(fabs(gap[8] - 0.5) < 1e-12 && fabs(gap[9] - 0.5) < 1e-12);
    CHECK(isinf(gap[7]) && attended[7] == 4);
    moba.selection = RATP_SELECT_GROUP;
    CHECK(naive_sequence(&layer, &moba, 1, &tokens, &answer));
    CHECK_EQUAL(keys_of(out, attended[8], 8), 1 + 2 + 16);
    CHECK_EQUAL(keys_of(out, attended[9], 9), 1 + 2 + 16);
}

/* A second prompt, and a second compression: among all tokens, or those that are left. */
static void test_compressed_again(void)
{
    static const float k[9] = {5, 1, 4, 2, 3, 0, 4.5f, 0, 0};
    static const float q[9] = {1, 1, 1, 1, 1, 1, 1, -1, 1}, v[9] = {0};
    static const unsigned char prompt[9] = {1, 1, 1, 1, 1, 1, 1, 1, 0};
    static const uint32_t lengths[] = {6, 8};
    static const unsigned char all[9] = {0, 1, 0, 1, 0, 1, 0, 1, 1};
    static const unsigned char left[9] = {0, 0, 1, 0, 1, 1, 0, 1, 1};
    const struct ratp_variant snapkv = {sizeof snapkv, RATP_SNAPKV, .observe = 1, .capacity = 4,
                                        .kernel = 1};
    const struct naive_layer layer = {1, 1, .head_size = 1, .scale = 1};
    struct naive_tokens tokens = {9, q, k, v, .prompt = prompt, .compress = lengths,
                                  .compressions = 2};
    unsigned char held[9];
    uint32_t attended[9];
    double out[9];
    const struct naive_answer answer = {.out = out, .attended = attended, .held = held};
    CHECK(naive_sequence(&layer, &snapkv, 1, &tokens, &answer));
    CHECK(memcmp(held, all, sizeof held) == 0);
    CHECK_EQUAL(attended[6], 7);
    CHECK_EQUAL(attended[8], 5);
    tokens.gone = true;
    CHECK(naive_sequence(&layer, &snapkv, 1, &tokens, &answer));
    CHECK(memcmp(held, left, sizeof held) == 0);
    CHECK_EQUAL(attended[6], 5);
    CHECK_EQUAL(attended[8], 5);
}

/* What a device kept counts where its scores are near enough, and not otherwise. */
static void test_kept_by_device(void)
{
    static const float k[6] = {2, 1, 1.99f, 0, 1, 0}, q[6] = {1, 1, 1, 1, 1, 1}, v[6] = {0};
    static const uint32_t length = 6;
    static const unsigned char own[6] = {1, 0, 0, 0, 0, 1}, near[6] = {0, 0, 1, 0, 0, 1};
    static const unsigned char far[6] = {0, 1, 0, 0, 0, 1}, second[6] = {1, 0, 0, 0, 1, 1};
    static const unsigned char both[6] = {1, 0, 1, 0, 0, 1};
    static const unsigned char own_three[6] = {1, 0, 1, 0, 0, 1}, first[6] = {1, 1, 1, 0, 0, 1};
    static const unsigned char later[6] = {1, 0, 1, 0, 1, 1};
    static const struct {
        const unsigned char *kept, *held;
        uint32_t capacity, taken;
    } cases[] = {{own, own, 2, 0}, {near, near, 2, 1}, {far, own, 2, 0}, {both, own, 2, 0},
                 {second, own_three, 3, 0}, {first, first, 4, 0}, {later, first, 4, 0}};
    const struct naive_layer layer = {1, 1, .head_size = 1, .scale = 1};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct ratp_variant snapkv = {sizeof snapkv, RATP_SNAPKV, .observe = 1,
                                            .capacity = cases[i].capacity, .kernel = 1};
        const struct naive_tokens tokens = {6, q, k, v, .compress = &length, .compressions = 1,
                                            .kept = cases[i].kept, .close = 0.1};
        unsigned char held[6];
        uint32_t taken;
        double out[6];
        CHECK(naive_sequence(&layer, &snapkv, 1, &tokens,
                             &(struct naive_answer){.out = out, .held = held, .taken = &taken}));
        CHECK(memcmp(held, cases[i].held, sizeof held) == 0);
        CHECK_EQUAL(taken, cases[i].taken);
    }
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    folder = argv[1];
    RUN(test_files);
    RUN(test_group);
    RUN(test_compressed_again);
    RUN(test_kept_by_device);
    return check_result();
}
