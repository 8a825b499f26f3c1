#include "measure.h"
#include "attended.h"
#include "plugin.h"

#include <math.h>
#include <stdlib.h>

const uint32_t needle_limits[NEEDLE_CLASSES] = {1, 2, 4, 8};
const uint32_t distance_limits[DISTANCE_CLASSES] = {128, 256, 512, 1024, UINT32_MAX};

/* One cache, and one sequence at a time in it. */
struct bench {
    struct engine *engine;
    const struct measure_input *input;
    struct measured *out;
    struct attended attended;
    ratp_cache *cache;
    float *logits; /* [longest][vocabulary] */
    uint32_t longest;
};

double score_share(struct score score)
{
    return score.asked ? (double)score.right / score.asked : 0;
}

static const float *logits_after(const struct bench *b, uint32_t token)
{
    return b->logits + (size_t)token * b->engine->model->config.vocabulary;
}

/* Size of the first sequence of the greatest length. */
static bool take_size(struct bench *b, ratp_seq *seq, uint32_t length, struct problem *problem)
{
    const struct ratp_api *ratp = b->engine->ratp;
    const uint32_t heads = b->attended.heads, slabs = b->attended.layers * heads;
    struct ratp_seq_stats stats = {.struct_size = sizeof stats};
    if (length <= b->out->length)
        return true;
    if (!plugin_check(ratp, ratp->seq_stats(seq, &stats), seq, "the sequence's size", problem))
        return false;
    uint64_t keys = 0;
    for (uint32_t i = 0; i < slabs; i++) {
        uint64_t count = 0;
        if (!plugin_check(ratp, ratp->seq_positions(seq, i / heads, i % heads, NULL, 0, &count),
                          seq, "the sequence's positions", problem))
            return false;
        keys += count < b->attended.most[i] ? count : b->attended.most[i];
    }
    b->out->length = length;
    b->out->cache_bytes = stats.bytes;
    b->out->keys = (double)keys / slabs;
    return true;
}

/* Feeds the tokens [first, end), and takes the logits after each. */
static bool feed(struct bench *b, ratp_seq *seq, const int32_t *tokens, uint32_t first,
                 uint32_t end, ratp_part_kind kind, struct problem *problem)
{
    const uint32_t chunk = b->engine->options.chunk;
    bool good = true;
    for (uint32_t done = first, now; done < end && good; done += now) {
        now = end - done < chunk ? end - done : chunk;
        const struct engine_step step = {
            .cache = b->cache,
            .seq = seq,
            .tokens = tokens + done,
            .count = now,
            .kind = kind,
            .all_logits = true,
            .logits = b->logits + (size_t)done * b->engine->model->config.vocabulary,
        };
        good = engine_forward(b->engine, &step, problem);
    }
    return good;
}

static bool new_sequence(struct bench *b, ratp_seq **out, struct problem *problem)
{
    const struct ratp_api *ratp = b->engine->ratp;
    *out = NULL;
    return plugin_check(ratp, ratp->seq_create(b->cache, out), b->cache, "a sequence", problem);
}

static uint32_t likeliest(const float *logits, uint32_t count)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < count; i++)
        if (logits[i] > logits[best])
            best = i;
    return best;
}

static double nats_of(const float *logits, uint32_t count, int32_t token)
{
    double sum = 0, top = (double)logits[likeliest(logits, count)];
    for (uint32_t i = 0; i < count; i++)
        sum += exp((double)logits[i] - top);
    return top + log(sum) - (double)logits[token];
}

static void add(struct score *classes, const uint32_t *limits, uint32_t count, uint32_t value,
                bool right)
{
    uint32_t i = 0;
    while (i + 1 < count && value > limits[i])
        i++;
    classes[i].asked++;
    classes[i].right += right;
}

/* All that stands before the answer, from token `first` on, is a prompt; the answer is
 * decoded in a fork, so that the prompt can go on whole. */
static bool answer_alone(struct bench *b, ratp_seq *seq, const struct question_row *row,
                         uint32_t first, const struct question *q, struct problem *problem)
{
    const struct ratp_api *ratp = b->engine->ratp;
    ratp_seq *fork = NULL;
    bool good = feed(b, seq, row->tokens, first, q->first, RATP_PART_PROMPT, problem) &&
                plugin_check(ratp, ratp->seq_fork(seq, &fork), seq, "a fork", problem);
    good = good &&
           feed(b, fork, row->tokens, q->first, q->first + q->count, RATP_PART_DECODE, problem) &&
           take_size(b, fork, q->first + q->count, problem);
    ratp->seq_destroy(&fork);
    return good;
}

/* Adds the answer's nats. */
static void score_answer(struct bench *b, const struct question_row *row,
                         const struct question *q, double *nats)
{
    const uint32_t vocabulary = b->engine->model->config.vocabulary;
    bool right = true;
    for (uint32_t t = q->first; t < q->first + q->count; t++) {
        right &= likeliest(logits_after(b, t - 1), vocabulary) == (uint32_t)row->tokens[t];
        *nats += nats_of(logits_after(b, t - 1), vocabulary, row->tokens[t]);
    }
    b->out->answer_tokens += q->count;
    b->out->all.asked++;
    b->out->all.right += right;
    add(b->out->by_needles, needle_limits, NEEDLE_CLASSES, row->needles, right);
    add(b->out->by_distance, distance_limits, DISTANCE_CLASSES, q->distance, right);
}

/* Adds the nats of the answers. */
static bool answer_row(struct bench *b, const struct question_row *row, double *nats,
                       struct problem *problem)
{
    const bool alone = b->attended.compresses;
    uint32_t done = 0;
    ratp_seq *seq;
    bool good = new_sequence(b, &seq, problem);
    if (!alone)
        good = good &&
               feed(b, seq, row->tokens, 0, row->text_count, RATP_PART_PROMPT, problem) &&
               feed(b, seq, row->tokens, row->text_count, row->count, RATP_PART_DECODE,
                    problem) &&
               take_size(b, seq, row->count, problem);
    for (uint32_t i = 0; i < row->question_count && good; i++) {
        const struct question *q = &row->questions[i];
        good = !alone || answer_alone(b, seq, row, done, q, problem);
        done = q->first;
        if (good)
            score_answer(b, row, q, nats);
    }
    b->engine->ratp->seq_destroy(&seq);
    return good;
}

/* Adds the nats of a piece; its first token is not predicted. */
static bool predict_piece(struct bench *b, const int32_t *tokens, uint32_t count, double *nats,
                          struct problem *problem)
{
    const uint32_t vocabulary = b->engine->model->config.vocabulary;
    ratp_seq *seq;
    const bool good = new_sequence(b, &seq, problem) &&
                      feed(b, seq, tokens, 0, count, RATP_PART_DECODE, problem) &&
                      take_size(b, seq, count, problem);
    b->engine->ratp->seq_destroy(&seq);
    if (!good)
        return false;
    for (uint32_t t = 1; t < count; t++)
        *nats += nats_of(logits_after(b, t - 1), vocabulary, tokens[t]);
    b->out->text_tokens += count - 1;
    return true;
}

uint32_t measure_units(const struct measure_input *input)
{
    /* A last piece of one token predicts nothing. */
    const uint32_t piece = input->piece;
    const uint32_t pieces = input->text_count > 1 ? (input->text_count + piece - 2) / piece : 0;
    return input->questions.count + pieces;
}

static void keep_unit(const struct measure_input *input, uint32_t unit, double nats)
{
    if (input->unit_nats)
        input->unit_nats[unit] = nats;
}

static bool measure_all(struct bench *b, measure_progress progress, void *user,
                        struct problem *problem)
{
    const struct measure_input *in = b->input;
    /* No prompt stands before the text: nothing of it would be compressed. */
    const uint32_t text_count = b->attended.compresses ? 0 : in->text_count;
    double nats = 0, answer_nats = 0, total = (double)text_count, done = 0;
    for (uint32_t i = 0; i < in->questions.count; i++)
        total += in->questions.rows[i].count;
    uint32_t unit = 0;
    for (uint32_t i = 0; i < in->questions.count; i++) {
        const double before = answer_nats;
        if (!answer_row(b, &in->questions.rows[i], &answer_nats, problem))
            return false;
        keep_unit(in, unit++, answer_nats - before);
        done += in->questions.rows[i].count;
        if (progress)
            progress(user, done / total);
    }
    for (uint32_t first = 0; first + 1 < text_count; first += in->piece) {
        const uint32_t left = text_count - first, count = left < in->piece ? left : in->piece;
        const double before = nats;
        if (!predict_piece(b, in->text + first, count, &nats, problem))
            return false;
        keep_unit(in, unit++, nats - before);
        done += count;
        if (progress)
            progress(user, done / total);
    }
    b->out->nats = b->out->text_tokens ? nats / b->out->text_tokens : 0;
    b->out->answer_nats = b->out->answer_tokens ? answer_nats / b->out->answer_tokens : 0;
    return true;
}

bool measure(struct engine *engine, const ratp_policy *policy, const struct measure_input *input,
             measure_progress progress, void *user, struct measured *out, struct problem *problem)
{
    struct bench b = {.engine = engine, .input = input, .out = out};
    const struct ratp_api *ratp = engine->ratp;
    const struct model_config *config = &engine->model->config;
    struct ratp_rope rope;
    struct ratp_geometry geometry;
    *out = (struct measured){0};
    b.longest = input->text ? input->piece : 0;
    if (input->questions.longest > b.longest)
        b.longest = input->questions.longest;
    if (b.longest == 0)
        return problem_set(problem, "there is neither a text nor a question to measure with");
    model_geometry(config, b.longest, &rope, &geometry);
    const struct ratp_cache_params params = {
        .struct_size = sizeof params,
        .geometry = &geometry,
        .policy = policy,
        .k_dtype = input->cache_dtype,
        .v_dtype = input->cache_dtype,
        .retention = RATP_RETAIN_NEEDED,
    };
    b.logits = malloc((size_t)b.longest * config->vocabulary * sizeof *b.logits);
    bool good = b.logits || problem_set(problem, "out of memory for the logits of %u tokens",
                                        b.longest);
    good = good && attended_open(engine, policy, &b.attended, problem);
    if (good && b.attended.compresses && input->questions.count == 0)
        good = problem_set(problem, "snapkv compresses prompts, and a text has none: it is measured "
                           "by questions alone, so give --questions");
    good = good && plugin_check(ratp, ratp->cache_create(engine->device, &params, &b.cache),
                                engine->device, "the cache", problem);
    good = good && measure_all(&b, progress, user, problem);
    if (b.cache)
        ratp->cache_destroy(&b.cache);
    attended_close(&b.attended);
    free(b.logits);
    return good;
}
