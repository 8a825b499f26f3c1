#include "options.h"
#include "arguments.h"
#include "variant.h"

#include <stdio.h>
#include <string.h>

static const char examples[] =
    "\nExamples\n"
    "  ratplus-run model --prompt 'Once upon a time' --stats\n"
    "  ratplus-run model --file story.txt --variant d16w256s4 --tokens 200\n"
    "  ratplus-run model --file story.txt --compare dense,d4,d16w256,streamw256s4\n"
    "  ratplus-run model --prompt Hello --temperature 0.8 --top-p 0.95 --seed 7\n"
    "  ratplus-run model --interactive --variant d16w256s4\n"
    "\nVariants: dense, d16 (dilation 16), d16w256s4 (with a window of 256 tokens and\n"
    "4 sinks), streamw256s4 (window and sinks only), and those that choose keys by the\n"
    "query, quest1024 (budget), moba512k3 (blocks, how many of them). dense/d16: the\n"
    "layers take turns; dense+d16: half of a layer's heads each.\n";

static bool check_interactive(const struct run_options *o, struct problem *problem)
{
    const struct {
        const char *name;
        bool given;
    } others[] = {{"--compare", o->compare != NULL},
                  {"--json", o->json},
                  {"--logits", o->logits != NULL},
                  {"--prompt-tokens", o->prompt_tokens > 0},
                  {"--tokens-file", o->tokens_file != NULL},
                  {"--file -", o->file && strcmp(o->file, "-") == 0},
                  {"--policy -", o->policy && strcmp(o->policy, "-") == 0}};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (others[i].given)
            return problem_set(problem, "--interactive reads its text from standard input, and "
                               "does not go with %s", others[i].name);
    if (o->prompt && o->file)
        return problem_set(problem, "give one of --prompt and --file, or none");
    return true;
}

static bool check(const struct run_options *o, struct problem *problem)
{
    if (!o->model)
        return problem_set(problem, "which model? give its folder; see --help");
    if (o->interactive && !check_interactive(o, problem))
        return false;
    if (!o->interactive && !!o->prompt + !!o->file + !!o->tokens_file != 1)
        return problem_set(problem, "give one of --prompt, --file and --tokens-file");
    if (!!o->variant + !!o->policy + !!o->compare > 1)
        return problem_set(problem, "--variant, --policy and --compare exclude each other");
    if (o->compare && o->logits)
        return problem_set(problem, "--logits writes one variant's logits; not with --compare");
    return true;
}

bool run_options_parse(int argc, char **argv, struct run_options *out, bool *done,
                       struct problem *problem)
{
    const char *retention = NULL, *dtype = "f16";
    bool help = false, version = false;
    *out = (struct run_options){.tokens = 64, .chunk = 512, .top_p = 1};
    *done = false;
    const struct option options[] = {
        {"MODEL", OPTION_TEXT, NULL, &out->model, 0, 0,
         "folder with config.json and model.safetensors"},
        {"--prompt", OPTION_TEXT, "TEXT", &out->prompt, 0, 0, "the prompt"},
        {"--file", OPTION_TEXT, "FILE", &out->file, 0, 0, "the prompt is this file; - is stdin"},
        {"--tokens-file", OPTION_TEXT, "FILE", &out->tokens_file, 0, 0,
         "the prompt is this file of 32-bit token numbers"},
        {"--tokens", OPTION_NUMBER, "N", &out->tokens, 0, 1u << 24, "tokens to generate (64)"},
        {"--temperature", OPTION_REAL, "T", &out->temperature, 0, 100,
         "0, the default, takes the likeliest token"},
        {"--top-k", OPTION_NUMBER, "K", &out->top_k, 0, 1u << 24,
         "choose among the K likeliest; 0: all"},
        {"--top-p", OPTION_REAL, "P", &out->top_p, 0, 1,
         "choose among the likeliest that together have probability P (1)"},
        {"--seed", OPTION_NUMBER, "N", &out->seed, 0, 1u << 31, "of the random choices (0)"},
        {"--variant", OPTION_TEXT, "NAME", &out->variant, 0, 0,
         "attention of all layers, or of each in turns (dense)"},
        {"--policy", OPTION_TEXT, "FILE", &out->policy, 0, 0,
         "attention by layer and head, from JSON"},
        {"--compare", OPTION_TEXT, "NAMES", &out->compare, 0, 0,
         "several variants, one after another; a table and their texts"},
        {"--retention", OPTION_TEXT, "MODE", &retention, 0, 0,
         "needed (the default): keep what the variant can attend; full: all"},
        {"--cache-dtype", OPTION_TEXT, "TYPE", &dtype, 0, 0, "f16 (the default), bf16, f32 or q8_0"},
        {"--device", OPTION_TEXT, "NAME", &out->device, 0, 0,
         "part of its name, its number, software or reference"},
        {"--chunk", OPTION_NUMBER, "N", &out->chunk, 1, 65536,
         "prompt tokens in one pass (512)"},
        {"--prompt-tokens", OPTION_NUMBER, "N", &out->prompt_tokens, 1, 1u << 24,
         "only the first N are the prompt; the rest is fed one at a time"},
        {"--logits", OPTION_TEXT, "FILE", &out->logits, 0, 0,
         "write the logits of every input token, as float32"},
        {"--interactive", OPTION_FLAG, NULL, &out->interactive, 0, 0,
         "a conversation; /help in it lists its commands. Retains full by default"},
        {"--stats", OPTION_FLAG, NULL, &out->stats, 0, 0, "speeds and cache size, to stderr"},
        {"--json", OPTION_FLAG, NULL, &out->json, 0, 0, "text and statistics as JSON"},
        {"--validate", OPTION_FLAG, NULL, &out->validate, 0, 0,
         "fail on any message of the Khronos validation layer"},
        {"--version", OPTION_FLAG, NULL, &version, 0, 0, "the version"},
        {"--help", OPTION_FLAG, NULL, &help, 0, 0, "this text"},
    };
    const size_t count = sizeof options / sizeof *options;
    if (!arguments_parse(options, count, argc, argv, problem))
        return false;
    if (help) {
        puts("ratplus-run MODEL [options]: generates text with a RAT+ model.\n");
        arguments_help(options, count);
        fputs(examples, stdout);
    } else if (version) {
        puts("ratplus-run " RATP_VERSION);
    }
    *done = help || version;
    if (!retention)
        retention = out->interactive ? "full" : "needed";
    return *done || (check(out, problem) &&
                     retention_from_name(retention, &out->retention, problem) &&
                     cache_dtype_from_name(dtype, &out->cache_dtype, problem));
}
