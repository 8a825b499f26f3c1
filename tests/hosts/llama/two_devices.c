/* A model over two devices, whose policy file changes in the middle of each pass: a pass has one
 * policy in all its layers, and the next pass has the new one.
 * Usage, with GGML_BACKEND_PATH and RATPLUS_POLICY set: two_devices MODEL.gguf */
#include <ggml-backend.h>
#include <llama.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LAYERS = 3, PASSES = 8, POLICIES = 2 };

static const char *const variants[POLICIES] = {"streamw8s2", "d4w16s2"};
static size_t (*statistics)(char *text, size_t size);

static void fail(const char *what)
{
    printf("%s\n", what);
    exit(1);
}

static void quiet(enum ggml_log_level level, const char *text, void *user_data)
{
    (void)user_data;
    if (level == GGML_LOG_LEVEL_ERROR)
        fputs(text, stderr);
}

static void write_policy(int number)
{
    FILE *file = fopen(getenv("RATPLUS_POLICY"), "w");
    if (!file || fprintf(file, "{\"default\": \"%s\"}\n", variants[number]) < 0 || fclose(file))
        fail("the policy cannot be written");
}

/* Nodes that attended by the variant so far. */
static long nodes_of(int number)
{
    char text[4096], key[64];
    if (statistics(text, sizeof text) >= sizeof text)
        fail("the statistics are long");
    snprintf(key, sizeof key, "\"%s\":{\"nodes\":", variants[number]);
    const char *found = strstr(text, key);
    return found ? strtol(found + strlen(key), NULL, 10) : 0;
}

/* Asked for each node, then called once more after those that it wants to see. */
static bool after_first_layer(struct ggml_tensor *node, bool ask, void *user_data)
{
    int *next = user_data;
    const bool wanted = strcmp(node->name, "kqv_out-0") == 0;
    if (wanted && !ask)
        write_policy(*next);
    return wanted || !ask;
}

int main(int argc, char **argv)
{
    ggml_backend_dev_t devices[3] = {NULL};
    const float shares[16] = {1, 1};
    int next = 0;
    llama_log_set(quiet, NULL);
    write_policy(0);
    ggml_backend_load_all();
    devices[0] = ggml_backend_dev_by_name("RATPLUS0");
    devices[1] = ggml_backend_dev_by_name("RATPLUS1");
    if (argc != 2 || !devices[0] || !devices[1])
        fail("usage, where there are two devices: two_devices MODEL.gguf");
    void *address = ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(devices[0]),
                                                      "ratplus_statistics");
    memcpy(&statistics, &address, sizeof address);

    struct llama_model_params params = llama_model_default_params();
    params.n_gpu_layers = 99;
    params.devices = devices;
    params.tensor_split = shares;
    struct llama_model *model = llama_model_load_from_file(argv[1], params);
    struct llama_context_params context_params = llama_context_default_params();
    context_params.n_ctx = 256;
    context_params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
    context_params.cb_eval = after_first_layer;
    context_params.cb_eval_user_data = &next;
    struct llama_context *context = model ? llama_init_from_model(model, context_params) : NULL;
    if (!context)
        fail("no context");

    int wrong = 0;
    for (int i = 0; i < PASSES; i++) {
        llama_token tokens[40];
        const int count = i == 0 ? 40 : 1, now = next;
        const long before[POLICIES] = {nodes_of(0), nodes_of(1)};
        for (int t = 0; t < count; t++)
            tokens[t] = 3 + (i + t * t) % 256;
        next = 1 - now;
        if (llama_decode(context, llama_batch_get_one(tokens, count)))
            fail("a batch is not decoded");
        const long ran[POLICIES] = {nodes_of(0) - before[0], nodes_of(1) - before[1]};
        if (ran[now] == LAYERS && ran[1 - now] == 0)
            continue;
        wrong++;
        printf("pass %d: %ld layers by %s, %ld by %s\n", i, ran[now], variants[now], ran[1 - now],
               variants[1 - now]);
    }
    llama_free(context);
    llama_model_free(model);
    return wrong > 0;
}
