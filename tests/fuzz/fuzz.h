/* What a fuzz target gives. libFuzzer calls LLVMFuzzerTestOneInput alone;
 * driver.c starts from the seeds, and shows what was reached. */
#ifndef RATPLUS_TESTS_FUZZ_H
#define RATPLUS_TESTS_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { FUZZ_ROOM = 1 << 16 }; /* bytes of an input, at most */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Writes seed `index` to `out` and returns its size, at most FUZZ_ROOM; 0 past the last. */
size_t fuzz_seed(size_t index, uint8_t *out);
/* Prints what the inputs so far reached; false when something that they should
 * have reached is missing. */
bool fuzz_report(void);
/* Once, before the first input; false when the target does not apply here, and
 * the reason was printed. */
bool fuzz_start(void);
void fuzz_end(void);

/* What must hold for every input. */
#define REQUIRE(condition)                                                              \
    do {                                                                                \
        if (!(condition)) {                                                             \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition); \
            abort();                                                                    \
        }                                                                               \
    } while (0)

#endif
