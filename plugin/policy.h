/* Policies: which variant each layer and key/value head uses. */
#ifndef RATPLUS_POLICY_H
#define RATPLUS_POLICY_H

#include "object.h"
#include "variant.h"

/* The highest layer or head that a rule may name, and how many ranges of them. */
enum { POLICY_LAST = 65535, POLICY_RANGES = 256 };

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

/* A rule for each pair of a layer range and a head range, at most POLICY_RANGES of each, in
 * their order. On failure nothing changes. */
ratp_status policy_add(struct ratp_policy *p, const struct ratp_range *layers,
                       uint32_t layer_ranges, const struct ratp_range *kv_heads,
                       uint32_t head_ranges, const struct choice *choice, struct error *err);
/* What is in force for (layer, model's key/value head); dense where no rule speaks. */
struct choice policy_at(const struct ratp_policy *p, uint32_t layer, uint32_t kv_head);
/* The same for all of a model's layers and so many heads from one on: [layers][heads]. Each
 * is written once, however many rules speak of it. */
ratp_status policy_fill(const struct ratp_policy *p, uint32_t layers, uint32_t first_head,
                        uint32_t heads, struct choice *out, struct error *err);
/* Checks every rule's ranges against a model's size. */
ratp_status policy_check(const struct ratp_policy *p, uint32_t layers, uint32_t kv_heads,
                         struct error *err);
/* Reads JSON into an empty policy. On failure the policy has no rules. */
ratp_status policy_parse(const char *text, size_t size, struct ratp_policy *out,
                         struct error *err);
/* Writes JSON, cut to `size` with its NUL; returns the full length. */
size_t policy_print(const struct ratp_policy *p, char *text, size_t size);

#endif
