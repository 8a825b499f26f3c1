/* Where things stand in a JSON text: cJSON tells neither line nor column. */
#ifndef RATPLUS_JSON_TEXT_H
#define RATPLUS_JSON_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct json_place {
    uint32_t line, column; /* from 1; columns count characters */
};

/* The place of a byte offset. */
struct json_place json_place_of(const char *text, size_t size, size_t offset);

/* The offset of a value, or of its key, in a text that cJSON has accepted:
 * path[i] is the index of a child among its siblings, objects' too. */
size_t json_locate(const char *text, size_t size, const uint32_t *path, size_t depth, bool key);

/* Whether an object's key, or its end, must stand at `offset`. */
bool json_wants_key(const char *text, size_t offset);

#endif
