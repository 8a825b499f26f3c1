/* Variants: what a token attends, and what those of a prompt do. */
#ifndef RATPLUS_VARIANT_H
#define RATPLUS_VARIANT_H

#include "error.h"

#include <stdbool.h>

/* A checked variant. Dilation 1 is dense, so equal variants compare equal:
 * dense has dilation 1, window 0, sinks 0; streaming has dilation 0. What a kind
 * has no use for is 0. */
struct variant {
    ratp_variant_kind kind;
    uint32_t dilation, window, sinks;
    uint32_t block;     /* tokens of a page (quest) or of a block (moba) */
    uint32_t choose;    /* blocks that a query attends, its own counted: budget / page, topk */
    uint32_t by_group;  /* 1: the query heads of a group choose together */
    uint32_t capacity, observe, kernel; /* snapkv */
    uint32_t average;   /* snapkv: 1: the pool is avg */
};

/* What a policy says of a head: what the tokens of a prompt attend, and what
 * those that are decoded do. */
struct choice {
    struct variant prompt, decode;
};

/* The numbers of the public struct, in its order. */
enum variant_number {
    NUMBER_DILATION,
    NUMBER_WINDOW,
    NUMBER_SINKS,
    NUMBER_PAGE,
    NUMBER_BUDGET,
    NUMBER_BLOCK,
    NUMBER_TOPK,
    NUMBER_SELECTION,
    NUMBER_OBSERVE,
    NUMBER_CAPACITY,
    NUMBER_KERNEL,
    NUMBER_POOL,
    VARIANT_NUMBERS
};
enum { VARIANT_KINDS = RATP_SNAPKV + 1 };
extern const char *const variant_number_name[VARIANT_NUMBERS];
extern const char *const variant_kind_name[VARIANT_KINDS];

/* Checks the numbers, and fills in what 0 stands for. *wrong gets the index of the
 * number that is refused, -1 for none of them. `what` begins the message ("variant"). */
ratp_status variant_make(ratp_variant_kind kind, const uint32_t numbers[VARIANT_NUMBERS],
                         const char *what, struct variant *out, int *wrong, struct error *err);
/* What 0 stands for. */
uint32_t variant_default(ratp_variant_kind kind, enum variant_number number);
/* The numbers that make it, none left to a default. */
void variant_numbers(const struct variant *v, uint32_t numbers[VARIANT_NUMBERS]);
bool variant_equal(const struct variant *a, const struct variant *b);

/* The variant for both, but prompts of quest and snapkv are dense. */
struct choice choice_of(const struct variant *v);
/* Checks that prompts can attend so; `what` begins the message ("variant.prompt"). */
ratp_status choice_check_prompt(const struct variant *prompt, const char *what,
                                struct error *err);
bool choice_equal(const struct choice *a, const struct choice *b);
/* Equal for equal ones. */
uint64_t variant_hash(const struct variant *v);
uint64_t choice_hash(const struct choice *choice);

/* From the public struct; names the field that is wrong. A NULL `in` gives dense.
 * RATP_UNSUPPORTED for kinds that choose by the query, and for a `prompt`. */
ratp_status variant_from_public(const struct ratp_variant *in, const char *what,
                                struct variant *out, struct error *err);
/* The same with every kind and `prompt`; `in` is not NULL. */
ratp_status choice_from_public(const struct ratp_variant *in, const char *what,
                               struct choice *out, struct error *err);

/* Nothing is left to a default, and `prompt` is NULL. */
void variant_to_public(const struct variant *v, struct ratp_variant *out);

/* Names, for people and for JSON: "dense", "d16w256s4", "streamw256s4", "quest1024p32g",
 * "moba512k3g", "snapkv1024o16n5avg"; what prompts attend stands before, where it is not
 * what choice_of gives: "d16w256:quest1024". */
enum { VARIANT_NAME_SIZE = 64 }; /* of the longest, with its NUL */
/* Reads what variant_name writes. */
ratp_status variant_parse(const char *text, const char *what, struct variant *out,
                          struct error *err);
/* Cut to `size`, with its NUL. */
void variant_name(const struct variant *v, char *text, size_t size);
/* The same for both. */
ratp_status choice_parse(const char *text, const char *what, struct choice *out,
                         struct error *err);
void choice_name(const struct choice *choice, char *text, size_t size);

#endif
