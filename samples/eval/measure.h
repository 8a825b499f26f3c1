/* What a model knows under a policy: how well it predicts a text, and how many
 * questions it answers.
 *
 * Variants that choose by the query treat prompts apart, so it matters what is one.
 * All of the text is decoded: each token attends what it would if it came alone. Of a
 * row of questions `text` is a prompt, and questions and answers are decoded. Where a
 * head compresses its prompt, all that stands before an answer is the prompt, whose
 * end, the question, chooses what is kept, and the answer alone is decoded; a text,
 * in which nothing would be compressed, is passed over. */
#ifndef EVAL_MEASURE_H
#define EVAL_MEASURE_H

#include "engine.h"
#include "questions.h"

/* Questions by the number of needles in the row, and by distance: a question is in
 * the first class whose limit it does not exceed, or in the last. */
#define NEEDLE_CLASSES 4
#define DISTANCE_CLASSES 5
extern const uint32_t needle_limits[NEEDLE_CLASSES];
extern const uint32_t distance_limits[DISTANCE_CLASSES];

struct score {
    uint32_t right, asked;
};

struct measured {
    double nats;           /* mean of a text token */
    uint32_t text_tokens;  /* predicted; 0 without a text */
    double answer_nats;    /* mean of an answer's token */
    uint32_t answer_tokens;
    struct score all, by_needles[NEEDLE_CLASSES], by_distance[DISTANCE_CLASSES];
    uint64_t cache_bytes;  /* of a sequence of `length` tokens */
    /* Positions that a layer's head then holds, on average; the budget of those that
     * choose by the query. */
    double keys;
    uint32_t length;
};

struct measure_input {
    const int32_t *text; /* NULL: no text */
    uint32_t text_count;
    uint32_t piece; /* tokens of the text in one sequence, at least 2 */
    struct question_list questions; /* may be empty */
    ratp_dtype cache_dtype;
    /* NULL, or [measure_units]: gets the nats of each row's answers, then of each
     * piece of the text. */
    double *unit_nats;
};

uint32_t measure_units(const struct measure_input *input);

/* A share of the progress bar's work, 0 to 1; may be NULL. */
typedef void (*measure_progress)(void *user, double share);

/* The engine must have been opened with all_logits. */
bool measure(struct engine *engine, const ratp_policy *policy, const struct measure_input *input,
             measure_progress progress, void *user, struct measured *out, struct problem *problem);

double score_share(struct score score);

#endif
