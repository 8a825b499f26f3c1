/* RAT+ layers in a GGUF that ratplus-convert made: the host believes in plain heads of twice
 * the model's size, with keys [k | f], values [v | o] and queries [q | marker], all but V
 * turned over the whole head, neighbours by neighbours, to the square of the model's base.
 *
 * Here k and f are turned back, the memory is applied, K is turned again, and a cell of the
 * cache holds [K | its residual] and [V | its residual]: a residual is what the cache's type
 * rounded off, and its last bits tell the token's position. So the cache alone is the
 * memory's state: what the host saves, restores, copies or takes back stays right, and
 * nothing is kept beside it. The attention reads the first halves; the output is
 * [y * sigmoid(o) | 0].
 *
 * Which token comes before which, the attention's mask tells, so the cells are written with
 * the attention, not before. What does not fit is refused with a line, and the graph fails. */
#ifndef RATPLUS_GGML_PACKED_H
#define RATPLUS_GGML_PACKED_H

#include "attention.h"

/* Of the model's own heads; the host's are twice as large. */
enum { PACKED_MAX_SIZE = 128 };

/* ---- packed.c: what a backend asks for ------------------------------------ */

struct packed;

/* The state of one backend, for models of this rotary base; NULL without memory. */
struct packed *packed_create(struct adapter_device *device, double theta);
/* Sets it to NULL; NULL inside is accepted. No submitted attention may be under way. */
void packed_free(struct packed **packed);
/* Takes the rows of a SET_ROWS node; no cell is written yet. */
bool packed_record(struct packed *packed, const struct ggml_tensor *op);
/* Writes the cells of the rows before a FLASH_ATTN_EXT node, and zeros in the second halves
 * of its output. *gate is for attention_run. No submitted attention may be under way. */
bool packed_apply(struct packed *packed, const struct ggml_tensor *op, struct ratp_tensor *gate);

/* ---- packed_cells.c: rows of the cache, and turning ----------------------- */

struct packed_cells {
    enum ggml_type type; /* f16 or bf16 */
    size_t heads, size;
};

/* Sets the head's channels, and their residuals. */
void packed_cell_write(const struct packed_cells *cells, unsigned char *row, size_t head,
                       const float *channels);
/* The head's channels, with the residuals added. */
void packed_cell_read(const struct packed_cells *cells, const unsigned char *row, size_t head,
                      float *channels);
/* After all heads are written. */
void packed_cell_mark(const struct packed_cells *cells, unsigned char *row, int64_t position);
/* -1: no cell that was written here. */
int64_t packed_cell_position(const struct packed_cells *cells, const unsigned char *row);

struct packed_turns {
    size_t size;
    double frequency[PACKED_MAX_SIZE]; /* of each pair of the host's head */
};
void packed_turns_init(struct packed_turns *turns, double theta, size_t size);
/* cosine and sine of each pair, [size][2] */
void packed_angles(const struct packed_turns *turns, int64_t position, float *angles);
void packed_turn(float *channels, const float *angles, size_t pairs);
void packed_turn_back(float *channels, const float *angles, size_t pairs);

/* ---- packed_order.c: which token comes after which ------------------------- */

enum { PACKED_NONE = -1 };
struct packed_place {
    int64_t position;
    int64_t cell;        /* its own, in its stream's keys */
    int64_t token;       /* the one before it in this batch; or PACKED_NONE and ... */
    int64_t cell_before; /* ... the one before it in the cache; PACKED_NONE: it is the first */
};

struct packed_order {
    const struct ggml_tensor *op; /* FLASH_ATTN_EXT */
    struct packed_cells keys, values;
    unsigned char *const *key_rows, *const *value_rows; /* of each token, stream by stream */
    struct packed_place *places;                        /* filled in */
};
/* False, and a line that says why, when the order cannot be told. */
bool packed_find_order(const struct packed_order *order);

#endif
