/* What the backends of this process have run, and why some attention was dense that a
 * policy wanted otherwise. All calls may come from any thread. */
#ifndef RATPLUS_GGML_STATISTICS_H
#define RATPLUS_GGML_STATISTICS_H

#include <ratplus.h>
#include <stddef.h>
#include <stdint.h>

/* Why heads attend every key that the mask shows, and not as their variant says. */
enum fallback {
    FALLBACK_NONE,
    FALLBACK_COPY,
    FALLBACK_NO_MASK,
    FALLBACK_MASK_HEADS,
    FALLBACK_MASK_VALUES,
    FALLBACK_MASK_GAPS,
    FALLBACK_MASK_STEPS,
    FALLBACK_ORDER,
    FALLBACK_SUMMARIES,
    FALLBACK_SUMMARY_FORM,
    FALLBACK_SNAPKV,
    FALLBACK_REASONS
};

/* Ways of attending that are counted apart: two of dense attention, then variants as they
 * come, the last for all that come later. */
enum { WAY_DENSE, WAY_MASK, WAY_FIRST, WAYS = 64 };

/* What a node has been: bits of ways and of reasons. */
struct node_ways {
    uint64_t ways, fallbacks;
};

/* As a clause, "the mask is not causal". */
const char *statistics_reason(enum fallback why);

/* Reads RATPLUS_STATS: "json" for a line of JSON, anything else for a table, on stderr
 * when the process exits and, where nobody else wants that signal, after SIGUSR1. */
void statistics_start(const struct ratp_api *ratp, ratp_instance *instance);
/* The way that counts `variant`, as policy_variant gives it. */
uint32_t statistics_way(const struct ratp_variant *variant);
/* `bytes` of K and V that a call attends. */
void statistics_read(uint32_t way, uint64_t bytes);
void statistics_attention(const struct node_ways *node);
/* A cache write of `bytes`, which took `seconds`. */
void statistics_rows(uint64_t bytes, double seconds);
/* Time that attention took, from its submission until it was waited for. */
void statistics_seconds(double seconds);
/* Prints what SIGUSR1 has asked for since the last call. */
void statistics_poll(void);

/* As JSON, with a NUL and cut to `size`; returns the full length without NUL, 0 without
 * memory. The registration's get_proc_address gives it as "ratplus_statistics". */
size_t statistics_text(char *text, size_t size);

#endif
