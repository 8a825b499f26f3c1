/* The KV cache: pages, sequences, steps.
 *
 * A slab is one key/value head of one layer; slab l * kv_heads + h is head h of
 * layer l. Slabs that keep the same tokens form a store. A page of a store holds
 * `page_slots` tokens of each of its slabs: [slab][K: slot, channel; V: slot,
 * channel]. So one short page table serves all slabs of a store, and neighbouring
 * heads lie at the same distance from each other in every page.
 *
 * A store keeps either everything (slot = position), or what a dilated or
 * streaming variant needs: sinks and dilated tokens at their kept index, which
 * only grows, and the window in a ring. A step never writes a slot of which the
 * committed state, or what can still be made of it, may ask, so that an abort has
 * nothing to restore: kept slots are new, ring slots hold no position any more or
 * are in a page of the step's own (ring.c), and the memory state has two copies
 * that swap at commit. Nor does it write a page that another sequence holds: it
 * fills a copy of its own.
 *
 * A store of snapkv heads keeps everything until it is compressed: what is kept
 * goes to the first `capacity` slots of fresh pages, and later tokens follow. The
 * queries that choose are those of a ring beside the pages. */
#ifndef RATPLUS_CACHE_H
#define RATPLUS_CACHE_H

#include "../device.h"
#include "../plan/plan.h"
#include "../policy.h"

struct page {
    struct page *next_free;
    struct block *block;
    uint64_t address;
    uint32_t refs; /* sequences and open steps that hold it */
};

struct block {
    struct block *next;
    uint64_t number; /* blocks that were made before it */
    struct mem mem;
    uint32_t pages, used;
    struct page page[];
};

/* Pages of one size, cut from blocks of device memory. */
struct pool {
    struct pool *next;
    ratp_cache *cache;
    uint64_t page_bytes;
    struct page *free;
    uint64_t pages, used;
    uint64_t shared; /* pages with several references */
    struct block *blocks;
};

struct page_list {
    struct page **page;
    uint32_t count, room;
};

/* What blocks of keys are chosen by: entries in the pages, behind the rows. */
struct summary {
    uint32_t select; /* enum gpu_select; SELECT_NONE: there is none */
    uint32_t block;
    uint32_t entry_tokens, entry_bytes;
    uint32_t at; /* from a head's entries to these */
};

enum { SUMMARY_PROMPT, SUMMARY_DECODE, SUMMARIES };

struct store {
    struct pool *pool;
    uint32_t slabs;      /* how many it serves */
    bool everything;     /* slot = position, less what compression took away */
    struct summary summaries[SUMMARIES]; /* where it is everything; the second none if equal */
    uint32_t summary_bytes;              /* of a head's entries in a page */
    struct variant keep; /* otherwise, and for snapkv: what is kept */
    uint32_t ring_slots; /* window + 1, rounded up to pages */
    uint64_t queries_at; /* where snapkv's ring of queries begins in a sequence's */
};

/* What a sequence attends, and how it is stored for that. Sequences with equal
 * ones share it, so that a step finds out quickly which slabs have the same work. */
struct layout {
    struct layout *next, **link; /* among all */
    struct layout *next_alike;   /* among those of its bucket */
    uint64_t hash;               /* of `choice` */
    uint32_t refs;
    uint64_t seen;           /* number of the last step that met it */
    uint32_t offsets;        /* where that step's plan has `slab_offset` */
    struct choice *choice;   /* [slabs] */
    uint32_t *slab_kind;     /* [slabs] slabs of equal choices have equal numbers */
    uint32_t *slab_store;    /* [slabs] */
    uint32_t *slab_offset;   /* [slabs] bytes in a page of its store */
    uint32_t summaries;      /* where that step's plan has `slab_summary` */
    uint32_t *slab_summary;  /* [slabs] bytes in a page, to its entries */
    uint32_t store_count;
    struct store *stores;
    uint64_t queries_bytes; /* of all rings of queries */
};

/* Upload memory of one step, reused once its work is done. */
struct frame {
    struct mem params;
    ticket busy;
    bool held; /* by the open step, which reads it until it is over, or by a call */
};

enum { CACHE_FRAMES = 4 };

struct ratp_cache {
    struct object object;
    ratp_device *device;
    struct backend *backend;
    struct layer_shape shape;
    uint32_t layers, max_tokens;
    uint32_t first_kv_head, total_kv_heads;
    ratp_retention retention;
    uint64_t budget;
    uint64_t block_bytes;
    uint32_t slabs;            /* layers * kv_heads */
    uint32_t slab_bytes;       /* of one slab in a page */
    uint32_t slab_state_bytes; /* of one slab in a memory state */

    /* Of what another thread may take, which is short of memory, and of how much is in
     * use: pools and their free pages, scratch, and the numbers here. */
    struct lock memory_lock;
    struct spare spare;
    uint64_t budget_used;  /* blocks and states */
    uint64_t state_bytes;
    uint64_t blocks_made;  /* blocks that ever were */
    uint64_t blocks_before; /* the same when the call began that is inside */
    struct pool *pools;     /* all sizes that ever were */
    struct mem scratch;
    bool scratch_held;      /* by the open step */
    struct frame frames[CACHE_FRAMES];

    struct layout *layouts; /* all that are in use */
    struct layout **buckets; /* [bucket_count] the same by hash */
    uint32_t bucket_count, layout_count;
    struct layout *layout;  /* of new sequences */

    struct mem rope; /* coarse table, then the fine one */
    struct ratp_rope rotation; /* what they are made from, defaults filled in; no style: all 0 */
    float *factors;            /* rotation.factors; 1 where none were given */
    uint32_t sequences;
    uint64_t numbered;     /* sequences that ever were */
    uint64_t steps;        /* steps that ever were */
    ratp_seq *first_seq;
    ratp_step *step; /* the open one */
    atomic_bool busy; /* a call is inside: see cache_enter */
};

struct seq_store {
    struct page_list kept; /* or everything */
    struct page_list ring;
    uint32_t ring_from; /* the ring holds the positions from here to the length */
    /* Snapkv alone: */
    uint32_t dropped;     /* tokens that compression took away */
    struct mem positions; /* where it did: [slab of the store][keep.capacity], of the first slots */
    uint32_t query_at;    /* the row of the ring of queries that comes next */
    uint32_t queries;     /* how many before it are those of the last tokens */
};

/* When snapkv heads are compressed without being asked. */
enum compress_when {
    COMPRESS_AT_DECODE,    /* with the next token that is decoded */
    COMPRESS_AFTER_PROMPT, /* with the one after the next prompt */
    COMPRESS_WHEN_ASKED
};

struct ratp_seq {
    struct object object;
    ratp_cache *cache;
    ratp_seq *next, **link; /* among the cache's sequences */
    uint64_t number;
    uint32_t length;
    struct layout *layout;
    struct seq_store *stores; /* [layout->store_count] */
    struct mem state;         /* two copies of every layer's memory state */
    uint32_t state_copy;      /* the committed one */
    struct mem queries;       /* the rings of queries, layout->queries_bytes */
    enum compress_when when;
    ratp_step *step;          /* the open one that has it */
};

/* ---- cache.c ------------------------------------------------------------- */

/* Checked by the caller: struct sizes and handles. Everything else is checked here. */
ratp_status cache_open(ratp_device *device, const struct ratp_geometry *geometry,
                       const struct ratp_rope *rope, const struct ratp_policy *policy,
                       const struct ratp_cache_params *params, ratp_cache **out,
                       struct error *err);
ratp_status cache_close(ratp_cache *cache, struct error *err);
/* Around every call on the cache and what was made from it. RATP_WRONG_STATE while
 * another thread is inside, so that a host that breaks the rule is told so, instead
 * of finding its sequences mixed up. */
ratp_status cache_enter(ratp_cache *cache, struct error *err);
/* Returns `status`. A call that failed leaves none of the blocks that it made. */
ratp_status cache_leave(ratp_cache *cache, ratp_status status);
void cache_describe(ratp_cache *cache, struct ratp_cache_stats *out);

/* ---- sequence.c ---------------------------------------------------------- */

/* An empty sequence. */
ratp_status seq_open(ratp_cache *cache, struct layout *layout, ratp_seq **out,
                     struct error *err);
ratp_status seq_close(ratp_seq *seq, struct error *err);
void seq_describe(const ratp_seq *seq, struct ratp_seq_stats *out);
ratp_status seq_kept_positions(const ratp_seq *seq, uint32_t layer, uint32_t kv_head,
                               uint32_t *positions, uint64_t capacity, uint64_t *count,
                               struct error *err);

/* The size of one copy of a sequence's memory state, and where a copy is. */
uint64_t seq_state_bytes(const ratp_cache *cache);
uint64_t seq_state_offset(const ratp_seq *seq, uint32_t copy);
/* Whether a sequence of `length` tokens under the variant keeps one of them. */
bool variant_keeps(const struct variant *v, uint32_t length, uint32_t position);
/* How many of the first `tokens` tokens the store keeps outside of its ring, as long as
 * it is not compressed. */
uint64_t store_kept(const struct store *store, uint32_t tokens);
/* Whether the store keeps a position for good: a sink, or a dilated one. */
bool store_is_fixed(const struct store *store, uint32_t position);
/* The slot of such a position. */
uint32_t store_kept_slot(const struct store *store, uint32_t position);
/* How many slabs from this one to the end of its layer have its value in `of`. */
uint32_t run_of(const ratp_cache *cache, uint32_t slab, const uint32_t *of);
/* The shape of so many heads of a layer. */
struct layer_shape shape_of_run(const ratp_cache *cache, uint32_t heads);
/* Whether the store's heads are of snapkv. */
static inline bool store_compresses(const struct store *store)
{
    return store->keep.kind == RATP_SNAPKV;
}
/* Number of a slab among those of its store. */
static inline uint32_t slab_index(const ratp_cache *cache, const struct layout *layout,
                                  uint32_t slab)
{
    return layout->slab_offset[slab] / cache->slab_bytes;
}
/* Pages that `slots` slots take. */
uint32_t pages_for(const ratp_cache *cache, uint64_t slots);
static inline const struct store *seq_store_of(const ratp_seq *seq, uint32_t slab)
{
    return &seq->layout->stores[seq->layout->slab_store[slab]];
}

/* Where a sequence's store holds a token. */
struct place {
    bool ring;     /* else among the kept */
    uint32_t slot; /* of the list */
};

/* False: the store no longer holds it. */
bool seq_find(const ratp_seq *seq, uint32_t store, uint32_t position, struct place *place);
/* Gives the stores of a layout, which have none, the pages of a sequence of `length`
 * tokens, less those that are dropped. On failure some have theirs. */
ratp_status stores_take_pages(ratp_cache *cache, const struct layout *layout, uint32_t length,
                              struct seq_store *stores, struct error *err);
/* And their positions. */
void stores_drop(ratp_cache *cache, const struct layout *layout, struct seq_store *stores);

/* ---- fork.c -------------------------------------------------------------- */

ratp_status seq_copy(ratp_seq *seq, ratp_seq **out, struct error *err);
ratp_status seq_cut(ratp_seq *seq, uint64_t length, struct error *err);

/* ---- layout.c ------------------------------------------------------------ */

/* The layout of a policy (NULL: dense) for the cache's slabs, with a reference. */
ratp_status layout_take(ratp_cache *cache, const struct ratp_policy *policy, struct layout **out,
                        struct error *err);
/* The same from the choice of each slab. */
ratp_status layout_take_choices(ratp_cache *cache, const struct choice *choices,
                                 struct layout **out, struct error *err);
void layout_release(ratp_cache *cache, struct layout *layout);

/* ---- summary.c ----------------------------------------------------------- */

/* The summaries that a choice needs; their places are not set. RATP_INVALID_ARGUMENT
 * where its blocks and the cache's pages do not go together. */
ratp_status summaries_of(const ratp_cache *cache, const struct choice *choice,
                         struct summary out[SUMMARIES], struct error *err);
bool summary_equal(const struct summary *a, const struct summary *b);
/* The one by which the variant chooses, or NULL. */
const struct summary *summary_for(const struct store *store, const struct variant *variant);
/* Lists the entries that a view's new tokens complete in its store; the class's
 * most_entries grows to what is the most. */
uint32_t summary_count(const struct store *store);
void summary_list(const struct store *store, uint32_t view, uint32_t pos0, uint32_t rows,
                  struct gpu_summary *out, struct plan_class *cls);
/* Makes all entries of stores that hold `length` tokens afresh. */
ratp_status stores_summarise(ratp_cache *cache, const struct layout *layout,
                             const struct seq_store *stores, uint32_t length, struct error *err);

/* ---- observe.c ----------------------------------------------------------- */

/* Rows of a slab's ring of queries, how many of them are known at most, and its bytes. */
uint32_t observe_ring(const struct store *store);
uint32_t observe_most(const struct store *store);
uint64_t observe_slab_bytes(const ratp_cache *cache, const struct store *store);
/* The row of the oldest of the last `observe` queries. */
uint32_t observe_oldest(const struct store *store, const struct seq_store *held);
/* What a step of `rows` tokens adds to a store's ring: 0 or 1 item. */
uint32_t observe_count(const struct store *store);
void observe_list(const ratp_seq *seq, uint32_t store, uint32_t view, uint32_t rows,
                  struct gpu_observer *out);
/* The step is committed. */
void observe_commit(const struct store *store, struct seq_store *held, uint32_t rows);
/* The last `tokens` tokens are gone. */
void observe_truncate(const struct store *store, struct seq_store *held, uint32_t tokens);

/* ---- compress.c ---------------------------------------------------------- */

/* Whether a decoded token comes after the compression of its past. *waits: it would,
 * were enough queries known. */
bool compress_due(const ratp_seq *seq, bool *waits);
/* Compresses the stores that hold more than their capacity. `other`, as many stores of
 * zeros, gets what they were in exchange; with compress_swap it is as before. */
ratp_status compress_run(ratp_seq *seq, struct seq_store *other, struct error *err);
void compress_swap(ratp_seq *seq, struct seq_store *other);
/* The same for good, if the queries are known. */
ratp_status seq_compress(ratp_seq *seq, struct error *err);
/* Reads the positions of the first keep.capacity slots of one slab of a compressed store,
 * or, with `slab` UINT32_MAX, of all, in their order. */
ratp_status compress_positions(const ratp_seq *seq, uint32_t store, uint32_t slab,
                               uint32_t *positions, struct error *err);

/* ---- switch.c ------------------------------------------------------------ */

ratp_status seq_switch(ratp_seq *seq, const struct ratp_policy *policy, struct error *err);

/* ---- snapshot_save.c, snapshot_load.c ------------------------------------- */

/* Writes a snapshot of the sequence to `data`; *needed gets its size. NULL and 0: no
 * more than that. */
ratp_status seq_save(ratp_seq *seq, void *data, uint64_t size, uint64_t *needed,
                     struct error *err);
struct snapshot_source; /* bytes in memory or in a file: snapshot.h */
ratp_status seq_load(ratp_cache *cache, const struct snapshot_source *from, ratp_seq **out,
                     struct error *err);

/* ---- upload.c ------------------------------------------------------------ */

struct blob;

/* Puts the bytes where kernels read them: plan->params. The frame is the caller's until
 * frame_give. */
ratp_status frame_upload(ratp_cache *cache, const struct blob *blob, struct plan *plan,
                         struct frame **out, struct error *err);
/* Others may have it when the ticket of the work that reads it has passed; 0: there is none. */
void frame_give(ratp_cache *cache, struct frame *frame, ticket busy);
/* The entry of a page list. */
struct gpu_page page_at(const ratp_cache *cache, uint64_t address);

/* ---- step.c -------------------------------------------------------------- */

struct step_io {
    struct operand q, k, v, f, o, out, lse;
    uint64_t sinks; /* address; 0: none */
    bool wait; /* return when `out` is written */
};

/* `seqs` are live handles of any cache. */
ratp_status step_open(ratp_cache *cache, const struct ratp_step_params *params, ratp_step **out,
                      struct error *err);
uint32_t step_rows(const ratp_step *step);
ratp_cache *step_cache(const ratp_step *step);
/* Checks the order of calls alone, before operands are staged. */
ratp_status step_may_attend(const ratp_step *step, uint32_t layer, struct error *err);
ratp_status step_run(ratp_step *step, uint32_t layer, const struct step_io *io,
                     struct error *err);
/* The same for step_record, step_recorded and step_sync. */
ratp_status step_may_record(const ratp_step *step, struct error *err);
ratp_status step_may_end_record(const ratp_step *step, struct error *err);
ratp_status step_may_sync(const ratp_step *step, struct error *err);
/* What ends everything that is done on a step's stream, once the arguments and the order of
 * calls were found good: a failure leaves it half done, and the step can only be aborted. */
ratp_status step_acted(ratp_step *step, ratp_status status);
/* The stream that the next step_run records on (made if there is none). */
ratp_status step_stream(ratp_step *step, struct stream **out, struct error *err);
/* The step's stream records into the host's command buffer: the step does not submit it. */
void step_attached(ratp_step *step);
/* The ticket after which the attached stream's work is done. */
void step_attached_done(ratp_step *step, ticket done);
/* Frees the step when it succeeds. */
ratp_status step_finish(ratp_step *step, struct error *err);
/* Work that was recorded into the host's command buffer has been submitted
 * (and step_attached_done called, or waited for), or never will be. */
void step_cancel(ratp_step *step);

/* ---- pool.c -------------------------------------------------------------- */

/* Takes `count` pages with one reference each; all or none. */
ratp_status pool_take(ratp_cache *cache, struct pool *pool, uint32_t count, struct page_list *to,
                      struct error *err);
/* The pool of pages of that size, made if there is none. */
ratp_status pool_of(ratp_cache *cache, uint64_t page_bytes, struct pool **out, struct error *err);
/* `to`, which is empty, gets the pages of `from`, with a reference more to each. */
ratp_status page_list_share(struct pool *pool, const struct page_list *from, struct page_list *to,
                            struct error *err);
void page_release(struct pool *pool, struct page *page);
/* Releases the pages from index `from` on. */
void page_list_cut(struct pool *pool, struct page_list *list, uint32_t from);
/* Gives those empty blocks of all pools back to the device that were made when `since`
 * had been before. */
void pool_trim(ratp_cache *cache, uint64_t since);
/* Memory of a sequence beside its pages, which counts in the budget; 0 bytes: none.
 * RATP_CACHE_FULL where there is no room. */
ratp_status seq_mem_take(ratp_cache *cache, uint64_t bytes, const char *name, struct mem *out,
                         struct error *err);
void seq_mem_give(ratp_cache *cache, struct mem *mem);
/* The device's mem_alloc, before which this cache is the first to give memory back. */
ratp_status cache_alloc(ratp_cache *cache, uint64_t size, enum mem_kind kind, const char *name,
                        struct mem *out, struct error *err);
/* `more` bytes where they are to be had for nothing, else `size`. */
ratp_status cache_alloc_more(ratp_cache *cache, uint64_t more, uint64_t size, enum mem_kind kind,
                             const char *name, struct mem *out, struct error *err);
/* Gives the open step at least `size` bytes of work memory, cache->scratch, until it is
 * released. Work that is submitted may still use it then. */
ratp_status scratch_hold(ratp_cache *cache, uint64_t size, struct error *err);
void scratch_release(ratp_cache *cache);
/* Frees empty blocks, and the work memory between steps: spare.give_back. */
bool cache_give_back(struct spare *spare);

/* ---- rope.c -------------------------------------------------------------- */

ratp_status rope_check(const struct ratp_rope *rope, uint32_t head_size, struct error *err);
/* Fills the cache's tables and the shape's rope fields. */
ratp_status rope_open(ratp_cache *cache, const struct ratp_rope *rope, struct error *err);

#endif
