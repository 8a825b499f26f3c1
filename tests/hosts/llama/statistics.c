/* The backend's statistics from within a host, and what it does with the host's signal.
 * Usage, with RATPLUS_STATS set: statistics PLUGIN */
#include <ggml-backend.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

static void ours(int number)
{
    (void)number;
}

static int refuse(const char *what)
{
    printf("%s\n", what);
    return 1;
}

int main(int argc, char **argv)
{
    size_t (*statistics)(char *text, size_t size) = NULL;
    char text[1024], cut[9];
    struct sigaction action;
    if (argc != 2 || signal(SIGUSR1, ours) == SIG_ERR)
        return refuse("usage: statistics PLUGIN");
    ggml_backend_reg_t registration = ggml_backend_load(argv[1]);
    if (!registration)
        return refuse("the backend cannot be loaded");
    if (sigaction(SIGUSR1, NULL, &action) || action.sa_handler != ours)
        return refuse("the host's handler of SIGUSR1 is gone");
    if (ggml_backend_reg_get_proc_address(registration, "ratplus_nothing"))
        return refuse("there is a function \"ratplus_nothing\"");
    void *address = ggml_backend_reg_get_proc_address(registration, "ratplus_statistics");
    memcpy(&statistics, &address, sizeof address);
    if (!statistics)
        return refuse("there is no function \"ratplus_statistics\"");
    size_t length = statistics(text, sizeof text);
    if (length == 0 || length != strlen(text) || strncmp(text, "{\"attention_nodes\":0,", 21) != 0)
        return refuse(text);
    if (statistics(cut, sizeof cut) != length || strcmp(cut, "{\"attent") != 0)
        return refuse("a short text is not cut");
    if (statistics(NULL, 0) != length)
        return refuse("the length alone cannot be had");
    return 0;
}
