/* Preloaded into tests under the address sanitizer: libraries stay loaded, so
 * that the leak check, at the end, can still tell which driver a leak is of. */
int dlclose(void *handle);

__attribute__((visibility("default"))) int dlclose(void *handle)
{
    (void)handle;
    return 0;
}
