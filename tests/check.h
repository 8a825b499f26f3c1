/* A small harness: a test program is a list of functions that call CHECK.
 *
 *     static void test_something(void) { CHECK(1 + 1 == 2); }
 *     int main(void) { RUN(test_something); return check_result(); }
 */
#ifndef RATPLUS_TESTS_CHECK_H
#define RATPLUS_TESTS_CHECK_H

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* Weak: one count, however many files of a test include this. */
__attribute__((weak)) int check_failures;
__attribute__((weak)) int check_count;

static inline bool check_that(bool good, const char *file, int line, const char *what)
{
    check_count++;
    if (!good) {
        check_failures++;
        fprintf(stderr, "%s:%d: failed: %s\n", file, line, what);
    }
    return good;
}

static inline bool check_contains(const char *text, const char *part, const char *file, int line)
{
    bool good = check_that(strstr(text, part) != NULL, file, line, "text contains the part");
    if (!good)
        fprintf(stderr, "    text: \"%s\"\n    part: \"%s\"\n", text, part);
    return good;
}

static inline bool check_number(long long got, long long wanted, const char *file, int line,
                                const char *what)
{
    bool good = check_that(got == wanted, file, line, what);
    if (!good)
        fprintf(stderr, "    got %lld, wanted %lld\n", got, wanted);
    return good;
}

/* Each returns whether the check holds. */
#define CHECK(condition) check_that((condition), __FILE__, __LINE__, #condition)
#define CHECK_EQUAL(got, wanted) \
    check_number((long long)(got), (long long)(wanted), __FILE__, __LINE__, #got " == " #wanted)
#define CHECK_CONTAINS(text, part) check_contains((text), (part), __FILE__, __LINE__)

#define RUN(test)                                                     \
    do {                                                              \
        int before = check_failures;                                  \
        test();                                                       \
        printf("%s %s\n", check_failures == before ? "ok  " : "FAIL", #test); \
        fflush(stdout);                                               \
    } while (0)

/* The exit status of the program. */
static inline int check_result(void)
{
    printf("%d checks, %d failed\n", check_count, check_failures);
    return check_failures ? 1 : 0;
}

/* For meson: the test does not apply here. */
enum { CHECK_SKIPPED = 77 };

#endif
