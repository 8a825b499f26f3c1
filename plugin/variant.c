#include "variant.h"

#include "index.h"
#include "structs.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { MAX_TOKENS = 1 << 24, MAX_BLOCKS = 1 << 16 };

const char *const variant_number_name[VARIANT_NUMBERS] = {
    [NUMBER_DILATION] = "dilation", [NUMBER_WINDOW] = "window",     [NUMBER_SINKS] = "sinks",
    [NUMBER_PAGE] = "page",         [NUMBER_BUDGET] = "budget",     [NUMBER_BLOCK] = "block",
    [NUMBER_TOPK] = "topk",         [NUMBER_SELECTION] = "selection",
    [NUMBER_OBSERVE] = "observe",   [NUMBER_CAPACITY] = "capacity", [NUMBER_KERNEL] = "kernel",
    [NUMBER_POOL] = "pool",
};

const char *const variant_kind_name[VARIANT_KINDS] = {
    [RATP_DENSE] = "dense", [RATP_DILATED] = "dilated", [RATP_STREAMING] = "streaming",
    [RATP_QUEST] = "quest", [RATP_MOBA] = "moba",       [RATP_SNAPKV] = "snapkv",
};

static const struct variant dense = {.kind = RATP_DENSE, .dilation = 1};

/* What a kind takes for a number. All 0: it has no use for it. */
struct limit {
    uint32_t least, most;
    uint32_t missing; /* what 0 stands for; 0: itself */
};

static const struct limit limits[VARIANT_KINDS][VARIANT_NUMBERS] = {
    [RATP_DENSE] = {[NUMBER_DILATION] = {0, 1, 0}},
    [RATP_DILATED] = {[NUMBER_DILATION] = {1, MAX_TOKENS, 0},
                      [NUMBER_WINDOW] = {0, MAX_TOKENS, 0},
                      [NUMBER_SINKS] = {0, MAX_TOKENS, 0}},
    [RATP_STREAMING] = {[NUMBER_WINDOW] = {0, MAX_TOKENS, 0},
                        [NUMBER_SINKS] = {0, MAX_TOKENS, 0}},
    [RATP_QUEST] = {[NUMBER_PAGE] = {8, 4096, 16},
                    [NUMBER_BUDGET] = {8, MAX_TOKENS, 0},
                    [NUMBER_SELECTION] = {0, RATP_SELECT_GROUP, 0}},
    [RATP_MOBA] = {[NUMBER_BLOCK] = {8, 1 << 16, 512},
                   [NUMBER_TOPK] = {1, MAX_BLOCKS, 0},
                   [NUMBER_SELECTION] = {0, RATP_SELECT_GROUP, 0}},
    [RATP_SNAPKV] = {[NUMBER_OBSERVE] = {1, 1024, 32},
                     [NUMBER_CAPACITY] = {2, MAX_TOKENS, 0},
                     [NUMBER_KERNEL] = {1, 255, 7},
                     [NUMBER_POOL] = {0, RATP_POOL_AVG, 0}},
};

/* ---- Numbers ---- */

/* As the public struct has it: two of the numbers are signed there. */
static long long said(const uint32_t numbers[VARIANT_NUMBERS], int i)
{
    bool is_signed = i == NUMBER_SELECTION || i == NUMBER_POOL;
    return is_signed ? (long long)(int32_t)numbers[i] : (long long)numbers[i];
}

static ratp_status check_range(ratp_variant_kind kind, const uint32_t numbers[VARIANT_NUMBERS],
                               int i, const char *what, struct error *err)
{
    const struct limit *limit = &limits[kind][i];
    if (numbers[i] >= limit->least && numbers[i] <= limit->most)
        return RATP_OK;
    if (limit->most == 0)
        return fail(err, RATP_INVALID_ARGUMENT, "%s.%s is %lld, for kind %s it must be 0", what,
                    variant_number_name[i], said(numbers, i), variant_kind_name[kind]);
    return fail(err, RATP_INVALID_ARGUMENT,
                "%s.%s is %lld, for kind %s it must be %" PRIu32 " to %" PRIu32, what,
                variant_number_name[i], said(numbers, i), variant_kind_name[kind], limit->least,
                limit->most);
}

/* What the numbers owe to each other, when each is in its range. *wrong gets the one to name. */
static ratp_status check_together(ratp_variant_kind kind, const uint32_t n[VARIANT_NUMBERS],
                                  const char *what, int *wrong, struct error *err)
{
    int blocks = kind == RATP_QUEST ? NUMBER_PAGE : NUMBER_BLOCK;
    *wrong = blocks;
    if (n[blocks] % 8 != 0)
        return fail(err, RATP_INVALID_ARGUMENT, "%s.%s is %" PRIu32 ", it must be a multiple of 8",
                    what, variant_number_name[blocks], n[blocks]);
    *wrong = NUMBER_BUDGET;
    if (kind == RATP_QUEST && (n[NUMBER_BUDGET] % n[NUMBER_PAGE] != 0 ||
                               n[NUMBER_BUDGET] / n[NUMBER_PAGE] > MAX_BLOCKS))
        return fail(err, RATP_INVALID_ARGUMENT,
                    "%s.budget is %" PRIu32 ", it must be a multiple of page, %" PRIu32
                    ", and at most %d pages",
                    what, n[NUMBER_BUDGET], n[NUMBER_PAGE], MAX_BLOCKS);
    *wrong = NUMBER_KERNEL;
    if (kind == RATP_SNAPKV && n[NUMBER_KERNEL] % 2 == 0)
        return fail(err, RATP_INVALID_ARGUMENT, "%s.kernel is %" PRIu32 ", it must be odd", what,
                    n[NUMBER_KERNEL]);
    *wrong = NUMBER_CAPACITY;
    if (kind == RATP_SNAPKV && n[NUMBER_CAPACITY] <= n[NUMBER_OBSERVE])
        return fail(err, RATP_INVALID_ARGUMENT,
                    "%s.capacity is %" PRIu32 ", it must be above observe, %" PRIu32, what,
                    n[NUMBER_CAPACITY], n[NUMBER_OBSERVE]);
    *wrong = -1;
    return RATP_OK;
}

ratp_status variant_make(ratp_variant_kind kind, const uint32_t numbers[VARIANT_NUMBERS],
                         const char *what, struct variant *out, int *wrong, struct error *err)
{
    *wrong = -1;
    *out = dense;
    if (kind < 0 || kind >= VARIANT_KINDS)
        return fail(err, RATP_INVALID_ARGUMENT,
                    "%s.kind is %" PRId32 ", it must be 0 (dense), 1 (dilated), 2 (streaming), "
                    "3 (quest), 4 (moba) or 5 (snapkv)",
                    what, kind);
    uint32_t n[VARIANT_NUMBERS];
    for (int i = 0; i < VARIANT_NUMBERS; i++) {
        n[i] = numbers[i] ? numbers[i] : limits[kind][i].missing;
        ratp_status status = check_range(kind, n, i, what, err);
        if (status) {
            *wrong = i;
            return status;
        }
    }
    ratp_status status = check_together(kind, n, what, wrong, err);
    if (status || kind == RATP_DENSE || (kind == RATP_DILATED && n[NUMBER_DILATION] == 1))
        return status;
    bool quest = kind == RATP_QUEST;
    *out = (struct variant){
        .kind = kind,
        .dilation = n[NUMBER_DILATION],
        .window = n[NUMBER_WINDOW],
        .sinks = n[NUMBER_SINKS],
        .block = n[quest ? NUMBER_PAGE : NUMBER_BLOCK],
        .choose = quest ? n[NUMBER_BUDGET] / n[NUMBER_PAGE] : n[NUMBER_TOPK],
        .by_group = n[NUMBER_SELECTION],
        .capacity = n[NUMBER_CAPACITY],
        .observe = n[NUMBER_OBSERVE],
        .kernel = n[NUMBER_KERNEL],
        .average = n[NUMBER_POOL],
    };
    return RATP_OK;
}

uint32_t variant_default(ratp_variant_kind kind, enum variant_number number)
{
    return limits[kind][number].missing;
}

void variant_numbers(const struct variant *v, uint32_t numbers[VARIANT_NUMBERS])
{
    bool quest = v->kind == RATP_QUEST;
    const uint32_t n[VARIANT_NUMBERS] = {
        [NUMBER_DILATION] = v->dilation,
        [NUMBER_WINDOW] = v->window,
        [NUMBER_SINKS] = v->sinks,
        [NUMBER_PAGE] = quest ? v->block : 0,
        [NUMBER_BUDGET] = quest ? v->block * v->choose : 0,
        [NUMBER_BLOCK] = quest ? 0 : v->block,
        [NUMBER_TOPK] = quest ? 0 : v->choose,
        [NUMBER_SELECTION] = v->by_group,
        [NUMBER_OBSERVE] = v->observe,
        [NUMBER_CAPACITY] = v->capacity,
        [NUMBER_KERNEL] = v->kernel,
        [NUMBER_POOL] = v->average,
    };
    memcpy(numbers, n, sizeof n);
}

bool variant_equal(const struct variant *a, const struct variant *b)
{
    return a->kind == b->kind && a->dilation == b->dilation && a->window == b->window &&
           a->sinks == b->sinks && a->block == b->block && a->choose == b->choose &&
           a->by_group == b->by_group && a->capacity == b->capacity && a->observe == b->observe &&
           a->kernel == b->kernel && a->average == b->average;
}

uint64_t variant_hash(const struct variant *v)
{
    const uint32_t numbers[] = {(uint32_t)v->kind, v->dilation, v->window, v->sinks, v->block,
                                v->choose, v->by_group, v->capacity, v->observe, v->kernel,
                                v->average};
    uint64_t hash = 0;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        hash = hash_add(hash, numbers[i]);
    return hash;
}

/* ---- Prompts ---- */

struct choice choice_of(const struct variant *v)
{
    bool decode_only = v->kind == RATP_QUEST || v->kind == RATP_SNAPKV;
    return (struct choice){decode_only ? dense : *v, *v};
}

ratp_status choice_check_prompt(const struct variant *prompt, const char *what, struct error *err)
{
    if (prompt->kind != RATP_QUEST && prompt->kind != RATP_SNAPKV)
        return RATP_OK;
    return fail(err, RATP_INVALID_ARGUMENT,
                "%s is %s, which is for decoded tokens; prompts take dense, dilated, streaming or "
                "moba",
                what, variant_kind_name[prompt->kind]);
}

bool choice_equal(const struct choice *a, const struct choice *b)
{
    return variant_equal(&a->prompt, &b->prompt) && variant_equal(&a->decode, &b->decode);
}

uint64_t choice_hash(const struct choice *choice)
{
    return hash_add(variant_hash(&choice->prompt), variant_hash(&choice->decode));
}

/* ---- The public struct ---- */

static ratp_status read_public(const struct ratp_variant *in, const char *what,
                               struct ratp_variant *out, struct error *err)
{
    return struct_read(out, sizeof *out, in, STRUCT_UPTO(struct ratp_variant, kind), what, err);
}

static ratp_status make_public(const struct ratp_variant *v, const char *what,
                               struct variant *out, struct error *err)
{
    const uint32_t numbers[VARIANT_NUMBERS] = {
        [NUMBER_DILATION] = v->dilation,
        [NUMBER_WINDOW] = v->window,
        [NUMBER_SINKS] = v->sinks,
        [NUMBER_PAGE] = v->page,
        [NUMBER_BUDGET] = v->budget,
        [NUMBER_BLOCK] = v->block,
        [NUMBER_TOPK] = v->topk,
        [NUMBER_SELECTION] = (uint32_t)v->selection,
        [NUMBER_OBSERVE] = v->observe,
        [NUMBER_CAPACITY] = v->capacity,
        [NUMBER_KERNEL] = v->kernel,
        [NUMBER_POOL] = (uint32_t)v->pool,
    };
    int wrong;
    return variant_make(v->kind, numbers, what, out, &wrong, err);
}

ratp_status variant_from_public(const struct ratp_variant *in, const char *what,
                                struct variant *out, struct error *err)
{
    *out = dense;
    if (!in)
        return RATP_OK;
    struct ratp_variant v;
    ratp_status status = read_public(in, what, &v, err);
    if (status)
        return status;
    if (v.kind == RATP_SNAPKV)
        return fail(err, RATP_UNSUPPORTED,
                    "%s.kind is %" PRId32 " (%s), which needs a cache; give dense, dilated, "
                    "streaming, quest or moba",
                    what, v.kind, variant_kind_name[v.kind]);
    if (v.prompt)
        return fail(err, RATP_UNSUPPORTED,
                    "%s.prompt is for policies, here all queries attend alike; give NULL", what);
    return make_public(&v, what, out, err);
}

ratp_status choice_from_public(const struct ratp_variant *in, const char *what,
                               struct choice *out, struct error *err)
{
    struct ratp_variant v, prompt;
    struct variant decode;
    char name[64];
    snprintf(name, sizeof name, "%.55s.prompt", what);
    *out = choice_of(&dense);
    ratp_status status = read_public(in, what, &v, err);
    if (!status)
        status = make_public(&v, what, &decode, err);
    if (status)
        return status;
    *out = choice_of(&decode);
    if (!v.prompt)
        return RATP_OK;
    status = read_public(v.prompt, name, &prompt, err);
    if (!status && prompt.prompt)
        status = fail(err, RATP_INVALID_ARGUMENT, "%s.prompt is given, it must be NULL", name);
    if (!status)
        status = make_public(&prompt, name, &out->prompt, err);
    return status ? status : choice_check_prompt(&out->prompt, name, err);
}

void variant_to_public(const struct variant *v, struct ratp_variant *out)
{
    uint32_t n[VARIANT_NUMBERS];
    variant_numbers(v, n);
    *out = (struct ratp_variant){
        .struct_size = sizeof *out,
        .kind = v->kind,
        .dilation = v->kind == RATP_DENSE ? 0 : n[NUMBER_DILATION],
        .window = n[NUMBER_WINDOW],
        .sinks = n[NUMBER_SINKS],
        .page = n[NUMBER_PAGE],
        .budget = n[NUMBER_BUDGET],
        .block = n[NUMBER_BLOCK],
        .topk = n[NUMBER_TOPK],
        .selection = (ratp_selection)n[NUMBER_SELECTION],
        .observe = n[NUMBER_OBSERVE],
        .capacity = n[NUMBER_CAPACITY],
        .kernel = n[NUMBER_KERNEL],
        .pool = (ratp_pooling)n[NUMBER_POOL],
    };
}
