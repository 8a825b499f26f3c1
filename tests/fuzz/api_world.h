/* What a sequence of ABI calls works on: the bytes that decide, the handles,
 * and what the host knows about each. Most calls are right; the others have a
 * fault or two, and every argument asks fault() whether it is the wrong one. */
#ifndef RATPLUS_TESTS_FUZZ_API_WORLD_H
#define RATPLUS_TESTS_FUZZ_API_WORLD_H

#include "fuzz.h"

#include <ratplus.h>

#include <string.h>

enum kind { INSTANCE, DEVICE, BUFFER, POLICY, CACHE, SEQ, STEP, KINDS };

enum { SLOTS = 6, MAX_BATCH = 4, MAX_ALLOCATIONS = 64, IMPORT_BYTES = 16384 };

struct slot {
    void *handle;
    struct slot *parent;
    bool limited; /* a device or cache with a budget */
    bool wild;    /* a policy that need not fit a cache, a step that may be broken */
    /* Buffers. */
    uint64_t size;
    /* Caches, their defaults filled in. */
    struct ratp_geometry geometry;
    ratp_retention retention;
    /* Sequences. */
    uint32_t length, max_tokens;
    struct slot *step;
    /* Steps. */
    uint32_t count, rows, n_tokens[MAX_BATCH];
    struct slot *seqs[MAX_BATCH];
    uint64_t pages[MAX_BATCH]; /* of the sequences, before the step */
    uint64_t attended;         /* a bit for each layer */
};

/* What a failed call must leave as it was. */
struct snapshot {
    struct ratp_seq_stats seqs[SLOTS];
    struct ratp_cache_stats caches[SLOTS];
};

struct world {
    bool snapkv; /* a policy has it: sequences may have lost tokens, whatever their cache retains */
    const uint8_t *data;
    size_t left;
    struct slot slots[KINDS][SLOTS];
    /* Of the call that is being made. */
    const void *given; /* what handle_of said last */
    int first_fault, second_fault; /* the arguments that are wrong, counted down; -1: none */
    bool faulty;
    uint32_t may; /* bits of statuses that a call without fault may return */
    struct snapshot before;
    void *allocations[MAX_ALLOCATIONS];
    uint32_t allocation_count;
};

extern const struct ratp_api *ratp;

/* ---- Decisions; 0 and false at the end of the input ---- */
uint32_t take(struct world *w, uint32_t low, uint32_t high);
bool chance(struct world *w, uint32_t percent);
bool fault(struct world *w);
uint32_t wrong_number(struct world *w);
uint64_t wrong_size(struct world *w);
double wrong_real(struct world *w);
/* `right`, or at a fault a wrong one. */
uint32_t number(struct world *w, uint32_t right);
float real(struct world *w, float right);

/* ---- Handles ---- */
/* A live slot of that kind, or NULL. */
struct slot *any_slot(struct world *w, enum kind kind);
struct slot *free_slot(struct world *w, enum kind kind);
/* The slot's handle, or at a fault NULL or what is no such handle. */
void *handle_of(struct world *w, const struct slot *slot);
bool has_children(const struct world *w, const struct slot *slot);

/* ---- Memory of one call, of its exact size ---- */
void *allocate(struct world *w, size_t size);
/* A copy of a struct for the library. At a fault struct_size is wrong, and
 * `in` becomes what the library is to read. */
void *put(struct world *w, void *in, size_t size);
/* A struct for the library to fill. */
void *room(struct world *w, size_t size);

struct shape {
    uint32_t batch, tokens, heads, channels;
    bool float32_only, mask;
    bool blocks; /* types in blocks too */
};
/* An operand in host memory or in a buffer of `device`. */
const struct ratp_tensor *tensor(struct world *w, const struct slot *device, struct shape shape);

/* ---- Calls ---- */
void call_begin(struct world *w);
/* Checks what one call returned. `object`: its first argument. */
ratp_status called(struct world *w, const char *call, ratp_status status, const void *object);
/* The same for a call that destroys; `handle` points to the handle that it was
 * given the address of. Whether `slot`, forgotten then, is gone. */
bool destroyed(struct world *w, const char *call, ratp_status status, const void *handle,
               struct slot *slot);
void call_end(struct world *w);
/* Prints how often each call succeeded and failed; false when one never succeeded. */
bool calls_report(void);

void take_snapshot(const struct world *w, struct snapshot *out);

#endif
