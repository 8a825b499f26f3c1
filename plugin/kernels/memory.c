/* New tokens through the memory and the rotation into the cache. */
#include "memory.h"

#include "memory_apply.spv.h"
#include "memory_apply_ahead.spv.h"
#include "memory_apply_wide.spv.h"
#include "memory_carry.spv.h"
#include "memory_carry_ahead.spv.h"
#include "memory_local.spv.h"
#include "memory_local_ahead.spv.h"
#include "memory_local_wide.spv.h"

/* Pairs of quads 8 bytes at a time, and the inputs of several tokens at once. */
enum loads { LOADS_PLAIN, LOADS_WIDE, LOADS_AHEAD };

static const struct vk_shader apply_shaders[] = {
    [LOADS_PLAIN] = VK_SHADER(memory_apply, struct memory_push),
    [LOADS_WIDE] = VK_SHADER(memory_apply_wide, struct memory_push),
    [LOADS_AHEAD] = VK_SHADER(memory_apply_ahead, struct memory_push)};
static const struct vk_shader local_shaders[] = {
    [LOADS_PLAIN] = VK_SHADER(memory_local, struct memory_push),
    [LOADS_WIDE] = VK_SHADER(memory_local_wide, struct memory_push),
    [LOADS_AHEAD] = VK_SHADER(memory_local_ahead, struct memory_push)};
static const struct vk_shader carry_shaders[] = {
    [LOADS_PLAIN] = VK_SHADER(memory_carry, struct memory_push),
    [LOADS_WIDE] = VK_SHADER(memory_carry, struct memory_push),
    [LOADS_AHEAD] = VK_SHADER(memory_carry_ahead, struct memory_push)};

/* Tokens that an invocation of the copy without memory walks along, about:
 * enough to pay for what it does once. */
enum { COPY_TOKENS = 8, COPY_MAX_SLICES = 64 };

enum { GROUP_SIZE = 64, SOFTWARE_SPAN = 2, SOFTWARE_HEADS = 2 };

static uint32_t group_count(const struct memory_form *form, uint32_t kv_heads, uint32_t quads)
{
    return groups_of(groups_of(kv_heads, form->heads) * groups_of(quads, form->span),
                     form->group_size);
}

/* Whether a run of `span` quads never holds both turning channels and others. */
static bool spans(const struct layer_shape *shape, uint32_t span)
{
    return shape->head_size == shape->value_size && shape->head_size / 4 % span == 0 &&
           (shape->rope_style != RATP_ROPE_HALF || shape->rope_size / 4 % span == 0);
}

/* A GPU wants many invocations. A CPU wants few that share what they do once a
 * token, but workgroups enough for its threads. */
struct memory_form memory_form(const struct vk_caps *caps, const struct layer_shape *shape)
{
    uint32_t size = shape->head_size > shape->value_size ? shape->head_size : shape->value_size;
    uint32_t quads = size / 4, wanted = 2 * caps->compute_units;
    struct memory_form form = {
        .heads = 1, .span = 1, .group_size = GROUP_SIZE, .software = caps->software};
    if (caps->software) {
        form.group_size = caps->subgroup_size;
        form.heads = SOFTWARE_HEADS;
        form.span = spans(shape, SOFTWARE_SPAN) ? SOFTWARE_SPAN : 1;
    }
    while (form.heads > 1 && (shape->kv_heads % form.heads != 0 ||
                              group_count(&form, shape->kv_heads, quads) < wanted))
        form.heads /= 2;
    if (group_count(&form, shape->kv_heads, quads) < wanted)
        form.span = 1;
    form.groups = group_count(&form, shape->kv_heads, quads);
    return form;
}

/* On a CPU quads go in pairs, where each pair of neighbours lies at multiples of 8 bytes, in
 * the inputs and in the cache. */
static enum loads loads_of(const struct vk_caps *caps, const struct memory_args *args,
                           const struct memory_form *form)
{
    const struct layer_shape *shape = args->shape;
    const struct operand *inputs[] = {&args->k, &args->v, &args->f};
    uint64_t bits = shape->k_slot | shape->k_head | shape->v_slot | shape->v_head;
    for (int i = 0; i < 3; i++)
        bits |= inputs[i]->address | inputs[i]->token_stride | inputs[i]->head_stride;
    if (!caps->software)
        return LOADS_AHEAD;
    return caps->int64 && form->span % 2 == 0 && bits % 8 == 0 ? LOADS_WIDE : LOADS_PLAIN;
}

/* Where the views of a class write. The first four are as in memory_apply.comp;
 * a view that has a line and a ring fills the ring from the line. */
enum { TO_LINE = 1, TO_RING = 2, TO_KEPT = 4, TO_RAW = 8, FROM_LINE_TO_RING = 16 };

static uint32_t targets_of(const struct memory_args *args)
{
    const uint8_t *lists = args->plan->params->host;
    if (!lists)
        return TO_LINE | TO_RING | TO_KEPT | FROM_LINE_TO_RING;
    const struct gpu_view *views = (const void *)(lists + args->cls->views.offset);
    uint32_t targets = 0;
    for (uint32_t i = 0; i < args->cls->views.count; i++) {
        if (views[i].line_pages)
            targets |= TO_LINE;
        if (views[i].ring_pages)
            targets |= views[i].line_pages ? FROM_LINE_TO_RING : TO_RING;
        if (views[i].kept_pages)
            targets |= TO_KEPT;
    }
    return targets;
}

void memory_kernel_init(struct memory_kernel *k, const struct memory_args *args,
                        const struct vk_shader *shader, const struct memory_form *form,
                        uint32_t own)
{
    const struct layer_shape *shape = args->shape;
    const uint32_t constants[MEMORY_CONSTANTS] = {
        shape->kv_heads,
        shape->head_size,
        shape->value_size,
        (uint32_t)args->k.dtype,
        (uint32_t)args->v.dtype,
        shape->memory ? (uint32_t)args->f.dtype : 0,
        (uint32_t)shape->k_dtype,
        (uint32_t)shape->v_dtype,
        (uint32_t)shape->rope_style,
        shape->rope_size,
        groups_of(shape->max_tokens, ROPE_FINE),
        shape->view_strides ? 0 : shape->k_slot,
        shape->view_strides ? 0 : shape->k_head,
        shape->view_strides ? 0 : shape->v_slot,
        shape->view_strides ? 0 : shape->v_head,
        form->heads,
        form->span,
        own,
        form->group_size,
        form->software,
    };
    for (uint32_t i = 0; i < MEMORY_CONSTANTS; i++)
        k->constants[i] = constants[i];
    k->push = (struct memory_push){
        .plan = args->plan->params->address,
        .pages = args->plan->pages.offset,
        .views = args->cls->views.offset,
        .page_slots = shape->page_slots,
        .k = args->k.address,
        .v = args->v.address,
        .f = args->f.address,
        .carry = args->plan->carry_address,
        .rope_table = shape->rope_table,
        .raw = args->plan->raw_address,
        .k_token = args->k.token_stride,
        .k_head = args->k.head_stride,
        .v_token = args->v.token_stride,
        .v_head = args->v.head_stride,
        .f_token = args->f.token_stride,
        .f_head = args->f.head_stride,
        .slab = args->slab,
        .state_offset = args->state_offset,
    };
    k->items = (struct items_kernel){
        .shader = shader,
        .constants = k->constants,
        .constant_count = MEMORY_CONSTANTS,
        .push = &k->push,
        .push_size = sizeof k->push,
        .items = &k->push.items,
    };
}

static ratp_status scan(struct stream *s, const struct memory_args *args,
                        const struct memory_form *form, enum loads loads,
                        struct error *err)
{
    struct memory_kernel k;
    memory_kernel_init(&k, args, &local_shaders[loads], form, 0);
    ratp_status status = items_dispatch(s, &k.items, args->plan->locals, sizeof(struct gpu_chunk),
                                        form->groups, 1, err);
    if (status)
        return status;
    vk_barrier(kernel_stream(s));
    k.items.shader = &carry_shaders[loads];
    status = items_dispatch(s, &k.items, args->plan->scans, sizeof(struct gpu_scan), form->groups,
                            1, err);
    vk_barrier(kernel_stream(s));
    return status;
}

/* All tokens to the targets. */
static ratp_status apply(struct backend *b, struct stream *s, const struct memory_args *args,
                         uint32_t targets, struct error *err)
{
    const struct layer_shape *shape = args->shape;
    const struct plan *plan = args->plan;
    const struct vk_caps *caps = vk_device_caps(kernel_device(b));
    struct memory_form form = memory_form(caps, shape);
    enum loads loads = loads_of(caps, args, &form);
    uint32_t slices = 1;

    if (shape->memory && plan->locals.count > 0) {
        ratp_status scanned = scan(s, args, &form, loads, err);
        if (scanned)
            return scanned;
    }
    if (!shape->memory && plan->chunks.count > 0) {
        slices = groups_of(plan->rows, plan->chunks.count * COPY_TOKENS);
        slices = slices < COPY_MAX_SLICES ? slices : COPY_MAX_SLICES;
    }
    struct memory_kernel k;
    memory_kernel_init(&k, args, &apply_shaders[loads], &form,
                       targets & (TO_LINE | TO_RING | TO_KEPT | TO_RAW));
    ratp_status status = items_dispatch(s, &k.items, plan->chunks, sizeof(struct gpu_chunk),
                                        form.groups, slices, err);
    if (status || !(targets & FROM_LINE_TO_RING))
        return status;
    vk_barrier(kernel_stream(s));
    return memory_fill_rings(s, args, &form, err);
}

/* The shape of the raw rows, as if they were slots of one endless page. */
static struct layer_shape raw_shape(const struct layer_shape *shape)
{
    struct layer_shape raw = *shape;
    raw.k_dtype = raw.v_dtype = RATP_F32;
    raw.k_slot = raw.v_slot = (uint32_t)shape_raw_bytes(shape);
    raw.k_head = raw.v_head = raw.k_slot / shape->kv_heads;
    return raw;
}

ratp_status kernels_memory(struct backend *b, struct stream *s, const struct memory_args *args,
                           struct error *err)
{
    const struct layer_shape *shape = args->shape;
    if (shape->memory && shape->head_size != shape->value_size)
        return fail(err, RATP_INTERNAL, "memory with head_size %u and value_size %u",
                    shape->head_size, shape->value_size);
    if (!shape_is_quantized(shape))
        return apply(b, s, args, targets_of(args), err);
    struct layer_shape raw = raw_shape(shape);
    struct memory_args to_raw = *args;
    to_raw.shape = &raw;
    ratp_status status = apply(b, s, &to_raw, TO_RAW, err);
    if (status)
        return status;
    vk_barrier(kernel_stream(s));
    return memory_quantize(b, s, args, err);
}
