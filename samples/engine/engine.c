#include "engine.h"
#include "plugin.h"

#include <stdio.h>
#include <string.h>

static bool is_reference(const char *device)
{
    return device && strcmp(device, "reference") == 0;
}

bool engine_open(const struct model *model, const struct engine_options *options,
                 uint32_t *messages, struct engine **out, struct problem *problem)
{
    struct engine base = {.model = model, .options = *options, .messages = messages};
    const bool reference = is_reference(options->device);
    bool none = false;
    *out = NULL;
    if (reference && options->validate)
        return problem_set(problem, "--validate needs a Vulkan device, not the reference");
    if (!plugin_open(reference, &base.ratp, &base.instance, problem))
        return false;

    bool good = false;
    if (!reference)
        good = engine_open_vulkan(&base, out, &none, problem);
    /* Without a device of any kind the plain C engine stands in, unless a
     * certain device was asked for. */
    const bool stand_in = none && !options->validate && !(options->device && *options->device);
    if (stand_in)
        fprintf(stderr, "%s; using plain C\n", problem->text);
    if (reference || stand_in)
        good = engine_open_host(&base, out, problem);
    if (!good)
        base.ratp->instance_destroy(&base.instance);
    return good;
}

bool engine_forward(struct engine *engine, const struct engine_step *step,
                    struct problem *problem)
{
    for (uint32_t i = 0; i < step->count; i++)
        if (step->tokens[i] < 0 || (uint32_t)step->tokens[i] >= engine->model->config.vocabulary)
            return problem_set(problem, "token %d is outside the vocabulary of %u",
                               step->tokens[i], engine->model->config.vocabulary);
    return engine->kind->forward(engine, step, problem);
}

void engine_close(struct engine **engine)
{
    if (!*engine)
        return;
    (*engine)->kind->close(*engine);
    *engine = NULL;
}
