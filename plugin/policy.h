/* Policies: which variant each layer and key/value head uses. */
#ifndef RATPLUS_POLICY_H
#define RATPLUS_POLICY_H

#include "object.h"

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

/* The highest layer or head that a rule may name. */
enum { POLICY_LAST = 65535 };

struct policy_rule {
    struct ratp_range layers, kv_heads;
    struct choice choice;
};

struct ratp_policy {
    struct object object;
    ratp_instance *instance;
    struct policy_rule *rules; /* later ones win */
    uint32_t count, room;
};

/* From the public struct; names the field that is wrong. `what` begins the
 * message ("variant"). NULL gives dense. */
ratp_status variant_from_public(const struct ratp_variant *in, const char *what,
                                struct variant *out, struct error *err);
/* From dilation, window and sinks; *wrong gets the index of the number that is
 * refused, -1 for none of them. */
enum { VARIANT_NUMBERS = 3 };
extern const char *const variant_number_name[VARIANT_NUMBERS];
ratp_status variant_make(ratp_variant_kind kind, const uint32_t numbers[VARIANT_NUMBERS],
                         const char *what, struct variant *out, int *wrong, struct error *err);
/* From the form that variant_name writes. */
ratp_status variant_parse(const char *text, const char *what, struct variant *out,
                          struct error *err);
bool variant_equal(const struct variant *a, const struct variant *b);
/* Short form for people: "dense", "d16w256s4", "streamw256s4". */
void variant_name(const struct variant *v, char *text, size_t size);

/* The variant for both. */
struct choice choice_of(const struct variant *v);
bool choice_equal(const struct choice *a, const struct choice *b);
ratp_status policy_add(struct ratp_policy *p, struct ratp_range layers, struct ratp_range kv_heads,
                       const struct choice *choice, struct error *err);
/* What is in force for (layer, model's key/value head); dense where no rule speaks. */
struct choice policy_at(const struct ratp_policy *p, uint32_t layer, uint32_t kv_head);
/* Checks every rule's ranges against a model's size. */
ratp_status policy_check(const struct ratp_policy *p, uint32_t layers, uint32_t kv_heads,
                         struct error *err);
/* Reads JSON into an empty policy. On failure the policy has no rules. */
ratp_status policy_parse(const char *text, size_t size, struct ratp_policy *out,
                         struct error *err);
/* Writes JSON, cut to `size` with its NUL; returns the full length. */
size_t policy_print(const struct ratp_policy *p, char *text, size_t size);

#endif
