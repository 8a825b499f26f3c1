/* What the samples' command lines call things. Attention variants have the names
 * that policies have in JSON: "dense", "d16", "d16w256s4" (dilation, window, sinks),
 * "streamw256s4", "quest1024", "moba512k3", "snapkv1024"; "d16:quest1024" for prompts
 * that attend otherwise than decoded tokens. */
#ifndef SAMPLES_VARIANT_H
#define SAMPLES_VARIANT_H

#include "problem.h"

#include <ratplus.h>

#include <stddef.h>

/* `prompt` is for what stands before a colon; out->prompt points there if there is one. */
bool variant_from_name(const char *text, struct ratp_variant *out, struct ratp_variant *prompt,
                       struct problem *problem);
/* Only variants whose attended keys can be counted without the queries. */
bool fixed_from_name(const char *text, struct ratp_variant *out, struct problem *problem);
/* The short name that variant_from_name reads. */
void variant_to_name(const struct ratp_variant *variant, char *text, size_t size);

/* What the option --retention says: "full" or "needed". */
bool retention_from_name(const char *text, ratp_retention *out, struct problem *problem);
/* What `option` says: "f16", "bf16" or "f32". */
bool dtype_from_name(const char *option, const char *text, ratp_dtype *out,
                     struct problem *problem);
/* What --cache-dtype says: one of these, or "q8_0". */
bool cache_dtype_from_name(const char *text, ratp_dtype *out, struct problem *problem);

#endif
