/* A packed RAT+ model in an unmodified llama.cpp, against the logits of ratplus-run.
 * Usage: packed MODEL.gguf TEXT LOGITS [one]: LOGITS are float32, [byte of TEXT][256]. With
 * `one` a single sequence alone is checked. */
#include <llama.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

enum { TEXT = 320, VOCABULARY = 256, BATCH = 320 };
static const float bound = 1e-2f;

static struct llama_model *model;
static unsigned char text[TEXT];
static float expected[TEXT][VOCABULARY];
static int failures;

static void result(const char *what, bool good)
{
    printf("packed model: %s: %s\n", what, good ? "right" : "WRONG");
    failures += !good;
}

static bool read_file(const char *path, void *to, size_t size)
{
    FILE *file = fopen(path, "rb");
    bool good = file && fread(to, 1, size, file) == size;
    if (file)
        fclose(file);
    if (!good)
        fprintf(stderr, "%s: %zu bytes cannot be read\n", path, size);
    return good;
}

static struct llama_context *open_context(uint32_t sequences, bool unified, uint32_t ubatch)
{
    struct llama_context_params params = llama_context_default_params();
    params.n_ctx = 1024;
    params.n_batch = BATCH;
    params.n_ubatch = ubatch;
    params.n_seq_max = sequences;
    params.kv_unified = unified;
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
    params.n_threads = params.n_threads_batch = 2;
    struct llama_context *context = llama_init_from_model(model, params);
    if (!context)
        exit(2);
    return context;
}

/* Bytes [from, to) of the text as the positions of a sequence. */
struct piece {
    int sequence, from, to;
};

static void add(struct llama_batch *batch, const struct piece *p, int shift)
{
    for (int i = p->from; i < p->to; i++) {
        int n = batch->n_tokens++;
        batch->token[n] = text[i];
        batch->pos[n] = i + shift;
        batch->n_seq_id[n] = 1;
        batch->seq_id[n][0] = p->sequence;
        batch->logits[n] = 1;
    }
}

static float difference(struct llama_context *context, const struct piece *p, int first)
{
    float most = 0;
    for (int i = p->from; i < p->to; i++) {
        const float *logits = llama_get_logits_ith(context, first + i - p->from);
        for (int t = 0; t < VOCABULARY; t++) {
            float gap = fabsf(logits[t] - expected[i][t]);
            most = fmaxf(most, isnan(gap) ? INFINITY : gap);
        }
    }
    return most;
}

/* The largest difference from the runner's logits; infinite when the batch is refused. */
static float feed(struct llama_context *context, const struct piece *pieces, int count, int shift)
{
    float most = 0;
    struct llama_batch batch = llama_batch_init(BATCH, 0, 1);
    for (int i = 0; i < count; i++)
        add(&batch, &pieces[i], shift);
    if (llama_decode(context, batch))
        most = INFINITY;
    for (int i = 0, first = 0; i < count && most < INFINITY; i++) {
        most = fmaxf(most, difference(context, &pieces[i], first));
        first += pieces[i].to - pieces[i].from;
    }
    llama_batch_free(batch);
    return most;
}

static bool agrees(struct llama_context *context, int sequence, int from, int to)
{
    const struct piece piece = {sequence, from, to};
    return feed(context, &piece, 1, 0) <= bound;
}

static void check_one(uint32_t ubatch)
{
    char title[64];
    struct llama_context *context = open_context(1, false, ubatch);
    const struct piece prompt = {0, 0, 200};
    float gap = feed(context, &prompt, 1, 0);
    bool good = gap <= bound;
    for (int i = 200; i < 240; i++)
        good = agrees(context, 0, i, i + 1) && good;
    good = agrees(context, 0, 240, TEXT) && good;
    snprintf(title, sizeof title, "a prompt in pieces of %u, then tokens one by one (%.1e)", ubatch,
             (double)gap);
    result(title, good);
    llama_free(context);
}

static void check_past(void)
{
    struct llama_context *context = open_context(1, false, 64);
    llama_memory_t memory = llama_get_memory(context);
    bool good = agrees(context, 0, 0, 200);
    llama_memory_seq_rm(memory, 0, 90, -1);
    good = agrees(context, 0, 90, 91) && agrees(context, 0, 91, 150) && good;
    result("a sequence that is taken back and goes on", good);

    size_t size = llama_state_seq_get_size(context, 0);
    uint8_t *state = malloc(size);
    good = state && llama_state_seq_get_data(context, state, size, 0) == size;
    llama_memory_clear(memory, true);
    good = good && llama_state_seq_set_data(context, state, size, 0) == size &&
           agrees(context, 0, 150, TEXT);
    result("a sequence that is saved and restored", good);
    free(state);
    llama_free(context);
}

static void check_two(bool unified)
{
    struct llama_context *context = open_context(2, unified, 32);
    llama_memory_t memory = llama_get_memory(context);
    bool good = true;
    for (int i = 0; i < 10; i++) {
        const struct piece both[] = {{0, 12 * i, 12 * i + 12}, {1, 7 * i, 7 * i + 7}};
        good = feed(context, both, 2, 0) <= bound && good;
    }
    result(unified ? "two sequences side by side in one cache" : "two sequences in two streams",
           good);

    llama_memory_seq_rm(memory, 1, -1, -1);
    llama_memory_seq_cp(memory, 0, 1, -1, -1);
    const struct piece forked[] = {{0, 120, 121}, {1, 120, 121}};
    good = feed(context, forked, 2, 0) <= bound && agrees(context, 1, 121, 160) &&
           agrees(context, 0, 121, 140);
    result("and a fork of one, which both go on from", good);

    /* What comes now fills the cells that were freed, in any order. */
    llama_memory_seq_rm(memory, 1, 100, -1);
    good = agrees(context, 0, 140, 200) && agrees(context, 1, 100, 190) &&
           agrees(context, 0, 200, TEXT);
    result("and cells that are freed and filled again", good);
    llama_free(context);
}

/* What the host can do to a sequence that the memory does not follow. */
static void check_refusals(void)
{
    const struct piece next = {0, 100, 101};
    struct llama_context *context = open_context(1, false, 64);
    llama_memory_t memory = llama_get_memory(context);
    result("a sequence that starts at position 5 is refused",
           isinf(feed(context, &(struct piece){0, 0, 20}, 1, 5)));

    llama_memory_clear(memory, true);
    bool good = agrees(context, 0, 0, 100);
    llama_memory_seq_rm(memory, 0, 20, 30);
    result("and one that lost its middle", good && isinf(feed(context, &next, 1, 0)));

    llama_memory_clear(memory, true);
    good = agrees(context, 0, 0, 100);
    llama_memory_seq_rm(memory, 0, 0, 10);
    llama_memory_seq_add(memory, 0, 10, -1, -10);
    result("and one that was shifted", good && isinf(feed(context, &next, 1, -10)));

    llama_memory_clear(memory, true);
    result("and the next one is right", agrees(context, 0, 0, 100));
    llama_free(context);
}

/* The file changes while the host runs: models that are loaded stay packed. */
static void check_policy(const char *path)
{
    struct llama_context *context = open_context(1, false, 64);
    bool good = agrees(context, 0, 0, 100);
    FILE *file = path ? fopen(path, "w") : NULL;
    good = file && fputs("{\"default\": \"d16\"}", file) >= 0 && good;
    if (file)
        fclose(file);
    result("a policy without memory is not taken while the host runs",
           good && agrees(context, 0, 100, 160));
    llama_free(context);
}

int main(int argc, char **argv)
{
    if (argc < 4 || !read_file(argv[2], text, sizeof text) ||
        !read_file(argv[3], expected, sizeof expected))
        return 2;
    ggml_backend_load_all();
    struct llama_model_params params = llama_model_default_params();
    params.n_gpu_layers = 99;
    model = llama_model_load_from_file(argv[1], params);
    if (!model)
        return 2;
    check_one(512);
    check_one(13);
    check_past();
    if (argc == 4) {
        check_two(true);
        check_two(false);
        check_refusals();
        check_policy(getenv("RATPLUS_POLICY"));
    }
    llama_model_free(model);
    return failures != 0;
}
