/* Prints text as its tokens arrive: what they add to the text so far. */
#ifndef RUN_PRINTER_H
#define RUN_PRINTER_H

#include "tokenizer.h"

struct printer {
    const struct tokenizer *tokenizer;
    int32_t *tokens; /* the end of what was there before, then all that came */
    uint32_t count;
    size_t printed;
};

/* `past` is what was there before, and is not printed; `room` tokens will come
 * at most. */
bool printer_open(struct printer *printer, const struct tokenizer *tokenizer, const int32_t *past,
                  uint32_t past_count, uint32_t room, struct problem *problem);
/* To stdout, at once. */
void printer_token(struct printer *printer, int32_t token);
void printer_close(struct printer *printer);

#endif
