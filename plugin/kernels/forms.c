/* What each kernel runs as on a device, for people. */
#include "attend.h"

#include <stdio.h>

enum { MEMORY, QUANTIZE, PREFILL, DECODE, MERGE, MOVE, RESTORE, SUMMARISE, SCORE, CHOOSE };

static const char *const names[KERNEL_COUNT] = {
    [MEMORY] = "memory",
    [QUANTIZE] = "8-bit blocks",
    [PREFILL] = "prefill attention",
    [DECODE] = "decode attention",
    [MERGE] = "merge",
    [MOVE] = "move",
    [RESTORE] = "restore",
    [SUMMARISE] = "block summaries",
    [SCORE] = "block scores",
    [CHOOSE] = "block choice",
};

/* Kernels choose by the shape too; this one is the released models'. */
static const struct layer_shape usual = {
    .query_heads = 16, .kv_heads = 16, .head_size = 128, .value_size = 128,
    .k_dtype = RATP_F16, .v_dtype = RATP_F16};

void kernels_describe(struct kernel_backend *k)
{
    const struct vk_caps *caps = vk_device_caps(k->vk);
    struct kernel_text *t = k->text;
    for (int i = 0; i < KERNEL_COUNT; i++)
        snprintf(t[i].form, sizeof t[i].form, "plain, float32");

    struct prefill_form prefill = prefill_form(k, &usual);
    bool matrix = prefill.way == PREFILL_MATRIX;
    snprintf(t[PREFILL].form, sizeof t[PREFILL].form, "%s, %s, %u rows of 128 channels",
             prefill.name, matrix ? "float16 twice for float32" : "float32", prefill.rows);
    const char *why = prefill_no_matrix(caps, &usual);
    if (!why && !matrix)
        why = "a CPU's vectors are faster than its cooperative matrices";
    snprintf(t[PREFILL].reason, sizeof t[PREFILL].reason, "%s", why ? why : "");

    struct decode_form decode = decode_form(caps, &usual);
    snprintf(t[DECODE].form, sizeof t[DECODE].form, "%s, float32, %u lanes of subgroups of %u",
             decode.name, decode.lanes, caps->subgroup_size);
    snprintf(t[DECODE].reason, sizeof t[DECODE].reason, "%s", decode.reason);
    t[SCORE] = t[DECODE]; /* their rows are shared in the same way */
}

bool kernels_form(struct backend *b, uint32_t index, struct ratp_kernel_form *out)
{
    const struct kernel_backend *k = (const struct kernel_backend *)b;
    if (index >= KERNEL_COUNT)
        return false;
    *out = (struct ratp_kernel_form){
        .struct_size = sizeof *out,
        .kernel = names[index],
        .form = k->text[index].form,
        .reason = k->text[index].reason,
    };
    return true;
}
