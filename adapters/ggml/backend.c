/* Running a graph's nodes, one after the other. */
#include "packed.h"

#include <stdlib.h>

struct running {
    struct adapter_device *device;
    struct packed *packed; /* NULL: models are ordinary ones */
    struct adapter_counts counts;
    bool stats; /* a line with the counts when the backend is freed */
};

static const char *backend_name(ggml_backend_t backend)
{
    const struct running *r = backend->context;
    return r->device->name;
}

static void backend_free(ggml_backend_t backend)
{
    struct running *r = backend->context;
    if (r->stats)
        complain("%s ran %llu attention nodes and %llu cache writes", r->device->name,
                 r->counts.attention, r->counts.rows);
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
bool op_is_supported(const struct adapter_device *device, const struct ggml_tensor *op)
{
    if (op->op == GGML_OP_SET_ROWS)
        return device->packed_theta > 0 || rows_are_supported(op);
    if (op->op == GGML_OP_FLASH_ATTN_EXT)
        return device->packed_theta > 0 || attention_is_supported(op);
    return computes_nothing(op);
}

static bool device_fails(struct adapter_device *d, const struct ggml_tensor *op,
                         ratp_status status)
{
    char why[256];
    if (!status)
        return false;
    d->ratp->last_error(d->opened, why, sizeof why);
    complain("%s: node %s: %s: %s", d->name, op->name, d->ratp->status_name(status), why);
    return true;
}

/* Waits for *submitted, if there is any. */
static bool finish(struct adapter_device *d, const struct ggml_tensor **submitted)
{
    const struct ggml_tensor *op = *submitted;
    *submitted = NULL;
    return !op || !device_fails(d, op, d->ratp->device_wait(d->opened));
}

static bool run_attention(struct running *r, const struct ggml_tensor *op,
                          const struct ggml_tensor **submitted)
{
    struct ratp_tensor gate;
    if (r->packed && (!finish(r->device, submitted) || !packed_apply(r->packed, op, &gate)))
        return false;
    if (device_fails(r->device, op, attention_run(r->device, op, r->packed ? &gate : NULL)))
        return false;
    *submitted = op;
    r->counts.attention++;
    return true;
}

static bool run_rows(struct running *r, const struct ggml_tensor *op,
                     const struct ggml_tensor **submitted)
{
    if (!finish(r->device, submitted))
        return false;
    r->counts.rows++;
    return r->packed ? packed_record(r->packed, op) : rows_run(op);
}

/* Nodes on the device are submitted, nodes on the host wait for them first: they
 * may write where the device still reads. */
static enum ggml_status graph_compute(ggml_backend_t backend, struct ggml_cgraph *graph)
{
    struct running *r = backend->context;
    const struct ggml_tensor *submitted = NULL;
    bool good = true;
    for (int i = 0; i < ggml_graph_n_nodes(graph) && good; i++) {
        const struct ggml_tensor *op = ggml_graph_node(graph, i);
        if (computes_nothing(op) || ggml_is_empty(op) || !(op->flags & GGML_TENSOR_FLAG_COMPUTE))
            continue;
        if (op->op == GGML_OP_FLASH_ATTN_EXT) {
            good = run_attention(r, op, &submitted);
        } else if (op->op == GGML_OP_SET_ROWS) {
            good = run_rows(r, op, &submitted);
        } else {
            complain("%s: node %s: %s is not an operation of this backend", r->device->name,
                     op->name, ggml_op_name(op->op));
            good = false;
        }
    }
    good = finish(r->device, &submitted) && good;
    return good ? GGML_STATUS_SUCCESS : GGML_STATUS_FAILED;
}

ggml_backend_t backend_create(struct adapter_device *d)
{
    static ggml_guid guid = {0x72, 0x61, 0x74, 0x70, 0x6c, 0x75, 0x73, 0x2d,
                             0x67, 0x67, 0x6d, 0x6c, 0x2d, 0x30, 0x30, 0x31};
    if (!device_open(d))
        return NULL;
    struct running *r = calloc(1, sizeof *r);
    ggml_backend_t backend = calloc(1, sizeof *backend);
    if (r && d->packed_theta > 0)
        r->packed = packed_create(d, d->packed_theta);
    if (!r || !backend || (d->packed_theta > 0 && !r->packed)) {
        if (r)
            packed_free(&r->packed);
        free(r);
        free(backend);
        complain("%s: no memory for a backend", d->name);
        return NULL;
    }
    r->device = d;
    r->stats = getenv("RATPLUS_STATS") != NULL;
    *backend = (struct ggml_backend){
        .guid = &guid,
        .get_name = backend_name,
        .free_backend = backend_free,
        .graph_compute = graph_compute,
        .device = &d->ggml,
        .context = r,
    };
    return backend;
}
