/* Cells of a packed cache, and turning by positions. */
#include "packed.h"

#include <math.h>
#include <string.h>

/* A position takes the lower 24 bits of a mark; the others tell a mark from chance. */
enum { MARK_BITS = 32, POSITION_BITS = 24 };
static const uint32_t mark_check = 0xb5u << POSITION_BITS;

static void put(enum ggml_type type, void *to, const float *from, size_t count)
{
    if (type == GGML_TYPE_F16)
        ggml_fp32_to_fp16_row(from, to, (int64_t)count);
    else
        ggml_fp32_to_bf16_row(from, to, (int64_t)count);
}

static void get(enum ggml_type type, float *to, const void *from, size_t count)
{
    if (type == GGML_TYPE_F16)
        ggml_fp16_to_fp32_row(from, to, (int64_t)count);
    else
        ggml_bf16_to_fp32_row(from, to, (int64_t)count);
}

static size_t half_bytes(const struct packed_cells *cells)
{
    return cells->size * ggml_type_size(cells->type);
}

void packed_cell_write(const struct packed_cells *cells, unsigned char *row, size_t head,
                       const float *channels)
{
    float rest[PACKED_MAX_SIZE];
    unsigned char *at = row + 2 * head * half_bytes(cells);
    put(cells->type, at, channels, cells->size);
    get(cells->type, rest, at, cells->size);
    for (size_t i = 0; i < cells->size; i++)
        rest[i] = channels[i] - rest[i];
    put(cells->type, at + half_bytes(cells), rest, cells->size);
}

void packed_cell_read(const struct packed_cells *cells, const unsigned char *row, size_t head,
                      float *channels)
{
    float rest[PACKED_MAX_SIZE];
    const unsigned char *at = row + 2 * head * half_bytes(cells);
    get(cells->type, channels, at, cells->size);
    get(cells->type, rest, at + half_bytes(cells), cells->size);
    for (size_t i = 0; i < cells->size; i++)
        channels[i] += rest[i];
}

/* Where residual `index` of the row lies, all heads' counted through. */
static size_t residual_offset(const struct packed_cells *cells, size_t index)
{
    return (2 * (index / cells->size) + 1) * half_bytes(cells) +
           index % cells->size * ggml_type_size(cells->type);
}

/* The last bit of a number is in its first byte. */
void packed_cell_mark(const struct packed_cells *cells, unsigned char *row, int64_t position)
{
    uint32_t mark = mark_check | (uint32_t)position;
    for (size_t i = 0; i < MARK_BITS; i++) {
        unsigned char *at = row + residual_offset(cells, i);
        *at = (unsigned char)((*at & ~1u) | (mark >> i & 1));
    }
}

int64_t packed_cell_position(const struct packed_cells *cells, const unsigned char *row)
{
    uint32_t mark = 0;
    for (size_t i = 0; i < MARK_BITS; i++)
        mark |= (row[residual_offset(cells, i)] & 1u) << i;
    return mark >> POSITION_BITS == mark_check >> POSITION_BITS ? (int64_t)(mark ^ mark_check)
                                                                : PACKED_NONE;
}

/* The host's base is theta^2 and its head 2 * size: pair i turns by
 * theta^(-2i / size), which for the first half is the model's own. */
void packed_turns_init(struct packed_turns *turns, double theta, size_t size)
{
    turns->size = size;
    for (size_t i = 0; i < size; i++)
        turns->frequency[i] = pow(theta, -2.0 * (double)i / (double)size);
}

void packed_angles(const struct packed_turns *turns, int64_t position, float *angles)
{
    for (size_t i = 0; i < turns->size; i++) {
        double angle = (double)position * turns->frequency[i];
        angles[2 * i] = (float)cos(angle);
        angles[2 * i + 1] = (float)sin(angle);
    }
}

void packed_turn(float *channels, const float *angles, size_t pairs)
{
    for (size_t i = 0; i < 2 * pairs; i += 2) {
        float x = channels[i], y = channels[i + 1];
        channels[i] = x * angles[i] - y * angles[i + 1];
        channels[i + 1] = x * angles[i + 1] + y * angles[i];
    }
}

void packed_turn_back(float *channels, const float *angles, size_t pairs)
{
    for (size_t i = 0; i < 2 * pairs; i += 2) {
        float x = channels[i], y = channels[i + 1];
        channels[i] = x * angles[i] + y * angles[i + 1];
        channels[i + 1] = y * angles[i] - x * angles[i + 1];
    }
}
