/* Running a graph's nodes, one after the other. */
#include "attention.h"
#include "layers.h"
#include "order.h"
#include "packed.h"
#include "summaries.h"

#include <stdlib.h>
#include <time.h>

struct running {
    struct adapter_device *device;
    struct pass pass;
    struct packed *packed; /* NULL: models are ordinary ones */
};

static double seconds_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static const char *backend_name(ggml_backend_t backend)
{
    const struct running *r = backend->context;
    return r->device->name;
}

static void backend_free(ggml_backend_t backend)
{
    struct running *r = backend->context;
    pass_end(&r->pass);
    packed_free(&r->packed);
    free(r);
    free(backend);
}

/* Views are the host's arithmetic on addresses. */
static bool computes_nothing(const struct ggml_tensor *op)
{
    return op->op == GGML_OP_NONE || op->op == GGML_OP_VIEW || op->op == GGML_OP_RESHAPE ||
           op->op == GGML_OP_PERMUTE || op->op == GGML_OP_TRANSPOSE;
}

/* What belongs to a packed model is taken whatever it is, and refused where it does not
 * fit: on another backend it would run, and be wrong. */
bool op_is_supported(const struct ggml_tensor *op)
{
    if (op->op == GGML_OP_SET_ROWS)
        return policy_packed_theta() > 0 || rows_are_supported(op);
    if (op->op == GGML_OP_FLASH_ATTN_EXT)
        return policy_packed_theta() > 0 || attention_is_supported(op);
    return computes_nothing(op);
}

static bool device_fails(struct adapter_device *d, const struct ggml_tensor *op,
                         ratp_status status)
{
    char why[256];
    if (!status)
        return false;
    summaries_spoil();
    d->ratp->last_error(d->opened, why, sizeof why);
    complain("%s: node %s: %s: %s", d->name, op->name, d->ratp->status_name(status), why);
    return true;
}

static bool write_cache(struct running *r, const struct ggml_tensor *op)
{
    const struct ggml_tensor *rows = op->src[0];
    const double start = seconds_now();
    if (r->packed ? !packed_record(r->packed, op) : !rows_run(op))
        return false;
    order_set_rows(op);
    statistics_rows(ggml_row_size(op->type, rows->ne[0]) * (size_t)ggml_nrows(rows),
                    seconds_now() - start);
    return true;
}

/* Waits for the attention since `since`, of which `op` is the last node; NULL: there is none. */
static bool finish(struct adapter_device *d, const struct ggml_tensor *op, double since)
{
    if (!op)
        return true;
    if (device_fails(d, op, d->ratp->device_wait(d->opened)))
        return false;
    statistics_seconds(seconds_now() - since);
    return true;
}

static bool attend(struct running *r, const struct ggml_tensor *op)
{
    struct ratp_tensor gate;
    if (r->packed && !packed_apply(r->packed, op, &gate))
        return false;
    r->pass.gate = r->packed ? &gate : NULL;
    return !device_fails(r->device, op, attention_run(r->device, &r->pass, op));
}

/* Nodes on the device are submitted, nodes on the host wait for them first: they
 * may write where the device still reads. */
static enum ggml_status graph_compute(ggml_backend_t backend, struct ggml_cgraph *graph)
{
    struct running *r = backend->context;
    struct adapter_device *d = r->device;
    const struct ggml_tensor *submitted = NULL;
    double since = 0;
    statistics_poll();
    pass_graph(&r->pass, graph);
    for (int i = 0; i < ggml_graph_n_nodes(graph); i++) {
        const struct ggml_tensor *op = ggml_graph_node(graph, i);
        if (computes_nothing(op) || ggml_is_empty(op) || !(op->flags & GGML_TENSOR_FLAG_COMPUTE))
            continue;
        if (op->op == GGML_OP_FLASH_ATTN_EXT) {
            /* The host writes what a packed node before may still read. */
            if (r->packed && !finish(d, submitted, since))
                return GGML_STATUS_FAILED;
            since = submitted && !r->packed ? since : seconds_now();
            if (!attend(r, op))
                return GGML_STATUS_FAILED;
            submitted = op;
        } else if (op->op == GGML_OP_SET_ROWS) {
            if (!finish(d, submitted, since) || !write_cache(r, op))
                return GGML_STATUS_FAILED;
            submitted = NULL;
        } else {
            complain("%s: node %s: %s is not an operation of this backend", d->name, op->name,
                     ggml_op_name(op->op));
            return GGML_STATUS_FAILED;
        }
    }
    return finish(d, submitted, since) ? GGML_STATUS_SUCCESS : GGML_STATUS_FAILED;
}

/* There is nothing to wait for: a graph's work is done when graph_compute returns. */
static void synchronize(ggml_backend_t backend)
{
    (void)backend;
    layers_waited();
}

ggml_backend_t backend_create(struct adapter_device *d)
{
    static ggml_guid guid = {0x72, 0x61, 0x74, 0x70, 0x6c, 0x75, 0x73, 0x2d,
                             0x67, 0x67, 0x6d, 0x6c, 0x2d, 0x30, 0x30, 0x31};
    if (!device_open(d))
        return NULL;
    struct running *r = calloc(1, sizeof *r);
    ggml_backend_t backend = calloc(1, sizeof *backend);
    const double theta = policy_packed_theta();
    if (r && theta > 0)
        r->packed = packed_create(d, theta);
    if (!r || !backend || (theta > 0 && !r->packed)) {
        if (r)
            packed_free(&r->packed);
        free(r);
        free(backend);
        complain("%s: no memory for a backend", d->name);
        return NULL;
    }
    r->device = d;
    *backend = (struct ggml_backend){
        .guid = &guid,
        .get_name = backend_name,
        .free_backend = backend_free,
        .synchronize = synchronize,
        .graph_compute = graph_compute,
        .device = &d->ggml,
        .context = r,
    };
    return backend;
}
