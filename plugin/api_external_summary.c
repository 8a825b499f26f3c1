/* What queries of attend_external choose blocks by. */
#include "api.h"

#include "dtype.h"
#include "external.h"
#include "structs.h"

#include <inttypes.h>

enum {
    /* An invocation walks along an entry's tokens, and lavapipe's loops end after 65535
     * passes; a query adds a block's entries up. */
    ENTRY_TOKENS = 4096,
    ALIGNMENT = 16
};

static bool chooses(const struct variant *v)
{
    return v->kind == RATP_QUEST || v->kind == RATP_MOBA;
}

static const char *kind_name(const struct variant *v)
{
    return variant_kind_name[v->kind];
}

ratp_status external_variant(const struct ratp_external *p, struct variant *out, struct error *err)
{
    if (p->causal)
        return variant_from_public(p->variant, "params->variant", out, err);
    struct variant given;
    struct error ignored;
    if (!variant_from_public(p->variant, "params->variant", &given, &ignored) && chooses(&given))
        return fail(err, RATP_UNSUPPORTED,
                    "params->causal is 0, params->variant is %s, whose queries choose among the "
                    "blocks before their own; set causal and first_position",
                    kind_name(&given));
    return variant_from_public(NULL, "params->variant", out, err);
}

ratp_status external_entries_of(const struct ratp_external *p, const struct variant *variant,
                                ratp_dtype k_dtype, struct external_entries *out,
                                uint64_t *bytes, struct error *err)
{
    *out = (struct external_entries){0};
    *bytes = 0;
    if (!chooses(variant))
        return RATP_OK;
    bool extremes = variant->kind == RATP_QUEST;
    uint64_t head = extremes ? 2 * dtype_row_bytes(dtype_of_extremes(k_dtype), p->head_size)
                             : p->head_size * sizeof(float);
    uint64_t step = head * p->kv_heads * p->batch;
    if (step > UINT32_MAX)
        return fail(err, RATP_UNSUPPORTED,
                    "params->batch %u times kv_heads %u is %" PRIu64 " bytes a block for %s, at "
                    "most %" PRIu32 " are allowed; give fewer sequences in a call",
                    p->batch, p->kv_heads, step, kind_name(variant), UINT32_MAX);
    uint32_t tokens = variant->block < ENTRY_TOKENS ? variant->block : ENTRY_TOKENS;
    while (variant->block % tokens)
        tokens--;
    *out = (struct external_entries){
        .select = extremes ? SELECT_EXTREMES : SELECT_MEAN, .tokens = tokens,
        .head = (uint32_t)head, .sequence = (uint32_t)head * p->kv_heads, .step = (uint32_t)step};
    *bytes = p->key_tokens / tokens * step;
    return RATP_OK;
}

static ratp_status find_memory(const ratp_device *device, const struct ratp_external *p,
                               uint64_t bytes, struct external_entries *out, struct error *err)
{
    ratp_status status = object_check(p->summaries, OBJECT_BUFFER, "params->summaries", err);
    if (status)
        return status;
    const struct mem *mem = &p->summaries->mem;
    if (p->summaries->device != device)
        return fail(err, RATP_INVALID_ARGUMENT, "params->summaries belongs to another device");
    if (p->summaries_offset % ALIGNMENT)
        return fail(err, RATP_INVALID_ARGUMENT,
                    "params->summaries_offset is %" PRIu64 ", it must be a multiple of %d",
                    p->summaries_offset, ALIGNMENT);
    if (p->summaries_offset > mem->size || bytes > mem->size - p->summaries_offset)
        return fail(err, RATP_INVALID_ARGUMENT,
                    "params->summaries: %" PRIu64 " bytes from summaries_offset %" PRIu64
                    " are needed, the buffer has %" PRIu64 "; external_summary_bytes tells the "
                    "size",
                    bytes, p->summaries_offset, mem->size);
    if (p->summarised > p->key_tokens)
        return fail(err, RATP_INVALID_ARGUMENT,
                    "params->summarised is %u, it must be at most key_tokens, %u", p->summarised,
                    p->key_tokens);
    out->address = mem->address + p->summaries_offset;
    out->summarised = p->summarised;
    return RATP_OK;
}

ratp_status external_selection(const ratp_device *device, const struct ratp_external *p,
                               const struct variant *variant, ratp_dtype k_dtype,
                               struct external_entries *out, uint64_t *bytes, struct error *err)
{
    *bytes = 0;
    *out = (struct external_entries){0};
    if (!p->summaries && (p->summarised || p->summaries_offset))
        return fail(err, RATP_INVALID_ARGUMENT,
                    "params->summaries is NULL, summarised %u and summaries_offset %" PRIu64
                    " must be 0 then",
                    p->summarised, p->summaries_offset);
    if (!chooses(variant)) {
        if (!p->summaries)
            return RATP_OK;
        return fail(err, RATP_INVALID_ARGUMENT,
                    "params->summaries is given, and no query chooses by them: it must be NULL "
                    "unless variant is quest or moba");
    }
    if (p->mask)
        return fail(err, RATP_UNSUPPORTED,
                    "params->mask is given, params->variant is %s, whose blocks are scored "
                    "whole; give no mask, or dense, dilated or streaming",
                    kind_name(variant));
    uint64_t total = (uint64_t)p->first_position + p->query_tokens;
    if (total > p->key_tokens)
        return fail(err, RATP_INVALID_ARGUMENT,
                    "params->first_position %u and query_tokens %u lead to %" PRIu64
                    ", with %s they must end within key_tokens, %u",
                    p->first_position, p->query_tokens, total, kind_name(variant),
                    p->key_tokens);
    ratp_status status = external_entries_of(p, variant, k_dtype, out, bytes, err);
    if (!status && p->summaries)
        status = find_memory(device, p, *bytes, out, err);
    else if (!status && (total - 1) / variant->block < variant->choose)
        *out = (struct external_entries){0}; /* nothing is left out, nothing is kept */
    if (status || out->address || !out->select)
        *bytes = 0;
    return status;
}

ratp_status api_external_summary_bytes(ratp_device *device, const struct ratp_external *params,
                                       uint64_t *bytes)
{
    struct error err = {""};
    struct ratp_external p;
    struct ratp_tensor k = {.dtype = RATP_F32};
    struct variant variant;
    struct external_entries entries;
    uint64_t needed = 0;
    ratp_status status = object_check(device, OBJECT_DEVICE, "device", &err);
    if (!status)
        status = api_not_null(bytes, "bytes", &err);
    if (!status)
        status = struct_read(&p, sizeof p, params, STRUCT_UPTO(struct ratp_external, out),
                             "params", &err);
    if (!status)
        status = external_check_keys(&p, &err);
    if (!status)
        status = external_variant(&p, &variant, &err);
    if (!status && p.k)
        status = struct_read(&k, sizeof k, p.k, STRUCT_UPTO(struct ratp_tensor, host), "params->k",
                             &err);
    if (!status && k.dtype == RATP_DTYPE_DEFAULT)
        k.dtype = RATP_F32;
    if (!status && (k.dtype < RATP_F32 || k.dtype > RATP_Q4_0))
        status = fail(&err, RATP_INVALID_ARGUMENT,
                      "params->k: dtype is %" PRId32 ", it must be 0 (default) to %d", k.dtype,
                      RATP_Q4_0);
    if (!status && !dtype_size(k.dtype) && p.head_size % BLOCK_CHANNELS)
        status = fail(&err, RATP_UNSUPPORTED,
                      "params->k: dtype is %s and a head has %u channels: it needs a multiple of %d",
                      dtype_name(k.dtype), p.head_size, BLOCK_CHANNELS);
    if (!status)
        status = external_entries_of(&p, &variant, k.dtype, &entries, &needed, &err);
    if (!status)
        *bytes = needed;
    return api_return(device, status, &err);
}
