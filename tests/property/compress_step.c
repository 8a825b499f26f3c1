#include "compress.h"

/* ---- Operands ---- */

uint32_t row_size(const struct world *w, int operand)
{
    const struct ratp_geometry *g = &w->geometry;
    const uint32_t sizes[OPERANDS] = {
        [Q] = g->query_heads * g->head_size,   [K] = g->kv_heads * g->head_size,
        [V] = g->kv_heads * g->value_size,     [F] = g->kv_heads * g->head_size,
        [O] = g->query_heads * g->value_size,  [OUT] = g->query_heads * g->value_size,
        [LSE] = g->query_heads,                [SINKS] = g->query_heads,
    };
    return sizes[operand];
}

/* Large queries part the scores; 8-bit keys want smaller ones. */
void make_row(const struct world *w, uint32_t id, uint32_t layer, uint32_t token, int input,
              float *row)
{
    struct random r = {w->seed ^ (uint64_t)id << 48 ^ (uint64_t)layer << 40 ^
                       (uint64_t)input << 32 ^ token};
    float size = input == Q && w->params.k_dtype != RATP_Q8_0 ? 4 : 2;
    for (uint32_t i = 0; i < row_size(w, input); i++)
        row[i] = size * (float)(2 * random_unit(&r) - 1);
}

struct operand {
    struct ratp_tensor tensor;
    float *values;
    uint64_t bytes;
};

static void open_operand(struct world *w, struct operand *a, int operand, uint32_t rows)
{
    a->bytes = (uint64_t)rows * row_size(w, operand) * sizeof *a->values;
    a->values = calloc(1, a->bytes);
    a->tensor = (struct ratp_tensor){.struct_size = sizeof a->tensor, .host = a->values};
    if (!w->buffers)
        return;
    const struct ratp_buffer_params params = {.struct_size = sizeof params, .size = a->bytes};
    host_ok(w->host, w->device, w->api->buffer_create(w->device, &params, &a->tensor.buffer),
            "buffer_create");
    a->tensor.host = NULL;
}

static void send_operand(struct world *w, const struct operand *a)
{
    if (a->tensor.buffer)
        host_ok(w->host, a->tensor.buffer,
                w->api->buffer_write(a->tensor.buffer, 0, a->values, a->bytes), "buffer_write");
}

static void fetch_operand(struct world *w, const struct operand *a)
{
    if (a->tensor.buffer)
        host_ok(w->host, a->tensor.buffer,
                w->api->buffer_read(a->tensor.buffer, 0, a->values, a->bytes), "buffer_read");
}

static void close_operand(struct world *w, struct operand *a)
{
    if (a->tensor.buffer)
        host_ok(w->host, a->tensor.buffer, w->api->buffer_destroy(&a->tensor.buffer),
                "buffer_destroy");
    free(a->values);
}

/* ---- What is held ---- */

/* With retention `needed` these forget by themselves, which other tests look at. */
bool is_thin(const struct world *w, const struct sequence *s, uint32_t layer, uint32_t head)
{
    ratp_variant_kind kind = w->variants[s->policy][layer][head].kind;
    return w->params.retention == RATP_RETAIN_NEEDED &&
           (kind == RATP_DILATED || kind == RATP_STREAMING);
}

void read_held(struct world *w, const struct sequence *s, uint32_t layer, uint32_t head,
               unsigned char held[TOKENS])
{
    uint32_t positions[TOKENS], dropped = s->dropped[layer][head];
    uint64_t count = 0;
    host_ok(w->host, s->seq,
            w->api->seq_positions(s->seq, layer, head, positions, TOKENS, &count), "seq_positions");
    memset(held, 0, TOKENS);
    if (!CHECK(count == s->tokens - dropped))
        fprintf(stderr, "  seed %llu layer %u head %u: %u tokens, %llu held, %u dropped\n",
                (unsigned long long)w->seed, layer, head, s->tokens, (unsigned long long)count,
                dropped);
    for (uint64_t i = 0; i < count && i < TOKENS; i++)
        if (CHECK(positions[i] < s->tokens && (!i || positions[i] > positions[i - 1])))
            held[positions[i]] = 1;
}

static void read_all_held(struct world *w, const struct sequence *s,
                          unsigned char held[LAYERS][HEADS][TOKENS])
{
    memset(held, 0, LAYERS * sizeof *held);
    for (uint32_t l = 0; l < w->geometry.layers; l++)
        for (uint32_t h = 0; h < w->geometry.kv_heads; h++)
            if (!is_thin(w, s, l, h))
                read_held(w, s, l, h, held[l][h]);
}

bool is_over(const struct world *w, const struct sequence *s)
{
    for (uint32_t l = 0; l < w->geometry.layers; l++)
        for (uint32_t h = 0; h < w->geometry.kv_heads; h++) {
            const struct ratp_variant *v = &w->variants[s->policy][l][h];
            if (v->kind == RATP_SNAPKV && s->tokens - s->dropped[l][h] > v->capacity)
                return true;
        }
    return false;
}

/* Whether the device holds as much as if it had never compressed what it was to. */
static bool has_waited(struct world *w, const struct sequence *s, uint32_t tokens)
{
    for (uint32_t l = 0; l < w->geometry.layers; l++)
        for (uint32_t h = 0; h < w->geometry.kv_heads; h++) {
            uint64_t count = 0;
            if (w->variants[s->policy][l][h].kind != RATP_SNAPKV)
                continue;
            host_ok(w->host, s->seq, w->api->seq_positions(s->seq, l, h, NULL, 0, &count),
                    "seq_positions");
            if (count != tokens - s->dropped[l][h])
                return false;
        }
    return true;
}

void note_compression(struct world *w, struct sequence *s, uint32_t length)
{
    for (uint32_t l = 0; l < w->geometry.layers; l++)
        for (uint32_t h = 0; h < w->geometry.kv_heads; h++) {
            const struct ratp_variant *v = &w->variants[s->policy][l][h];
            if (v->kind != RATP_SNAPKV || length - s->dropped[l][h] <= v->capacity)
                continue;
            s->dropped[l][h] = length - v->capacity;
            s->least = length;
            w->choices++;
        }
    read_all_held(w, s, s->kept[s->compressions]);
    s->lengths[s->compressions++] = length;
}

/* ---- Steps ---- */

struct batch {
    uint32_t count, rows;
    struct sequence *seqs[SEQS];
    ratp_seq *handles[SEQS];
    uint32_t n[SEQS];
    ratp_part_kind kinds[SEQS];
    struct operand operands[LAYERS][OPERANDS];
};

static bool is_prompt(const struct batch *b, uint32_t i)
{
    return b->kinds[i] == RATP_PART_PROMPT || (b->kinds[i] == RATP_PART_AUTO && b->n[i] > 1);
}

/* Up to its goal a sequence is fed a prompt, later mostly decoded tokens. */
static void draw_batch(struct world *w, struct batch *b)
{
    struct random *r = &w->random;
    for (uint32_t i = 0; i < w->count; i++) {
        struct sequence *s = &w->seqs[i];
        uint32_t left = w->max_tokens - s->tokens;
        if (!left || random_chance(r, 20))
            continue;
        bool prompt = s->tokens < s->goal, odd = random_chance(r, 5);
        uint32_t most = prompt ? s->goal - s->tokens : odd ? 40 : random_chance(r, 20) ? 6 : 1;
        uint32_t n = random_in(r, 1, most < left ? most : left);
        b->kinds[b->count] = prompt != odd ? RATP_PART_PROMPT : RATP_PART_DECODE;
        if (prompt != odd ? n > 1 : n == 1)
            b->kinds[b->count] = random_chance(r, 50) ? RATP_PART_AUTO : b->kinds[b->count];
        b->seqs[b->count] = s;
        b->handles[b->count] = s->seq;
        b->n[b->count++] = n;
        b->rows += n;
    }
}

static void fill(const struct world *w, const struct batch *b, uint32_t layer, int input,
                 float *row)
{
    for (uint32_t i = 0; i < b->count; i++)
        for (uint32_t t = 0; t < b->n[i]; t++, row += row_size(w, input))
            make_row(w, b->seqs[i]->id, layer, b->seqs[i]->tokens + t, input, row);
}

static void attend(struct world *w, ratp_step *step, struct batch *b, uint32_t layer)
{
    struct operand *a = b->operands[layer];
    const bool wanted[OPERANDS] = {[Q] = true, [K] = true, [V] = true, [F] = w->geometry.memory,
                                   [O] = w->output_gate, [OUT] = true, [LSE] = true,
                                   [SINKS] = w->sunk};
    const struct ratp_tensor *tensors[OPERANDS] = {NULL};
    for (int i = 0; i < OPERANDS; i++) {
        if (!wanted[i])
            continue;
        open_operand(w, &a[i], i, i == SINKS ? 1 : b->rows);
        if (i < INPUTS)
            fill(w, b, layer, i, a[i].values);
        if (i == SINKS)
            memcpy(a[i].values, w->sinks[layer], a[i].bytes);
        send_operand(w, &a[i]);
        tensors[i] = &a[i].tensor;
    }
    const struct ratp_attend_io io = {
        .struct_size = sizeof io, .q = tensors[Q], .k = tensors[K], .v = tensors[V],
        .f = tensors[F], .o = tensors[O], .out = tensors[OUT], .lse = tensors[LSE],
        .sinks = tensors[SINKS]};
    host_ok(w->host, step, w->api->step_attend(step, layer, &io), "step_attend");
}

static void keep_results(struct world *w, struct batch *b, uint32_t layer)
{
    struct operand *a = b->operands[layer];
    size_t size = row_size(w, OUT), heads = row_size(w, LSE), row = 0;
    fetch_operand(w, &a[OUT]);
    fetch_operand(w, &a[LSE]);
    for (uint32_t i = 0; i < b->count; row += b->n[i++]) {
        struct sequence *s = b->seqs[i];
        memcpy(s->out[layer] + s->tokens * size, a[OUT].values + row * size,
               b->n[i] * size * sizeof(float));
        memcpy(s->lse[layer] + s->tokens * heads, a[LSE].values + row * heads,
               b->n[i] * heads * sizeof(float));
    }
}

/* The part is now the end of its sequence. The first that is decoded comes after a
 * compression, or it waits where too few queries are known. */
static void advance(struct world *w, const struct batch *b, uint32_t i)
{
    struct sequence *s = b->seqs[i];
    uint32_t before = s->tokens, end = before + b->n[i];
    bool waits = s->fed < MOST_OBSERVE && is_over(w, s) && has_waited(w, s, end);
    for (uint32_t t = before; t < end; t++) {
        s->ids[t] = s->id;
        s->prompt[t] = is_prompt(b, i);
    }
    s->tokens = end;
    s->fed += b->n[i];
    if (is_prompt(b, i) || s->decoded || waits)
        return;
    s->decoded = true;
    note_compression(w, s, before);
}

void read_futures(struct world *w, const struct sequence *s, struct futures *out)
{
    const struct future_view view = {
        .api = w->api, .policies = w->policies, .policy_count = POLICIES,
        .layers = w->geometry.layers, .kv_heads = w->geometry.kv_heads,
        .lengths = w->future_lengths, .samples = w->future_samples,
        .seed = w->hypothetical.state + s->id};
    futures_read(&view, s->seq, out);
}

bool step_once(struct world *w, bool commit)
{
    static struct futures before[SEQS], after;
    struct batch b = {0};
    draw_batch(w, &b);
    for (uint32_t i = 0; !commit && i < b.count; i++)
        read_futures(w, b.seqs[i], &before[i]);
    const struct ratp_step_params params = {.struct_size = sizeof params, .count = b.count,
                                            .seqs = b.handles, .n_tokens = b.n, .kinds = b.kinds};
    ratp_step *step = NULL;
    if (!b.count)
        return true;
    if (!host_ok(w->host, w->cache, w->api->step_begin(w->cache, &params, &step), "step_begin"))
        return false;
    uint32_t count = w->geometry.layers, layers = commit ? count : random_in(&w->random, 0, count);
    uint32_t first = random_in(&w->random, 0, count - 1);
    for (uint32_t l = 0; l < layers; l++)
        attend(w, step, &b, (first + l) % count);
    bool good = !commit || host_ok(w->host, step, w->api->step_commit(&step), "step_commit");
    commit = commit && good;
    if (!commit)
        host_ok(w->host, step, w->api->step_abort(&step), "step_abort");
    for (uint32_t l = 0; l < count; l++) {
        if (commit)
            keep_results(w, &b, l);
        for (int i = 0; i < OPERANDS; i++)
            close_operand(w, &b.operands[l][i]);
    }
    for (uint32_t i = 0; i < b.count; i++) {
        if (commit) {
            advance(w, &b, i);
            continue;
        }
        read_futures(w, b.seqs[i], &after);
        if (!futures_equal(&before[i], &after, "after an abort"))
            fprintf(stderr, "  seed %llu, a step of %u tokens\n", (unsigned long long)w->seed,
                    b.n[i]);
    }
    w->hypothetical.state++;
    return good;
}
