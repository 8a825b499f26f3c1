/* A folder for the files of a target: in memory where the system has such. */
#ifndef RATPLUS_TESTS_FUZZ_FOLDER_H
#define RATPLUS_TESTS_FUZZ_FOLDER_H

#include "fuzz.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FOLDER_ROOM = 64 };

static inline void folder_make(char folder[FOLDER_ROOM])
{
    strcpy(folder, "/dev/shm/ratplus-fuzz-XXXXXX");
    if (mkdtemp(folder))
        return;
    strcpy(folder, "/tmp/ratplus-fuzz-XXXXXX");
    REQUIRE(mkdtemp(folder));
}

#endif
