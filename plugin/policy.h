/* Policies: which variant each layer and key/value head uses. */
#ifndef RATPLUS_POLICY_H
#define RATPLUS_POLICY_H

#include "object.h"

/* A checked variant. Dilation 1 is dense, so equal variants compare equal:
 * dense has dilation 1, window 0, sinks 0; streaming has dilation 0. */
struct variant {
    ratp_variant_kind kind;
    uint32_t dilation, window, sinks;
};

struct policy_rule {
    struct ratp_range layers, kv_heads;
    struct variant variant;
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
bool variant_equal(const struct variant *a, const struct variant *b);
/* Short form for people: "dense", "d16w256s4", "stream w256s4". */
void variant_name(const struct variant *v, char *text, size_t size);

ratp_status policy_add(struct ratp_policy *p, struct ratp_range layers, struct ratp_range kv_heads,
                       const struct variant *v, struct error *err);
/* The variant in force for (layer, model's key/value head); dense where no rule speaks. */
struct variant policy_at(const struct ratp_policy *p, uint32_t layer, uint32_t kv_head);
/* Checks every rule's ranges against a model's size. */
ratp_status policy_check(const struct ratp_policy *p, uint32_t layers, uint32_t kv_heads,
                         struct error *err);
ratp_status policy_parse(const char *text, size_t size, struct ratp_policy *out,
                         struct error *err);
size_t policy_print(const struct ratp_policy *p, char *text, size_t size);

#endif
