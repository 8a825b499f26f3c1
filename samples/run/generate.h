/* Generates text: one prompt through one policy. */
#ifndef RUN_GENERATE_H
#define RUN_GENERATE_H

#include "engine.h"
#include "sampler.h"

struct generate_options {
    const int32_t *tokens; /* the input; its first `prompt` are fed in chunks ... */
    uint32_t count;        /* ... and the rest one at a time */
    uint32_t prompt;       /* 1 to count */
    uint32_t wanted;       /* tokens to generate after the input */
    int32_t end;           /* a token that ends the text; -1: none */
    struct sampler_options sampler;
    const ratp_policy *policy; /* NULL: dense */
    ratp_retention retention;
    ratp_dtype cache_dtype;
    bool all_logits; /* keep the logits of every input token */
    /* Called with each generated token; may be NULL. */
    void (*on_token)(void *user, int32_t token);
    void *user;
};

struct generated {
    int32_t *tokens;
    uint32_t count;
    double prompt_seconds;
    uint32_t decoded;      /* tokens fed one at a time */
    double decode_seconds;
    uint64_t cache_bytes;  /* of the sequence, at the end: pages and memory state */
    float *logits;         /* [input count][vocabulary], or NULL */
};

bool generate(struct engine *engine, const struct generate_options *options,
              struct generated *out, struct problem *problem);
void generated_free(struct generated *generated);

/* 0 when nothing was timed. */
double tokens_per_second(uint32_t tokens, double seconds);

#endif
