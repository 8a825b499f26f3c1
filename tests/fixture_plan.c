/* The work lists of a scene, made by hand, and the scene's result by definition. */
#include "fixture_scene.h"
#include "naive.h"

#include "../plugin/dtype.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static struct gpu_address address(uint64_t a)
{
    return (struct gpu_address){.lo = (uint32_t)a, .hi = (uint32_t)(a >> 32)};
}

/* Adds a list's element; *list begins where its first one lies. */
static void *add(struct scene_plan *p, struct plan_list *list, size_t size)
{
    uint64_t need = p->lists_size + size + 16;
    if (need > p->lists_room) {
        uint64_t room = need * 2;
        uint8_t *lists = realloc(p->lists, room);
        if (!lists) {
            p->failed = true;
            static uint64_t sink[64];
            return sink;
        }
        memset(lists + p->lists_size, 0, room - p->lists_size);
        p->lists = lists;
        p->lists_room = room;
    }
    if (!list->count) {
        p->lists_size = (p->lists_size + 15) / 16 * 16;
        list->offset = (uint32_t)p->lists_size;
    }
    list->count++;
    void *element = p->lists + p->lists_size;
    p->lists_size += size;
    return element;
}

static void add_segment(struct gpu_view *view, struct gpu_segment segment)
{
    if (segment.keys)
        view->segment[view->segments++] = segment;
}

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* Sinks, dilated tokens, window: each key in one segment only. */
static void make_segments(const struct scene_sequence *q, bool layered, struct gpu_view *view)
{
    uint32_t end = q->pos0 + q->rows;
    struct scene_run kept = q->everything ? q->line : q->kept;
    uint32_t window0 = q->pos0 > q->window ? q->pos0 - q->window : 0;
    if (q->dilation == 1) {
        add_segment(view, (struct gpu_segment){.page0 = kept.page0, .pages = kept.pages,
                                               .pos_step = 1, .slot_step = 1, .keys = end,
                                               .layered = layered});
        return;
    }
    add_segment(view, (struct gpu_segment){.page0 = kept.page0, .pages = kept.pages,
                                           .pos_step = 1, .slot_step = 1,
                                           .keys = least(q->sinks, end), .layered = layered});
    if (q->dilation) {
        /* The first position p >= sinks with (p + 1) % dilation == 0. */
        uint32_t first = (q->sinks / q->dilation + 1) * q->dilation - 1;
        uint32_t slot = q->everything ? first : kept_index(first, q->sinks, q->dilation);
        uint32_t keys = first < end ? (end - 1 - first) / q->dilation + 1 : 0;
        add_segment(view,
                    (struct gpu_segment){.page0 = kept.page0, .pages = kept.pages, .pos0 = first,
                                         .pos_step = q->dilation, .slot0 = slot,
                                         .slot_step = q->everything ? q->dilation : 1,
                                         .keys = keys, .layered = layered});
    }
    struct gpu_segment window = {.pos0 = window0, .pos_step = 1, .slot_step = 1,
                                 .keys = end - window0, .windowed = 1, .layered = layered};
    if (q->everything) {
        window.page0 = q->line.page0;
        window.pages = q->line.pages;
        window.slot0 = window0;
        add_segment(view, window);
        return;
    }
    window.page0 = q->old_ring.page0;
    window.pages = q->old_ring.pages;
    window.slot0 = window0 % q->old_slots;
    window.slot_ring = q->old_slots;
    if (q->lined)
        window.keys = q->pos0 - window0;
    add_segment(view, window);
    if (q->lined)
        add_segment(view, (struct gpu_segment){.page0 = q->line.page0, .pages = q->line.pages,
                                               .pos0 = q->pos0, .pos_step = 1, .slot_step = 1,
                                               .keys = q->rows, .windowed = 1});
}

static void make_view(const struct scene *s, const struct scene_sequence *q, uint64_t base,
                      struct gpu_view *view)
{
    uint32_t end = q->pos0 + q->rows;
    *view = (struct gpu_view){
        .row0 = q->row0,
        .rows = q->rows,
        .pos0 = q->pos0,
        .sinks = q->sinks,
        .dilation = q->dilation,
        .window = q->dilation == 1 ? NO_WINDOW : q->window,
        .causal = s->causal,
        .kept_page0 = q->kept.page0,
        .kept_pages = q->kept.pages,
        .ring_page0 = q->ring.page0,
        .ring_pages = q->ring.pages,
        .ring_slots = q->ring_slots,
        .ring_from = end > q->ring_slots ? end - q->ring_slots : 0,
        .line_page0 = q->line.page0,
        .line_pages = q->line.pages,
        .line_pos0 = q->everything ? 0 : q->pos0,
        .line_layered = q->everything && !s->external,
    };
    if (s->shape.memory) {
        view->state_in = address(base + q->state_in);
        view->state_out = address(base + q->state_out);
    }
    make_segments(q, !s->external, view);
}

/* The positions that stay in a ring when it is replaced. */
static void moved(const struct scene_sequence *q, uint32_t *from, uint32_t *count)
{
    uint32_t end = q->pos0 + q->rows;
    *from = q->pos0 > q->window ? q->pos0 - q->window : 0;
    if (end > q->ring_slots && end - q->ring_slots > *from)
        *from = end - q->ring_slots;
    *count = q->new_ring && *from < q->pos0 ? q->pos0 - *from : 0;
}

static void make_chunks(struct scene *s, struct scene_plan *p, uint32_t most)
{
    struct random *r = &s->random;
    uint32_t size[SCENE_SEQUENCES];
    for (uint32_t i = 0; i < s->count; i++) {
        size[i] = random_chance(r, 50) ? most : random_in(r, 1, least(most, s->sequence[i].rows));
        uint32_t carry0 = p->plan.carries, n = 0;
        for (uint32_t token = 0; token < s->sequence[i].rows; token += size[i], n++) {
            struct gpu_chunk *chunk = add(p, &p->plan.chunks, sizeof *chunk);
            *chunk = (struct gpu_chunk){.view = i, .token0 = token,
                                        .tokens = least(size[i], s->sequence[i].rows - token),
                                        .carry = n ? carry0 + n - 1 : NO_CARRY};
        }
        p->plan.carries += n - 1;
    }
    const uint64_t chunks = p->plan.chunks.offset;
    for (uint32_t i = 0; i < p->plan.chunks.count && !p->failed; i++) {
        struct gpu_chunk chunk;
        memcpy(&chunk, p->lists + chunks + i * sizeof chunk, sizeof chunk);
        if (chunk.token0 + chunk.tokens == s->sequence[chunk.view].rows)
            continue;
        chunk.carry = chunk.carry == NO_CARRY ? p->plan.locals.count : chunk.carry + 1;
        memcpy(add(p, &p->plan.locals, sizeof chunk), &chunk, sizeof chunk);
    }
    for (uint32_t i = 0, carry = 0; i < s->count; i++) {
        uint32_t carries = (s->sequence[i].rows + size[i] - 1) / size[i] - 1;
        if (carries) {
            struct gpu_scan *scan = add(p, &p->plan.scans, sizeof *scan);
            *scan = (struct gpu_scan){.view = i, .carry0 = carry, .carries = carries};
        }
        carry += carries;
    }
}

static void add_tile(struct scene *s, struct scene_plan *p, struct plan_list *list,
                     struct gpu_tile tile)
{
    struct random *r = &s->random;
    tile.splits = random_chance(r, 40) ? random_in(r, 2, 9) : 1;
    if (s->only.splits)
        tile.splits = s->only.splits;
    tile.partial = p->plan.partials;
    for (tile.split = 0; tile.split < tile.splits; tile.split++)
        memcpy(add(p, list, sizeof tile), &tile, sizeof tile);
    if (tile.splits > 1)
        p->plan.partials += tile.splits * tile.tokens;
}

static void make_tiles(struct scene *s, struct scene_plan *p, uint32_t most)
{
    if (random_chance(&s->random, 20))
        most = random_in(&s->random, 1, most);
    for (uint32_t pass = 0; pass < 2; pass++) {
        struct plan_list *list = pass ? &p->cls.singles : &p->cls.tiles;
        for (uint32_t i = 0; i < s->count; i++) {
            uint32_t rows = s->sequence[i].rows;
            if ((rows == 1) != (pass == 1))
                continue;
            for (uint32_t token = 0; token < rows; token += most)
                add_tile(s, p, list, (struct gpu_tile){.view = i, .token0 = token,
                                                       .tokens = least(most, rows - token)});
        }
    }
    for (uint32_t pass = 0; pass < 2; pass++) {
        struct plan_list list = pass ? p->cls.singles : p->cls.tiles;
        for (uint32_t i = 0; i < list.count && !p->failed; i++) {
            struct gpu_tile tile;
            memcpy(&tile, p->lists + list.offset + i * sizeof tile, sizeof tile);
            for (uint32_t n = 0; n < tile.tokens && tile.splits > 1 && tile.split == 0; n++) {
                struct gpu_gather *gather = add(p, &p->cls.gathers, sizeof *gather);
                *gather = (struct gpu_gather){
                    .row = s->sequence[tile.view].row0 + tile.token0 + n,
                    .partial = tile.partial + n, .step = tile.tokens, .splits = tile.splits};
            }
        }
    }
}

bool scene_plan(struct scene *s, const struct work_limits *limits, uint64_t base,
                struct scene_plan *p)
{
    memset(p, 0, sizeof *p);
    p->plan.rows = s->rows;
    p->plan.views = s->count;
    for (uint32_t i = 0; i < s->pages; i++) {
        struct gpu_page *page = add(p, &p->plan.pages, sizeof *page);
        page->k = address(base + s->page[i]);
        page->v = address(base + s->page[i] +
                          dtype_row_bytes(s->shape.k_dtype, s->shape.head_size) *
                              s->shape.kv_heads * s->shape.page_slots);
    }
    struct plan_list offsets = {0};
    for (uint32_t l = 0; l <= s->layer; l++)
        *(uint32_t *)add(p, &offsets, sizeof(uint32_t)) = l * s->layer_bytes;
    struct plan_list slopes = {0};
    for (uint32_t h = 0; h < s->shape.query_heads && s->sloped; h++)
        *(float *)add(p, &slopes, sizeof(float)) = s->slopes[h];
    for (uint32_t i = 0; i < s->count; i++) {
        struct gpu_view *view = add(p, &p->cls.views, sizeof *view);
        make_view(s, &s->sequence[i], base, view);
        view->offsets = offsets.offset;
        view->slopes = slopes.offset;
    }
    for (uint32_t i = 0; i < s->count; i++) {
        const struct scene_sequence *q = &s->sequence[i];
        uint32_t from, count;
        moved(q, &from, &count);
        if (!count)
            continue;
        struct gpu_move *move = add(p, &p->cls.moves, sizeof *move);
        *move = (struct gpu_move){
            .from = {i, q->old_ring.page0, q->old_ring.pages, from % q->old_slots, 1,
                     q->old_slots},
            .to = {i, q->ring.page0, q->ring.pages, from % q->ring_slots, 1, q->ring_slots},
            .count = count,
        };
    }
    make_chunks(s, p, limits->chunk_tokens);
    make_tiles(s, p, limits->tile_tokens);
    /* Much or little work, as far as kernels choose their form by it. */
    if (p->cls.tiles.count && random_chance(&s->random, 20)) {
        p->cls.tile_queries = 1u << 20;
        p->cls.tile_keys = p->cls.tile_queries << random_in(&s->random, 0, 12);
    }
    p->carries_size = (uint64_t)p->plan.carries * s->shape.kv_heads * 3 * s->shape.head_size *
                      sizeof(float);
    p->partials_size = (uint64_t)p->plan.partials * s->shape.query_heads *
                       (s->shape.value_size + 2) * sizeof(float);
    return !p->failed;
}

void scene_plan_free(struct scene_plan *p)
{
    free(p->lists);
    memset(p, 0, sizeof *p);
}

/* [row][head][channel] of an operand. */
static float *gather_rows(const struct scene *s, const struct scene_operand *o, uint32_t row0,
                          uint32_t rows)
{
    float *to = calloc((size_t)rows * o->heads * o->channels + 1, sizeof *to);
    for (uint32_t t = 0; to && t < rows; t++)
        for (uint32_t h = 0; h < o->heads; h++)
            scene_load(o, s->image, row0 + t, h, to + ((size_t)t * o->heads + h) * o->channels);
    return to;
}

static void store_rows(const struct scene_operand *o, uint8_t *image, uint32_t row0, uint32_t rows,
                       const double *from)
{
    float row[256];
    for (uint32_t t = 0; t < rows && o->offset; t++)
        for (uint32_t h = 0; h < o->heads; h++) {
            for (uint32_t c = 0; c < o->channels; c++)
                row[c] = (float)from[((size_t)t * o->heads + h) * o->channels + c];
            scene_store(o, image, row0 + t, h, row);
        }
}

/* New tokens through the memory: into the image, and into K and V. */
static bool naive_fill(const struct scene *s, const struct naive_layer *layer,
                       const struct scene_sequence *q, uint8_t *image, double *k, double *v)
{
    uint32_t d = layer->head_size, dv = layer->value_size, heads = layer->kv_heads;
    size_t k_row = (size_t)heads * d, v_row = (size_t)heads * dv;
    float *new_k = gather_rows(s, &s->k, q->row0, q->rows);
    float *new_v = gather_rows(s, &s->v, q->row0, q->rows);
    float *new_f = s->f.offset ? gather_rows(s, &s->f, q->row0, q->rows) : NULL;
    float *row = malloc((k_row + v_row) * sizeof *row);
    double *state = malloc((k_row + v_row) * sizeof *state);
    const float *in = (const float *)(const void *)(s->image + q->state_in + s->state_offset);
    float *out = (float *)(void *)(image + q->state_out + s->state_offset);
    bool ok = new_k && new_v && row && state && (new_f || !s->f.offset);
    for (size_t n = 0; ok && n < k_row + v_row; n++)
        state[n] = s->shape.memory ? (double)in[n] : 0;
    if (ok) {
        naive_memory(layer, q->rows, new_k, new_v, new_f, state, k + q->pos0 * k_row,
                     v + q->pos0 * v_row);
        for (size_t n = 0; n < k_row + v_row && s->shape.memory; n++)
            out[n] = (float)state[n];
        uint32_t from, count;
        moved(q, &from, &count);
        for (uint32_t p = from; p < from + count; p++) {
            struct scene_sequence past = *q;
            past.old_ring = q->ring;
            past.old_slots = q->ring_slots;
            scene_put(s, image, &past, p, false, q->k + p * k_row, q->v + p * v_row);
        }
        for (uint32_t p = q->pos0; p < q->pos0 + q->rows; p++) {
            for (uint32_t h = 0; h < heads; h++)
                naive_rotate(layer, p, k + p * k_row + h * d);
            for (size_t n = 0; n < k_row; n++)
                row[n] = (float)k[p * k_row + n];
            for (size_t n = 0; n < v_row; n++)
                row[k_row + n] = (float)v[p * v_row + n];
            scene_put(s, image, q, p, true, row, row + k_row);
            /* What is attended is what the cache holds. */
            for (uint32_t h = 0; h < heads; h++) {
                scene_hold(s->shape.k_dtype, d, row + h * d);
                scene_hold(s->shape.v_dtype, dv, row + k_row + h * dv);
            }
            for (size_t n = 0; n < k_row; n++)
                k[p * k_row + n] = (double)row[n];
            for (size_t n = 0; n < v_row; n++)
                v[p * v_row + n] = (double)row[k_row + n];
        }
    }
    free(new_k);
    free(new_v);
    free(new_f);
    free(row);
    free(state);
    return ok;
}

static double *naive_mask(const struct scene *s, const struct scene_sequence *q)
{
    uint32_t keys = q->pos0 + q->rows, heads = s->shape.query_heads;
    float row[1024];
    double *mask = malloc((size_t)q->rows * heads * keys * sizeof *mask);
    for (uint32_t t = 0; mask && t < q->rows; t++)
        for (uint32_t h = 0; h < heads; h++) {
            scene_load(&s->mask, s->image, q->row0 + t, s->mask.heads == 1 ? 0 : h, row);
            for (uint32_t j = 0; j < keys; j++) {
                double x = s->sloped ? (double)s->slopes[h] * (double)row[j] : (double)row[j];
                mask[((size_t)t * heads + h) * keys + j] =
                    row[j] == -INFINITY ? -INFINITY : isfinite(x) ? x : NAN;
            }
        }
    return mask;
}

static bool naive_view(const struct scene *s, const struct naive_layer *layer,
                       const struct scene_sequence *q, uint8_t *image)
{
    uint32_t end = q->pos0 + q->rows;
    uint32_t known = s->ops & FIXTURE_MEMORY ? q->pos0 : end;
    size_t k_row = (size_t)layer->kv_heads * layer->head_size;
    size_t v_row = (size_t)layer->kv_heads * layer->value_size;
    size_t rows = (size_t)q->rows * layer->query_heads;
    double *k = malloc(end * k_row * sizeof *k), *v = malloc(end * v_row * sizeof *v);
    double *out = malloc(rows * layer->value_size * sizeof *out);
    double *lse = malloc(rows * sizeof *lse);
    float *queries = gather_rows(s, &s->q, q->row0, q->rows);
    float *gates = s->o.offset ? gather_rows(s, &s->o, q->row0, q->rows) : NULL;
    double *mask = s->mask.offset ? naive_mask(s, q) : NULL;
    bool ok = k && v && out && lse && queries && (gates || !s->o.offset) &&
              (mask || !s->mask.offset);
    for (size_t n = 0; ok && n < known * k_row; n++)
        k[n] = (double)q->k[n];
    for (size_t n = 0; ok && n < known * v_row; n++)
        v[n] = (double)q->v[n];
    if (ok && s->ops & FIXTURE_MEMORY)
        ok = naive_fill(s, layer, q, image, k, v);
    if (ok && s->ops & ~(uint32_t)FIXTURE_MEMORY) {
        struct ratp_variant variant = {
            .kind = q->dilation == 1 ? RATP_DENSE : q->dilation ? RATP_DILATED : RATP_STREAMING,
            .dilation = q->dilation, .window = q->window, .sinks = q->sinks};
        struct naive_span span = {.first = q->pos0, .queries = q->rows, .keys = end,
                                  .causal = s->causal, .mask = mask};
        naive_attend(layer, &span, &variant, 1, queries, k, v, gates, out, lse, NULL);
        store_rows(&s->out, image, q->row0, q->rows, out);
        store_rows(&s->lse, image, q->row0, q->rows, lse);
    }
    free(k);
    free(v);
    free(out);
    free(lse);
    free(queries);
    free(gates);
    free(mask);
    return ok;
}

static void naive_merge(const struct scene *s, uint8_t *image)
{
    double sum[256];
    float row[256], lse;
    for (uint32_t t = 0; t < s->rows; t++)
        for (uint32_t h = 0; h < s->shape.query_heads; h++) {
            double total = 0, most = -INFINITY;
            memset(sum, 0, sizeof sum);
            for (uint32_t i = 0; i < s->parts; i++) {
                scene_load(&s->part_lse[i], s->image, t, h, &lse);
                most = fmax(most, (double)lse);
            }
            for (uint32_t i = 0; i < s->parts; i++) {
                scene_load(&s->part_lse[i], s->image, t, h, &lse);
                scene_load(&s->part_out[i], s->image, t, h, row);
                double weight = isfinite(lse) ? exp((double)lse - most) : NAN;
                if (lse == -INFINITY)
                    continue;
                total += weight;
                for (uint32_t c = 0; c < s->shape.value_size; c++)
                    sum[c] += weight * (double)row[c];
            }
            for (uint32_t c = 0; c < s->shape.value_size; c++) {
                double x = total != 0 ? sum[c] / total : 0;
                row[c] = (float)(isfinite(x) ? x : NAN);
            }
            scene_store(&s->out, image, t, h, row);
            lse = (float)(total != 0 ? most + log(total) : -INFINITY);
            if (s->lse.offset)
                scene_store(&s->lse, image, t, h, &lse);
        }
}

bool scene_naive(const struct scene *s, uint8_t *image)
{
    struct ratp_rope rope = s->rope;
    rope.style = s->shape.rope_style;
    struct naive_layer layer = {
        .query_heads = s->shape.query_heads,
        .kv_heads = s->shape.kv_heads,
        .head_size = s->shape.head_size,
        .value_size = s->shape.value_size,
        .scale = (double)s->shape.scale,
        .softcap = (double)s->shape.softcap,
        .rope = &rope,
    };
    float sinks[SCENE_HEADS];
    if (s->sinks.offset) {
        scene_load(&s->sinks, s->image, 0, 0, sinks);
        layer.sinks = sinks;
    }
    memcpy(image, s->image, s->size);
    if (s->ops & FIXTURE_MERGE) {
        naive_merge(s, image);
        return true;
    }
    for (uint32_t i = 0; i < s->count; i++)
        if (!naive_view(s, &layer, &s->sequence[i], image))
            return false;
    return true;
}
