/* Merging partial results. */
#include "api.h"

#include "staging.h"
#include "structs.h"

#include <inttypes.h>
#include <stdio.h>

enum { MAX_PARTS = 64, MAX_TOKENS = 1 << 24, MAX_HEADS = 16384 };

/* Operands of a call: the parts' out, the parts' lse, out, lse. */
enum { MERGE_ITEMS = 2 * MAX_PARTS + 2 };

static ratp_status check_sizes(const struct ratp_merge *p, struct error *err)
{
    if (p->parts < 1 || p->parts > MAX_PARTS)
        return fail(err, RATP_INVALID_ARGUMENT, "params->parts is %u, it must be 1 to %d",
                    p->parts, MAX_PARTS);
    if (p->tokens < 1 || p->tokens > MAX_TOKENS)
        return fail(err, RATP_INVALID_ARGUMENT, "params->tokens is %u, it must be 1 to %d",
                    p->tokens, MAX_TOKENS);
    if (p->heads < 1 || p->heads > MAX_HEADS)
        return fail(err, RATP_INVALID_ARGUMENT, "params->heads is %u, it must be 1 to %d",
                    p->heads, MAX_HEADS);
    if (p->value_size < 8 || p->value_size > 256 || p->value_size % 8 != 0)
        return fail(err, RATP_INVALID_ARGUMENT,
                    "params->value_size is %u, it must be a multiple of 8, 8 to 256",
                    p->value_size);
    ratp_status status = api_not_null(p->part_out, "params->part_out", err);
    return status ? status : api_not_null(p->part_lse, "params->part_lse", err);
}

static ratp_status read_tensors(const ratp_device *device, const struct ratp_merge *p,
                                struct staged *items, struct error *err)
{
    char name[48];
    const struct operand_want out = {"params->out", 1, p->tokens, p->heads, p->value_size,
                                     .written = true};
    const struct operand_want lse = {"params->lse", 1, p->tokens, p->heads, 1, .written = true,
                                     .float32_only = true};
    ratp_status status = RATP_OK;
    for (uint32_t i = 0; i < p->parts && !status; i++) {
        snprintf(name, sizeof name, "params->part_out[%" PRIu32 "]", i);
        const struct operand_want part_out = {name, 1, p->tokens, p->heads, p->value_size,
                                              .written = false};
        status = operand_read(device, p->part_out[i], &part_out, &items[i].view, err);
        items[i].view.want.name = "params->part_out";
        if (status)
            break;
        snprintf(name, sizeof name, "params->part_lse[%" PRIu32 "]", i);
        const struct operand_want part_lse = {name, 1, p->tokens, p->heads, 1,
                                              .float32_only = true};
        struct staged *item = &items[p->parts + i];
        status = operand_read(device, p->part_lse[i], &part_lse, &item->view, err);
        item->view.want.name = "params->part_lse";
    }
    if (!status)
        status = operand_read(device, p->out, &out, &items[2 * p->parts].view, err);
    if (!status && p->lse)
        status = operand_read(device, p->lse, &lse, &items[2 * p->parts + 1].view, err);
    return status;
}

static ratp_status run(struct backend *b, const struct ratp_merge *p, const struct staged *items,
                       bool wait, struct error *err)
{
    struct operand part_out[MAX_PARTS], part_lse[MAX_PARTS];
    for (uint32_t i = 0; i < p->parts; i++) {
        part_out[i] = items[i].operand;
        part_lse[i] = items[p->parts + i].operand;
    }
    const struct merge_args args = {
        .parts = p->parts, .tokens = p->tokens, .heads = p->heads, .value_size = p->value_size,
        .part_out = part_out, .part_lse = part_lse,
        .out = items[2 * p->parts].operand, .lse = items[2 * p->parts + 1].operand,
    };
    struct stream *s = NULL;
    ticket done = 0;
    ratp_status status = b->ops->stream_begin(b, &s, err);
    if (status)
        return status;
    status = b->ops->merge(b, s, &args, err);
    if (status) {
        b->ops->stream_drop(b, s);
        return status;
    }
    status = b->ops->stream_submit(b, s, &done, err);
    if (!status && wait)
        status = b->ops->wait(b, done, err);
    return status;
}

ratp_status api_merge(ratp_device *device, const struct ratp_merge *params)
{
    struct error err = {""};
    struct ratp_merge p;
    struct staged items[MERGE_ITEMS] = {0};
    struct staging *staging = NULL;
    uint32_t count = 0;
    ratp_status status = object_check(device, OBJECT_DEVICE, "device", &err);
    if (!status)
        status = struct_read(&p, sizeof p, params, STRUCT_UPTO(struct ratp_merge, out), "params",
                             &err);
    if (!status)
        status = check_sizes(&p, &err);
    if (!status) {
        count = 2 * p.parts + 2;
        status = read_tensors(device, &p, items, &err);
    }
    if (!status)
        status = staging_take(device, items, count, &staging, &err);
    if (!status)
        status = run(device->backend, &p, items, staging != NULL, &err);
    if (!status && staging)
        staging_fetch(staging, items, count);
    staging_give(device, staging, status);
    return api_return(device, status, &err);
}
