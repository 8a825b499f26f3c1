/* Runs a fuzz target without libFuzzer, the same way every time.
 *
 *     fuzz-NAME [iterations [seed]]    mutated seeds
 *     fuzz-NAME FILE...                these inputs
 *
 * An input on which the program dies is left in the file fuzz-failure. */
#include "fuzz.h"

#include "../check.h"
#include "../random.h"

#include <ctype.h>
#include <signal.h>

enum { DEFAULT_ITERATIONS = 2000, THOROUGH = 1000, MAX_SEEDS = 64, HEADER = 1500 };

/* There under the address sanitizer, which takes the signals for itself. */
void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

struct input {
    uint8_t data[FUZZ_ROOM];
    size_t size;
};

static struct input current;
static struct input *seeds;
static size_t seed_count;

static void keep_input(void)
{
    FILE *file = fopen("fuzz-failure", "wb");
    if (!file)
        return;
    fwrite(current.data, 1, current.size, file);
    fclose(file);
    fprintf(stderr, "the input is in the file fuzz-failure, %zu bytes\n", current.size);
}

/* Called by the undefined-behaviour sanitizer. */
__attribute__((visibility("default"))) void __ubsan_on_report(void);

__attribute__((visibility("default"))) void __ubsan_on_report(void)
{
    keep_input();
}

static void die(int number)
{
    signal(number, SIG_DFL);
    keep_input();
    raise(number);
}

static void catch_death(void)
{
    if (__sanitizer_set_death_callback) {
        __sanitizer_set_death_callback(keep_input);
        signal(SIGABRT, die);
        return;
    }
    static const int signals[] = {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        signal(signals[i], die);
}

/* ---- Mutations ---- */

/* Anywhere up to `end`, but mostly where files have their headers. */
static size_t place(struct random *r, size_t end)
{
    if (end > HEADER && random_chance(r, 60))
        end = HEADER;
    return random_in(r, 0, (uint32_t)end);
}

/* Opens a gap of `count` bytes at `at`, or as much of it as there is room for. */
static size_t open_gap(struct input *in, size_t at, size_t count)
{
    if (count > FUZZ_ROOM - in->size)
        count = FUZZ_ROOM - in->size;
    memmove(in->data + at + count, in->data + at, in->size - at);
    in->size += count;
    return count;
}

static void cut(struct input *in, size_t at, size_t count)
{
    memmove(in->data + at, in->data + at + count, in->size - at - count);
    in->size -= count;
}

static void flip_bits(struct random *r, struct input *in)
{
    for (uint32_t i = random_in(r, 1, 8); i > 0 && in->size; i--)
        in->data[place(r, in->size - 1)] ^= (uint8_t)(1u << random_in(r, 0, 7));
}

static void set_bytes(struct random *r, struct input *in)
{
    static const uint8_t bytes[] = {0, 1, 0x7f, 0x80, 0xff, '"', '{', '}', '[', ']', ',', ':', '-',
                                    '0', '9', '\\', '\n', 'd', 'w', 's'};
    size_t at = in->size ? place(r, in->size - 1) : 0;
    for (size_t i = at, end = at + random_in(r, 1, 4); i < end && i < in->size; i++)
        in->data[i] = random_chance(r, 50) ? (uint8_t)random_bits(r)
                                           : bytes[random_in(r, 0, sizeof bytes - 1)];
}

static void truncate_input(struct random *r, struct input *in)
{
    if (random_chance(r, 50) || !in->size)
        in->size = place(r, in->size);
    else
        in->size -= random_in(r, 0, in->size < 16 ? (uint32_t)in->size : 16);
}

static void remove_block(struct random *r, struct input *in)
{
    size_t at = place(r, in->size), left = in->size - at;
    cut(in, at, place(r, left < 64 ? left : 64));
}

static void repeat_block(struct random *r, struct input *in)
{
    uint8_t block[128];
    size_t at = place(r, in->size), left = in->size - at;
    size_t size = place(r, left < sizeof block ? left : sizeof block);
    memcpy(block, in->data + at, size);
    size_t to = random_chance(r, 50) ? at : place(r, in->size);
    for (uint32_t i = random_chance(r, 10) ? random_in(r, 2, 300) : 1; i > 0; i--)
        memcpy(in->data + to, block, open_gap(in, to, size));
}

/* The start of one input, and the end of another seed. */
static void splice(struct random *r, struct input *in)
{
    const struct input *other = &seeds[random_in(r, 0, (uint32_t)seed_count - 1)];
    size_t from = place(r, other->size), at = place(r, in->size);
    size_t size = other->size - from;
    in->size = at;
    size = open_gap(in, at, size);
    memcpy(in->data + at, other->data + from, size);
}

static void edit_decimal(struct random *r, struct input *in)
{
    static const char *const numbers[] = {
        "0", "1", "-1", "2", "7", "8", "9", "255", "256", "4095", "65535", "65536", "16777216",
        "16777217", "2147483648", "4294967295", "4294967296", "9007199254740993",
        "18446744073709551615", "1e308", "1e999", "0.5", "1e-3", "3.0", "00", "-0",
    };
    size_t start = in->size ? place(r, in->size - 1) : 0;
    while (start < in->size && !isdigit(in->data[start]))
        start++;
    while (start > 0 && start < in->size && isdigit(in->data[start - 1]))
        start--;
    size_t end = start;
    while (end < in->size && isdigit(in->data[end]))
        end++;
    if (start == end)
        return;
    const char *number = numbers[random_in(r, 0, sizeof numbers / sizeof *numbers - 1)];
    cut(in, start, end - start);
    memcpy(in->data + start, number, open_gap(in, start, strlen(number)));
}

static void edit_binary(struct random *r, struct input *in)
{
    size_t width = (size_t)1 << random_in(r, 0, 3);
    if (in->size < width)
        return;
    /* Lengths stand at the start of a file more often than elsewhere. */
    size_t at = random_chance(r, 30) ? 0 : place(r, in->size - width);
    uint64_t value = 0;
    memcpy(&value, in->data + at, width);
    switch (random_in(r, 0, 4)) {
    case 0: value += random_in(r, 1, 16); break;
    case 1: value -= random_in(r, 1, 16); break;
    case 2: value = (uint64_t)1 << random_in(r, 0, 63); break;
    case 3: value = ~value; break;
    default: value = ((uint64_t)1 << random_in(r, 0, 63)) - 1; break;
    }
    memcpy(in->data + at, &value, width);
}

static void mutate(struct random *r, struct input *in)
{
    static void (*const ways[])(struct random *, struct input *) = {
        flip_bits, set_bytes, truncate_input, remove_block, repeat_block, splice,
        edit_decimal, edit_decimal, edit_binary,
    };
    for (uint32_t i = random_in(r, 1, random_chance(r, 50) ? 2 : 6); i > 0; i--)
        ways[random_in(r, 0, sizeof ways / sizeof *ways - 1)](r, in);
}

/* ---- Running ---- */

/* In memory of its exact size, so that the sanitizer sees a read past the end. */
static void run_current(void)
{
    uint8_t *exact = malloc(current.size ? current.size : 1);
    REQUIRE(exact);
    memcpy(exact, current.data, current.size);
    LLVMFuzzerTestOneInput(exact, current.size);
    free(exact);
}

static bool run_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (!file) {
        perror(path);
        return false;
    }
    current.size = fread(current.data, 1, sizeof current.data, file);
    fclose(file);
    run_current();
    return true;
}

static void run_mutations(unsigned long iterations, unsigned long seed)
{
    for (unsigned long i = 0; i < iterations; i++) {
        struct random r = {(uint64_t)seed << 32 ^ i};
        random_bits(&r);
        current = seeds[i < seed_count ? i : random_in(&r, 0, (uint32_t)seed_count - 1)];
        if (i >= seed_count)
            mutate(&r, &current);
        run_current();
    }
    printf("%zu seeds, %lu inputs\n", seed_count, iterations);
}

int main(int argc, char **argv)
{
    bool good = true, files = argc > 1 && !isdigit((unsigned char)argv[1][0]);
    unsigned long iterations = argc > 1 ? strtoul(argv[1], NULL, 10) : DEFAULT_ITERATIONS;
    unsigned long seed = argc > 2 ? strtoul(argv[2], NULL, 10) : 1;
    if (!fuzz_start())
        return CHECK_SKIPPED;
    seeds = calloc(MAX_SEEDS, sizeof *seeds);
    REQUIRE(seeds);
    while (seed_count < MAX_SEEDS &&
           (seeds[seed_count].size = fuzz_seed(seed_count, seeds[seed_count].data)) > 0)
        seed_count++;
    REQUIRE(seed_count > 0);
    catch_death();
    if (files)
        for (int i = 1; i < argc; i++)
            good &= run_file(argv[i]);
    else
        run_mutations(iterations, seed);
    bool reached = fuzz_report();
    if (!files && iterations >= THOROUGH && !reached) {
        fprintf(stderr, "the inputs do not reach what they are there for\n");
        good = false;
    }
    fuzz_end();
    free(seeds);
    return good ? 0 : 1;
}
