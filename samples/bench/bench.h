/* ratplus-bench: what is measured, and where it is kept. */
#ifndef BENCH_H
#define BENCH_H

#include "gpu.h"
#include "problem.h"

#include <ratplus_vulkan.h>

enum { MAX_VARIANTS = 16, MAX_SIZES = 16, MAX_ROWS = 1024, MAX_LINES = 256 };
enum { CACHE_BATCH = 32, CACHE_LINES = 12 }; /* sequences of its batches; lines for each T */

enum phase {
    PHASE_PREFILL,  /* a whole prompt through an empty cache, in one step */
    PHASE_DECODE,   /* one more token for sequences that hold T */
    PHASE_EXTERNAL, /* one query over T keys in plain buffers */
    PHASE_COMPRESS, /* what snapkv does with a prompt of T tokens, beside the prompt itself */
    PHASE_SCAN,     /* the memory of T tokens, with attention to the own token only */
    PHASE_CACHE,    /* what T tokens take, forks, switches, batches: lines, not rows */
    PHASE_COUNT
};

struct sizes {
    uint32_t list[MAX_SIZES];
    uint32_t count;
};

struct bench_options {
    const char *device, *out;
    struct ratp_variant variants[MAX_VARIANTS];
    struct ratp_variant prompts[MAX_VARIANTS]; /* which those point to, where prompts differ */
    uint32_t variant_count;
    struct sizes tokens[PHASE_COUNT]; /* none: the phase is left out */
    struct sizes batches;
    uint32_t query_heads, kv_heads, head_size;
    uint32_t layers; /* of a step of the phases prefill, decode and compress */
    ratp_dtype dtype, cache_dtype; /* of the operands, of K and V */
    ratp_retention retention;
    uint32_t repeat;
    uint64_t copy_bytes;
    bool json;
};

struct timing {
    double median, min, max; /* seconds */
    uint32_t runs;
};

/* What a call cannot do without: every needed byte moved once. */
struct work {
    double bytes, flops;
};

struct row {
    enum phase phase;
    char variant[64];
    uint32_t tokens, batch, query_heads, kv_heads;
    struct timing time; /* of one layer, as everything here */
    struct work work;
    uint64_t cache_bytes; /* pages and states of the sequences; 0: there is no cache */
    double attention_seconds; /* scan: such attention without memory or cache; else 0 */
    double prompt_seconds;    /* compress: the prompts of the same runs; else 0 */
};

enum line_kind {
    LINE_HELD,   /* bytes of a sequence; ratio: how many times less than dense's */
    LINE_FORK,   /* seq_fork */
    LINE_DECODE, /* one more token */
    LINE_SWITCH, /* seq_set_policy; ratio: to the decode line before it */
    LINE_BATCH,  /* one more token of many sequences; ratio: seconds a needed byte, to equal ones */
    LINE_KINDS
};

/* One measurement of the cache. What was not measured is 0. */
struct line {
    enum line_kind kind;
    char variant[64];
    uint32_t tokens, batch, query_heads, kv_heads, head_size;
    ratp_retention retention;
    struct timing time;
    uint64_t page_bytes, state_bytes;
    double needed_bytes;
    double ratio;
};

struct bench {
    struct bench_options options;
    const struct ratp_api *ratp;
    ratp_instance *instance;
    ratp_device *device;
    struct ratp_device_info info;
    struct gpu gpu;
    bool on_gpu; /* `gpu` is lent to the plugin; otherwise this is the reference device */
    struct timing copy_time;
    double copy_rate; /* bytes read and bytes written, a second */
    struct row rows[MAX_ROWS];
    uint32_t row_count;
    struct line lines[MAX_LINES];
    uint32_t line_count;
};

bool options_parse(int argc, char **argv, struct bench_options *out, bool *done,
                   struct problem *problem);
/* Whether a phase that goes through the variants has a row of this one. */
bool phase_measures(const struct bench_options *o, enum phase phase,
                    const struct ratp_variant *variant, uint32_t tokens);

bool device_open(struct bench *bench, struct problem *problem);
void device_close(struct bench *bench);
/* A plain copy of options.copy_bytes on the device's queue. */
bool device_measure_copy(struct bench *bench, struct problem *problem);

/* A run is timed until it has run options.repeat times; fewer, but three at
 * least, when that takes long. */
struct stopwatch;
bool stopwatch_open(uint32_t repeat, struct stopwatch **out, struct problem *problem);
bool stopwatch_wants_more(const struct stopwatch *watch);
void stopwatch_add(struct stopwatch *watch, double seconds);
struct timing stopwatch_read(struct stopwatch *watch);
void stopwatch_close(struct stopwatch *watch);

/* Room in device memory for `size` bytes of numbers between -1 and 1. */
bool numbers_create(struct bench *bench, uint64_t size, ratp_dtype dtype, ratp_buffer **out,
                    struct problem *problem);
uint32_t dtype_size(ratp_dtype dtype);

/* Each adds its rows. */
bool measure_cached(struct bench *bench, const struct ratp_variant *variant, uint32_t tokens,
                    uint32_t batch, bool prefill, bool decode, struct problem *problem);
bool measure_external(struct bench *bench, const struct ratp_variant *variant, uint32_t tokens,
                      uint32_t batch, struct problem *problem);
bool measure_compress(struct bench *bench, const struct ratp_variant *variant, uint32_t tokens,
                      uint32_t batch, struct problem *problem);
bool measure_scan(struct bench *bench, uint32_t tokens, uint32_t batch, struct problem *problem);
/* Adds lines: what T tokens take; a fork and switches of T/4; batches of up to T/32 each. */
bool measure_cache(struct bench *bench, uint32_t tokens, struct problem *problem);

/* How many keys a decoded query at `position` attends; of a prompt it is those of
 * prompt_of(variant). */
const struct ratp_variant *prompt_of(const struct ratp_variant *variant);
uint64_t attended_keys(const struct ratp_variant *variant, uint64_t position);
struct work work_prefill(const struct bench_options *o, const struct ratp_variant *variant,
                         uint32_t tokens, uint32_t batch);
struct work work_decode(const struct bench_options *o, const struct ratp_variant *variant,
                        uint64_t position, uint32_t batch);
struct work work_external(const struct bench_options *o, const struct ratp_variant *variant,
                          uint32_t tokens, uint32_t batch);
struct work work_compress(const struct bench_options *o, const struct ratp_variant *variant,
                          uint32_t tokens, uint32_t batch);
struct work work_scan(const struct bench_options *o, uint32_t tokens, uint32_t batch);

extern const char *const line_names[LINE_KINDS];
extern const char *const phase_names[PHASE_COUNT];
/* "faster" compares with the first row of the same phase and sizes. */
bool report_table(const struct bench *bench, struct problem *problem);
/* NULL with a problem; to be freed with cJSON_free. */
char *report_json(const struct bench *bench, struct problem *problem);

#endif
