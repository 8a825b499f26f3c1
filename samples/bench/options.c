#include "arguments.h"
#include "bench.h"
#include "variant.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
    "ratplus-bench [options]: times one attention layer with RAT+ memory, one line for each\n"
    "phase, variant and size, beside a plain copy on the same device.\n"
    "\n";

static const char explanation[] =
    "\nPhases\n"
    "  prefill    a prompt of T tokens through an empty cache, in one step\n"
    "  decode     one more token for sequences that hold T\n"
    "  external   one query over T keys that are in plain buffers, without a cache\n"
    "  compress   variants of snapkv alone, and no other phase has them: seq_compress after a\n"
    "             prompt as in prefill, where T is above the capacity; below the table, its share\n"
    "             of the prompt's own time\n"
    "  scan       the memory alone: a prompt of which each token attends itself only, with as\n"
    "             many query heads as key/value heads; its little attention is in the time\n"
    "  cache      a table of its own. What a sequence of T tokens holds, whole (dense, retention\n"
    "             full) and as needed; pages are counted in tokens, so one head of 8 channels\n"
    "             shows it. With T/4 tokens: forks, until the device is done; switches between\n"
    "             dense and d16, and a decode step of what was before; with retention needed the\n"
    "             prompt is dense in earnest, of one head. One more token for 32 sequences of\n"
    "             T/512 to T/32 tokens (dense, d16, d16w256s4, streamw256s4 in turns), beside 32\n"
    "             equal dense ones that need as many bytes. \"ratio\" is: bytes of dense by\n"
    "             these; a switch by the step; seconds a needed byte, mixed by equal.\n"
    "GB/s and GFLOP/s are of the work that cannot be left out, each needed byte once. The copy's\n"
    "GB/s counts the bytes it reads and those it writes; \"of copy\" is a line's share of that.\n"
    "\"faster\" compares with the first variant of the same phase and sizes.\n"
    "A GPU needs many layers: submitting a step and waiting for it take tens of microseconds, as\n"
    "long as a layer's attention, and the K and V of one may stay in its cache between steps.\n"
    "\nExamples\n"
    "  ratplus-bench\n"
    "  ratplus-bench --phase decode --tokens 1024,4096,16384 --variants dense,d16,d64w256s4\n"
    "  ratplus-bench --phase compress --tokens 4096,32768 --variants snapkv1024,snapkv2048o16\n"
    "  ratplus-bench --phase decode --tokens 4096,32768 --layers 32 --repeat 100\n"
    "  ratplus-bench --device software --heads 16 --kv-heads 16 --json --out bench.json\n"
    "  ratplus-bench --quick\n";

/* What the command line says, before it is understood. */
struct words {
    const char *variants, *tokens, *batches, *phases, *retention, *dtype, *cache_dtype;
};

/* Cuts the next name off a list with commas; false at its end. */
static bool next_name(const char **list, char *name, size_t size)
{
    if (!**list)
        return false;
    const size_t length = strcspn(*list, ",");
    snprintf(name, size, "%.*s", (int)length, *list);
    *list += length + ((*list)[length] == ',');
    return true;
}

static bool parse_sizes(const char *option, const char *text, uint32_t max, struct sizes *out,
                        struct problem *problem)
{
    char name[64], *end;
    out->count = 0;
    while (next_name(&text, name, sizeof name)) {
        const unsigned long value = strtoul(name, &end, 10);
        if (name[0] < '0' || name[0] > '9' || *end || value < 1 || value > max)
            return problem_set(problem, "%s: \"%.40s\" is not a whole number from 1 to %u",
                               option, name, max);
        if (out->count == MAX_SIZES)
            return problem_set(problem, "%s: more than %d", option, MAX_SIZES);
        out->list[out->count++] = (uint32_t)value;
    }
    return out->count > 0 || problem_set(problem, "%s: empty", option);
}

static bool parse_variants(const char *text, struct bench_options *out, struct problem *problem)
{
    char name[64];
    while (next_name(&text, name, sizeof name)) {
        if (out->variant_count == MAX_VARIANTS)
            return problem_set(problem, "--variants: more than %d", MAX_VARIANTS);
        struct ratp_variant *variant = &out->variants[out->variant_count];
        if (!variant_from_name(name, variant, &out->prompts[out->variant_count++], problem))
            return false;
    }
    return out->variant_count > 0 || problem_set(problem, "--variants: empty");
}

/* NULL: all. */
static bool parse_phases(const char *text, bool wanted[PHASE_COUNT], struct problem *problem)
{
    char name[64];
    for (int phase = 0; phase < PHASE_COUNT; phase++)
        wanted[phase] = !text;
    while (text && next_name(&text, name, sizeof name)) {
        int phase = 0;
        while (phase < PHASE_COUNT && strcmp(name, phase_names[phase]) != 0)
            phase++;
        if (phase == PHASE_COUNT)
            return problem_set(problem,
                               "--phase: \"%.40s\" is not prefill, decode, external, compress, "
                               "scan or cache",
                               name);
        wanted[phase] = true;
    }
    return true;
}

/* Each phase has sizes of its own, unless --tokens gives them. */
static bool parse_tokens(const struct words *words, bool quick, struct bench_options *out,
                         struct problem *problem)
{
    static const char *const usual[] = {
        [PHASE_PREFILL] = "4096",
        [PHASE_DECODE] = "4096",
        [PHASE_EXTERNAL] = "4096,32768",
        [PHASE_COMPRESS] = "4096",
        [PHASE_SCAN] = "32768",
        [PHASE_CACHE] = "131072",
    };
    bool wanted[PHASE_COUNT];
    if (!parse_phases(words->phases, wanted, problem))
        return false;
    for (int phase = 0; phase < PHASE_COUNT; phase++) {
        const char *text = words->tokens               ? words->tokens
                           : !quick                    ? usual[phase]
                           : phase == PHASE_CACHE      ? "8192"
                                                       : "300";
        if (wanted[phase] &&
            !parse_sizes("--tokens", text, 1u << 23, &out->tokens[phase], problem))
            return false;
    }
    return true;
}

bool phase_measures(const struct bench_options *o, enum phase phase,
                    const struct ratp_variant *variant, uint32_t tokens)
{
    if (phase == PHASE_COMPRESS)
        return variant->kind == RATP_SNAPKV && variant->capacity < tokens;
    /* Tensors of a host are neither chosen among nor in 8-bit blocks. */
    if (phase == PHASE_EXTERNAL)
        return variant->kind <= RATP_STREAMING && !variant->prompt && o->cache_dtype != RATP_Q8_0;
    return variant->kind != RATP_SNAPKV;
}

/* Phases that were asked for, and would have no row for the variants' kinds. */
static bool check_phases(const struct words *words, const struct bench_options *o,
                         struct problem *problem)
{
    const struct sizes *compress = &o->tokens[PHASE_COMPRESS];
    bool others = false, compressed = false;
    uint32_t longest = 0;
    for (uint32_t t = 0; t < compress->count; t++)
        longest = compress->list[t] > longest ? compress->list[t] : longest;
    for (uint32_t v = 0; v < o->variant_count; v++) {
        others |= o->variants[v].kind != RATP_SNAPKV;
        compressed |= phase_measures(o, PHASE_COMPRESS, &o->variants[v], longest);
    }
    if (longest && !compressed)
        return problem_set(problem,
                           "--phase: compress measures snapkv of a capacity below T, here %u, and "
                           "--variants has none (\"%.80s\"); name one, such as snapkv64, or give "
                           "more --tokens",
                           longest, words->variants);
    for (enum phase phase = 0; phase < PHASE_COMPRESS; phase++)
        if (o->tokens[phase].count && !others)
            return problem_set(problem,
                               "--phase: %s leaves snapkv out, and --variants has nothing else "
                               "(\"%.80s\"); name another, such as dense, or ask for compress "
                               "alone",
                               phase_names[phase], words->variants);
    return true;
}

static bool understand(const struct words *words, bool quick, struct bench_options *out,
                       struct problem *problem)
{
    if (out->query_heads % out->kv_heads)
        return problem_set(problem, "--heads: %u is not a multiple of --kv-heads, %u",
                           out->query_heads, out->kv_heads);
    if (out->head_size % 8)
        return problem_set(problem, "--head-size: %u is not a multiple of 8", out->head_size);
    return parse_variants(words->variants, out, problem) &&
           parse_tokens(words, quick, out, problem) &&
           parse_sizes("--batch", words->batches, 65536, &out->batches, problem) &&
           retention_from_name(words->retention, &out->retention, problem) &&
           dtype_from_name("--dtype", words->dtype, &out->dtype, problem) &&
           cache_dtype_from_name(words->cache_dtype, &out->cache_dtype, problem) &&
           (!words->phases || check_phases(words, out, problem));
}

bool options_parse(int argc, char **argv, struct bench_options *out, bool *done,
                   struct problem *problem)
{
    bool help = false, version = false, quick = false;
    uint64_t heads = 32, kv_heads = 8, head_size = 128, layers = 1, repeat = 20;
    struct words words = {
        .variants = "dense,d16,d16w256s4,streamw256s4,snapkv1024",
        .batches = "1",
        .retention = "needed",
        .dtype = "f16",
        .cache_dtype = "f16",
    };
    *out = (struct bench_options){.copy_bytes = 256u << 20};
    *done = false;
    const struct option options[] = {
        {"--device", OPTION_TEXT, "NAME", &out->device, 0, 0,
         "part of its name, its number, software or reference"},
        {"--variants", OPTION_TEXT, "NAMES", &words.variants, 0, 0,
         "separated by commas (dense,d16,d16w256s4,streamw256s4,snapkv1024)"},
        {"--phase", OPTION_TEXT, "NAMES", &words.phases, 0, 0,
         "separated by commas (prefill,decode,external,compress,scan,cache)"},
        {"--tokens", OPTION_TEXT, "LIST", &words.tokens, 0, 0,
         "T of every phase (4096; external also 32768, scan 32768, cache 131072)"},
        {"--batch", OPTION_TEXT, "LIST", &words.batches, 0, 0, "sequences at once (1)"},
        {"--heads", OPTION_NUMBER, "N", &heads, 1, 65536, "query heads (32)"},
        {"--kv-heads", OPTION_NUMBER, "N", &kv_heads, 1, 1024, "key/value heads (8)"},
        {"--head-size", OPTION_NUMBER, "N", &head_size, 8, 256, "channels of a head (128)"},
        {"--layers", OPTION_NUMBER, "N", &layers, 1, 256,
         "layers of a step, each with K and V of its own; what is shown is of one (1)"},
        {"--dtype", OPTION_TEXT, "TYPE", &words.dtype, 0, 0,
         "of the operands: f16 (the default), bf16 or f32"},
        {"--cache-dtype", OPTION_TEXT, "TYPE", &words.cache_dtype, 0, 0,
         "of K and V: f16 (the default), bf16, f32 or q8_0"},
        {"--retention", OPTION_TEXT, "MODE", &words.retention, 0, 0,
         "needed (the default): keep what the variant can attend; full: all"},
        {"--repeat", OPTION_NUMBER, "N", &repeat, 1, 100000,
         "runs of a line (20); down to 3 when they take over 10 s"},
        {"--quick", OPTION_FLAG, NULL, &quick, 0, 0, "small sizes, to see that it works"},
        {"--json", OPTION_FLAG, NULL, &out->json, 0, 0, "print JSON, not a table"},
        {"--out", OPTION_TEXT, "FILE", &out->out, 0, 0, "also write the JSON to this file"},
        {"--version", OPTION_FLAG, NULL, &version, 0, 0, "the version"},
        {"--help", OPTION_FLAG, NULL, &help, 0, 0, "this text"},
    };
    const size_t count = sizeof options / sizeof *options;
    /* --quick is looked for first: what else is said counts more than it. */
    for (int i = 1; i < argc; i++)
        quick |= strcmp(argv[i], "--quick") == 0;
    if (quick) {
        heads = 8;
        kv_heads = 2;
        head_size = 64;
        repeat = 3;
        words.variants = "dense,d16,streamw32s4,snapkv64";
        out->copy_bytes = 16u << 20;
    }
    if (!arguments_parse(options, count, argc, argv, problem))
        return false;
    if (help) {
        fputs(usage, stdout);
        arguments_help(options, count);
        fputs(explanation, stdout);
    } else if (version) {
        puts("ratplus-bench " RATP_VERSION);
    }
    *done = help || version;
    out->query_heads = (uint32_t)heads;
    out->kv_heads = (uint32_t)kv_heads;
    out->head_size = (uint32_t)head_size;
    out->layers = (uint32_t)layers;
    out->repeat = (uint32_t)repeat;
    return *done || understand(&words, quick, out, problem);
}
