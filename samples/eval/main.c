/* ratplus-eval: what models know under each variant. */
#define _XOPEN_SOURCE 700 /* realpath */

#include "eval.h"
#include "file.h"
#include "plugin.h"
#include "terminal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHUNK 512

static const char default_variants[] = "dense,d2,d4,d8,d16,d32,d64,d16w64s4,d64w64s4,"
                                       "dense/d16,dense/d16w64s4,dense+d16,streamw64s4,"
                                       "streamw256s4,quest256,quest64,moba16k4";

struct program {
    struct eval_options options;
    char *parent;    /* the folder of the models */
    char *questions; /* the files, found or given; NULL: none */
    char *text;
    char settings[512];
    struct eval_list list;
    uint32_t at; /* the row that is measured */
};

/* A model that is open, with its device and what it is asked. */
struct opened {
    struct model model;
    struct tokenizer tokenizer;
    struct engine *engine;
    uint32_t messages;
    struct measure_input input;
    int32_t *text;
};

static bool exists(const char *folder, const char *name)
{
    char *path = path_join(folder, name);
    const bool found = path && access(path, R_OK) == 0;
    free(path);
    return found;
}

/* "models/rat/" is the model "rat" in "models". */
static bool split(struct program *p, char *name, size_t size, struct problem *problem)
{
    char *real = realpath(p->options.folder, NULL);
    if (!real)
        return problem_set(problem, "%s: there is no such folder", p->options.folder);
    char *slash = strrchr(real, '/');
    snprintf(name, size, "%s", slash + 1);
    *(slash == real ? slash + 1 : slash) = '\0';
    p->parent = real;
    return true;
}

static bool list_variants(struct program *p, const char *model, struct problem *problem)
{
    const struct eval_options *o = &p->options;
    const bool chosen = o->variants || !o->policy;
    char *names = strdup(o->variants ? o->variants : default_variants), *rest = NULL;
    bool good = names || problem_set(problem, "out of memory");
    for (char *name = good && chosen ? strtok_r(names, ",", &rest) : NULL; name && good;
         name = strtok_r(NULL, ",", &rest))
        good = rows_add(&p->list, model, name, problem);
    free(names);
    if (good && o->policy) {
        char file[1024];
        snprintf(file, sizeof file, "@%s", o->policy);
        good = rows_add(&p->list, model, file, problem);
    }
    return good && (p->list.count > 0 || problem_set(problem, "--variants names no variant"));
}

static bool list_rows(struct program *p, struct problem *problem)
{
    const struct eval_options *o = &p->options;
    char name[256];
    if (exists(o->folder, "config.json")) {
        if (o->rows)
            return problem_set(problem, "--rows is for a folder of models; %s is one model",
                               o->folder);
        return split(p, name, sizeof name, problem) && list_variants(p, name, problem);
    }
    if (o->variants || o->policy)
        return problem_set(problem, "--variants and --policy are for one model; %s has no "
                           "config.json", o->folder);
    if (!o->rows && !exists(o->folder, "rows.txt"))
        return problem_set(problem, "%s has neither config.json nor rows.txt", o->folder);
    p->parent = strdup(o->folder);
    char *path = o->rows ? strdup(o->rows) : path_join(o->folder, "rows.txt");
    const bool good = (p->parent && path) || problem_set(problem, "out of memory");
    const bool read = good && rows_read(&p->list, path, problem);
    free(path);
    return read;
}

/* What was given, or what lies beside the models. */
static char *input_file(const struct program *p, const char *given, const char *name)
{
    if (given)
        return strdup(given);
    return exists(p->parent, name) ? path_join(p->parent, name) : NULL;
}

static uint64_t size_of(const char *path)
{
    struct stat about;
    return path && stat(path, &about) == 0 ? (uint64_t)about.st_size : 0;
}

static bool find_inputs(struct program *p, struct problem *problem)
{
    const struct eval_options *o = &p->options;
    p->questions = input_file(p, o->questions, "questions.jsonl");
    p->text = o->text_bytes ? input_file(p, o->text, "held-out.txt") : NULL;
    snprintf(p->settings, sizeof p->settings,
             "questions of %" PRIu64 " bytes, rows %" PRIu64 "; text of %" PRIu64
             " bytes, %" PRIu64 " of them; cache %s",
             size_of(p->questions), o->row_limit, size_of(p->text), p->text ? o->text_bytes : 0,
             o->dtype);
    return p->questions || p->text ||
           problem_set(problem, "%s has neither questions.jsonl nor held-out.txt; give "
                       "--questions or --text", p->parent);
}

static bool read_text(struct program *p, struct opened *m, struct problem *problem)
{
    char *data = NULL;
    size_t size = 0;
    if (!file_read(p->text, FILE_MAX_TEXT, &data, &size, problem))
        return false;
    size = size < p->options.text_bytes ? size : (size_t)p->options.text_bytes;
    const bool good = tokenizer_encode(&m->tokenizer, data, size, &m->text, &m->input.text_count,
                                       problem);
    free(data);
    m->input.text = m->text;
    return good && (m->input.text_count > 1 ||
                    problem_set(problem, "%s is too short to predict", p->text));
}

static void close_model(struct opened *m)
{
    engine_close(&m->engine);
    questions_free(&m->input.questions);
    free(m->text);
    tokenizer_close(&m->tokenizer);
    model_close(&m->model);
}

/* Without a GPU, plain C is faster than a software Vulkan device. */
static bool open_engine(const struct program *p, struct opened *m, struct problem *problem)
{
    struct engine_options options = {
        .device = p->options.device, .chunk = CHUNK, .all_logits = true};
    struct ratp_device_info info = {.struct_size = sizeof info};
    if (!engine_open(&m->model, &options, &m->messages, &m->engine, problem))
        return false;
    const struct ratp_api *ratp = m->engine->ratp;
    if (options.device || ratp->device_info(m->engine->device, &info) != RATP_OK ||
        info.kind != RATP_DEVICE_SOFTWARE)
        return true;
    options.device = "reference";
    engine_close(&m->engine);
    return engine_open(&m->model, &options, &m->messages, &m->engine, problem);
}

static bool open_model(struct program *p, const char *name, struct opened *m,
                       struct problem *problem)
{
    *m = (struct opened){.tokenizer.end = -1};
    m->input.cache_dtype = p->options.cache_dtype;
    char *path = path_join(p->parent, name);
    bool good = path || problem_set(problem, "out of memory");
    good = good && model_open(&m->model, path, problem) &&
           tokenizer_open(&m->tokenizer, &m->model, problem) &&
           (!p->text || read_text(p, m, problem)) &&
           (!p->questions || questions_read(p->questions, &m->tokenizer, p->options.row_limit,
                                            &m->input.questions, problem)) &&
           open_engine(p, m, problem);
    m->input.piece = m->model.config.context < 2 ? 2 : m->model.config.context;
    free(path);
    return good;
}

static void show(void *user, double share)
{
    const struct program *p = user;
    char label[64];
    snprintf(label, sizeof label, "%.30s %.30s", p->list.rows[p->at].model,
             p->list.rows[p->at].variant);
    const double done = (p->at + share) / p->list.count;
    progress_show(label, (uint64_t)(done * 1000), 1000);
}

static bool measure_row(struct program *p, struct opened *m, struct problem *problem)
{
    struct eval_row *row = &p->list.rows[p->at];
    char name[POLICY_NAME_SIZE];
    ratp_policy *policy = NULL;
    const bool made = *row->variant == '@'
                          ? policy_from_file(m->engine, row->variant + 1, &policy, problem)
                          : policy_from_name(m->engine, row->variant, name, &policy, problem);
    if (!made)
        return false;
    row->known = measure(m->engine, policy, &m->input, p->options.quiet ? NULL : show, p,
                         &row->measured, problem);
    m->engine->ratp->policy_destroy(&policy);
    return row->known && (!p->options.resume ||
                          resume_append(p->options.resume, p->settings, row, problem));
}

/* Every row of the list; a model stays open for the rows that follow each other. */
static bool measure_rows(struct program *p, struct problem *problem)
{
    struct opened model;
    const char *open = NULL;
    bool good = true;
    for (p->at = 0; p->at < p->list.count && good; p->at++) {
        const struct eval_row *row = &p->list.rows[p->at];
        if (row->known)
            continue;
        if (!open || strcmp(open, row->model) != 0) {
            if (open)
                close_model(&model);
            open = row->model;
            good = open_model(p, open, &model, problem);
        }
        good = good && measure_row(p, &model, problem);
    }
    if (open)
        close_model(&model);
    return good;
}

static bool run(struct program *p, struct problem *problem)
{
    const struct eval_options *o = &p->options;
    if (!list_rows(p, problem) || !find_inputs(p, problem) ||
        (o->resume && !resume_read(o->resume, p->settings, &p->list, problem)) ||
        !measure_rows(p, problem))
        return false;
    if (o->json && !report_json(&p->list, p->settings, o->json, problem))
        return false;
    return (o->json && strcmp(o->json, "-") == 0) || report_tables(&p->list, problem);
}

int main(int argc, char **argv)
{
    struct program p = {0};
    struct problem problem;
    bool done;
    bool good = eval_options_parse(argc, argv, &p.options, &done, &problem);
    if (good && !done)
        good = run(&p, &problem);
    if (!good)
        fprintf(stderr, "ratplus-eval: %s\n", problem.text);
    rows_free(&p.list);
    free(p.questions);
    free(p.text);
    free(p.parent);
    return good ? EXIT_SUCCESS : EXIT_FAILURE;
}
