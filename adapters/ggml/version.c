/* Which ggml this adapter may be loaded by. */
#include "adapter.h"

#include <dlfcn.h>
#include <string.h>

/* Those whose binaries backend_abi.h was held against. The API version alone
 * does not do: members came in without a change of it, and operations were
 * renumbered, which is why the version of the headers counts too. */
static const char *const known[] = {"0.27.0"};

bool version_is_known(void)
{
    /* Looked up by name: a host that has no such function gets a line, not a
     * loader's error. */
    const char *(*ggml_version_of_host)(void) = NULL;
    void *symbol = dlsym(RTLD_DEFAULT, "ggml_version");
    memcpy(&ggml_version_of_host, &symbol, sizeof symbol);
    const char *version = symbol ? ggml_version_of_host() : "without a version";
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(version, known[i]) == 0 && strcmp(RATPLUS_GGML_HEADERS, known[i]) == 0)
            return true;
    complain("the host's ggml is %s, this backend was built with the headers of %s and knows the "
             "backend interface of %s; it is not used", version, RATPLUS_GGML_HEADERS, known[0]);
    return false;
}
