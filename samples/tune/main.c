/* ratplus-tune: which variant each layer should take. */
#include "cost.h"
#include "file.h"
#include "plugin.h"
#include "search.h"
#include "terminal.h"
#include "tune.h"
#include "variant.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define CHUNK 512

static bool add_candidate(struct tuner *t, const char *name, struct problem *problem)
{
    struct ratp_variant variant;
    char text[CANDIDATE_SIZE];
    if (!fixed_from_name(name, &variant, problem))
        return false;
    variant_to_name(&variant, text, sizeof text);
    for (uint32_t i = 0; i < t->count; i++)
        if (strcmp(t->names[i], text) == 0)
            return true;
    if (t->count == MAX_CANDIDATES)
        return problem_set(problem, "there may be at most %d candidates", MAX_CANDIDATES);
    t->candidates[t->count] = variant;
    strcpy(t->names[t->count++], text);
    return true;
}

/* What --like names is a candidate too. */
static bool add_candidates(struct tuner *t, struct problem *problem)
{
    char *names = strdup(t->options.candidates), *rest = NULL;
    bool good = names || problem_set(problem, "out of memory");
    for (char *name = good ? strtok_r(names, ",", &rest) : NULL; name && good;
         name = strtok_r(NULL, ",", &rest))
        good = add_candidate(t, name, problem);
    free(names);
    good = good && (!t->options.like || add_candidate(t, t->options.like, problem));
    return good && (t->count > 0 || problem_set(problem, "--candidates names no variant"));
}

/* Parts of the text are known and unseen in turns, as a file may hold several works. */
static bool split_text(struct tuner *t, const int32_t *tokens, uint32_t count,
                       struct problem *problem)
{
    const uint32_t context = t->model.config.context, half = (count + 1) / 2;
    const uint32_t piece = context < half && context > 1 ? context : half;
    uint32_t unseen = 0;
    if (count < 4)
        return problem_set(problem, "%s is too short to predict", t->options.text);
    t->text = malloc(count * sizeof *t->text);
    if (!t->text)
        return problem_set(problem, "out of memory for the text");
    for (uint32_t pass = 0; pass < 2; pass++)
        for (uint32_t first = pass * piece; first < count; first += 2 * piece) {
            const uint32_t size = count - first < piece ? count - first : piece;
            uint32_t *filled = pass ? &unseen : &t->known.text_count;
            memcpy(t->text + (pass ? t->known.text_count : 0) + *filled, tokens + first,
                   size * sizeof *tokens);
            *filled += size;
        }
    t->known.text = t->text;
    t->unseen.text = t->text + t->known.text_count;
    t->unseen.text_count = unseen;
    t->known.piece = t->unseen.piece = piece;
    return true;
}

static bool read_text(struct tuner *t, struct problem *problem)
{
    char *data = NULL;
    int32_t *tokens = NULL;
    size_t size = 0;
    uint32_t count = 0;
    if (!file_read(t->options.text, FILE_MAX_TEXT, &data, &size, problem))
        return false;
    size = size < t->options.text_bytes ? size : (size_t)t->options.text_bytes;
    const bool good = tokenizer_encode(&t->tokenizer, data, size, &tokens, &count, problem) &&
                      split_text(t, tokens, count, problem);
    free(tokens);
    free(data);
    return good;
}

/* Which rows are unseen: every second of those with as many needles, so that both
 * halves ask alike. */
static bool *choose_unseen(const struct question_list *list)
{
    uint32_t most = 0;
    for (uint32_t i = 0; i < list->count; i++)
        most = list->rows[i].needles > most ? list->rows[i].needles : most;
    bool *unseen = calloc(list->count, sizeof *unseen);
    bool *next = calloc((size_t)most + 1, sizeof *next);
    for (uint32_t i = 0; unseen && next && i < list->count; i++) {
        const uint32_t needles = list->rows[i].needles;
        unseen[i] = next[needles];
        next[needles] = !next[needles];
    }
    if (!next) {
        free(unseen);
        unseen = NULL;
    }
    free(next);
    return unseen;
}

static bool read_questions(struct tuner *t, struct problem *problem)
{
    struct question_list *list = &t->questions;
    if (!questions_read(t->options.questions, &t->tokenizer, t->options.row_limit, list, problem))
        return false;
    struct question_row *rows = malloc(list->count * sizeof *rows);
    bool *unseen = choose_unseen(list);
    uint32_t known = 0, filled = 0;
    if (!rows || !unseen) {
        free(rows);
        free(unseen);
        return problem_set(problem, "out of memory for the questions");
    }
    for (uint32_t pass = 0; pass < 2; pass++) {
        for (uint32_t i = 0; i < list->count; i++)
            if (unseen[i] == (pass == 1))
                rows[filled++] = list->rows[i];
        known = pass == 0 ? filled : known;
    }
    free(unseen);
    free(list->rows);
    list->rows = rows;
    t->known.questions = (struct question_list){rows, known, list->longest};
    t->unseen.questions = (struct question_list){rows + known, list->count - known, list->longest};
    return known < list->count ||
           problem_set(problem, "%s has no two rows with as many needles: one for the search, and "
                       "one to check it with", t->options.questions);
}

static struct stat about(const char *path)
{
    struct stat result;
    if (!path || stat(path, &result) != 0)
        result = (struct stat){0};
    return result;
}

/* Of what the trials were measured. */
static void describe(struct tuner *t)
{
    const struct tune_options *o = &t->options;
    const struct stat weights = about(t->model.weights.path);
    snprintf(t->settings, sizeof t->settings,
             "%s of %lld; questions of %lld bytes, rows %" PRIu64 "; text of %lld bytes, %" PRIu64
             " of them; cache %s",
             t->model.folder, (long long)weights.st_mtime, (long long)about(o->questions).st_size,
             o->row_limit, (long long)about(o->text).st_size, o->text_bytes, o->dtype);
}

static bool open_all(struct tuner *t, struct problem *problem)
{
    const struct tune_options *o = &t->options;
    const struct engine_options engine = {.device = o->device, .chunk = CHUNK, .all_logits = true};
    if (!add_candidates(t, problem) || !model_open(&t->model, o->model, problem) ||
        !tokenizer_open(&t->tokenizer, &t->model, problem) ||
        (o->text && !read_text(t, problem)) || (o->questions && !read_questions(t, problem)))
        return false;
    t->known.cache_dtype = t->unseen.cache_dtype = o->cache_dtype;
    describe(t);
    return memo_open(&t->memo, o->resume, t->settings, measure_units(&t->known), problem) &&
           engine_open(&t->model, &engine, &t->messages, &t->engine, problem);
}

static void close_all(struct tuner *t)
{
    engine_close(&t->engine);
    memo_close(&t->memo);
    questions_free(&t->questions);
    free(t->text);
    tokenizer_close(&t->tokenizer);
    model_close(&t->model);
}

/* Every candidate in all layers: what it loses, and what a layer then costs. */
static bool try_uniform(struct tuner *t, uint32_t *choice, struct problem *problem)
{
    const uint32_t layers = t->model.config.layers;
    for (uint32_t i = 0; i < t->count; i++) {
        for (uint32_t layer = 0; layer < layers; layer++)
            choice[layer] = i;
        if (!tuner_try(t, choice, &t->uniform[i], problem))
            return false;
        t->keys[i] = attended_keys(&t->candidates[i], t->uniform[i].length);
        t->cost[i] = t->options.cache ? (double)t->uniform[i].cache_bytes / layers : t->keys[i];
    }
    /* It was added to the candidates, and cannot fail here. */
    struct ratp_variant like;
    if (!t->options.like)
        t->target = t->options.cache ? (double)t->options.cache / layers : t->options.keys;
    else if (fixed_from_name(t->options.like, &like, problem))
        t->target = attended_keys(&like, t->uniform[0].length);
    return true;
}

static bool loss_of(void *user, const uint32_t *choice, double *loss, struct problem *problem)
{
    struct trial trial;
    const bool good = tuner_try(user, choice, &trial, problem);
    *loss = good ? trial.loss : 0;
    return good;
}

/* What two policies lose apart by chance: both were tried. */
static double doubt_of(void *user, const uint32_t *a, const uint32_t *b)
{
    struct tuner *t = user;
    char *name_a = tuner_name(t, a), *name_b = tuner_name(t, b);
    const struct trial *trial_a = name_a ? memo_find(&t->memo, name_a) : NULL;
    const struct trial *trial_b = name_b ? memo_find(&t->memo, name_b) : NULL;
    const double doubt =
        trial_a && trial_b ? standard_error(trial_a->units, trial_b->units, t->memo.units) : 0;
    free(name_a);
    free(name_b);
    return doubt;
}

static bool check_unseen(struct tuner *t, const uint32_t *choice, struct trial *trial,
                         struct score *answers, struct problem *problem)
{
    struct measured measured;
    const bool good = tuner_measure(t, choice, &t->unseen, trial, &measured, problem);
    *answers = good ? measured.all : (struct score){0};
    return good;
}

static bool write_policy(const struct tuner *t, const uint32_t *choice, struct problem *problem)
{
    const struct ratp_api *ratp = t->engine->ratp;
    ratp_policy *policy;
    size_t needed = 0;
    if (!tuner_policy(t, choice, &policy, problem))
        return false;
    bool good = plugin_check(ratp, ratp->policy_to_json(policy, NULL, 0, &needed), policy,
                             "the policy's JSON", problem);
    char *text = good ? malloc(needed + 2) : NULL;
    good = good && (text || problem_set(problem, "out of memory for the policy's JSON"));
    good = good && plugin_check(ratp, ratp->policy_to_json(policy, text, needed + 1, &needed),
                                policy, "the policy's JSON", problem);
    if (good) {
        strcpy(text + needed, "\n");
        if (t->options.out)
            good = file_write(t->options.out, text, needed + 1, problem);
        else
            printf("\n%s", text);
    }
    free(text);
    ratp->policy_destroy(&policy);
    return good;
}

static bool report(struct tuner *t, const struct search_result *result, uint32_t *uniform,
                   struct problem *problem)
{
    struct tune_report report = {.base = result->base, .choice = result->choice};
    for (uint32_t i = 0; i < t->model.config.layers; i++)
        uniform[i] = result->base;
    const bool good = tuner_try(t, result->choice, &report.trial, problem) &&
                      check_unseen(t, uniform, &report.base_unseen, &report.base_answers,
                                   problem) &&
                      check_unseen(t, result->choice, &report.unseen, &report.answers, problem);
    if (!t->options.quiet)
        progress_show("", 1, 1);
    const bool printed = good && report_print(t, &report, problem);
    free(report.base_unseen.units);
    free(report.unseen.units);
    return printed && write_policy(t, result->choice, problem);
}

static bool tune(struct tuner *t, struct problem *problem)
{
    const uint32_t layers = t->model.config.layers;
    uint32_t *uniform = malloc(layers * sizeof *uniform);
    struct search_result result = {0};
    if (!uniform)
        return problem_set(problem, "out of memory for %u layers", layers);
    t->trials_expected = t->count + layers * (t->count - 1) + 2 * (uint32_t)t->options.patience + 2;
    bool good = try_uniform(t, uniform, problem);
    double losses[MAX_CANDIDATES];
    for (uint32_t i = 0; i < t->count; i++)
        losses[i] = t->uniform[i].loss;
    const struct search search = {
        .layers = layers,
        .variants = t->count,
        .cost = t->cost,
        .target = t->target,
        .uniform = losses,
        .patience = (uint32_t)t->options.patience,
        .measure = loss_of,
        .doubt = doubt_of,
        .user = t,
    };
    good = good && search_run(&search, &result, problem) &&
           report(t, &result, uniform, problem);
    search_result_free(&result);
    free(uniform);
    return good;
}

int main(int argc, char **argv)
{
    static struct tuner t;
    struct problem problem;
    bool done;
    t.tokenizer.end = -1;
    bool good = tune_options_parse(argc, argv, &t.options, &done, &problem);
    if (good && !done)
        good = open_all(&t, &problem) && tune(&t, &problem);
    close_all(&t);
    if (!good)
        fprintf(stderr, "ratplus-tune: %s\n", problem.text);
    return good ? EXIT_SUCCESS : EXIT_FAILURE;
}
