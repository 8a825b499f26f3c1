/* Attention: prompts, single tokens, the join of their splits, and waves. */
#include "attend.h"

static uint32_t type_of(const struct operand *o)
{
    return o->address ? (uint32_t)o->dtype : 0;
}

void attend_kernel_init(struct attend_kernel *k, const struct attend_args *args,
                        const struct vk_shader *shader, const uint32_t *own, uint32_t own_count)
{
    const struct layer_shape *shape = args->shape;
    const struct plan *plan = args->plan;
    const uint32_t constants[ATTEND_CONSTANTS] = {
        shape->kv_heads,
        shape->query_heads / shape->kv_heads,
        shape->head_size,
        shape->value_size,
        (uint32_t)args->q.dtype,
        type_of(&args->o),
        (uint32_t)args->out.dtype,
        type_of(&args->lse),
        type_of(&args->mask),
        (uint32_t)shape->k_dtype,
        (uint32_t)shape->v_dtype,
        (uint32_t)shape->rope_style,
        shape->rope_size,
        groups_of(shape->max_tokens, ROPE_FINE),
        float_bits(shape->scale),
        float_bits(shape->softcap),
        shape->view_strides ? 0 : shape->k_slot,
        shape->view_strides ? 0 : shape->v_slot,
        shape->view_strides ? shape->row_bits == 0 : shape->k_head,
        shape->view_strides ? 0 : shape->v_head,
    };
    for (uint32_t i = 0; i < ATTEND_CONSTANTS; i++)
        k->constants[i] = constants[i];
    for (uint32_t i = 0; i < own_count; i++)
        k->constants[ATTEND_CONSTANTS + i] = own[i];
    bool rotated = shape->rope_style != RATP_ROPE_NONE; /* see sinks_address in attend.glsl */
    k->push = (struct attend_push){
        .plan = plan->params->address,
        .pages = plan->pages.offset,
        .views = args->cls->views.offset,
        .page_slots = shape->page_slots,
        .q = args->q.address,
        .o = args->o.address,
        .out = args->out.address,
        .lse = args->lse.address,
        .partial = plan->partial_address,
        .q_token = args->q.token_stride,
        .o_token = args->o.token_stride,
        .out_token = args->out.token_stride,
        .lse_token = args->lse.token_stride,
        .q_head = args->q.head_stride,
        .o_head = args->o.head_stride,
        .out_head = args->out.head_stride,
        .lse_head = args->lse.head_stride,
        .slab = args->slab,
        .mask_view = rotated ? (uint32_t)args->sinks : args->mask_view_stride,
        .rope_table = rotated ? shape->rope_table : args->sinks,
        .mask = args->mask.address,
        .mask_token = args->mask.token_stride,
        .mask_head = rotated ? (uint32_t)(args->sinks >> 32) : args->mask.head_stride,
    };
    k->items = (struct items_kernel){
        .shader = shader,
        .constants = k->constants,
        .constant_count = ATTEND_CONSTANTS + own_count,
        .push = &k->push,
        .push_size = sizeof k->push,
        .items = &k->push.items,
    };
}

ratp_status kernels_attend(struct backend *b, struct stream *s, const struct attend_args *args,
                           struct error *err)
{
    ratp_status status = kernels_attend_prompt(b, s, args, args->cls->tiles, err);
    if (!status)
        status = kernels_attend_decode(b, s, args, err);
    if (!status && args->cls->gathers.count) {
        vk_barrier(kernel_stream(s));
        status = kernels_gather(b, s, args, args->cls->gathers, err);
    }
    return status ? status : kernels_attend_waves(b, s, args, err);
}
