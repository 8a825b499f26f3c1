/* A snapshot whose numbers tests change, and its checksums with them. */
#ifndef RATPLUS_TESTS_API_SNAPSHOT_FORGED_H
#define RATPLUS_TESTS_API_SNAPSHOT_FORGED_H

#include "api_snapshot.h"

#include <zlib.h>

static const struct snapshot_model needed = {
    "{\"default\": \"d4w3s2\", \"rules\": [{\"heads\": 1, \"variant\": \"streamw2\"}]}",
    .retention = RATP_RETAIN_NEEDED, .page_slots = 8, .max_tokens = 1000};

/* Where things stand in a snapshot of `needed`, which has 4 runs and 2 stores. */
enum {
    SIZE = 8, VERSION = 16, START = 24, LENGTH = START, RUN_COUNT = START + 4,
    STORE_COUNT = START + 8, NUMBERS = START + 12, HEAD = NUMBERS + 15 * 4 + 6 * 8 + 4,
    RUNS = HEAD, VARIANT = 13 * 4, RUN = 4 + 2 * VARIANT, PROMPT = RUNS + 4,
    DECODE = PROMPT + VARIANT, STORES = RUNS + 4 * RUN, STORE = 16, WHEN = STORES + 2 * STORE,
    ROWS = WHEN + 2 * 4 + 4, SHORTEST = HEAD + 2 * 4 + 2 * 4
};

static inline void put_number(unsigned char *at, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++)
        at[i] = (unsigned char)(value >> 8 * i);
}

/* Checksums that are right for what stands before, with so many bytes in front of the rows. */
static inline void forge_sums(struct bytes s, uint64_t rows)
{
    const uint64_t sums[] = {START - 4, HEAD - 4, rows - 4, s.size - 4};
    for (size_t i = 0; i < sizeof sums / sizeof *sums; i++)
        if (sums[i] <= s.size - 4)
            put_number(s.data + sums[i], crc32_z(0, s.data, sums[i]), 4);
}

#endif
