/* What step.c (the transaction) and step_plan.c (the work lists) share. */
#ifndef RATPLUS_STEP_H
#define RATPLUS_STEP_H

#include "../plan/build.h"
#include "cache.h"

/* What a step changes in one sequence's store. */
struct part_store {
    uint32_t kept_before, ring_before; /* pages that the sequence had */
    bool renewed;                      /* `fresh` becomes the ring at commit */
    struct page_list fresh;
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

/* Fills step->plan and step->classes, and uploads them. */
ratp_status step_plan(ratp_step *step, struct error *err);

#endif
