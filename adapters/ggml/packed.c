/* The memory and the gates of a packed model's layers, on the host: a few rows a step. The
 * attention itself is the library's. */
#include "packed.h"
#include "mask.h"
#include "order.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* MARKER: what ratplus-convert puts into the queries' second half, as a bias. */
enum { MARKER = 64, LEAST_CHANNELS = 32, MAX_LAYERS = 4096 };

/* Layers that any backend of this process ran. */
static atomic_bool ran[MAX_LAYERS];

/* What a SET_ROWS node brought, until the attention comes. */
struct rows {
    const struct ggml_tensor *cache; /* the whole tensor; NULL: nothing is here */
    size_t count, capacity, channels; /* rows, those there is room for, and what each has */
    float *values;   /* [count][channels] */
    unsigned char **at;
};

struct packed {
    struct adapter_device *device;
    double theta;
    struct rows rows[2]; /* of the layer's K and V, in the order in which they came */
    int next;
    struct packed_turns turns;
    struct packed_place *places; /* [tokens] */
    float *angles;               /* [tokens][host's head size], ... */
    int64_t *angles_at;          /* ... of these positions: the next layer's are the same */
    size_t capacity;             /* of places and angles, in tokens */
    ratp_buffer *gates;          /* o, [tokens][heads][size] */
    float *gates_mapped;
    size_t gates_size;
};

struct packed *packed_create(struct adapter_device *device, double theta)
{
    struct packed *p = calloc(1, sizeof *p);
    if (p) {
        p->device = device;
        p->theta = theta;
    }
    return p;
}

void packed_free(struct packed **packed)
{
    struct packed *p = *packed;
    if (!p)
        return;
    for (int i = 0; i < 2; i++) {
        free(p->rows[i].values);
        free(p->rows[i].at);
    }
    p->device->ratp->buffer_destroy(&p->gates);
    free(p->places);
    free(p->angles);
    free(p->angles_at);
    free(p);
    *packed = NULL;
}

/* Memory for `count` items of `size` bytes in place of `old`; NULL, and a line, without. */
static void *renew(void *old, size_t count, size_t size)
{
    free(old);
    void *memory = calloc(count, size);
    if (!memory)
        complain("no host memory for %zu times %zu bytes, which a packed model needs", count, size);
    return memory;
}

static bool refuse(const struct ggml_tensor *op, const char *why)
{
    complain("the policy says that models are packed ones, and llama.cpp's node %s does not fit "
             "such a model: %s", op->name, why);
    return false;
}

static bool rows_fit(const struct ggml_tensor *op)
{
    if (op->src[0]->ne[0] < 2 * LEAST_CHANNELS)
        return refuse(op, "a row of its cache has too few numbers for the keys or values of a "
                          "token. llama.cpp stores values so when it runs without flash "
                          "attention: start it with -fa on");
    /* Of a cache in f32 llama.cpp's attention reads a copy, made before the cells are written. */
    if (!rows_are_supported(op) || (op->type != GGML_TYPE_F16 && op->type != GGML_TYPE_BF16))
        return refuse(op, "its cache must be f16 or bf16: start llama.cpp with -ctk f16 -ctv f16");
    if (op->src[0]->ne[2] != 1 || op->src[0]->ne[3] != 1)
        return refuse(op, "it writes the rows of several caches at once, and that of one layer is "
                          "expected");
    return true;
}

static struct rows *rows_of(struct packed *p, const struct ggml_tensor *view)
{
    for (int i = 0; i < 2; i++)
        if (p->rows[i].cache == tensor_root(view))
            return &p->rows[i];
    return NULL;
}

static bool rows_make_room(struct rows *r, size_t count, size_t channels)
{
    if (count <= r->capacity && channels == r->channels)
        return true;
    r->capacity = 0;
    r->channels = channels;
    r->values = renew(r->values, count, channels * sizeof *r->values);
    r->at = renew(r->at, count, sizeof *r->at);
    r->capacity = r->values && r->at ? count : 0;
    return r->capacity > 0;
}

bool packed_record(struct packed *p, const struct ggml_tensor *op)
{
    const struct ggml_tensor *source = op->src[0];
    /* What a graph left behind that was given up is replaced. */
    struct rows *same = rows_of(p, op), *r = same ? same : &p->rows[p->next];
    p->next = r == &p->rows[0];
    r->cache = NULL;
    if (!rows_fit(op) || !rows_make_room(r, (size_t)source->ne[1], (size_t)source->ne[0]))
        return false;
    r->count = (size_t)source->ne[1];
    for (size_t i = 0; i < r->count; i++) {
        r->at[i] = rows_place(op, i, 0, 0);
        if (!r->at[i])
            return false;
        memcpy(r->values + i * r->channels, (unsigned char *)source->data + i * source->nb[1],
               r->channels * sizeof *r->values);
    }
    r->cache = tensor_root(op);
    return true;
}

/* Whether a row holds heads one after the other. */
static bool is_packed(const struct ggml_tensor *keys, const struct rows *rows)
{
    size_t head = (size_t)keys->ne[0] * ggml_type_size(keys->type);
    return rows->channels == (size_t)(keys->ne[0] * keys->ne[2]) &&
           (keys->ne[2] == 1 || keys->nb[2] == head) && rows->channels >= 2 * LEAST_CHANNELS;
}

static bool attention_fits(const struct ggml_tensor *op, const struct rows *k,
                           const struct rows *v)
{
    const struct ggml_tensor *q = op->src[0], *mask = op->src[MASK_SOURCE];
    if (!attention_is_supported(op))
        return refuse(op, "the library has no such attention; the README of this backend lists "
                          "what runs here");
    if (!k || !v || k == v)
        return refuse(op, "its keys and values were not written by this backend just before; start "
                          "llama.cpp with -ngl 99, without -nkvo");
    if (q->ne[2] != op->src[1]->ne[2])
        return refuse(op, "a packed model has as many key/value heads as query heads, and this one "
                          "has not: leave \"memory\" out of the policy for it");
    if (q->ne[0] % 16 != 0 || op->src[2]->ne[0] != q->ne[0] || !is_packed(op->src[1], k) ||
        !is_packed(op->src[2], v))
        return refuse(op, "its heads are not made of two halves of a multiple of 8 channels each, "
                          "of which the second holds the gates: is it a file of ratplus-convert "
                          "--gguf?");
    if (k->count != (size_t)(q->ne[1] * q->ne[3]) || v->count != k->count)
        return refuse(op, "it has queries of other tokens than those whose keys were just written");
    if (!mask || mask->ne[2] != 1)
        return refuse(op, "it has no mask, or one for each head, and from one mask for all heads "
                          "is read which token comes after which");
    return true;
}

/* A layer that the host runs by itself is nonsense, and the layers after it with it. */
static bool layers_are_here(const struct ggml_tensor *op)
{
    int layer = order_layer(op->src[1]);
    if (layer < 0 || layer >= MAX_LAYERS)
        return refuse(op, "its keys lie in no cache that llama.cpp names by its layer (cache_k_l0 "
                          "...)");
    atomic_store(&ran[layer], true);
    if (layer > 0 && !atomic_load(&ran[layer - 1]))
        return refuse(op, "the layer before it is not run by this backend, and all must be: start "
                          "llama.cpp with -ngl 99");
    return true;
}

static bool make_scratch(struct packed *p, size_t tokens, size_t heads, size_t size)
{
    char why[256];
    struct adapter_device *d = p->device;
    if (p->turns.size != size) {
        packed_turns_init(&p->turns, p->theta, size);
        p->capacity = 0;
    }
    if (tokens > p->capacity) {
        p->capacity = 0;
        p->places = renew(p->places, tokens, sizeof *p->places);
        p->angles = renew(p->angles, tokens, 2 * size * sizeof *p->angles);
        p->angles_at = renew(p->angles_at, tokens, sizeof *p->angles_at);
        if (!p->places || !p->angles || !p->angles_at)
            return false;
        for (size_t i = 0; i < tokens; i++)
            p->angles_at[i] = PACKED_NONE;
        p->capacity = tokens;
    }
    if (tokens * heads * size <= p->gates_size)
        return true;
    const struct ratp_buffer_params params = {
        .struct_size = sizeof params,
        .size = tokens * heads * size * sizeof *p->gates_mapped,
        .kind = RATP_MEMORY_HOST,
    };
    void *mapped = NULL;
    p->gates_size = 0;
    d->ratp->buffer_destroy(&p->gates);
    if (d->ratp->buffer_create(d->opened, &params, &p->gates)) {
        d->ratp->last_error(d->opened, why, sizeof why);
        complain("%s: no memory for the output gates of %zu tokens at once: %s; a smaller -ub "
                 "needs less", d->name, tokens, why);
        return false;
    }
    if (d->ratp->buffer_map(p->gates, &mapped)) {
        d->ratp->last_error(p->gates, why, sizeof why);
        complain("%s: the gates' buffer cannot be mapped: %s", d->name, why);
        return false;
    }
    p->gates_mapped = mapped;
    p->gates_size = tokens * heads * size;
    return true;
}

/* The marker lies, in each pair of a query's second half, where the host's turn
 * by the token's position took it: so the file is packed, and position and base
 * are what they are taken for. */
static bool marker_fits(const struct packed *p, const struct ggml_tensor *op, size_t token,
                        const float *angles)
{
    const struct ggml_tensor *q = op->src[0];
    size_t stream = token / (size_t)q->ne[1], size = p->turns.size;
    const float *marker = (const float *)(const void *)((unsigned char *)q->data +
                          token % (size_t)q->ne[1] * q->nb[1] + stream * q->nb[3]) + size;
    double position = (double)p->places[token].position, fastest = p->turns.frequency[size / 2];
    /* Less than a position's worth, but for what the host's float32 and a GPU's sine leave of
     * it: with bases above 60000 a few positions. */
    double most = fmax(fastest / 4, 4e-6) + position * fastest * 4e-6;
    for (size_t i = 0; i < size; i++)
        if (!(fabs((double)marker[i] / MARKER - (double)angles[size + i]) <= most)) {
            complain("node %s: the query at position %.0f does not bear the marker that "
                     "ratplus-convert --gguf gives to a packed model with \"theta\" %g. Either the "
                     "file is another model, for which \"memory\" is left out of the policy, or "
                     "its rotary base is another than \"theta\", or llama.cpp scaled its positions "
                     "(--rope-*) or shifted them (--context-shift)",
                     op->name, position, p->theta);
            return false;
        }
    return true;
}

struct layer {
    struct packed_cells cells[2]; /* K, V */
    struct rows *rows[2];
    const struct ggml_tensor *views[2];
    size_t heads, size;
    int64_t stream_tokens;
};

/* The memory after the token before `token`, [heads][2 * size] of which the first
 * halves count, in the rows of K and V or in `kept`; NULL: there is none. */
static void memory_before(const struct packed *p, const struct layer *l, size_t token,
                          float *kept[2], const float *before[2])
{
    const struct packed_place *place = &p->places[token];
    float angles[2 * PACKED_MAX_SIZE];
    size_t stream = token / (size_t)l->stream_tokens;
    before[0] = before[1] = NULL;
    if (place->cell_before != PACKED_NONE)
        packed_angles(&p->turns, place->position - 1, angles);
    for (int i = 0; i < 2; i++) {
        size_t width = 2 * l->heads * l->size;
        const struct ggml_tensor *view = l->views[i];
        if (place->token != PACKED_NONE) {
            size_t first = stream * (size_t)l->stream_tokens;
            before[i] = l->rows[i]->values + (first + (size_t)place->token) * width;
        } else if (place->cell_before != PACKED_NONE) {
            const unsigned char *row = (unsigned char *)view->data + stream * view->nb[3] +
                                       (size_t)place->cell_before * view->nb[1];
            for (size_t h = 0; h < l->heads; h++) {
                float *head = kept[i] + 2 * h * l->size;
                packed_cell_read(&l->cells[i], row, h, head);
                if (i == 0)
                    packed_turn_back(head, angles, l->size / 2);
            }
            before[i] = kept[i];
        }
    }
}

/* Applies the memory to the token's rows in place and writes its cells. */
static void run_token(struct packed *p, const struct layer *l, size_t token,
                      const float *const before[2])
{
    const float *angles = p->angles + token * 2 * l->size;
    unsigned char *at[2] = {l->rows[0]->at[token], l->rows[1]->at[token]};
    for (size_t h = 0; h < l->heads; h++) {
        size_t head = 2 * h * l->size;
        float turned[PACKED_MAX_SIZE];
        float *k = l->rows[0]->values + 2 * token * l->heads * l->size + head;
        float *v = l->rows[1]->values + 2 * token * l->heads * l->size + head;
        const float *f = k + l->size, *o = v + l->size;
        packed_turn_back(k, angles, l->size);
        for (size_t i = 0; i < l->size; i++) {
            float gate = 1 / (1 + expf(-f[i]));
            k[i] = (1 - gate) * k[i] + (before[0] ? gate * before[0][head + i] : 0);
            v[i] = (1 - gate) * v[i] + (before[1] ? gate * before[1][head + i] : 0);
        }
        memcpy(p->gates_mapped + (token * l->heads + h) * l->size, o, l->size * sizeof *o);
        memcpy(turned, k, l->size * sizeof *k);
        packed_turn(turned, angles, l->size / 2);
        packed_cell_write(&l->cells[0], at[0], h, turned);
        packed_cell_write(&l->cells[1], at[1], h, v);
    }
    for (int i = 0; i < 2; i++)
        packed_cell_mark(&l->cells[i], at[i], p->places[token].position);
}

static bool run_memory(struct packed *p, const struct layer *l)
{
    size_t width = 2 * l->heads * l->size;
    float *kept[2], *state = malloc(2 * width * sizeof *state);
    const float *before[2];
    if (!state) {
        complain("no host memory for the %zu channels of a packed model's state", width);
        return false;
    }
    kept[0] = state;
    kept[1] = state + width;
    for (size_t t = 0; t < l->rows[0]->count; t++) {
        memory_before(p, l, t, kept, before);
        run_token(p, l, t, before);
    }
    free(state);
    return true;
}

static void clear_second_halves(const struct ggml_tensor *out)
{
    size_t half = (size_t)out->ne[0] * sizeof(float) / 2;
    for (size_t i3 = 0; i3 < (size_t)out->ne[3]; i3++)
        for (size_t i2 = 0; i2 < (size_t)out->ne[2]; i2++)
            for (size_t i1 = 0; i1 < (size_t)out->ne[1]; i1++)
                memset((unsigned char *)out->data + i3 * out->nb[3] + i2 * out->nb[2] +
                           i1 * out->nb[1] + half, 0, half);
}

bool packed_apply(struct packed *p, const struct ggml_tensor *op, struct ratp_tensor *gate)
{
    const struct ggml_tensor *q = op->src[0], *k = op->src[1], *v = op->src[2];
    struct rows *keys = rows_of(p, k), *values = rows_of(p, v);
    if (!attention_fits(op, keys, values) || !layers_are_here(op))
        return false;
    size_t heads = (size_t)q->ne[2], size = (size_t)q->ne[0] / 2, tokens = keys->count;
    const struct layer layer = {
        {{k->type, heads, size}, {v->type, heads, size}}, {keys, values}, {k, v},
        heads, size, q->ne[1],
    };
    if (!make_scratch(p, tokens, heads, size))
        return false;
    const struct packed_order order = {
        op, layer.cells[0], layer.cells[1], keys->at, values->at, p->places,
    };
    if (!packed_find_order(&order))
        return false;
    for (size_t t = 0; t < tokens; t++) {
        float *angles = p->angles + t * 2 * size;
        if (p->angles_at[t] != p->places[t].position)
            packed_angles(&p->turns, p->places[t].position, angles);
        p->angles_at[t] = p->places[t].position;
        if (!marker_fits(p, op, t, angles))
            return false;
    }
    if (!run_memory(p, &layer))
        return false;
    keys->cache = values->cache = NULL;
    clear_second_halves(op);
    *gate = (struct ratp_tensor){
        .struct_size = sizeof *gate,
        .buffer = p->gates,
        .token_stride = heads * size * sizeof(float),
        .head_stride = size * sizeof(float),
        .batch_stride = (size_t)q->ne[1] * heads * size * sizeof(float),
    };
    return true;
}
