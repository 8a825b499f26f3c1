/* A small inference engine: everything of the model but attention, which is
 * the plugin's. Two kinds behind one interface: one that owns a VkDevice and
 * lends it to the plugin, and one in plain C. */
#ifndef ENGINE_H
#define ENGINE_H

#include "model.h"

struct engine_options {
    /* As in ratp_device_params: part of a name, an index, "software" or
     * "reference"; NULL: a GPU if there is one. */
    const char *device;
    bool validate;         /* run under the Khronos validation layer */
    uint32_t chunk;        /* most tokens in one forward pass */
    bool all_logits;       /* room for the logits of every token of a chunk */
};

/* One forward pass of one sequence. */
struct engine_step {
    ratp_cache *cache;
    ratp_seq *seq;
    const int32_t *tokens; /* each in [0, vocabulary) */
    uint32_t count;        /* 1 to chunk */
    ratp_part_kind kind;   /* of a prompt, or decoded; 0: several are of a prompt */
    bool all_logits;
    float *logits; /* [all_logits ? count : 1][vocabulary]; the last token's comes last */
};

struct engine;

struct engine_kind {
    bool (*forward)(struct engine *engine, const struct engine_step *step,
                    struct problem *problem);
    void (*close)(struct engine *engine);
};

struct engine {
    const struct engine_kind *kind;
    const struct model *model;
    const struct ratp_api *ratp;
    ratp_instance *instance;
    ratp_device *device;
    struct engine_options options;
    char name[RATP_NAME_SIZE]; /* the device's */
    uint32_t *messages; /* counts what the validation layer said; the caller's */
};

/* Opens the kind that options->device asks for. *messages counts what the
 * validation layer says, until after engine_close. */
bool engine_open(const struct model *model, const struct engine_options *options,
                 uint32_t *messages, struct engine **out, struct problem *problem);
bool engine_forward(struct engine *engine, const struct engine_step *step,
                    struct problem *problem);
/* Caches made on engine->device must be gone. NULL inside is accepted. */
void engine_close(struct engine **engine);

/* For the kinds: `base` is copied. *none: there is no Vulkan device at all. */
bool engine_open_host(const struct engine *base, struct engine **out, struct problem *problem);
bool engine_open_vulkan(const struct engine *base, struct engine **out, bool *none,
                        struct problem *problem);

#endif
