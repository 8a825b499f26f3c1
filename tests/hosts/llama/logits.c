/* Whether a model's logits on RATPLUS0 are those of float32 on the CPU, through all
 * that a llama.cpp host does with a KV cache, to 0.01 and no farther off than the
 * CPU's own flash attention: that rounds queries and sums to f16. Usage: logits MODEL.gguf */
#include <ggml-backend.h>
#include <llama.h>

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_ROWS = 512, MAX_BATCH = 128, LARGEST_SHIFT = 16 };

struct run {
    struct llama_model *model;
    struct llama_context *context;
    int vocabulary, count; /* count: of rows */
    float *rows;
};

static bool quiet_about(enum ggml_log_level level)
{
    return level == GGML_LOG_LEVEL_DEBUG || level == GGML_LOG_LEVEL_INFO ||
           level == GGML_LOG_LEVEL_CONT;
}

static void log_line(enum ggml_log_level level, const char *text, void *user)
{
    (void)user;
    if (!quiet_about(level))
        fputs(text, stderr);
}

/* A text without end, another for each sequence, of the bytes' tokens. */
static llama_token token_at(int sequence, int position)
{
    unsigned hash = (unsigned)(position + 1) * 2654435761u + (unsigned)sequence * 40503u;
    return position == 0 ? 1 : 3 + (llama_token)((hash >> 8) % 256);
}

struct part {
    int sequence, from, count; /* of the text */
    int at;                    /* position of its first token in the cache */
};

/* Decodes the parts in one batch and keeps the logits of every token. */
static bool decode(struct run *r, const struct part *parts, int count)
{
    struct llama_batch batch = llama_batch_init(MAX_BATCH, 0, 1);
    for (int i = 0; i < count; i++)
        for (int t = 0; t < parts[i].count; t++) {
            int n = batch.n_tokens++;
            batch.token[n] = token_at(parts[i].sequence, parts[i].from + t);
            batch.pos[n] = parts[i].at + t;
            batch.n_seq_id[n] = 1;
            batch.seq_id[n][0] = parts[i].sequence;
            batch.logits[n] = 1;
        }
    bool fine = llama_decode(r->context, batch) == 0 && r->count + batch.n_tokens <= MAX_ROWS;
    for (int i = 0; fine && i < batch.n_tokens; i++)
        memcpy(r->rows + (size_t)r->count++ * (size_t)r->vocabulary,
               llama_get_logits_ith(r->context, i), sizeof(float) * (size_t)r->vocabulary);
    llama_batch_free(batch);
    return fine;
}

/* Tokens `from` to `to` of both sequences, two at a time. */
static bool decode_both(struct run *r, int from, int to)
{
    bool fine = true;
    for (int t = from; t < to && fine; t++)
        fine = decode(r, (const struct part[]){{0, t, 1, t}, {1, t, 1, t}}, 2);
    return fine;
}

static bool save_and_restore(struct run *r, llama_seq_id sequence)
{
    size_t size = llama_state_seq_get_size(r->context, sequence);
    uint8_t *bytes = malloc(size);
    bool fine = bytes && llama_state_seq_get_data(r->context, bytes, size, sequence) == size &&
                llama_memory_seq_rm(llama_get_memory(r->context), sequence, -1, -1) &&
                llama_state_seq_set_data(r->context, bytes, size, sequence) == size;
    free(bytes);
    return fine;
}

/* Two prompts in one ragged batch; decoding; the end taken back; sequences that
 * are copied, saved and restored, shifted and cleared. */
static bool scene(struct run *r)
{
    llama_memory_t memory = llama_get_memory(r->context);
    if (!decode(r, (const struct part[]){{0, 0, 70, 0}, {1, 0, 33, 0}}, 2) ||
        !decode(r, (const struct part[]){{1, 33, 37, 33}}, 1) || !decode_both(r, 70, 82))
        return false;
    if (!llama_memory_seq_rm(memory, 0, 78, -1) || !llama_memory_seq_rm(memory, 1, 78, -1) ||
        !decode_both(r, 78, 84))
        return false;
    if (!llama_memory_seq_rm(memory, 1, -1, -1))
        return false;
    llama_memory_seq_cp(memory, 0, 1, -1, -1);
    if (!decode_both(r, 84, 90) || !save_and_restore(r, 1) || !decode_both(r, 90, 96))
        return false;
    if (llama_memory_can_shift(memory)) {
        if (!llama_memory_seq_rm(memory, 0, 4, 4 + LARGEST_SHIFT))
            return false;
        llama_memory_seq_add(memory, 0, 4 + LARGEST_SHIFT, -1, -LARGEST_SHIFT);
        if (!decode(r, (const struct part[]){{0, 96, 9, 96 - LARGEST_SHIFT}}, 1))
            return false;
    }
    llama_memory_clear(memory, true);
    return decode(r, (const struct part[]){{1, 0, 50, 0}}, 1);
}

/* On `device`, or on the CPU alone when that is NULL; flash attention or, in float32
 * throughout, the product of matrices. */
static bool run(struct run *r, const char *path, ggml_backend_dev_t device, bool flash,
                bool unified)
{
    ggml_backend_dev_t devices[] = {device, NULL};
    struct llama_model_params model = llama_model_default_params();
    model.devices = devices;
    model.n_gpu_layers = device ? 99 : 0;
    struct llama_context_params context = llama_context_default_params();
    context.n_ctx = 512;
    context.n_batch = MAX_BATCH;
    context.n_ubatch = 64; /* prompts come in several parts */
    context.n_seq_max = 2;
    context.n_threads = context.n_threads_batch = 1; /* two that wait for each other cost more */
    context.flash_attn_type =
        flash ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_DISABLED;
    context.type_k = context.type_v = flash ? GGML_TYPE_F16 : GGML_TYPE_F32;
    context.offload_kqv = device != NULL;
    context.kv_unified = unified;
    r->model = llama_model_load_from_file(path, model);
    r->context = r->model ? llama_init_from_model(r->model, context) : NULL;
    if (!r->context)
        return false;
    r->vocabulary = llama_vocab_n_tokens(llama_model_get_vocab(r->model));
    r->rows = malloc(sizeof(float) * MAX_ROWS * (size_t)r->vocabulary);
    return r->rows && scene(r);
}

static void end(struct run *r)
{
    llama_free(r->context);
    llama_model_free(r->model);
    free(r->rows);
}

/* The largest difference; infinite where a row is no row of logits. */
static double difference(const struct run *a, const struct run *b)
{
    double most = 0;
    for (int i = 0; i < a->count; i++) {
        const float *x = a->rows + (size_t)i * (size_t)a->vocabulary;
        const float *y = b->rows + (size_t)i * (size_t)a->vocabulary;
        double low = x[0], high = x[0];
        for (int c = 0; c < a->vocabulary; c++) {
            double gap = fabs((double)x[c] - (double)y[c]);
            if (!(gap <= most))
                most = isfinite(gap) ? gap : INFINITY;
            low = fmin(low, (double)x[c]);
            high = fmax(high, (double)x[c]);
        }
        if (!(high - low > 1))
            return INFINITY;
    }
    return a->count > 0 && a->count == b->count ? most : INFINITY;
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return fprintf(stderr, "usage: logits MODEL.gguf\n"), 2;
    llama_log_set(log_line, NULL);
    ggml_backend_load_all();
    ggml_backend_dev_t device = ggml_backend_dev_by_name("RATPLUS0");
    if (!device)
        return fprintf(stderr, "there is no RATPLUS0\n"), 1;
    bool fine = true;
    for (int unified = 0; unified < 2; unified++) {
        struct run ours = {0}, cpu = {0}, exact = {0};
        bool ran = run(&ours, argv[1], device, true, unified) &&
                   run(&cpu, argv[1], NULL, true, unified) &&
                   run(&exact, argv[1], NULL, false, unified);
        double off = ran ? difference(&ours, &exact) : INFINITY;
        double cpu_off = ran ? difference(&cpu, &exact) : INFINITY;
        printf("%s cache, %d tokens: logits within %.2g of float32, and the CPU's within %.2g\n",
               unified ? "unified" : "separate", ours.count, off, cpu_off);
        fine = fine && off <= 1e-2 && off <= cpu_off;
        end(&ours);
        end(&cpu);
        end(&exact);
    }
    llama_backend_free();
    return fine ? 0 : 1;
}
