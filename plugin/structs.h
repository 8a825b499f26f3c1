/* The rule for every struct that crosses the ABI: it begins with its size, a
 * shorter one lacks newer fields, a longer one may only hold zeros there. */
#ifndef RATPLUS_STRUCTS_H
#define RATPLUS_STRUCTS_H

#include "error.h"

/* A struct_size above this is taken for garbage. */
enum { STRUCT_LIMIT = 4096 };

/* The bytes of `type` up to the end of `field`. */
#define STRUCT_UPTO(type, field) (offsetof(type, field) + sizeof(((const type *)0)->field))

/* Copies the caller's struct `in` over `copy` (`size` bytes: this library's
 * version of it); a missing tail reads as zero. `min_size` reaches to the last
 * field without which the struct has no meaning. `what` names the argument. */
ratp_status struct_read(void *copy, size_t size, const void *in, size_t min_size,
                        const char *what, struct error *err);
/* The same for arguments that may be NULL: then the copy is all zero. */
ratp_status struct_read_optional(void *copy, size_t size, const void *in, size_t min_size,
                                 const char *what, struct error *err);

/* Checks a struct that the library fills. */
ratp_status struct_check_out(const void *out, size_t min_size, const char *what,
                             struct error *err);
/* Fills it from `full` (`size` bytes), as far as the caller's struct_size goes;
 * fields that this library does not know become zero. */
void struct_write(void *out, const void *full, size_t size);

#endif
