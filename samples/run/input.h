/* Lines from standard input, and Ctrl-C. */
#ifndef RUN_INPUT_H
#define RUN_INPUT_H

#include "problem.h"

#include <stddef.h>

struct input {
    char *data; /* what was read and not yet taken begins at `taken` */
    size_t used, room, taken;
    bool terminal; /* a person types */
    bool ended;
};

/* From here on SIGINT no longer ends the program: it ends input_line, and
 * input_interrupted tells of it. One input at a time may be open. */
bool input_open(struct input *input, struct problem *problem);
void input_close(struct input *input);

enum input_result { INPUT_LINE, INPUT_END, INPUT_FAILED };

/* The next line with its newline; without one where the input ends, or where a
 * person pressed Ctrl-D after some text. *line lives until the next call. The end
 * is also an interrupt that nobody has cleared. */
enum input_result input_line(struct input *input, const char **line, size_t *size,
                             struct problem *problem);

/* Whether there was a SIGINT since input_clear. */
bool input_interrupted(void);
void input_clear(void);

#endif
