/* Numbers among a scene's inputs that are not finite, or whose products are not. */
#include "fixture_scene.h"

#include "../plugin/dtype.h"

#include <math.h>

enum { ROW = 1024, MOST_PLACES = 8 };

/* NaN, an infinity, or a finite number whose product with another one overflows. */
static float spoiler(struct random *r, bool *huge)
{
    static const float odd[] = {NAN, INFINITY, -INFINITY};
    *huge = random_chance(r, 30);
    float number = odd[random_in(r, 0, 2)];
    float size = (float)((1 + random_unit(r)) * 1e30);
    return *huge ? random_chance(r, 50) ? size : -size : number;
}

static struct scene_sequence *sequence_of(struct scene *s, uint32_t row)
{
    for (uint32_t i = 0; i < s->count; i++)
        if (row >= s->sequence[i].row0 && row < s->sequence[i].row0 + s->sequence[i].rows)
            return &s->sequence[i];
    return NULL;
}

/* Of what float16 does not hold an infinity is left. */
static bool holds_huge(ratp_dtype dtype)
{
    return dtype == RATP_F32 || dtype == RATP_BF16;
}

/* Anywhere in an operand. Softmax turns the rounding of huge finite numbers into other
 * results, so that of their sequence only what is NaN is compared. */
static void spoil_operand(struct scene *s, const struct scene_operand *o, bool large)
{
    struct random *r = &s->random;
    float row[ROW];
    bool huge;
    if (!o->offset)
        return;
    uint32_t token = random_in(r, 0, o->tokens - 1), head = random_in(r, 0, o->heads - 1);
    scene_load(o, s->image, token, head, row);
    row[random_in(r, 0, o->channels - 1)] = spoiler(r, &huge);
    scene_store(o, s->image, token, head, row);
    struct scene_sequence *q = sequence_of(s, token);
    if (huge && large && holds_huge(o->dtype) && q)
        q->loose = true;
}

/* K or V of a token that is in the cache before. */
static void spoil_cache(struct scene *s)
{
    struct random *r = &s->random;
    const struct layer_shape *shape = &s->shape;
    if (!s->count)
        return;
    struct scene_sequence *q = &s->sequence[random_in(r, 0, s->count - 1)];
    uint32_t filled = s->ops & FIXTURE_MEMORY ? q->pos0 : q->pos0 + q->rows;
    if (!filled)
        return;
    /* The newest tokens are those that neighbours have hidden. */
    uint32_t newest = filled < 8 ? filled : 8;
    uint32_t p = random_chance(r, 50) ? filled - random_in(r, 1, newest) : random_in(r, 0, filled - 1);
    bool value = random_chance(r, 60), huge;
    ratp_dtype dtype = value ? shape->v_dtype : shape->k_dtype;
    uint32_t channels = value ? shape->value_size : shape->head_size;
    size_t k_row = (size_t)shape->kv_heads * shape->head_size;
    size_t v_row = (size_t)shape->kv_heads * shape->value_size;
    float *row = value ? q->v + p * v_row : q->k + p * k_row;
    row += random_in(r, 0, shape->kv_heads - 1) * channels;
    row[random_in(r, 0, channels - 1)] = spoiler(r, &huge);
    scene_hold(dtype, channels, row);
    if (huge && holds_huge(dtype))
        q->loose = true;
    scene_put(s, s->image, q, p, p >= q->pos0, q->k + p * k_row, q->v + p * v_row);
}

static void spoil_sinks(struct scene *s)
{
    float row[SCENE_HEADS];
    bool huge;
    if (!s->sinks.offset)
        return;
    scene_load(&s->sinks, s->image, 0, 0, row);
    row[random_in(&s->random, 0, s->sinks.channels - 1)] = spoiler(&s->random, &huge);
    scene_store(&s->sinks, s->image, 0, 0, row);
    for (uint32_t i = 0; i < s->count && huge; i++)
        s->sequence[i].loose = true;
}

static void spoil_state(struct scene *s)
{
    struct random *r = &s->random;
    bool huge;
    if (!s->shape.memory)
        return;
    struct scene_sequence *q = &s->sequence[random_in(r, 0, s->count - 1)];
    float *state = (float *)(void *)(s->image + q->state_in + s->state_offset);
    uint32_t channels = s->shape.kv_heads * (s->shape.head_size + s->shape.value_size);
    state[random_in(r, 0, channels - 1)] = spoiler(r, &huge);
    q->loose = q->loose || huge;
}

void scene_spoil(struct scene *s)
{
    struct random *r = &s->random;
    const struct scene_operand *large[] = {&s->q, &s->k, &s->v, &s->mask};
    const struct scene_operand *gates[] = {&s->f, &s->o};
    uint32_t places = random_in(r, 1, MOST_PLACES);
    s->spoilt = true;
    for (uint32_t i = 0; i < places; i++) {
        uint32_t part = random_in(r, 0, SCENE_PARTS - 1);
        switch (random_in(r, 0, s->ops & FIXTURE_MERGE ? 1 : 5)) {
        case 0:
            if (s->ops & FIXTURE_MERGE)
                spoil_operand(s, part < s->parts ? &s->part_out[part] : &s->part_out[0], false);
            else
                spoil_operand(s, large[random_in(r, 0, 3)], true);
            break;
        case 1:
            if (s->ops & FIXTURE_MERGE)
                spoil_operand(s, part < s->parts ? &s->part_lse[part] : &s->part_lse[0], false);
            else
                spoil_operand(s, gates[random_in(r, 0, 1)], false);
            break;
        case 2:
            spoil_sinks(s);
            break;
        case 3:
            spoil_state(s);
            break;
        default:
            spoil_cache(s);
            break;
        }
    }
}
