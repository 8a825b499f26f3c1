/* The parts of attend_external: api_external.c has the call itself. */
#ifndef RATPLUS_EXTERNAL_H
#define RATPLUS_EXTERNAL_H

#include "device.h"
#include "plan/build.h"

/* What K is: batch, key_tokens, kv_heads and head_size. Fills in the default of batch. */
ratp_status external_check_keys(struct ratp_external *p, struct error *err);

/* The variant that is in force. Without `causal` none is, and one that chooses is refused. */
ratp_status external_variant(const struct ratp_external *p, struct variant *out,
                             struct error *err);

/* How a variant's entries lie; `address` is 0 yet. *bytes gets how long they are. */
ratp_status external_entries_of(const struct ratp_external *p, const struct variant *variant,
                                ratp_dtype k_dtype, struct external_entries *out,
                                uint64_t *bytes, struct error *err);

/* Checks what queries choose by, and finds it in the host's buffer. Where the host gives
 * none, `address` stays 0, and *bytes gets the memory that this call wants for itself. */
ratp_status external_selection(const ratp_device *device, const struct ratp_external *p,
                               const struct variant *variant, ratp_dtype k_dtype,
                               struct external_entries *out, uint64_t *bytes, struct error *err);

#endif
