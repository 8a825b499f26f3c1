/* Policies: which variant each layer and key/value head uses. */
#ifndef RATPLUS_POLICY_H
#define RATPLUS_POLICY_H

#include "object.h"
#include "variant.h"

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
