/* ratplus-run: generates text with a RAT+ model. */
#include "file.h"
#include "interactive.h"
#include "options.h"
#include "policy_name.h"
#include "printer.h"
#include "report.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_RUNS 16

struct program {
    struct run_options options;
    struct model model;
    struct tokenizer tokenizer;
    struct engine *engine;
    uint32_t messages; /* of the validation layer */
    int32_t *input;
    uint32_t input_count;
    struct report_run runs[MAX_RUNS];
    uint32_t run_count;
};

static bool read_input(struct program *p, struct problem *problem)
{
    const struct run_options *o = &p->options;
    const char *path = o->file ? o->file : o->tokens_file;
    char *data = NULL;
    size_t size = 0;
    if (o->prompt)
        return tokenizer_encode(&p->tokenizer, o->prompt, strlen(o->prompt), &p->input,
                                &p->input_count, problem);
    if (!file_read(path, FILE_MAX_TEXT, &data, &size, problem))
        return false;
    if (o->file) {
        const bool good =
            tokenizer_encode(&p->tokenizer, data, size, &p->input, &p->input_count, problem);
        free(data);
        return good;
    }
    p->input = (int32_t *)(void *)data;
    p->input_count = (uint32_t)(size / sizeof(int32_t));
    return size % sizeof(int32_t) == 0 ||
           problem_set(problem, "%s: %zu bytes are not whole 32-bit numbers", path, size);
}

static bool check_input(const struct program *p, struct problem *problem)
{
    const uint64_t total = p->input_count + p->options.tokens;
    if (p->input_count == 0)
        return problem_set(problem, "the prompt is empty");
    if (p->options.prompt_tokens > p->input_count)
        return problem_set(problem, "--prompt-tokens is %llu, but the input has %u tokens",
                           (unsigned long long)p->options.prompt_tokens, p->input_count);
    if (total > 1u << 24)
        return problem_set(problem, "%llu tokens are more than the limit of %u",
                           (unsigned long long)total, 1u << 24);
    if (total > p->model.config.context && !p->options.interactive)
        fprintf(stderr, "note: %llu tokens are more than the model's context of %u\n",
                (unsigned long long)total, p->model.config.context);
    return true;
}

static bool add_variant(struct program *p, const char *name, struct problem *problem)
{
    if (p->run_count == MAX_RUNS)
        return problem_set(problem, "--compare takes at most %d variants", MAX_RUNS);
    struct report_run *run = &p->runs[p->run_count++];
    return policy_from_name(p->engine, name, run->name, &run->policy, problem);
}

static bool add_policy_file(struct program *p, const char *path, struct problem *problem)
{
    struct report_run *run = &p->runs[p->run_count++];
    snprintf(run->name, sizeof run->name, "%s", path);
    return policy_from_file(p->engine, path, &run->policy, problem);
}

static bool add_runs(struct program *p, struct problem *problem)
{
    if (p->options.policy)
        return add_policy_file(p, p->options.policy, problem);
    if (!p->options.compare)
        return add_variant(p, p->options.variant ? p->options.variant : "dense", problem);
    char *names = strdup(p->options.compare), *rest = NULL;
    bool good = names || problem_set(problem, "out of memory");
    for (char *name = good ? strtok_r(names, ",", &rest) : NULL; name && good;
         name = strtok_r(NULL, ",", &rest))
        good = add_variant(p, name, problem);
    free(names);
    return good && (p->run_count > 0 || problem_set(problem, "--compare names no variant"));
}

static void print_token(void *user, int32_t token)
{
    printer_token(user, token);
}

/* A first chunk and a first decode step, so that no pipeline is made while
 * the clock runs. */
static bool warm_up(struct program *p, const struct generate_options *timed,
                    struct problem *problem)
{
    const uint64_t chunk = p->options.chunk;
    struct generate_options options = *timed;
    struct generated result;
    options.prompt = timed->prompt < chunk ? timed->prompt : (uint32_t)chunk;
    options.count = options.prompt;
    options.wanted = 2;
    options.all_logits = false;
    options.on_token = NULL;
    if (!generate(p->engine, &options, &result, problem))
        return false;
    generated_free(&result);
    return true;
}

static bool run_one(struct program *p, struct report_run *run, struct problem *problem)
{
    const struct run_options *o = &p->options;
    const bool print = !o->compare && !o->json;
    struct printer printer;
    if (!printer_open(&printer, &p->tokenizer, p->input, p->input_count, (uint32_t)o->tokens,
                      problem))
        return false;
    const struct generate_options options = {
        .tokens = p->input,
        .count = p->input_count,
        .prompt = o->prompt_tokens ? (uint32_t)o->prompt_tokens : p->input_count,
        .wanted = (uint32_t)o->tokens,
        .end = p->tokenizer.end,
        .sampler = {o->temperature, (uint32_t)o->top_k, o->top_p, o->seed},
        .policy = run->policy,
        .retention = o->retention,
        .cache_dtype = o->cache_dtype,
        .all_logits = o->logits != NULL,
        .on_token = print ? print_token : NULL,
        .user = &printer,
    };
    const bool timed = o->compare || o->stats || o->json;
    bool good = !timed || warm_up(p, &options, problem);
    good = good && generate(p->engine, &options, &run->result, problem);
    printer_close(&printer);
    if (!good)
        return false;
    if (print && run->result.count > 0)
        putchar('\n');
    run->text = tokenizer_decode(&p->tokenizer, run->result.tokens, run->result.count,
                                 &run->text_size);
    if (!run->text)
        return problem_set(problem, "out of memory for the text");
    const size_t logits = (size_t)p->input_count * p->model.config.vocabulary * sizeof(float);
    return !o->logits || file_write(o->logits, run->result.logits, logits, problem);
}

static bool run_conversation(struct program *p, struct problem *problem)
{
    const struct run_options *o = &p->options;
    const struct interactive_options options = {
        .tokens = p->input,
        .count = p->input_count,
        .wanted = (uint32_t)o->tokens,
        .sampler = {o->temperature, (uint32_t)o->top_k, o->top_p, o->seed},
        .policy = p->runs[0].policy,
        .variant = p->runs[0].name,
        .retention = o->retention,
        .cache_dtype = o->cache_dtype,
        .stats = o->stats,
    };
    return interactive_run(p->engine, &p->tokenizer, &options, problem);
}

static bool run_all(struct program *p, struct problem *problem)
{
    const struct run_options *o = &p->options;
    const bool input = o->prompt || o->file || o->tokens_file;
    const struct engine_options engine = {
        .device = o->device,
        .validate = o->validate,
        .chunk = (uint32_t)o->chunk,
        .all_logits = o->logits != NULL,
    };
    if (!model_open(&p->model, o->model, problem) ||
        !tokenizer_open(&p->tokenizer, &p->model, problem) ||
        (input && !(read_input(p, problem) && check_input(p, problem))) ||
        !engine_open(&p->model, &engine, &p->messages, &p->engine, problem) ||
        !add_runs(p, problem))
        return false;
    if (o->interactive)
        return run_conversation(p, problem);
    for (uint32_t i = 0; i < p->run_count; i++)
        if (!run_one(p, &p->runs[i], problem))
            return false;
    const struct report report = {
        .device = p->engine->name,
        .model = o->model,
        .prompt = o->prompt_tokens ? (uint32_t)o->prompt_tokens : p->input_count,
        .runs = p->runs,
        .count = p->run_count,
    };
    if (o->json)
        return report_json(&report, problem);
    if (o->compare)
        return report_compare(&report, problem);
    if (o->stats)
        report_stats(&report);
    return true;
}

static void close_all(struct program *p)
{
    for (uint32_t i = 0; i < p->run_count; i++) {
        if (p->runs[i].policy)
            p->engine->ratp->policy_destroy(&p->runs[i].policy);
        generated_free(&p->runs[i].result);
        free(p->runs[i].text);
    }
    engine_close(&p->engine);
    free(p->input);
    tokenizer_close(&p->tokenizer);
    model_close(&p->model);
}

int main(int argc, char **argv)
{
    struct program p = {.tokenizer.end = -1};
    struct problem problem;
    bool done;
    bool good = run_options_parse(argc, argv, &p.options, &done, &problem);
    if (good && done)
        return EXIT_SUCCESS;
    good = good && run_all(&p, &problem);
    close_all(&p);
    if (!good)
        fprintf(stderr, "ratplus-run: %s\n", problem.text);
    if (p.messages > 0)
        fprintf(stderr, "ratplus-run: %u messages of the validation layer\n", p.messages);
    return good && p.messages == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
