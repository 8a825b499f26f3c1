#include "turn.h"
#include "generate.h"
#include "input.h"
#include "plugin.h"
#include "printer.h"
#include "terminal.h"

#include <stdio.h>

/* Where generated tokens go. */
struct voice {
    struct conversation *now;
    struct printer printer;
    int32_t end;
    bool spoke;
};

static void take_token(void *user, int32_t token)
{
    struct voice *voice = user;
    if (token == voice->end)
        return;
    voice->now->tokens[voice->now->count++] = token;
    printer_token(&voice->printer, token);
    voice->spoke = true;
}

/* Feeds what the sequence lacks of the conversation's first `count` tokens. */
static bool feed_to(struct interactive *it, uint32_t count, struct problem *problem)
{
    const struct ratp_api *ratp = it->engine->ratp;
    const uint32_t chunk = it->engine->options.chunk;
    struct conversation *now = conversations_now(&it->conversations);
    struct ratp_seq_stats stats;
    ratp_seq *before = NULL;
    if (!conversation_stats(&it->conversations, now, &stats, problem))
        return false;
    uint32_t fed = (uint32_t)stats.length;
    /* The logits of the last token are gone: it is fed once more. */
    if (fed == count) {
        if (!plugin_check(ratp, ratp->seq_truncate(now->seq, count - 1), now->seq,
                          "the model cannot go on from here without new text", problem))
            return false;
        fed--;
    }
    /* One pass is all or nothing; several are with a fork to go back to. */
    if (count - fed > chunk && !plugin_check(ratp, ratp->seq_fork(now->seq, &before), now->seq,
                                             "a fork to go back to", problem))
        return false;
    const double start = seconds_now();
    const bool good = session_feed(&it->session, now->seq, now->tokens + fed, count - fed, chunk,
                                   NULL, problem);
    it->speed = (struct turn_speed){.prompt = count - fed, .prompt_seconds = seconds_now() - start};
    if (before && !good) {
        ratp_seq *after = now->seq;
        now->seq = before;
        before = after;
    }
    if (before)
        ratp->seq_destroy(&before);
    return good;
}

static bool go_on(struct interactive *it, uint32_t wanted, struct problem *problem)
{
    struct conversation *now = conversations_now(&it->conversations);
    struct voice voice = {.now = now, .end = it->tokenizer->end};
    const struct session_continuation how = {wanted, voice.end, take_token, &voice};
    if (!printer_open(&voice.printer, it->tokenizer, now->tokens, now->count, wanted, problem))
        return false;
    const double start = seconds_now();
    const bool good =
        session_continue(&it->session, now->seq, &how, &it->speed.decoded, problem);
    it->speed.decode_seconds = seconds_now() - start;
    printer_close(&voice.printer);
    if (voice.spoke) {
        putchar('\n');
        fflush(stdout);
    }
    return good;
}

static void note_context(struct interactive *it)
{
    const uint32_t count = conversations_now(&it->conversations)->count;
    const uint32_t context = it->engine->model->config.context;
    if (it->noted_context || count <= context)
        return;
    fprintf(stderr, "note: %u tokens are more than the model's context of %u\n", count, context);
    it->noted_context = true;
}

bool turn_take(struct interactive *it, const int32_t *tokens, uint32_t count,
               struct problem *problem)
{
    struct conversations *c = &it->conversations;
    struct conversation *now = conversations_now(c);
    const uint32_t start = now->count;
    if (start == 0 && count == 0)
        return problem_set(problem, "there is no text to go on with yet; type some");
    if (!conversations_reserve(c, count, problem))
        return false;
    const uint32_t room = c->limit - start - count;
    const uint32_t wanted = it->options->wanted < room ? it->options->wanted : room;
    if (!conversations_reserve(c, count + wanted, problem))
        return false;
    for (uint32_t i = 0; i < count; i++)
        now->tokens[start + i] = tokens[i];
    if (!feed_to(it, start + count, problem))
        return problem_about(problem, "the conversation stays as it was");
    now->count = start + count;
    const bool good = go_on(it, wanted, problem);
    if (input_interrupted())
        fprintf(stderr, "(stopped)\n");
    note_context(it);
    if (it->options->stats)
        turn_report(&it->speed);
    return good;
}

void turn_report(const struct turn_speed *speed)
{
    fprintf(stderr, "prompt %u tokens, %.1f tokens/s; decoded %u tokens, %.1f tokens/s\n",
            speed->prompt, tokens_per_second(speed->prompt, speed->prompt_seconds),
            speed->decoded, tokens_per_second(speed->decoded, speed->decode_seconds));
}
