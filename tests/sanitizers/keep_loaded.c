/* Preloaded into tests under a sanitizer: libraries stay loaded, so that it can
 * still tell at the end which driver a leak or a race is of. */
int dlclose(void *handle);

__attribute__((visibility("default"))) int dlclose(void *handle)
{
    (void)handle;
    return 0;
}
