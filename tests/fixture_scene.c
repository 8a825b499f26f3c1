#include "fixture_scene.h"

#include "../plugin/dtype.h"
#include "blocks.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EXTERNAL_TOKENS = 400, ROW = 1024 };

static uint32_t pick(struct random *r, uint32_t wanted, const uint32_t *from, uint32_t count)
{
    uint32_t random = from[random_in(r, 0, count - 1)];
    return wanted ? wanted : random;
}

#define PICK(r, wanted, ...)                                                               \
    pick(r, wanted, (const uint32_t[]){__VA_ARGS__},                                       \
         sizeof((const uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t))

static ratp_dtype pick_dtype(struct random *r, ratp_dtype wanted)
{
    return (ratp_dtype)PICK(r, (uint32_t)wanted, RATP_F32, RATP_F16, RATP_BF16);
}

static bool is_in_blocks(ratp_dtype dtype)
{
    return dtype == RATP_Q8_0 || dtype == DTYPE_Q8_0_BLOCKS || dtype == RATP_Q4_0;
}

/* Of K or V: in blocks too, a cache's or a host's, where whole ones make a row. */
static ratp_dtype pick_cache_dtype(struct scene *s, uint32_t channels)
{
    struct random *r = &s->random;
    ratp_dtype wanted = s->only.cache_dtype, block = wanted;
    bool blocks = is_in_blocks(wanted);
    ratp_dtype plain = pick_dtype(r, blocks ? 0 : wanted);
    if (!wanted) {
        blocks = random_chance(r, s->external ? 40 : 20);
        block = !s->external ? RATP_Q8_0 : random_chance(r, 50) ? RATP_Q4_0 : DTYPE_Q8_0_BLOCKS;
    }
    return blocks && channels % BLOCK_CHANNELS == 0 ? block : plain;
}

static void store_row(void *to, ratp_dtype dtype, uint32_t channels, const float *from)
{
    if (dtype == DTYPE_Q8_0_BLOCKS || dtype == RATP_Q4_0)
        blocks_store_row(to, dtype, channels, from);
    else
        dtype_store_row(to, dtype, channels, from);
}

/* Space in the arena. */
static uint64_t take(struct scene *s, uint64_t size)
{
    uint64_t at = s->size;
    s->size += (size + 255) / 256 * 256 + 256;
    return at;
}

static struct scene_operand operand_make(struct scene *s, uint32_t tokens, uint32_t heads,
                                         uint32_t channels, ratp_dtype dtype)
{
    struct random *r = &s->random;
    uint32_t bytes = channels * (uint32_t)dtype_size(dtype);
    struct scene_operand o = {
        .dtype = dtype, .tokens = tokens, .heads = heads, .channels = channels};
    uint32_t pad = s->only.plain ? 0 : 4 * random_in(r, 0, 3) * random_in(r, 0, 1);
    bool head_major = random_chance(r, 20) && !s->only.plain;
    if (head_major) {
        o.token_stride = bytes + pad;
        o.head_stride = o.token_stride * tokens + pad;
    } else {
        o.head_stride = bytes + pad;
        o.token_stride = o.head_stride * heads + pad;
    }
    uint64_t size = (uint64_t)o.token_stride * tokens + (uint64_t)o.head_stride * heads + bytes;
    o.offset = take(s, size + 16) + pad;
    return o;
}

static ratp_dtype io_dtype(struct scene *s, ratp_dtype common)
{
    bool own = random_chance(&s->random, 25);
    ratp_dtype dtype = pick_dtype(&s->random, 0);
    return own && !s->only.io_dtype && !s->only.plain ? dtype : common;
}

static void make_shape(struct scene *s)
{
    struct random *r = &s->random;
    const struct fixture_options *only = &s->only;
    struct layer_shape *shape = &s->shape;
    shape->head_size = PICK(r, only->head_size, 32, 64, 80, 96, 128, 256, 8, 40);
    uint32_t group = PICK(r, only->group, 1, 1, 2, 3, 4, 7, 8);
    shape->kv_heads = PICK(r, only->kv_heads, 1, 2, 3, 5);
    shape->query_heads = shape->kv_heads * group;
    shape->memory = (s->ops & FIXTURE_MEMORY) && random_chance(r, 70) && !only->plain;
    uint32_t value_size = PICK(r, only->value_size, 8, 40, 64, 128);
    shape->value_size = shape->memory || (random_chance(r, 75) && !only->value_size)
                            ? shape->head_size
                            : value_size;
    shape->scale = random_chance(r, 80) ? 1 / sqrtf((float)shape->head_size) : 0.125f;
    shape->softcap = random_chance(r, 25) && !only->plain ? 5 : 0;
    shape->k_dtype = pick_cache_dtype(s, shape->head_size);
    shape->v_dtype = pick_cache_dtype(s, shape->value_size);
    bool fits = !is_in_blocks(shape->k_dtype) || shape->value_size % BLOCK_CHANNELS == 0;
    if (random_chance(r, s->external ? 50 : 80) && fits)
        shape->v_dtype = shape->k_dtype;
    shape->page_slots = PICK(r, only->page_slots, 8, 16, 24, 64, 128);
    s->layers = random_in(r, 1, 3);
    s->layer = random_in(r, 0, s->layers - 1);
    s->slot_major = random_chance(r, 20) && !only->plain;
    s->causal = true;
    ratp_rope_style style = only->rope ? (ratp_rope_style)(only->rope - 1)
                                       : (ratp_rope_style)random_in(r, 0, 2);
    uint32_t part = 4 * random_in(r, 1, shape->head_size / 4);
    s->rope = (struct ratp_rope){.struct_size = sizeof s->rope, .style = style, .theta = 10000};
    s->rope.size = random_chance(r, 30) ? part : shape->head_size;
}

/* Strides of pages, or of the host's tensors. */
static void make_strides(struct scene *s, uint32_t slots)
{
    struct layer_shape *shape = &s->shape;
    uint32_t k_row = (uint32_t)dtype_row_bytes(shape->k_dtype, shape->head_size);
    uint32_t v_row = (uint32_t)dtype_row_bytes(shape->v_dtype, shape->value_size);
    shape->page_slots = slots;
    shape->k_slot = s->slot_major ? k_row * shape->kv_heads : k_row;
    shape->v_slot = s->slot_major ? v_row * shape->kv_heads : v_row;
    shape->k_head = s->slot_major ? k_row : k_row * slots;
    shape->v_head = s->slot_major ? v_row : v_row * slots;
    s->layer_bytes = (k_row + v_row) * shape->kv_heads * slots;
}

static void make_rope(struct scene *s)
{
    struct layer_shape *shape = &s->shape;
    shape->rope_style = s->external ? RATP_ROPE_NONE : s->rope.style;
    if (shape->rope_style == RATP_ROPE_NONE)
        return;
    shape->rope_size = s->rope.size;
    shape->max_tokens = 48 * ROPE_FINE;
    shape->rope_table = take(s, (shape->max_tokens / ROPE_FINE + ROPE_FINE) *
                                  (uint64_t)shape->rope_size * sizeof(float));
}

static void fill_rope(struct scene *s)
{
    struct layer_shape *shape = &s->shape;
    if (shape->rope_style == RATP_ROPE_NONE)
        return;
    uint32_t pairs = shape->rope_size / 2;
    float *coarse = (float *)(void *)(s->image + shape->rope_table);
    uint32_t rows = shape->max_tokens / ROPE_FINE;
    float *fine = coarse + (size_t)rows * pairs * 2;
    for (uint32_t p = 0; p < ROPE_FINE + rows; p++)
        for (uint32_t i = 0; i < pairs; i++) {
            bool is_fine = p < ROPE_FINE;
            double position = is_fine ? p : (p - ROPE_FINE) * (double)ROPE_FINE;
            double angle = position * pow(s->rope.theta, -2.0 * i / shape->rope_size);
            float *to = is_fine ? &fine[(p * pairs + i) * 2]
                                : &coarse[((p - ROPE_FINE) * pairs + i) * 2];
            to[0] = (float)cos(angle);
            to[1] = (float)sin(angle);
        }
}

static struct scene_run take_pages(struct scene *s, uint32_t slots)
{
    struct scene_run run = {.page0 = s->pages};
    run.pages = (slots + s->shape.page_slots - 1) / s->shape.page_slots;
    s->pages += run.pages;
    return run;
}

static void make_sequence(struct scene *s, struct scene_sequence *q)
{
    struct random *r = &s->random;
    uint32_t most = s->only.max_tokens ? s->only.max_tokens : 100;
    uint32_t past = s->only.max_past ? s->only.max_past : 300;
    bool singles = s->ops & FIXTURE_SINGLES, prompts = s->ops & FIXTURE_PROMPTS;
    bool coin = random_chance(r, 50);
    bool one = most < 2 || (singles == prompts ? coin : singles);
    q->rows = one ? 1 : random_in(r, 2, most);
    q->pos0 = random_chance(r, 30) ? 0 : random_in(r, 1, past);
    q->everything = random_chance(r, 40) || s->only.full;
    q->sinks = random_chance(r, 60) ? random_in(r, 0, 12) : 0;
    q->window = random_chance(r, 80) ? random_in(r, 0, 90) : 0;
    q->dilation = PICK(r, 0, 2, 3, 4, 8, 16, 64, 400);
    if (random_chance(r, 30))
        q->dilation = 0;
    if (q->everything && random_chance(r, 40)) {
        q->dilation = 1;
        q->sinks = q->window = 0;
    }
    q->row0 = s->rows;
    s->rows += q->rows;
    uint32_t end = q->pos0 + q->rows;
    if (q->everything) {
        q->line = take_pages(s, end);
        return;
    }
    q->kept = take_pages(s, q->dilation ? kept_index(end, q->sinks, q->dilation) + 1 : q->sinks);
    q->old_ring = take_pages(s, q->window + 1 + random_in(r, 0, 40));
    q->old_slots = q->old_ring.pages * s->shape.page_slots;
    q->ring = q->old_ring;
    q->ring_slots = q->old_slots;
    /* New tokens must not overwrite what the first of them still sees. */
    q->new_ring = random_chance(r, 30) || q->rows > q->ring_slots - q->window;
    q->lined = q->new_ring || q->rows > 1;
    if (q->new_ring) {
        q->ring = take_pages(s, q->window + 1 + random_in(r, 0, 40));
        q->ring_slots = q->ring.pages * s->shape.page_slots;
    }
    if (q->lined)
        q->line = take_pages(s, q->rows);
}

/* Every page gets a place, in shuffled order. */
static bool place_pages(struct scene *s)
{
    struct random *r = &s->random;
    uint32_t *order = malloc((s->pages + 1) * sizeof *order);
    s->page = malloc((s->pages + 1) * sizeof *s->page);
    s->page_layered = malloc((s->pages + 1) * sizeof *s->page_layered);
    if (!order || !s->page || !s->page_layered) {
        free(order);
        return false;
    }
    for (uint32_t i = 0; i < s->pages; i++) {
        uint32_t j = random_in(r, 0, i);
        order[i] = order[j];
        order[j] = i;
        s->page_layered[i] = !s->external;
    }
    for (uint32_t i = 0; i < s->count; i++) {
        const struct scene_sequence *q = &s->sequence[i];
        for (uint32_t p = 0; p < q->line.pages && !q->everything; p++)
            s->page_layered[q->line.page0 + p] = false;
    }
    for (uint32_t i = 0; i < s->pages; i++)
        s->page[order[i]] =
            take(s, (uint64_t)s->layer_bytes * (s->page_layered[order[i]] ? s->layers : 1));
    free(order);
    return true;
}

uint64_t scene_slot(const struct scene *s, struct scene_run run, uint32_t slot, uint32_t kv_head,
                    bool value)
{
    const struct layer_shape *shape = &s->shape;
    uint32_t page = run.page0 + slot / shape->page_slots, within = slot % shape->page_slots;
    uint64_t at = s->page[page] + (s->page_layered[page] ? s->layer * s->layer_bytes : 0);
    if (!value)
        return at + (uint64_t)within * shape->k_slot + (uint64_t)kv_head * shape->k_head;
    uint64_t k_bytes = dtype_row_bytes(shape->k_dtype, shape->head_size) * shape->kv_heads *
                       shape->page_slots;
    return at + k_bytes + (uint64_t)within * shape->v_slot + (uint64_t)kv_head * shape->v_head;
}

static void put_slot(const struct scene *s, uint8_t *image, struct scene_run run, uint32_t slot,
                     const float *k, const float *v)
{
    const struct layer_shape *shape = &s->shape;
    for (uint32_t h = 0; h < shape->kv_heads; h++) {
        store_row(image + scene_slot(s, run, slot, h, false), shape->k_dtype, shape->head_size,
                  k + h * shape->head_size);
        store_row(image + scene_slot(s, run, slot, h, true), shape->v_dtype, shape->value_size,
                  v + h * shape->value_size);
    }
}

void scene_put(const struct scene *s, uint8_t *image, const struct scene_sequence *q,
               uint32_t position, bool fresh, const float *k, const float *v)
{
    if (q->everything) {
        put_slot(s, image, q->line, position, k, v);
        return;
    }
    uint32_t end = q->pos0 + q->rows;
    if (position < q->sinks)
        put_slot(s, image, q->kept, position, k, v);
    else if (q->dilation && (position + 1) % q->dilation == 0)
        put_slot(s, image, q->kept, kept_index(position, q->sinks, q->dilation), k, v);
    if (!fresh && position < q->pos0 && position + q->window + 1 > q->pos0)
        put_slot(s, image, q->old_ring, position % q->old_slots, k, v);
    if (fresh && position + q->ring_slots >= end)
        put_slot(s, image, q->ring, position % q->ring_slots, k, v);
    if (fresh && q->lined)
        put_slot(s, image, q->line, position - q->pos0, k, v);
}

void scene_store(const struct scene_operand *o, uint8_t *image, uint32_t row, uint32_t head,
                 const float *from)
{
    uint64_t at = o->offset + (uint64_t)row * o->token_stride + (uint64_t)head * o->head_stride;
    dtype_store_row(image + at, o->dtype, o->channels, from);
}

void scene_load(const struct scene_operand *o, const uint8_t *image, uint32_t row, uint32_t head,
                float *to)
{
    uint64_t at = o->offset + (uint64_t)row * o->token_stride + (uint64_t)head * o->head_stride;
    dtype_load_row(image + at, o->dtype, o->channels, to);
}

static void fill_operand(struct scene *s, const struct scene_operand *o, float deviation)
{
    float row[ROW];
    for (uint32_t t = 0; o->offset && t < o->tokens; t++)
        for (uint32_t h = 0; h < o->heads; h++) {
            for (uint32_t c = 0; c < o->channels; c++)
                row[c] = deviation * random_normal(&s->random);
            scene_store(o, s->image, t, h, row);
        }
}

static void fill_mask(struct scene *s)
{
    struct random *r = &s->random;
    float row[ROW];
    for (uint32_t t = 0; s->mask.offset && t < s->mask.tokens; t++)
        for (uint32_t h = 0; h < s->mask.heads; h++) {
            uint32_t hidden = random_chance(r, 5) ? 100 : random_chance(r, 50) ? 0 : 50;
            for (uint32_t c = 0; c < s->mask.channels; c++)
                row[c] = random_chance(r, hidden) ? -INFINITY : random_normal(r);
            scene_store(&s->mask, s->image, t, h, row);
        }
}

/* One in ten has none: -inf. */
static void fill_sinks(struct scene *s)
{
    float row[SCENE_HEADS];
    if (!s->sinks.offset)
        return;
    for (uint32_t h = 0; h < s->sinks.channels; h++)
        row[h] = random_chance(&s->random, 10) ? -INFINITY : 3 * random_normal(&s->random);
    scene_store(&s->sinks, s->image, 0, 0, row);
}

void scene_hold(ratp_dtype dtype, uint32_t channels, float *row)
{
    float stored[ROW];
    store_row(stored, dtype, channels, row);
    dtype_load_row(stored, dtype, channels, row);
}

/* Random numbers that a row of the cache can hold. */
static void fill_row(struct random *r, ratp_dtype dtype, uint32_t channels, float *row)
{
    for (uint32_t c = 0; c < channels; c++)
        row[c] = random_normal(r);
    scene_hold(dtype, channels, row);
}

/* Past tokens, and the new ones too where no memory operation makes them. */
static bool fill_cache(struct scene *s)
{
    struct random *r = &s->random;
    const struct layer_shape *shape = &s->shape;
    for (uint32_t i = 0; i < s->count; i++) {
        struct scene_sequence *q = &s->sequence[i];
        uint32_t end = q->pos0 + q->rows;
        uint32_t filled = s->ops & FIXTURE_MEMORY ? q->pos0 : end;
        size_t k_row = (size_t)shape->kv_heads * shape->head_size;
        size_t v_row = (size_t)shape->kv_heads * shape->value_size;
        q->k = malloc(end * k_row * sizeof *q->k);
        q->v = malloc(end * v_row * sizeof *q->v);
        if (!q->k || !q->v)
            return false;
        for (size_t n = 0; n < end * k_row; n += shape->head_size)
            fill_row(r, shape->k_dtype, shape->head_size, q->k + n);
        for (size_t n = 0; n < end * v_row; n += shape->value_size)
            fill_row(r, shape->v_dtype, shape->value_size, q->v + n);
        for (uint32_t p = 0; p < filled; p++)
            scene_put(s, s->image, q, p, p >= q->pos0, q->k + p * k_row, q->v + p * v_row);
        if (!shape->memory)
            continue;
        float *state = (float *)(void *)(s->image + q->state_in + s->state_offset);
        for (uint32_t n = 0; n < shape->kv_heads * (shape->head_size + shape->value_size); n++)
            state[n] = q->pos0 ? random_normal(r) : 0;
    }
    return true;
}

static void make_operands(struct scene *s)
{
    const struct layer_shape *shape = &s->shape;
    struct random *r = &s->random;
    ratp_dtype common = pick_dtype(r, s->only.plain && !s->only.io_dtype ? RATP_F32
                                                                         : s->only.io_dtype);
    uint32_t hq = shape->query_heads, hkv = shape->kv_heads;
    uint32_t d = shape->head_size, dv = shape->value_size;
    s->q = operand_make(s, s->rows, hq, d, io_dtype(s, common));
    s->out = operand_make(s, s->rows, hq, dv, io_dtype(s, common));
    if (s->ops & FIXTURE_MEMORY) {
        s->k = operand_make(s, s->rows, hkv, d, io_dtype(s, common));
        s->v = operand_make(s, s->rows, hkv, dv, io_dtype(s, common));
        if (shape->memory)
            s->f = operand_make(s, s->rows, hkv, d, io_dtype(s, common));
    }
    if (!s->only.plain && random_chance(r, 60))
        s->o = operand_make(s, s->rows, hq, dv, io_dtype(s, common));
    if (!s->only.plain && random_chance(r, 60))
        s->lse = operand_make(s, s->rows, hq, 1, RATP_F32);
    if (!s->only.plain && random_chance(r, 35))
        s->sinks = operand_make(s, 1, 1, hq, RATP_F32);
}

static void make_batch(struct scene *s)
{
    const struct layer_shape *shape = &s->shape;
    make_strides(s, shape->page_slots);
    uint32_t count = random_in(&s->random, 1, 6);
    s->count = s->only.sequences ? s->only.sequences : count;
    if (s->count > SCENE_SEQUENCES)
        s->count = SCENE_SEQUENCES;
    for (uint32_t i = 0; i < s->count; i++)
        make_sequence(s, &s->sequence[i]);
    uint64_t state = (uint64_t)shape->kv_heads * (shape->head_size + shape->value_size) *
                     sizeof(float);
    s->state_size = state * s->layers;
    s->state_offset = (uint32_t)state * s->layer;
    for (uint32_t i = 0; i < s->count && shape->memory; i++) {
        s->sequence[i].state_in = take(s, s->state_size);
        s->sequence[i].state_out = take(s, s->state_size);
    }
}

/* Sequences of equal length over the host's own tensors, one page each. */
static void make_external(struct scene *s)
{
    struct random *r = &s->random;
    struct layer_shape *shape = &s->shape;
    uint32_t most = s->only.max_tokens ? s->only.max_tokens : 100;
    uint32_t past = s->only.max_past ? s->only.max_past : 300;
    most = most < EXTERNAL_TOKENS ? most : EXTERNAL_TOKENS;
    past = past < EXTERNAL_TOKENS ? past : EXTERNAL_TOKENS;
    uint32_t rows = random_chance(r, 50) ? 1 : random_in(r, 1, most);
    uint32_t first = random_in(r, 0, past);
    s->slot_major = random_chance(r, 50);
    s->layers = 1;
    s->layer = 0;
    s->causal = random_chance(r, 50);
    s->count = random_in(r, 1, 4);
    make_strides(s, (first + rows + 7) / 8 * 8);
    uint32_t dilation = random_chance(r, 50) ? 1 : random_in(r, 0, 9);
    uint32_t window = random_in(r, 0, 40), sinks = random_in(r, 0, 8);
    for (uint32_t i = 0; i < s->count; i++) {
        struct scene_sequence *q = &s->sequence[i];
        *q = (struct scene_sequence){
            .row0 = s->rows, .rows = rows, .pos0 = first, .everything = true, .dilation = 1};
        if (s->causal && dilation != 1) {
            q->dilation = dilation;
            q->window = window;
            q->sinks = sinks;
        }
        s->rows += rows;
        q->line = take_pages(s, first + rows);
    }
    if (random_chance(r, 70)) {
        /* One row of the mask operand is a query token of one sequence. */
        ratp_dtype dtype = random_chance(r, 50) ? RATP_F32 : RATP_F16;
        uint32_t heads = random_chance(r, 50) ? 1 : shape->query_heads;
        uint32_t keys = (first + rows + 1) / 2 * 2;
        s->mask = operand_make(s, s->rows, heads, keys, dtype);
        s->mask_view_stride = s->mask.token_stride * rows;
        s->sloped = random_chance(r, 40);
        for (uint32_t h = 0; h < shape->query_heads; h++)
            s->slopes[h] = random_normal(r);
    }
}

static void make_merge(struct scene *s)
{
    struct random *r = &s->random;
    s->parts = random_in(r, 1, SCENE_PARTS);
    s->rows = random_in(r, 1, 40);
    make_operands(s);
    if (!s->lse.offset && random_chance(r, 50))
        s->lse = operand_make(s, s->rows, s->shape.query_heads, 1, RATP_F32);
    for (uint32_t i = 0; i < s->parts; i++) {
        s->part_out[i] = operand_make(s, s->rows, s->shape.query_heads, s->shape.value_size,
                                      io_dtype(s, s->out.dtype));
        s->part_lse[i] = operand_make(s, s->rows, s->shape.query_heads, 1, RATP_F32);
    }
}

static void fill_parts(struct scene *s)
{
    float lse;
    for (uint32_t i = 0; i < s->parts; i++) {
        fill_operand(s, &s->part_out[i], 1);
        for (uint32_t t = 0; t < s->rows; t++)
            for (uint32_t h = 0; h < s->shape.query_heads; h++) {
                lse = random_chance(&s->random, 15) ? -INFINITY : 4 * random_normal(&s->random);
                scene_store(&s->part_lse[i], s->image, t, h, &lse);
            }
    }
}

bool scene_make(struct scene *s, uint64_t seed, const struct fixture_options *only)
{
    static const uint32_t sets[] = {
        FIXTURE_MEMORY | FIXTURE_PROMPTS | FIXTURE_SINGLES, FIXTURE_PROMPTS | FIXTURE_SINGLES,
        FIXTURE_MEMORY | FIXTURE_SINGLES, FIXTURE_EXTERNAL, FIXTURE_MERGE};
    memset(s, 0, sizeof *s);
    s->random.state = seed * 0x2545f4914f6cdd1du + 1;
    if (only)
        s->only = *only;
    uint32_t ops = sets[random_in(&s->random, 0, 4)];
    s->ops = s->only.ops ? s->only.ops : ops;
    s->external = s->ops & FIXTURE_EXTERNAL;
    take(s, 256);
    make_shape(s);
    if (s->ops & FIXTURE_MERGE) {
        make_merge(s);
    } else {
        if (s->external)
            make_external(s);
        else
            make_batch(s);
        make_rope(s);
        make_operands(s);
        if (!place_pages(s))
            return false;
    }
    s->image = malloc(s->size);
    if (!s->image)
        return false;
    memset(s->image, 0xff, s->size); /* NaN in every type */
    fill_rope(s);
    fill_operand(s, &s->q, 1);
    fill_operand(s, &s->k, 1);
    fill_operand(s, &s->v, 1);
    fill_operand(s, &s->f, 2);
    fill_operand(s, &s->o, 1);
    fill_mask(s);
    fill_sinks(s);
    fill_parts(s);
    if (!fill_cache(s))
        return false;
    if (s->only.spoilt || random_chance(&s->random, 20))
        scene_spoil(s);
    return true;
}

void scene_free(struct scene *s)
{
    for (uint32_t i = 0; i < SCENE_SEQUENCES; i++) {
        free(s->sequence[i].k);
        free(s->sequence[i].v);
    }
    free(s->page);
    free(s->page_layered);
    free(s->image);
    memset(s, 0, sizeof *s);
}

void scene_describe(const struct scene *s, char *text, size_t size)
{
    static const char *const styles[] = {"no rope", "half", "interleaved"};
    const struct layer_shape *h = &s->shape;
    int n = snprintf(text, size,
                     "ops %u, heads %u/%u, size %u/%u, cache %s/%s, q %s out %s, %s %u, page %u, "
                     "layer %u of %u%s%s%s%s%s%s%s%s:",
                     s->ops, h->query_heads, h->kv_heads, h->head_size, h->value_size,
                     dtype_name(h->k_dtype), dtype_name(h->v_dtype), dtype_name(s->q.dtype),
                     dtype_name(s->out.dtype), styles[h->rope_style], h->rope_size, h->page_slots,
                     s->layer, s->layers, h->memory ? ", memory" : "", h->softcap > 0 ? ", cap" : "",
                     s->o.offset ? ", gate" : "", s->mask.offset ? ", mask" : "",
                     s->sloped ? ", slopes" : "", s->sinks.offset ? ", sinks" : "",
                     s->causal ? "" : ", all keys", s->spoilt ? ", spoilt" : "");
    for (uint32_t i = 0; i < s->count && n > 0 && (size_t)n < size; i++) {
        const struct scene_sequence *q = &s->sequence[i];
        n += snprintf(text + n, size - (size_t)n, " %u+%u%s d%uw%us%u", q->pos0, q->rows,
                      q->everything ? "" : q->new_ring ? " new ring" : " ring", q->dilation,
                      q->window, q->sinks);
    }
}
