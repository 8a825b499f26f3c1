#include <ratplus.h>
#include <stdio.h>
#define TENSOR(floats) &(struct ratp_tensor){sizeof(struct ratp_tensor), .host = floats}
enum { TOKENS = 100, HEADS = 4, SIZE = 64, COUNT = TOKENS * HEADS * SIZE };
static float q[COUNT], k[COUNT], v[COUNT], f[COUNT], out[COUNT]; /* f: forget-gate logits */
static const char json[] = "{\"default\": \"d16w32s4\"}"; /* dilation 16, window 32, 4 sinks */

int main(int argc, char **argv)
{
    char why[512] = "";
    const struct ratp_api *ratp = ratp_get_api(RATP_ABI_MAJOR, why, sizeof why);
    ratp_instance *host; ratp_device *device; ratp_policy *policy; ratp_cache *cache;
    ratp_seq *seq; ratp_step *step;
    if (!ratp || ratp->instance_create(NULL, &host, why, sizeof why)) return puts(why), 1;
    struct ratp_device_params which = {sizeof which, .name = argc > 1 ? argv[1] : NULL};
    if (ratp->device_open(host, &which, &device)) return 1; /* last_error(host, ...) tells why */
    if (ratp->policy_from_json(host, json, sizeof json - 1, &policy)) return 1;
    struct ratp_geometry model = {sizeof model, 1, HEADS, HEADS, SIZE, .memory = 1};
    struct ratp_cache_params params = {sizeof params, &model, policy, .retention = RATP_RETAIN_NEEDED};
    if (ratp->cache_create(device, &params, &cache) || ratp->seq_create(cache, &seq)) return 1;
    for (int i = 0; i < COUNT; i++) q[i] = k[i] = v[i] = (float)(i % 7 - 3);
    const uint32_t tokens[] = {TOKENS, 1}; /* a prompt, then one more token */
    struct ratp_attend_io io = {sizeof io, TENSOR(q), TENSOR(k), TENSOR(v), TENSOR(f), .out = TENSOR(out)};
    for (int i = 0; i < 2; i++) {
        struct ratp_step_params batch = {sizeof batch, .count = 1, .seqs = &seq, .n_tokens = &tokens[i]};
        if (ratp->step_begin(cache, &batch, &step) || ratp->step_attend(step, 0, &io)) return 1;
        if (ratp->step_commit(&step)) return 1;
        printf("after %u tokens: %g %g %g ...\n", i ? TOKENS + 1 : TOKENS, out[0], out[1], out[2]);
    }
    return ratp->seq_destroy(&seq) || ratp->cache_destroy(&cache) || ratp->policy_destroy(&policy) ||
           ratp->device_close(&device) || ratp->instance_destroy(&host);
}
