/* The policy of RATPLUS_POLICY, a file that may change while the host runs. */
#ifndef RATPLUS_GGML_POLICY_H
#define RATPLUS_GGML_POLICY_H

#include <ratplus.h>
#include <stdbool.h>

/* One reading of the file. Several backends may hold it. */
struct adapter_policy;

/* Neighbouring key/value heads with one variant. */
struct head_run {
    uint32_t first, count;
    struct ratp_variant variant;
};

/* Of two variants as policy_variant gives them. */
bool variant_is_same(const struct ratp_variant *a, const struct ratp_variant *b);

/* Reads the file that RATPLUS_POLICY names, if it names one, and says what came of it. */
void policy_start(const struct ratp_api *ratp, ratp_instance *instance);
/* The policy in force, to be given back; the file is read again when it has changed. NULL:
 * there is none, attention is dense. [any thread] */
struct adapter_policy *policy_take(void);
/* The reading with this number, to be given back, NULL for 0; where nobody holds it any more the
 * policy in force. [any thread] */
struct adapter_policy *policy_take_same(uint64_t number);
/* The one that was read last, to be given back, without a look at the file; NULL: there is
 * none. [any thread] */
struct adapter_policy *policy_now(void);
/* The file's name; NULL: none is given. [any thread] */
const char *policy_path(void);
/* The rotary base of packed models (packed.h); 0: models are not packed. What the file says
 * of it at the start holds until the end. [any thread] */
double policy_packed_theta(void);
void policy_give(struct adapter_policy *policy);
/* Tells one reading from all others; 0 for NULL. [any thread] */
uint64_t policy_number(const struct adapter_policy *policy);
/* The runs of a layer's `kv_heads` heads, at most so many; how many there are. `part` is
 * RATP_PART_PROMPT or RATP_PART_DECODE. Without a policy, and for layers below 0, one of
 * dense. [any thread] */
uint32_t policy_runs(struct adapter_policy *policy, int layer, uint32_t kv_heads,
                     ratp_part_kind part, struct head_run *runs);

#endif
