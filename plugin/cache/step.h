/* What step.c (the transaction) and step_plan.c (the work lists) share. */
#ifndef RATPLUS_STEP_H
#define RATPLUS_STEP_H

#include "../plan/build.h"
#include "cache.h"

/* What a step changes in one sequence's store. */
struct part_store {
    uint32_t kept_before, ring_before; /* pages that the sequence had */
    struct page_list old_ring; /* what the ring was, where the step has pages of its own in it;
                                  else empty */
    uint32_t ring_from;        /* of the sequence's store, at commit */
    struct page *original; /* what the last of the kept pages before is a copy of, or NULL */
};

struct step_part {
    ratp_seq *seq;
    uint32_t rows;
    bool prompt; /* its tokens are of a prompt, else decoded */
    struct part_store *stores; /* [seq->layout->store_count] */
    struct seq_store *before; /* what the step compressed, as it was; NULL: nothing */
    bool waits;               /* compression is due, and too few queries are known */
};

struct ratp_step {
    struct object object;
    ratp_cache *cache;
    uint32_t count, rows;
    struct step_part *parts;
    struct part_store *part_stores; /* what every part's `stores` points into */
    struct plan plan;
    struct layout **layouts; /* [layout_count] what the sequences have, each once */
    uint32_t layout_count;
    /* Slabs that share, in every sequence, a store and a variant are one class. */
    uint32_t class_count;
    struct plan_class *classes; /* [class_count] */
    uint32_t *class_slab;       /* [class_count] the first of its slabs */
    uint32_t *slab_class;       /* [slabs] */
    struct frame *frame;
    struct stream *stream; /* NULL: begun by the next attend */
    bool attached;         /* the stream records into the host's command buffer */
    bool awaited;          /* the attached work's ticket is not known yet */
    bool begun;            /* states of new sequences are cleared */
    bool broken;           /* something failed half-way: see step_acted */
    bool *attended;        /* [layers] */
    uint32_t attended_count;
};

/* Whether the step keeps all new tokens of the part in work memory: a prompt
 * over a store that does not keep everything. */
bool part_has_line(const struct step_part *part);

/* ---- ring.c -------------------------------------------------------------- */

/* Takes the pages that the part's new tokens need of a store's ring. */
ratp_status ring_reserve(ratp_cache *cache, struct step_part *part, uint32_t store,
                         struct error *err);
void ring_commit(struct pool *pool, struct seq_store *held, struct part_store *change);
void ring_abort(struct pool *pool, struct seq_store *held, struct part_store *change);
/* What the step's own pages get of the old ring: runs of positions, the first of them from
 * `from` on, which moves to its begin. Returns how many they are; 0: there is no other. */
uint32_t ring_move_first(const struct step_part *part, uint32_t store);
uint32_t ring_move_next(const struct step_part *part, uint32_t store, uint32_t *from);

/* ---- step_plan.c ---------------------------------------------------------- */

/* Fills step->plan and step->classes, and uploads them. */
ratp_status step_plan(ratp_step *step, struct error *err);

#endif
