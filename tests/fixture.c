#include "fixture_scene.h"

#include "../plugin/dtype.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct operand operand_of(const struct scene_operand *o, uint64_t base)
{
    return (struct operand){.address = o->offset ? base + o->offset : 0,
                            .token_stride = o->token_stride,
                            .head_stride = o->heads == 1 ? 0 : o->head_stride,
                            .dtype = o->dtype};
}

static ratp_status record(struct backend *b, struct stream *stream, const struct scene *s,
                          const struct scene_plan *p, uint64_t base, struct error *err)
{
    struct layer_shape shape = s->shape;
    shape.rope_table += base;
    if (s->ops & FIXTURE_MERGE) {
        struct operand part_out[SCENE_PARTS], part_lse[SCENE_PARTS];
        for (uint32_t i = 0; i < s->parts; i++) {
            part_out[i] = operand_of(&s->part_out[i], base);
            part_lse[i] = operand_of(&s->part_lse[i], base);
        }
        struct merge_args args = {.parts = s->parts, .tokens = s->rows,
                                  .heads = shape.query_heads, .value_size = shape.value_size,
                                  .part_out = part_out, .part_lse = part_lse,
                                  .out = operand_of(&s->out, base),
                                  .lse = operand_of(&s->lse, base)};
        return b->ops->merge(b, stream, &args, err);
    }
    ratp_status status = RATP_OK;
    if (s->ops & FIXTURE_MEMORY) {
        struct memory_args args = {.plan = &p->plan, .cls = &p->cls, .shape = &shape,
                                   .slab = s->layer, .state_offset = s->state_offset,
                                   .k = operand_of(&s->k, base), .v = operand_of(&s->v, base),
                                   .f = operand_of(&s->f, base)};
        if (p->cls.moves.count)
            status = b->ops->move(b, stream, &args, err);
        if (!status)
            status = b->ops->memory(b, stream, &args, err);
    }
    if (!status && s->ops & ~(uint32_t)FIXTURE_MEMORY) {
        struct attend_args args = {.plan = &p->plan, .cls = &p->cls, .shape = &shape,
                                   .slab = s->layer,
                                   .q = operand_of(&s->q, base), .o = operand_of(&s->o, base),
                                   .out = operand_of(&s->out, base),
                                   .lse = operand_of(&s->lse, base),
                                   .mask = operand_of(&s->mask, base),
                                   .mask_view_stride = s->mask_view_stride,
                                   .sinks = s->sinks.offset ? base + s->sinks.offset : 0};
        status = b->ops->attend(b, stream, &args, err);
    }
    return status;
}

/* Runs the scene; `image` gets the arena after it. */
static ratp_status run(struct backend *b, const struct scene *made, uint8_t *image,
                       struct error *err)
{
    struct scene scene = *made; /* each backend draws its own splits from here on */
    struct scene_plan p = {0};
    struct mem arena = {0}, lists = {0}, scratch = {0};
    struct stream *stream = NULL;
    struct work_limits limits;
    ticket done;
    b->ops->limits(b, &scene.shape, &limits);
    ratp_status status = b->ops->mem_alloc(b, scene.size, MEM_DEVICE, "arena", &arena, err);
    if (!status)
        status = b->ops->mem_write(b, &arena, 0, scene.image, scene.size, err);
    if (status)
        goto error;
    status = RATP_OUT_OF_MEMORY;
    if (!scene_plan(&scene, &limits, arena.address, &p)) {
        fail(err, status, "no host memory for the plan");
        goto error;
    }
    uint64_t raw_size = scene.rows * shape_raw_bytes(&scene.shape);
    uint64_t scratch_size = p.carries_size + p.partials_size + raw_size + 1024;
    status = b->ops->mem_alloc(b, p.lists_size + 16, MEM_UPLOAD, "lists", &lists, err);
    if (!status)
        status = b->ops->mem_alloc(b, scratch_size, MEM_DEVICE, "scratch", &scratch, err);
    if (!status && p.lists_size)
        status = b->ops->mem_write(b, &lists, 0, p.lists, p.lists_size, err);
    if (!status)
        status = b->ops->stream_begin(b, &stream, err);
    if (status)
        goto error;
    p.plan.params = &lists;
    p.plan.carry_address = scratch.address;
    p.plan.partial_address = scratch.address + (p.carries_size + 255) / 256 * 256;
    p.plan.raw_address = p.plan.partial_address + (p.partials_size + 255) / 256 * 256;
    status = record(b, stream, &scene, &p, arena.address, err);
    if (status) {
        b->ops->stream_drop(b, stream);
        goto error;
    }
    status = b->ops->stream_submit(b, stream, &done, err);
    if (!status)
        status = b->ops->wait(b, done, err);
    if (!status)
        status = b->ops->mem_read(b, &arena, 0, image, scene.size, err);
error:
    b->ops->mem_free(b, &arena);
    b->ops->mem_free(b, &lists);
    b->ops->mem_free(b, &scratch);
    scene_plan_free(&p);
    return status;
}

/* What is compared: the bytes that may change are marked as they are read. */
struct comparison {
    const struct scene *s;
    uint8_t *a, *b; /* images */
    uint8_t *seen;  /* [size] */
    struct fixture_report *report;
};

static void failed(struct comparison *c, const char *format, ...)
{
    if (c->report->failure[0])
        return;
    va_list args;
    va_start(args, format);
    vsnprintf(c->report->failure, sizeof c->report->failure, format, args);
    va_end(args);
}

static double bound_of(ratp_dtype dtype)
{
    return dtype == RATP_F32 ? 2e-5 : dtype == RATP_F16 ? 1e-3 : dtype == RATP_BF16 ? 8e-3 : 1e-2;
}

static double worst_bound(double a, double b)
{
    return a > b ? a : b;
}

/* The most channels that are compared at once: all of a layer's memory state. */
enum { MOST_CHANNELS = 8192 };

/* Sums of squares of a row set; what is not finite on one side only is infinite. */
struct norm {
    double difference, size;
};

/* How numbers are compared: a result must be NaN where the other is; one that is kept may be
 * any that is not finite; and of some no more is asked. */
enum { RESULT = 0, KEPT = 1, LOOSE = 2 };

static void norm_add(struct norm *n, struct comparison *c, uint64_t at, ratp_dtype dtype,
                     uint32_t channels, uint32_t how)
{
    static float row_a[MOST_CHANNELS], row_b[MOST_CHANNELS];
    memset(c->seen + at, 1, dtype_row_bytes(dtype, channels));
    dtype_load_row(c->a + at, dtype, channels, row_a);
    dtype_load_row(c->b + at, dtype, channels, row_b);
    for (uint32_t i = 0; i < channels; i++) {
        double a = (double)row_a[i], b = (double)row_b[i];
        n->size += isfinite(b) ? b * b : 0;
        if (a == b || (isnan(a) && isnan(b)))
            continue;
        if (!isfinite(a) || !isfinite(b))
            n->difference += !isfinite(a) && !isfinite(b) && how & KEPT ? 0 : INFINITY;
        else
            n->difference += how & LOOSE ? 0 : (a - b) * (a - b);
    }
}

static double norm_error(const struct norm *n)
{
    return n->difference <= 0 ? 0 : sqrt(n->difference / (n->size + 1e-30));
}

static void compare_out(struct comparison *c, double bound, uint32_t row0, uint32_t rows,
                        bool loose)
{
    const struct scene *s = c->s;
    struct norm all = {0};
    for (uint32_t t = row0; t < row0 + rows; t++)
        for (uint32_t h = 0; h < s->out.heads; h++) {
            uint64_t at = s->out.offset + (uint64_t)t * s->out.token_stride +
                          (uint64_t)h * s->out.head_stride;
            struct norm row = {0};
            norm_add(&row, c, at, s->out.dtype, s->out.channels, loose ? LOOSE : RESULT);
            norm_add(&all, c, at, s->out.dtype, s->out.channels, loose ? LOOSE : RESULT);
            /* A row may be small by cancellation; not all of its neighbours are. */
            if (sqrt(row.difference) > 8 * bound * sqrt(worst_bound(row.size, s->out.channels * 1e-2)))
                failed(c, "out row %u head %u: error %.2e", t, h, norm_error(&row));
        }
    double error = norm_error(&all);
    c->report->out = worst_bound(c->report->out, error);
    if (!(error <= bound))
        failed(c, "out rows %u+%u: error %.2e above %.2e", row0, rows, error, bound);
}

static void compare_lse(struct comparison *c, double bound, uint32_t row0, uint32_t rows,
                        bool loose)
{
    const struct scene *s = c->s;
    for (uint32_t t = row0; t < row0 + rows && s->lse.offset; t++)
        for (uint32_t h = 0; h < s->lse.heads; h++) {
            float a, b;
            uint64_t at = s->lse.offset + (uint64_t)t * s->lse.token_stride +
                          (uint64_t)h * s->lse.head_stride;
            memset(c->seen + at, 1, sizeof a);
            scene_load(&s->lse, c->a, t, h, &a);
            scene_load(&s->lse, c->b, t, h, &b);
            bool same = a == b || (isnan(a) && isnan(b));
            double error = same ? 0 : fabs((double)a - (double)b) / worst_bound(1, fabs((double)b) / 1e4);
            error = isnan(error) ? (double)INFINITY : loose && isfinite(error) ? 0 : error;
            c->report->lse = worst_bound(c->report->lse, error);
            if (!(error <= bound))
                failed(c, "lse row %u head %u: %g, not %g", t, h, (double)a, (double)b);
        }
}

/* Slots of every page; what holds no token must hold the same bytes. */
static void compare_run(struct comparison *c, struct scene_run run, double bound)
{
    const struct scene *s = c->s;
    const struct layer_shape *shape = &s->shape;
    uint32_t slots = run.pages * shape->page_slots;
    for (uint32_t slot = 0; slot < slots; slot++)
        for (uint32_t h = 0; h < shape->kv_heads; h++) {
            struct norm n = {0};
            norm_add(&n, c, scene_slot(s, run, slot, h, false), shape->k_dtype, shape->head_size,
                     KEPT);
            norm_add(&n, c, scene_slot(s, run, slot, h, true), shape->v_dtype, shape->value_size,
                     KEPT);
            double error = norm_error(&n);
            c->report->cache = worst_bound(c->report->cache, error);
            if (!(error <= bound))
                failed(c, "cache page %u slot %u head %u: error %.2e above %.2e", run.page0, slot,
                       h, error, bound);
        }
}

static void compare_state(struct comparison *c, const struct scene_sequence *q, double bound)
{
    const struct layer_shape *shape = &c->s->shape;
    struct norm n = {0};
    norm_add(&n, c, q->state_out + c->s->state_offset, RATP_F32,
             shape->kv_heads * (shape->head_size + shape->value_size), KEPT);
    double error = norm_error(&n);
    c->report->state = worst_bound(c->report->state, error);
    if (!(error <= bound))
        failed(c, "state of sequence at row %u: error %.2e above 2e-5", q->row0, error);
}

static void compare_images(struct comparison *c)
{
    const struct scene *s = c->s;
    bool memory = s->ops & FIXTURE_MEMORY;
    double precision = bound_of(s->out.dtype), lse_bound = 5e-5;
    double cache = worst_bound(bound_of(s->shape.k_dtype), bound_of(s->shape.v_dtype));
    if (memory) {
        /* New K and V may be rounded the other way by one step. */
        precision = worst_bound(precision, cache);
        lse_bound = 10 * cache;
    }
    if (s->ops & FIXTURE_MERGE) {
        compare_out(c, precision, 0, s->rows, false);
        compare_lse(c, lse_bound, 0, s->rows, false);
    }
    for (uint32_t i = 0; i < s->count; i++) {
        const struct scene_sequence *q = &s->sequence[i];
        if (s->ops & ~(uint32_t)FIXTURE_MEMORY) {
            compare_out(c, precision, q->row0, q->rows, q->loose);
            compare_lse(c, lse_bound, q->row0, q->rows, q->loose);
        }
        if (memory) {
            compare_run(c, q->kept, cache);
            compare_run(c, q->ring, cache);
            compare_run(c, q->line, cache);
        }
        if (s->shape.memory)
            compare_state(c, q, 2e-5);
    }
    for (uint64_t at = 0; at < s->size; at++)
        if (!c->seen[at] && (c->a[at] != s->image[at] || c->b[at] != s->image[at])) {
            failed(c, "byte %llu of the arena was changed (%s)", (unsigned long long)at,
                   c->a[at] != s->image[at] ? "first backend" : "second");
            return;
        }
}

int fixture_compare(struct backend *a, struct backend *b, uint64_t seed,
                    const struct fixture_options *only, struct fixture_report *report)
{
    struct fixture_report own;
    struct scene scene;
    struct error err = {{0}};
    struct comparison c = {.s = &scene, .report = report ? report : &own};
    memset(c.report, 0, sizeof *c.report);
    bool made = scene_make(&scene, seed, only);
    c.a = malloc(scene.size + 1);
    c.b = malloc(scene.size + 1);
    c.seen = calloc(1, scene.size + 1);
    scene_describe(&scene, c.report->scene, sizeof c.report->scene);
    c.report->ops = scene.ops;
    if (!made || !c.a || !c.b || !c.seen)
        failed(&c, "no host memory for the scene");
    else if (run(a, &scene, c.a, &err))
        failed(&c, "first backend: %s", err.text);
    else if (b && run(b, &scene, c.b, &err))
        failed(&c, "second backend: %s", err.text);
    else if (!b && !scene_naive(&scene, c.b))
        failed(&c, "no host memory for the definition");
    else
        compare_images(&c);
    if (c.report->failure[0])
        fprintf(stderr, "seed %llu: %s\n    %s\n", (unsigned long long)seed, c.report->failure,
                c.report->scene);
    free(c.a);
    free(c.b);
    free(c.seen);
    scene_free(&scene);
    return c.report->failure[0] ? 1 : 0;
}

int fixture_compare_many(struct backend *a, struct backend *b, uint64_t first, uint32_t count,
                         const struct fixture_options *only, const char *name)
{
    struct fixture_report one, worst = {0};
    int failures = 0;
    for (uint32_t i = 0; i < count; i++) {
        failures += fixture_compare(a, b, first + i, only, &one);
        worst.out = worst_bound(worst.out, one.out);
        worst.lse = worst_bound(worst.lse, one.lse);
        worst.cache = worst_bound(worst.cache, one.cache);
        worst.state = worst_bound(worst.state, one.state);
    }
    printf("%-24s %5u scenes  out %.2e  lse %.2e  cache %.2e  state %.2e  %d failed\n", name, count,
           worst.out, worst.lse, worst.cache, worst.state, failures);
    return failures;
}
