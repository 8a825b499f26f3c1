#include "compress.h"

#include "../naive.h"
#include "bounds.h"

struct expected {
    double out[TOKENS * QUERY_HEADS * CHANNELS], lse[TOKENS * QUERY_HEADS];
    double gap[TOKENS * QUERY_HEADS];
    unsigned char held[HEADS * TOKENS];
    uint32_t taken[HEADS];
};

/* What the naive program makes of a layer. */
static void expect(const struct world *w, const struct sequence *s, uint32_t layer,
                   struct expected *e)
{
    const struct ratp_geometry *g = &w->geometry;
    const struct naive_layer naive = {
        .query_heads = g->query_heads, .kv_heads = g->kv_heads, .head_size = g->head_size,
        .value_size = g->value_size, .scale = (double)g->scale, .softcap = (double)g->softcap,
        .rope = &w->rope, .sinks = w->sunk ? w->sinks[layer] : NULL};
    float *in[INPUTS];
    for (int i = 0; i < INPUTS; i++) {
        in[i] = malloc((size_t)s->tokens * row_size(w, i) * sizeof *in[i]);
        for (uint32_t t = 0; t < s->tokens; t++)
            make_row(w, s->ids[t], layer, t, i, in[i] + (size_t)t * row_size(w, i));
    }
    static unsigned char kept[COMPRESSIONS * HEADS * TOKENS];
    for (uint32_t c = 0; c < s->compressions; c++)
        for (uint32_t h = 0; h < g->kv_heads; h++)
            memcpy(kept + ((size_t)c * g->kv_heads + h) * s->tokens, s->kept[c][layer][h],
                   s->tokens);
    const struct naive_tokens tokens = {
        .count = s->tokens, .q = in[Q], .k = in[K], .v = in[V], .f = g->memory ? in[F] : NULL,
        .o = w->output_gate ? in[O] : NULL, .prompt = s->prompt, .compress = s->lengths,
        .compressions = s->compressions, .gone = true, .kept = kept,
        .close = 10 * dtype_bound(w->params.k_dtype)};
    CHECK(naive_sequence(&naive, w->variants[s->policy][layer], g->kv_heads, &tokens,
                         &(struct naive_answer){.out = e->out, .lse = e->lse, .gap = e->gap,
                                                .held = e->held, .taken = e->taken}));
    for (int i = 0; i < INPUTS; i++)
        free(in[i]);
}

/* Rows of quest and moba whose choice was so close that rounding may turn it. */
static void leave_out_close(struct world *w, struct sequence *s, uint32_t layer,
                            const struct expected *e)
{
    size_t rows = (size_t)s->tokens * w->geometry.query_heads, size = w->geometry.value_size;
    w->rows += rows;
    for (size_t i = 0; i < rows; i++) {
        if (e->gap[i] > 10 * dtype_bound(w->params.k_dtype))
            continue;
        for (size_t c = 0; c < size; c++)
            s->out[layer][i * size + c] = (float)e->out[i * size + c];
        s->lse[layer][i] = (float)e->lse[i];
        w->left_out++;
    }
}

static bool check_rows(const struct world *w, const struct sequence *s, uint32_t layer,
                       const struct expected *e, uint32_t first, uint32_t end)
{
    double bound = fmax(dtype_bound(w->params.k_dtype), dtype_bound(w->params.v_dtype));
    size_t size = row_size(w, OUT), heads = row_size(w, LSE), rows = end - first;
    double out = distance(s->out[layer] + first * size, e->out + first * size, rows * size);
    double lse = distance(s->lse[layer] + first * heads, e->lse + first * heads, rows * heads);
    if (CHECK(out <= bound) & CHECK(lse <= bound))
        return true;
    fprintf(stderr, "  tokens %u to %u: out %.2e, lse %.2e, bound %.0e\n", first, end, out, lse,
            bound);
    return false;
}

static bool check_held(struct world *w, const struct sequence *s, uint32_t layer,
                       const struct expected *e)
{
    bool good = true;
    for (uint32_t h = 0; h < w->geometry.kv_heads; h++) {
        const struct ratp_variant *v = &w->variants[s->policy][layer][h];
        unsigned char held[TOKENS];
        if (v->kind != RATP_SNAPKV)
            continue;
        w->taken += e->taken[h];
        read_held(w, s, layer, h, held);
        if (CHECK(memcmp(held, e->held + (size_t)h * s->tokens, s->tokens) == 0))
            continue;
        fprintf(stderr, "  head %u: observe %u, capacity %u, kernel %u, pool %d\n", h, v->observe,
                v->capacity, v->kernel, (int)v->pool);
        good = false;
    }
    return good;
}

/* The error bounds are for row sets: single rows may miss them. */
enum { LEAST_TOKENS = 16 };

/* Before its first compression a sequence is as others are; what comes after is held
 * against the bound by itself. */
void check_seq(struct world *w, struct sequence *s, uint32_t layer)
{
    static struct expected e;
    uint32_t first = s->compressions ? s->lengths[0] : 0;
    if (first < LEAST_TOKENS || s->tokens - first < LEAST_TOKENS)
        first = 0;
    expect(w, s, layer, &e);
    bool good = check_held(w, s, layer, &e);
    leave_out_close(w, s, layer, &e);
    good &= check_rows(w, s, layer, &e, 0, first);
    good &= check_rows(w, s, layer, &e, first, s->tokens);
    if (!good)
        fprintf(stderr, "  seed %llu layer %u of %u, heads %u/%u size %u/%u, %u tokens, memory %u, "
                "retention %d, k %d v %d, pages of %u\n",
                (unsigned long long)w->seed, layer, w->geometry.layers, w->geometry.query_heads,
                w->geometry.kv_heads, w->geometry.head_size, w->geometry.value_size, s->tokens,
                w->geometry.memory, (int)w->params.retention, (int)w->params.k_dtype,
                (int)w->params.v_dtype, w->params.page_slots);
}
