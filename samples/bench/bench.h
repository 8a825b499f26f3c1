/* ratplus-bench: how fast the plugin's attention is, next to what the device's
 * memory can do. */
#ifndef BENCH_H
#define BENCH_H

#include "gpu.h"
#include "variant.h"

#include <ratplus_vulkan.h>

#define BENCH_MAX_RESULTS 64
#define BENCH_MAX_REPEATS 1000

struct bench_options {
    const char *device, *variants, *phase, *dtype, *retention, *out;
    uint64_t tokens; /* 0: each phase's own */
    uint64_t batch, heads, kv_heads, head_size, repeat;
    double seconds; /* enough for one row of the table */
    double fill;    /* GFLOP that filling a cache may take */
    bool quick, json, help;
};

/* A device opened the way an engine on Vulkan does, so that plain copies run on
 * the same queue; or the reference device. */
struct bench_device {
    const struct ratp_api *ratp;
    const struct ratp_vulkan_api *vulkan;
    ratp_instance *instance;
    ratp_device *device;
    struct ratp_device_info info;
    bool own; /* `gpu` is open */
    struct gpu gpu;
    uint32_t messages;
};

/* Milliseconds of the repeats. */
struct bench_time {
    double median, min, max;
    uint32_t repeats;
};

struct bench_result {
    char variant[32];
    const char *phase; /* "prefill", "decode", "memory scan" */
    const char *keys;  /* "cache", or "caller" for attend_external */
    uint64_t tokens, batch;
    uint32_t heads, kv_heads;
    struct bench_time time;
    double bytes, flop; /* that the work needs */
    double attention_ms; /* memory scan: what of it is attention; else 0 */
};

struct bench {
    struct bench_options options;
    struct bench_device device;
    ratp_dtype dtype;
    struct ratp_variant variants[16];
    uint32_t variant_count;
    double copy_bytes; /* read and written by the copy */
    struct bench_time copy;
    struct bench_result results[BENCH_MAX_RESULTS];
    uint32_t count;
};

/* device.c */
bool bench_device_open(struct bench_device *d, const char *name, struct problem *problem);
void bench_device_close(struct bench_device *d);
/* The last error of `object` as a problem; false. */
bool bench_failed(const struct bench_device *d, const void *object, const char *what,
                  struct problem *problem);
/* Times a plain copy of `size` bytes in device memory. */
bool bench_copy(struct bench *b, uint64_t size, struct problem *problem);

/* measure.c: each adds one result. */
bool bench_prefill(struct bench *b, const struct ratp_variant *variant, uint64_t tokens,
                   struct problem *problem);
bool bench_decode(struct bench *b, const struct ratp_variant *variant, uint64_t tokens,
                  struct problem *problem);
bool bench_scan(struct bench *b, uint64_t tokens, struct problem *problem);

/* work.c */
/* Times `run` until there are enough repeats; the first call is not counted. */
struct bench_timer {
    double ms[BENCH_MAX_REPEATS];
    uint32_t count, wanted;
    double seconds, spent;
    bool warm;
};
bool timer_wants(const struct bench_timer *t);
void timer_add(struct bench_timer *t, double seconds);
struct bench_time timer_result(struct bench_timer *t);
/* Keys that a query at position t attends. */
uint64_t attended_keys(const struct ratp_variant *v, uint64_t t);
/* (query, key) pairs of queries first ... first + count - 1. */
double attended_pairs(const struct ratp_variant *v, uint64_t first, uint64_t count);
uint32_t dtype_bytes(ratp_dtype dtype);
/* Numbers between 1/8 and 1/4, of either sign. */
void fill_random(void *data, uint64_t bytes, ratp_dtype dtype, uint64_t seed);

/* report.c */
void report_table(const struct bench *b);
/* To `path`, or to stdout when it is NULL. */
bool report_json(const struct bench *b, const char *path, struct problem *problem);

#endif
