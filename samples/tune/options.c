#include "arguments.h"
#include "tune.h"
#include "variant.h"

#include <stdio.h>

static const char examples[] =
    "\nExamples\n"
    "  ratplus-tune model --questions questions.jsonl --like d16 --out policy.json\n"
    "      as few keys attended as with d16; ratplus-run --policy takes the file\n"
    "  ratplus-tune model --text book.txt --cache 600000 --resume tune.trials\n"
    "  ratplus-tune model --text book.txt --keys 40 --candidates dense,d8,d64,streamw64s4\n"
    "\nHalf of the questions and of the text serve the search; the other half checks what it\n"
    "found. The loss is nats of a text's token plus nats of an answer's token; a gain counts when\n"
    "it is more than its standard error over the questions and the parts of the text.\n";

static bool check(const struct tune_options *o, struct problem *problem)
{
    if (!o->model)
        return problem_set(problem, "which model? give its folder; see --help");
    if (!o->questions && !o->text)
        return problem_set(problem, "give --questions, --text or both");
    if (!!o->like + (o->cache > 0) + (o->keys > 0) != 1)
        return problem_set(problem, "give one target: --like, --cache or --keys");
    return true;
}

bool tune_options_parse(int argc, char **argv, struct tune_options *out, bool *done,
                        struct problem *problem)
{
    bool help = false, version = false;
    *out = (struct tune_options){
        .candidates = "dense,d2,d4,d6,d8,d12,d16,d24,d32,d64,d16w64s4,d64w64s4,d64w16s4,"
                      "streamw64s4,streamw16s4,streamw8",
        .text_bytes = 32768,
        .patience = 16,
        .dtype = "f16",
    };
    const struct option options[] = {
        {"MODEL", OPTION_TEXT, NULL, &out->model, 0, 0,
         "folder with config.json and model.safetensors"},
        {"--questions", OPTION_TEXT, "FILE", &out->questions, 0, 0,
         "questions about needles, as ratplus-eval reads them"},
        {"--text", OPTION_TEXT, "FILE", &out->text, 0, 0, "text to predict"},
        {"--question-rows", OPTION_NUMBER, "N", &out->row_limit, 2, 1u << 24,
         "read only the first N rows of the questions"},
        {"--text-bytes", OPTION_NUMBER, "N", &out->text_bytes, 4, 1u << 30,
         "bytes of the text to read (32768)"},
        {"--like", OPTION_TEXT, "NAME", &out->like, 0, 0,
         "target: a query attends no more keys than under this variant"},
        {"--cache", OPTION_NUMBER, "BYTES", &out->cache, 1, 9e15,
         "target: the longest sequence needs at most this cache"},
        {"--keys", OPTION_REAL, "N", &out->keys, 1, 1u << 24,
         "target: a query attends at most N keys, on average over layers and tokens"},
        {"--candidates", OPTION_TEXT, "NAMES", &out->candidates, 0, 0,
         "variants that a layer may take (dense to d64, windows, streaming)"},
        {"--patience", OPTION_NUMBER, "N", &out->patience, 0, 1u << 20,
         "trials without a gain that end the search (16)"},
        {"--out", OPTION_TEXT, "FILE", &out->out, 0, 0,
         "write the policy as JSON here, not to stdout"},
        {"--resume", OPTION_TEXT, "FILE", &out->resume, 0, 0,
         "keep each trial here, and do not measure it again"},
        {"--cache-dtype", OPTION_TEXT, "TYPE", &out->dtype, 0, 0, "f16 (the default), bf16, f32 or q8_0"},
        {"--device", OPTION_TEXT, "NAME", &out->device, 0, 0,
         "part of its name, its number, software or reference"},
        {"--quiet", OPTION_FLAG, NULL, &out->quiet, 0, 0, "no progress bar"},
        {"--version", OPTION_FLAG, NULL, &version, 0, 0, "the version"},
        {"--help", OPTION_FLAG, NULL, &help, 0, 0, "this text"},
    };
    const size_t count = sizeof options / sizeof *options;
    if (!arguments_parse(options, count, argc, argv, problem))
        return false;
    if (help) {
        puts("ratplus-tune MODEL [options]: finds the variant of each layer that loses least for a\n"
             "given cost, and writes them as a policy.\n");
        arguments_help(options, count);
        fputs(examples, stdout);
    } else if (version) {
        puts("ratplus-tune " RATP_VERSION);
    }
    *done = help || version;
    return *done || (check(out, problem) &&
                     cache_dtype_from_name(out->dtype, &out->cache_dtype, problem));
}
