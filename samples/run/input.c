#include "input.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* More than a terminal gives at once. */
#define READ_SIZE 8192

static volatile sig_atomic_t interrupted;
/* A pipe that a SIGINT writes to: drivers have threads of their own, and where
 * one of them gets the signal no call of this thread is woken by it. */
static int wake[2] = {-1, -1};
static struct sigaction before;

static void on_interrupt(int signal_number)
{
    (void)signal_number;
    const int error = errno;
    interrupted = 1;
    /* When the pipe is full it wakes as well. */
    const ssize_t written = write(wake[1], "", 1);
    (void)written;
    errno = error;
}

bool input_open(struct input *input, struct problem *problem)
{
    *input = (struct input){.terminal = isatty(STDIN_FILENO) && isatty(STDERR_FILENO)};
    if (pipe(wake) != 0)
        return problem_set(problem, "a pipe: %s", strerror(errno));
    for (int i = 0; i < 2; i++)
        fcntl(wake[i], F_SETFL, O_NONBLOCK);
    struct sigaction action = {.sa_handler = on_interrupt, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, &before);
    return true;
}

void input_close(struct input *input)
{
    if (wake[0] >= 0) {
        sigaction(SIGINT, &before, NULL);
        for (int i = 0; i < 2; i++)
            close(wake[i]);
        wake[0] = wake[1] = -1;
    }
    free(input->data);
    *input = (struct input){0};
}

bool input_interrupted(void)
{
    return interrupted;
}

void input_clear(void)
{
    char bytes[64];
    while (read(wake[0], bytes, sizeof bytes) > 0)
        ;
    interrupted = 0;
}

/* Waits for more, and appends it. */
static enum input_result read_more(struct input *input, struct problem *problem)
{
    if (input->room - input->used < READ_SIZE) {
        const size_t room = 2 * input->room + READ_SIZE;
        char *grown = realloc(input->data, room);
        if (!grown) {
            problem_set(problem, "out of memory for a line of %zu bytes", room);
            return INPUT_FAILED;
        }
        input->data = grown;
        input->room = room;
    }
    struct pollfd files[] = {{.fd = wake[0], .events = POLLIN},
                             {.fd = STDIN_FILENO, .events = POLLIN}};
    while (poll(files, 2, -1) < 0)
        if (errno != EINTR) {
            problem_set(problem, "standard input: %s", strerror(errno));
            return INPUT_FAILED;
        }
    if (files[0].revents)
        return INPUT_END;
    const ssize_t got = read(STDIN_FILENO, input->data + input->used, READ_SIZE);
    if (got < 0) {
        problem_set(problem, "standard input: %s", strerror(errno));
        return INPUT_FAILED;
    }
    input->ended = got == 0;
    input->used += (size_t)got;
    return INPUT_LINE;
}

enum input_result input_line(struct input *input, const char **line, size_t *size,
                             struct problem *problem)
{
    if (input->taken > 0) {
        memmove(input->data, input->data + input->taken, input->used - input->taken);
        input->used -= input->taken;
        input->taken = 0;
    }
    for (size_t searched = 0; !interrupted;) {
        const char *newline =
            input->used > searched ? memchr(input->data + searched, '\n', input->used - searched)
                                   : NULL;
        const bool sent = input->terminal && input->used > searched;
        if (newline || ((input->ended || sent) && input->used > 0)) {
            *line = input->data;
            *size = newline ? (size_t)(newline + 1 - input->data) : input->used;
            input->taken = *size;
            return INPUT_LINE;
        }
        if (input->ended)
            break;
        searched = input->used;
        const enum input_result result = read_more(input, problem);
        if (result != INPUT_LINE)
            return result;
    }
    return INPUT_END;
}
