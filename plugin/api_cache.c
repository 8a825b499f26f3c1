/* Caches, sequences and steps. */
#include "api.h"

#include "cache/cache.h"
#include "staging.h"
#include "structs.h"

#include <stdio.h>

static ratp_status check_policy(const ratp_device *device, const ratp_policy *policy,
                                const char *what, struct error *err)
{
    ratp_status status = object_check(policy, OBJECT_POLICY, what, err);
    if (!status && policy->instance != device->instance)
        status = fail(err, RATP_INVALID_ARGUMENT, "%s belongs to another instance", what);
    return status;
}

ratp_status api_cache_create(ratp_device *device, const struct ratp_cache_params *params,
                             ratp_cache **out)
{
    struct error err = {""};
    struct ratp_cache_params p;
    struct ratp_geometry geometry;
    struct ratp_rope rope;
    ratp_status status = api_not_null(out, "out", &err);
    if (!status) {
        *out = NULL;
        status = object_check(device, OBJECT_DEVICE, "device", &err);
    }
    if (!status)
        status = struct_read(&p, sizeof p, params,
                             STRUCT_UPTO(struct ratp_cache_params, geometry), "params", &err);
    if (!status)
        status = struct_read(&geometry, sizeof geometry, p.geometry,
                             STRUCT_UPTO(struct ratp_geometry, head_size), "params->geometry",
                             &err);
    if (!status)
        status = struct_read_optional(&rope, sizeof rope, geometry.rope,
                                      STRUCT_UPTO(struct ratp_rope, style), "geometry->rope",
                                      &err);
    if (!status && p.policy)
        status = check_policy(device, p.policy, "params->policy", &err);
    if (!status)
        status = cache_open(device, &geometry, geometry.rope ? &rope : NULL, p.policy, &p, out,
                            &err);
    return api_return(device, status, &err);
}

ratp_status api_cache_destroy(ratp_cache **cache)
{
    struct error err = {""};
    if (!cache)
        return RATP_INVALID_ARGUMENT;
    if (!*cache)
        return RATP_OK;
    ratp_status status = object_check(*cache, OBJECT_CACHE, "*cache", &err);
    if (!status)
        status = cache_enter(*cache, &err);
    if (!status) {
        status = cache_close(*cache, &err);
        if (status)
            cache_leave(*cache, status);
    }
    if (status)
        return api_return(*cache, status, &err);
    *cache = NULL;
    return RATP_OK;
}

ratp_status api_cache_stats(ratp_cache *cache, struct ratp_cache_stats *stats)
{
    struct error err = {""};
    struct ratp_cache_stats full = {0};
    ratp_status status = object_check(cache, OBJECT_CACHE, "cache", &err);
    if (!status)
        status = struct_check_out(stats, sizeof stats->struct_size, "stats", &err);
    if (!status)
        status = cache_enter(cache, &err);
    if (!status) {
        cache_describe(cache, &full);
        cache_leave(cache, RATP_OK);
        struct_write(stats, &full, sizeof full);
    }
    return api_return(cache, status, &err);
}

ratp_status api_seq_create(ratp_cache *cache, ratp_seq **out)
{
    struct error err = {""};
    ratp_status status = api_not_null(out, "out", &err);
    if (!status) {
        *out = NULL;
        status = object_check(cache, OBJECT_CACHE, "cache", &err);
    }
    if (!status)
        status = cache_enter(cache, &err);
    if (!status)
        status = cache_leave(cache, seq_open(cache, cache->layout, out, &err));
    return api_return(cache, status, &err);
}

ratp_status api_seq_destroy(ratp_seq **seq)
{
    struct error err = {""};
    if (!seq)
        return RATP_INVALID_ARGUMENT;
    if (!*seq)
        return RATP_OK;
    ratp_status status = object_check(*seq, OBJECT_SEQ, "*seq", &err);
    ratp_cache *cache = status ? NULL : (*seq)->cache;
    if (!status)
        status = cache_enter(cache, &err);
    if (!status)
        status = cache_leave(cache, seq_close(*seq, &err));
    if (status)
        return api_return(*seq, status, &err);
    *seq = NULL;
    return RATP_OK;
}

ratp_status api_seq_fork(ratp_seq *seq, ratp_seq **out)
{
    struct error err = {""};
    ratp_status status = api_not_null(out, "out", &err);
    if (!status) {
        *out = NULL;
        status = object_check(seq, OBJECT_SEQ, "seq", &err);
    }
    if (!status)
        status = cache_enter(seq->cache, &err);
    if (!status)
        status = cache_leave(seq->cache, seq_copy(seq, out, &err));
    return api_return(seq, status, &err);
}

ratp_status api_seq_truncate(ratp_seq *seq, uint64_t length)
{
    struct error err = {""};
    ratp_status status = object_check(seq, OBJECT_SEQ, "seq", &err);
    if (!status)
        status = cache_enter(seq->cache, &err);
    if (!status)
        status = cache_leave(seq->cache, seq_cut(seq, length, &err));
    return api_return(seq, status, &err);
}

ratp_status api_seq_set_policy(ratp_seq *seq, const ratp_policy *policy)
{
    struct error err = {""};
    ratp_status status = object_check(seq, OBJECT_SEQ, "seq", &err);
    if (!status && policy)
        status = check_policy(seq->cache->device, policy, "policy", &err);
    if (!status)
        status = cache_enter(seq->cache, &err);
    if (!status)
        status = cache_leave(seq->cache, seq_switch(seq, policy, &err));
    return api_return(seq, status, &err);
}

ratp_status api_seq_compress(ratp_seq *seq)
{
    struct error err = {""};
    ratp_status status = object_check(seq, OBJECT_SEQ, "seq", &err);
    if (!status)
        status = cache_enter(seq->cache, &err);
    if (!status)
        status = cache_leave(seq->cache, seq_compress(seq, &err));
    return api_return(seq, status, &err);
}

ratp_status api_seq_stats(ratp_seq *seq, struct ratp_seq_stats *stats)
{
    struct error err = {""};
    struct ratp_seq_stats full = {0};
    ratp_status status = object_check(seq, OBJECT_SEQ, "seq", &err);
    if (!status)
        status = struct_check_out(stats, sizeof stats->struct_size, "stats", &err);
    if (!status)
        status = cache_enter(seq->cache, &err);
    if (!status) {
        seq_describe(seq, &full);
        cache_leave(seq->cache, RATP_OK);
        struct_write(stats, &full, sizeof full);
    }
    return api_return(seq, status, &err);
}

ratp_status api_seq_positions(ratp_seq *seq, uint32_t layer, uint32_t kv_head,
                              uint32_t *positions, uint64_t capacity, uint64_t *count)
{
    struct error err = {""};
    ratp_status status = object_check(seq, OBJECT_SEQ, "seq", &err);
    if (!status)
        status = api_not_null(count, "count", &err);
    if (!status && !positions && capacity > 0)
        status = fail(&err, RATP_INVALID_ARGUMENT, "positions is NULL and capacity is %llu",
                      (unsigned long long)capacity);
    if (!status)
        status = cache_enter(seq->cache, &err);
    if (!status)
        status = cache_leave(seq->cache, seq_kept_positions(seq, layer, kv_head, positions,
                                                            capacity, count, &err));
    return api_return(seq, status, &err);
}

ratp_status api_step_begin(ratp_cache *cache, const struct ratp_step_params *params,
                           ratp_step **out)
{
    struct error err = {""};
    struct ratp_step_params p;
    ratp_status status = api_not_null(out, "out", &err);
    if (!status) {
        *out = NULL;
        status = object_check(cache, OBJECT_CACHE, "cache", &err);
    }
    if (!status)
        status = struct_read(&p, sizeof p, params, STRUCT_UPTO(struct ratp_step_params, n_tokens),
                             "params", &err);
    if (!status && (p.count < 1 || p.count > 65536))
        status = fail(&err, RATP_INVALID_ARGUMENT, "params->count is %u, it must be 1 to 65536",
                      p.count);
    if (!status)
        status = api_not_null(p.seqs, "params->seqs", &err);
    if (!status)
        status = api_not_null(p.n_tokens, "params->n_tokens", &err);
    for (uint32_t i = 0; i < p.count && !status; i++)
        if (!object_is(p.seqs[i], OBJECT_SEQ)) {
            char what[40];
            snprintf(what, sizeof what, "params->seqs[%u]", i);
            status = object_check(p.seqs[i], OBJECT_SEQ, what, &err);
        }
    if (!status)
        status = cache_enter(cache, &err);
    if (!status)
        status = cache_leave(cache, step_open(cache, &p, out, &err));
    return api_return(cache, status, &err);
}

enum { IO_Q, IO_K, IO_V, IO_F, IO_O, IO_SINKS, IO_OUT, IO_LSE, IO_COUNT };

static ratp_status read_io(const ratp_step *step, const struct ratp_attend_io *io,
                           struct staged *items, struct error *err)
{
    const ratp_cache *cache = step_cache(step);
    const struct layer_shape *s = &cache->shape;
    uint32_t rows = step_rows(step), d = s->head_size, dv = s->value_size;
    const struct operand_want want[IO_COUNT] = {
        [IO_Q] = {"io->q", 1, rows, s->query_heads, d},
        [IO_K] = {"io->k", 1, rows, s->kv_heads, d},
        [IO_V] = {"io->v", 1, rows, s->kv_heads, dv},
        [IO_F] = {"io->f", 1, rows, s->kv_heads, d},
        [IO_O] = {"io->o", 1, rows, s->query_heads, dv},
        [IO_SINKS] = {"io->sinks", 1, 1, 1, s->query_heads, .float32_only = true},
        [IO_OUT] = {"io->out", 1, rows, s->query_heads, dv, .written = true},
        [IO_LSE] = {"io->lse", 1, rows, s->query_heads, 1, .written = true, .float32_only = true},
    };
    const struct ratp_tensor *const tensors[IO_COUNT] = {
        [IO_Q] = io->q, [IO_K] = io->k, [IO_V] = io->v, [IO_F] = io->f, [IO_O] = io->o,
        [IO_SINKS] = io->sinks, [IO_OUT] = io->out, [IO_LSE] = io->lse,
    };
    if (s->memory && !io->f)
        return fail(err, RATP_INVALID_ARGUMENT, "io->f is NULL, the geometry has memory");
    if (!s->memory && io->f)
        return fail(err, RATP_INVALID_ARGUMENT,
                    "io->f is given, the geometry has no memory: it must be NULL");
    ratp_status status = RATP_OK;
    for (int i = 0; i < IO_COUNT && !status; i++) {
        bool optional = i == IO_F || i == IO_O || i == IO_SINKS || i == IO_LSE;
        if (tensors[i] || !optional)
            status = operand_read(cache->device, tensors[i], &want[i], &items[i].view, err);
    }
    return status;
}

static ratp_status attend(ratp_step *step, uint32_t layer, const struct ratp_attend_io *io,
                          struct error *err)
{
    ratp_device *device = step_cache(step)->device;
    struct staged items[IO_COUNT] = {0};
    struct staging *staging = NULL;
    ratp_status status = read_io(step, io, items, err);
    if (!status)
        status = staging_take(device, items, IO_COUNT, &staging, err);
    /* Neither an argument nor the order of calls is to blame: see step_acted. */
    if (status == RATP_OUT_OF_MEMORY || status == RATP_DEVICE_LOST)
        return step_acted(step, status);
    if (status)
        return status;
    const struct step_io operands = {
        .q = items[IO_Q].operand, .k = items[IO_K].operand,     .v = items[IO_V].operand,
        .f = items[IO_F].operand, .o = items[IO_O].operand,     .out = items[IO_OUT].operand,
        .lse = items[IO_LSE].operand, .sinks = items[IO_SINKS].operand.address,
        .wait = staging != NULL,
    };
    status = step_run(step, layer, &operands, err);
    if (!status && staging)
        staging_fetch(staging, items, IO_COUNT);
    staging_give(device, staging, status);
    return status;
}

static ratp_status check_and_attend(ratp_step *step, uint32_t layer,
                                    const struct ratp_attend_io *io, struct error *err)
{
    struct ratp_attend_io copy;
    ratp_status status = step_may_attend(step, layer, err);
    if (!status)
        status = struct_read(&copy, sizeof copy, io, STRUCT_UPTO(struct ratp_attend_io, out),
                             "io", err);
    return status ? status : attend(step, layer, &copy, err);
}

ratp_status api_step_attend(ratp_step *step, uint32_t layer, const struct ratp_attend_io *io)
{
    struct error err = {""};
    ratp_status status = object_check(step, OBJECT_STEP, "step", &err);
    if (!status)
        status = cache_enter(step_cache(step), &err);
    if (!status)
        status = cache_leave(step_cache(step), check_and_attend(step, layer, io, &err));
    return api_return(step, status, &err);
}

ratp_status api_step_commit(ratp_step **step)
{
    struct error err = {""};
    ratp_status status = api_not_null(step, "step", &err);
    if (status)
        return status;
    status = object_check(*step, OBJECT_STEP, "*step", &err);
    ratp_cache *cache = status ? NULL : step_cache(*step);
    if (!status)
        status = cache_enter(cache, &err);
    if (!status)
        status = cache_leave(cache, step_finish(*step, &err));
    if (status)
        return api_return(*step, status, &err);
    *step = NULL;
    return RATP_OK;
}

ratp_status api_step_abort(ratp_step **step)
{
    struct error err = {""};
    if (!step)
        return RATP_INVALID_ARGUMENT;
    if (!*step)
        return RATP_OK;
    ratp_status status = object_check(*step, OBJECT_STEP, "*step", &err);
    ratp_cache *cache = status ? NULL : step_cache(*step);
    if (!status)
        status = cache_enter(cache, &err);
    if (status)
        return api_return(*step, status, &err);
    step_cancel(*step);
    cache_leave(cache, RATP_OK);
    *step = NULL;
    return RATP_OK;
}
