#include "build.h"

#include <stdlib.h>
#include <string.h>

void blob_free(struct blob *b)
{
    free(b->data);
    *b = (struct blob){0};
}

void *blob_add(struct blob *b, size_t size, uint32_t *offset)
{
    size_t at = (b->size + 15) & ~(size_t)15;
    /* Offsets in a plan have 32 bits. */
    if (b->failed || size > UINT32_MAX || at > UINT32_MAX - size) {
        b->failed = true;
        return NULL;
    }
    size_t end = at + size;
    if (end > b->room) {
        size_t room = b->room ? b->room : 4096;
        while (room < end)
            room *= 2;
        unsigned char *data = realloc(b->data, room);
        if (!data) {
            b->failed = true;
            return NULL;
        }
        b->data = data;
        b->room = room;
    }
    memset(b->data + b->size, 0, end - b->size);
    b->size = end;
    *offset = (uint32_t)at;
    return b->data + at;
}
