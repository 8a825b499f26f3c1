#include "arguments.h"
#include "eval.h"
#include "variant.h"

#include <stdio.h>

static const char examples[] =
    "\nExamples\n"
    "  ratplus-eval samples/models --resume eval.rows --json eval.json\n"
    "      every row of samples/models/rows.txt; a second call goes on where the first stopped\n"
    "  ratplus-eval samples/models/rat --variants dense,d16w64s4,quest64,dense/d16\n"
    "  ratplus-eval rat-1b --text book.txt --variants dense,d16w256s4\n"
    "  ratplus-eval-plot eval.json eval.svg\n"
    "\nVariants: dense, d16 (dilation 16), d16w256s4 (with a window of 256 tokens and\n"
    "4 sinks), streamw256s4 (window and sinks only), and those that choose keys by the\n"
    "query, quest1024 (budget), moba512k3 (blocks, how many of them). dense/d16: the\n"
    "layers take turns; dense+d16: half of a layer's heads each.\n"
    "\nWhat is a prompt, for variants that treat prompts apart: of a row of questions its\n"
    "text is one, in which quest is dense, and questions and answers are decoded. snapkv\n"
    "compresses prompts: there all before an answer is the prompt, whose end, the\n"
    "question, chooses what is kept, and the answer is decoded. The text to predict is\n"
    "decoded, all of it; for snapkv, to which it would be dense, it is passed over.\n"
    "keys a layer: those that the cache holds; of quest and moba, those that a token\n"
    "attends.\n";

bool eval_options_parse(int argc, char **argv, struct eval_options *out, bool *done,
                        struct problem *problem)
{
    bool help = false, version = false;
    *out = (struct eval_options){.text_bytes = 32768, .dtype = "f16"};
    const struct option options[] = {
        {"FOLDER", OPTION_TEXT, NULL, &out->folder, 0, 0,
         "a model, or models with a file rows.txt"},
        {"--variants", OPTION_TEXT, "NAMES", &out->variants, 0, 0,
         "of a model, with commas between (dense to d64, windows, hybrids, quest, moba)"},
        {"--policy", OPTION_TEXT, "FILE", &out->policy, 0, 0,
         "of a model: one more row, from JSON"},
        {"--rows", OPTION_TEXT, "FILE", &out->rows, 0, 0,
         "of a folder of models: lines MODEL VARIANT (its rows.txt)"},
        {"--questions", OPTION_TEXT, "FILE", &out->questions, 0, 0,
         "questions about needles (questions.jsonl beside the models)"},
        {"--text", OPTION_TEXT, "FILE", &out->text, 0, 0,
         "text to predict (held-out.txt beside the models)"},
        {"--question-rows", OPTION_NUMBER, "N", &out->row_limit, 1, 1u << 24,
         "read only the first N rows of the questions"},
        {"--text-bytes", OPTION_NUMBER, "N", &out->text_bytes, 0, 1u << 30,
         "bytes of the text to predict (32768); 0: none"},
        {"--resume", OPTION_TEXT, "FILE", &out->resume, 0, 0,
         "keep each finished row here, and do not measure it again"},
        {"--json", OPTION_TEXT, "FILE", &out->json, 0, 0, "write all numbers; - is stdout"},
        {"--cache-dtype", OPTION_TEXT, "TYPE", &out->dtype, 0, 0, "f16 (the default), bf16, f32 or q8_0"},
        {"--device", OPTION_TEXT, "NAME", &out->device, 0, 0,
         "part of its name, its number, software or reference (a GPU, or plain C)"},
        {"--quiet", OPTION_FLAG, NULL, &out->quiet, 0, 0, "no progress bar"},
        {"--version", OPTION_FLAG, NULL, &version, 0, 0, "the version"},
        {"--help", OPTION_FLAG, NULL, &help, 0, 0, "this text"},
    };
    const size_t count = sizeof options / sizeof *options;
    if (!arguments_parse(options, count, argc, argv, problem))
        return false;
    if (help) {
        puts("ratplus-eval FOLDER [options]: what models know under each variant: how well they\n"
             "predict a text, and how many questions about needles in it they answer.\n");
        arguments_help(options, count);
        fputs(examples, stdout);
    } else if (version) {
        puts("ratplus-eval " RATP_VERSION);
    }
    *done = help || version;
    if (!*done && !out->folder)
        return problem_set(problem, "which models? give a folder; see --help");
    return *done || cache_dtype_from_name(out->dtype, &out->cache_dtype, problem);
}
