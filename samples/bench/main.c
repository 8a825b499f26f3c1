/* ratplus-bench: times attention through the public ABI. */
#include "bench.h"

#include "arguments.h"
#include "terminal.h"

#include <stdio.h>
#include <string.h>

static const char usage[] =
    "usage: ratplus-bench [options]\n"
    "\n"
    "Times one layer of RAT+ attention: prompts (prefill), single tokens (decode) and\n"
    "the memory scan. A time is from step_begin until the device has done the work.\n"
    "GB/s and GFLOP/s count only what the work needs; \"of copy\" is GB/s as a share of\n"
    "a plain copy on the same device in the same run.\n"
    "\n";

static const char examples[] =
    "\n"
    "Filling a cache for decode takes a prefill; where that is more than --fill GFLOP,\n"
    "decode is timed over tensors of the caller (attend_external): keys in \"caller\".\n"
    "\n"
    "examples:\n"
    "  ratplus-bench --quick\n"
    "  ratplus-bench --phase decode --tokens 32768 --variants dense,d16,d16w256s4\n"
    "  ratplus-bench --device 0 --heads 16 --kv-heads 16 --out results.json\n";

static bool parse_names(struct bench *b, struct problem *problem)
{
    const struct bench_options *o = &b->options;
    const uint32_t room = sizeof b->variants / sizeof *b->variants;
    for (const char *at = o->variants; *at;) {
        size_t length = strcspn(at, ",");
        char name[64];
        snprintf(name, sizeof name, "%.*s", (int)(length < 63 ? length : 63), at);
        if (b->variant_count == room)
            return problem_set(problem, "--variants: more than %u", room);
        if (!variant_from_name(name, &b->variants[b->variant_count++], problem))
            return false;
        at += length + (at[length] == ',');
    }
    static const struct {
        const char *name;
        ratp_dtype dtype;
    } dtypes[] = {{"f32", RATP_F32}, {"f16", RATP_F16}, {"bf16", RATP_BF16}};
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++)
        if (strcmp(o->dtype, dtypes[i].name) == 0)
            b->dtype = dtypes[i].dtype;
    if (!b->dtype)
        return problem_set(problem, "--dtype: \"%.40s\" is none of f32, f16, bf16", o->dtype);
    if (strcmp(o->retention, "full") != 0 && strcmp(o->retention, "needed") != 0)
        return problem_set(problem, "--retention: \"%.40s\" is neither full nor needed",
                           o->retention);
    if (strcmp(o->phase, "all") != 0 && strcmp(o->phase, "prefill") != 0 &&
        strcmp(o->phase, "decode") != 0 && strcmp(o->phase, "scan") != 0)
        return problem_set(problem, "--phase: \"%.40s\" is none of all, prefill, decode, scan",
                           o->phase);
    if (o->heads % o->kv_heads != 0)
        return problem_set(problem, "--heads: %llu is no multiple of --kv-heads %llu",
                           (unsigned long long)o->heads, (unsigned long long)o->kv_heads);
    return true;
}

static bool wants(const struct bench *b, const char *phase)
{
    return strcmp(b->options.phase, "all") == 0 || strcmp(b->options.phase, phase) == 0;
}

static bool measure(struct bench *b, struct problem *problem)
{
    const struct bench_options *o = &b->options;
    const uint64_t scale = o->quick ? 8 : 1;
    const uint64_t prompt = o->tokens ? o->tokens : 4096 / scale;
    const uint64_t lengths[] = {o->tokens ? o->tokens : 4096 / scale, 32768 / scale};
    const uint32_t length_count = o->tokens ? 1 : 2;
    const uint64_t scan = o->tokens ? o->tokens : 32768 / scale;
    const uint32_t total = (wants(b, "prefill") ? b->variant_count : 0) +
                           (wants(b, "decode") ? length_count * b->variant_count : 0) +
                           (wants(b, "scan") ? 1 : 0);
    bool good = bench_copy(b, (uint64_t)(o->quick ? 64 : 256) << 20, problem);
    for (uint32_t i = 0; good && wants(b, "prefill") && i < b->variant_count; i++) {
        progress_show("measuring", b->count, total);
        good = bench_prefill(b, &b->variants[i], prompt, problem);
    }
    for (uint32_t l = 0; l < length_count && wants(b, "decode"); l++)
        for (uint32_t i = 0; good && i < b->variant_count; i++) {
            progress_show("measuring", b->count, total);
            good = bench_decode(b, &b->variants[i], lengths[l], problem);
        }
    if (good && wants(b, "scan")) {
        progress_show("measuring", b->count, total);
        good = bench_scan(b, scan, problem);
    }
    if (good)
        progress_show("measuring", total, total);
    return good;
}

int main(int argc, char **argv)
{
    static struct bench b = {.options = {.variants = "dense,d16", .phase = "all", .dtype = "f16",
                                         .retention = "full", .batch = 1, .heads = 32,
                                         .kv_heads = 8, .head_size = 128, .repeat = 9,
                                         .seconds = 10, .fill = 300}};
    struct bench_options *o = &b.options;
    const struct option options[] = {
        {"--device", OPTION_TEXT, "NAME", &o->device, 0, 0,
         "part of its name, its index, \"software\" or \"reference\"; else the best"},
        {"--phase", OPTION_TEXT, "NAME", &o->phase, 0, 0, "all, prefill, decode or scan"},
        {"--variants", OPTION_TEXT, "LIST", &o->variants, 0, 0,
         "such as dense,d16,d16w256s4,streamw256s4"},
        {"--tokens", OPTION_NUMBER, "N", &o->tokens, 1, 1 << 20,
         "prompt length, cached tokens; else each phase's own"},
        {"--batch", OPTION_NUMBER, "N", &o->batch, 1, 1024, "sequences"},
        {"--heads", OPTION_NUMBER, "N", &o->heads, 1, 1024, "query heads"},
        {"--kv-heads", OPTION_NUMBER, "N", &o->kv_heads, 1, 1024, "key/value heads"},
        {"--head-size", OPTION_NUMBER, "N", &o->head_size, 8, 256, "a multiple of 8"},
        {"--dtype", OPTION_TEXT, "NAME", &o->dtype, 0, 0, "of the tensors: f32, f16, bf16"},
        {"--retention", OPTION_TEXT, "NAME", &o->retention, 0, 0, "full or needed"},
        {"--repeat", OPTION_NUMBER, "N", &o->repeat, 3, BENCH_MAX_REPEATS, "times, at most"},
        {"--seconds", OPTION_REAL, "S", &o->seconds, 0, 3600,
         "fewer repeats once they have taken this long, at least 3"},
        {"--fill", OPTION_REAL, "GFLOP", &o->fill, 0, 1e9, "the most to fill a cache with"},
        {"--quick", OPTION_FLAG, NULL, &o->quick, 0, 0, "an eighth of the tokens"},
        {"--json", OPTION_FLAG, NULL, &o->json, 0, 0, "print JSON instead of a table"},
        {"--out", OPTION_TEXT, "FILE", &o->out, 0, 0, "write JSON there too"},
        {"--help", OPTION_FLAG, NULL, &o->help, 0, 0, "print this"},
    };
    const size_t option_count = sizeof options / sizeof *options;
    struct problem problem = {{0}};
    if (!arguments_parse(options, option_count, argc, argv, &problem) ||
        (!o->help && !parse_names(&b, &problem))) {
        fprintf(stderr, "ratplus-bench: %s\n", problem.text);
        return 2;
    }
    if (o->help) {
        fputs(usage, stdout);
        arguments_help(options, option_count);
        fputs(examples, stdout);
        return 0;
    }
    bool good = bench_device_open(&b.device, o->device, &problem) && measure(&b, &problem);
    if (good && o->json)
        good = report_json(&b, NULL, &problem);
    else if (good)
        report_table(&b);
    if (good && o->out)
        good = report_json(&b, o->out, &problem);
    bench_device_close(&b.device);
    if (!good)
        fprintf(stderr, "ratplus-bench: %s\n", problem.text);
    return good ? 0 : 1;
}
