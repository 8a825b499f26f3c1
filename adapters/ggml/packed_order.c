/* Which token comes before which, by the attention's mask.
 *
 * A token sees itself and its sequence's tokens before it, so how many it sees is its
 * position plus one. The one before it is the token of this batch that sees one less,
 * or else the cell that it sees and that is marked with the position before. A sequence
 * that lost tokens in its middle, or starts elsewhere than at 0, does not fit and is
 * refused: there the count is not the position that the host turned by. */
#include "packed.h"
#include "mask.h"

#include <string.h>

/* float16 */
static const uint16_t seen = 0, hidden = 0xfc00;

static const uint16_t *mask_row(const struct ggml_tensor *op, int64_t stream, int64_t query)
{
    const struct ggml_tensor *mask = op->src[MASK_SOURCE];
    const unsigned char *at = mask->data;
    return (const void *)(at + (size_t)query * mask->nb[1] +
                          (size_t)(mask->ne[3] == 1 ? 0 : stream) * mask->nb[3]);
}

/* The key of FLASH_ATTN_EXT that a row of the cache is; PACKED_NONE: none of them. */
static int64_t key_of(const struct ggml_tensor *keys, int64_t stream, const unsigned char *row)
{
    const unsigned char *start = (unsigned char *)keys->data + (size_t)stream * keys->nb[3];
    size_t offset = row >= start ? (size_t)(row - start) : SIZE_MAX;
    return offset < (size_t)keys->ne[1] * keys->nb[1] && offset % keys->nb[1] == 0
               ? (int64_t)(offset / keys->nb[1])
               : PACKED_NONE;
}

static unsigned char *key_at(const struct ggml_tensor *keys, int64_t stream, int64_t cell)
{
    return (unsigned char *)keys->data + (size_t)stream * keys->nb[3] +
           (size_t)cell * keys->nb[1];
}

/* One stream's tokens of the batch. */
struct stream {
    const struct packed_order *order;
    struct packed_place *places; /* of its own tokens */
    int64_t number, keys;
};

static const uint16_t *row_of(const struct stream *s, int64_t query)
{
    return mask_row(s->order->op, s->number, query);
}

/* Whether `query` sees what `before` sees, and itself, and nothing else. */
static bool comes_after(const struct stream *s, int64_t query, int64_t before)
{
    const uint16_t *a = row_of(s, query), *b = row_of(s, before);
    size_t own = (size_t)s->places[query].cell;
    size_t after = (size_t)s->keys - own - 1;
    return b[own] == hidden && memcmp(a, b, own * sizeof *a) == 0 &&
           memcmp(a + own + 1, b + own + 1, after * sizeof *a) == 0;
}

static bool count_seen(const struct stream *s, int64_t query, int64_t *count)
{
    const uint16_t *row = row_of(s, query);
    int64_t n = 0, other = 0;
    for (int64_t i = 0; i < s->keys; i++) {
        n += row[i] == seen;
        other += row[i] != seen && row[i] != hidden;
    }
    *count = n;
    if (other)
        complain("node %s: a packed model needs a mask that shows keys or hides them (0 or -inf), "
                 "and this one adds something to their logits, as ALiBi does", s->order->op->name);
    return !other;
}

static bool is_of_batch(const struct stream *s, int64_t cell)
{
    for (int64_t i = 0; i < s->order->op->src[0]->ne[1]; i++)
        if (s->places[i].cell == cell)
            return true;
    return false;
}

static bool is_before(const struct stream *s, int64_t query, int64_t cell)
{
    const struct packed_order *o = s->order;
    const struct ggml_tensor *k = o->op->src[1], *v = o->op->src[2];
    int64_t wanted = s->places[query].position - 1;
    return row_of(s, query)[cell] == seen &&
           packed_cell_position(&o->keys, key_at(k, s->number, cell)) == wanted &&
           packed_cell_position(&o->values, key_at(v, s->number, cell)) == wanted &&
           !is_of_batch(s, cell);
}

/* The neighbour first: there it is, as long as the host fills its cells in order. */
static int64_t cell_before(const struct stream *s, int64_t query)
{
    int64_t own = s->places[query].cell;
    if (own > 0 && is_before(s, query, own - 1))
        return own - 1;
    for (int64_t cell = 0; cell < s->keys; cell++)
        if (is_before(s, query, cell))
            return cell;
    return PACKED_NONE;
}

static bool find_place(const struct stream *s, int64_t query)
{
    struct packed_place *place = &s->places[query];
    int64_t count = 0;
    if (query > 0 && comes_after(s, query, query - 1)) {
        place->position = place[-1].position + 1;
        place->token = query - 1;
        return true;
    }
    if (!count_seen(s, query, &count))
        return false;
    place->position = count - 1;
    for (int64_t i = query - 1; i >= 0 && count > 1; i--)
        if (s->places[i].position == count - 2 && row_of(s, query)[s->places[i].cell] == seen) {
            place->token = i;
            return true;
        }
    place->cell_before = count > 1 ? cell_before(s, query) : PACKED_NONE;
    if (count > 1 && place->cell_before == PACKED_NONE) {
        complain("node %s: the cache has no cell of the token before position %lld, which the "
                 "memory of a packed model goes on from. It is lost by --context-shift, when a "
                 "sequence loses tokens in its middle, and in a cache that was saved without this "
                 "backend: feed the prompt again",
                 s->order->op->name, (long long)place->position);
        return false;
    }
    return true;
}

bool packed_find_order(const struct packed_order *order)
{
    const struct ggml_tensor *op = order->op, *q = op->src[0];
    for (int64_t number = 0; number < q->ne[3]; number++) {
        int64_t first = number * q->ne[1];
        const struct stream s = {order, order->places + first, number, op->src[1]->ne[1]};
        for (int64_t i = 0; i < q->ne[1]; i++) {
            int64_t cell = key_of(op->src[1], number, order->key_rows[first + i]);
            int64_t value = key_of(op->src[2], number, order->value_rows[first + i]);
            s.places[i] = (struct packed_place){0, cell, PACKED_NONE, PACKED_NONE};
            if (cell == PACKED_NONE || cell != value || row_of(&s, i)[cell] != seen) {
                complain("node %s: token %lld of the pass does not attend its own key and value, "
                         "so that its place in a packed model's sequence cannot be told",
                         op->name, (long long)i);
                return false;
            }
        }
        for (int64_t i = 0; i < q->ne[1]; i++)
            if (!find_place(&s, i))
                return false;
    }
    return true;
}
