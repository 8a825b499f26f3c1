#include "api_calls.h"

/* ---- Caches ---- */

static struct ratp_rope *draw_rope(struct world *w, uint32_t head_size)
{
    struct ratp_rope r = {.struct_size = sizeof r};
    float *factors = allocate(w, head_size / 2 * sizeof *factors);
    for (uint32_t i = 0; i < head_size / 2; i++)
        factors[i] = real(w, 1.5f);
    r.style = (ratp_rope_style)number(w, take(w, RATP_ROPE_NONE, RATP_ROPE_INTERLEAVED));
    r.size = number(w, chance(w, 30) ? 4 : 0);
    r.theta = (double)real(w, chance(w, 30) ? 500 : 0);
    r.scale = (double)real(w, chance(w, 30) ? 2 : 0);
    r.factors = chance(w, 30) ? factors : NULL;
    if (chance(w, 30)) {
        r.yarn_factor = (double)real(w, 4);
        r.yarn_context = number(w, 64);
        r.yarn_beta_fast = (double)real(w, 0);
        r.yarn_beta_slow = (double)real(w, 0);
        r.yarn_attention = (double)real(w, 0);
    }
    return put(w, &r, sizeof r);
}

static struct ratp_geometry draw_geometry(struct world *w)
{
    struct ratp_geometry g = {.struct_size = sizeof g};
    g.layers = number(w, take(w, 1, 3));
    g.kv_heads = number(w, take(w, 1, 2));
    g.query_heads = number(w, g.kv_heads * take(w, 1, 3));
    g.head_size = 8 * take(w, 1, 3);
    g.memory = chance(w, 60);
    if (!g.memory && chance(w, 50))
        g.value_size = 8 * take(w, 1, 3);
    if (chance(w, 50))
        g.rope = draw_rope(w, g.head_size);
    g.head_size = number(w, g.head_size);
    g.value_size = number(w, g.value_size);
    g.scale = real(w, chance(w, 30) ? 0.3f : 0);
    g.softcap = real(w, chance(w, 30) ? 5 : 0);
    g.max_tokens = number(w, take(w, 40, 120));
    if (chance(w, 20)) {
        g.first_kv_head = number(w, take(w, 0, 2));
        g.total_kv_heads = number(w, g.first_kv_head + g.kv_heads);
    }
    return g;
}

static void fill_defaults(struct ratp_geometry *g)
{
    if (!g->value_size)
        g->value_size = g->head_size;
    if (!g->max_tokens)
        g->max_tokens = 1u << 20;
}

static void create_cache(struct world *w)
{
    struct slot *slot = free_slot(w, CACHE), *device = any_slot(w, DEVICE);
    const struct slot *policy = any_slot(w, POLICY);
    if (!slot || !device || slot > &w->slots[CACHE][2])
        return;
    struct ratp_geometry g = draw_geometry(w);
    struct ratp_cache_params p = {.struct_size = sizeof p};
    p.geometry = fault(w) ? NULL : put(w, &g, sizeof g);
    if (policy && chance(w, 60)) {
        p.policy = handle_of(w, policy);
        if (policy->wild)
            w->may |= 1u << RATP_INVALID_ARGUMENT;
    }
    if (chance(w, 15))
        p.budget = 1 + ((uint64_t)take(w, 0, 255) << take(w, 0, 9));
    p.page_slots = number(w, take(w, 0, 3) * 8);
    p.k_dtype = (ratp_dtype)number(w, take(w, RATP_DTYPE_DEFAULT, RATP_Q8_0));
    p.v_dtype = (ratp_dtype)number(w, take(w, RATP_DTYPE_DEFAULT, RATP_Q8_0));
    p.retention = (ratp_retention)number(w, take(w, RATP_RETAIN_FULL, RATP_RETAIN_NEEDED));
    void *params = put(w, &p, sizeof p);
    ratp_device *first = handle_of(w, device);
    ratp_cache *cache = (ratp_cache *)w;
    w->may |= device->limited ? 1u << RATP_OUT_OF_MEMORY : 0;
    if ((p.k_dtype == RATP_Q8_0 && g.head_size % 32) ||
        (p.v_dtype == RATP_Q8_0 && (g.value_size ? g.value_size : g.head_size) % 32))
        w->may |= 1u << RATP_UNSUPPORTED;
    if (called(w, "cache_create", ratp->cache_create(first, params, &cache), first)) {
        REQUIRE(!cache);
        return;
    }
    fill_defaults(&g);
    *slot = (struct slot){.handle = cache, .parent = device, .geometry = g,
                          .retention = p.retention, .limited = p.budget || device->limited};
}

void call_cache(struct world *w)
{
    struct slot *slot = any_slot(w, CACHE);
    uint32_t way = take(w, 0, 3);
    if (!slot || way <= 1) {
        create_cache(w);
        return;
    }
    ratp_cache *cache = handle_of(w, slot);
    if (way == 2) {
        called(w, "cache_stats", ratp->cache_stats(cache, room(w, sizeof(struct ratp_cache_stats))),
               cache);
        return;
    }
    w->may = has_children(w, slot) ? 1u << RATP_WRONG_STATE : 0;
    destroyed(w, "cache_destroy", ratp->cache_destroy(&cache), &cache, slot);
}

/* ---- Sequences ---- */

static void create_seq(struct world *w, struct slot *cache)
{
    struct slot *slot = free_slot(w, SEQ);
    if (!slot)
        return;
    ratp_cache *first = handle_of(w, cache);
    ratp_seq *seq = (ratp_seq *)w;
    w->may = cache->limited ? 1u << RATP_OUT_OF_MEMORY | 1u << RATP_CACHE_FULL : 0;
    if (called(w, "seq_create", ratp->seq_create(first, &seq), first)) {
        REQUIRE(!seq);
        return;
    }
    *slot = (struct slot){.handle = seq, .parent = cache, .max_tokens = cache->geometry.max_tokens};
}

static void ask_positions(struct world *w, const struct slot *slot)
{
    const struct slot *cache = slot->parent;
    uint32_t layer = number(w, take(w, 0, cache->geometry.layers - 1));
    uint32_t head = number(w, take(w, 0, cache->geometry.kv_heads - 1));
    uint64_t capacity = take(w, 0, 150), count = UINT64_MAX;
    uint32_t *positions = fault(w) ? NULL : allocate(w, capacity * sizeof *positions);
    ratp_seq *seq = handle_of(w, slot);
    if (called(w, "seq_positions", ratp->seq_positions(seq, layer, head, positions, capacity, &count),
               seq))
        return;
    REQUIRE(count <= slot->length);
    REQUIRE(cache->retention == RATP_RETAIN_NEEDED || w->snapkv || count == slot->length);
    for (uint64_t i = 0; i < count && i < capacity; i++)
        REQUIRE(positions[i] < slot->length && (i == 0 || positions[i] > positions[i - 1]));
}

static void fork_seq(struct world *w, const struct slot *from)
{
    struct slot *slot = free_slot(w, SEQ);
    if (!slot)
        return;
    ratp_seq *first = handle_of(w, from), *seq = (ratp_seq *)w;
    w->may = from->parent->limited ? 1u << RATP_OUT_OF_MEMORY | 1u << RATP_CACHE_FULL : 0;
    w->may |= from->step ? 1u << RATP_WRONG_STATE : 0;
    if (called(w, "seq_fork", ratp->seq_fork(first, &seq), first)) {
        REQUIRE(!seq);
        return;
    }
    *slot = (struct slot){.handle = seq, .parent = from->parent, .max_tokens = from->max_tokens,
                          .length = from->length};
}

static void truncate_seq(struct world *w, struct slot *slot)
{
    uint64_t length = fault(w) ? slot->length + 1 + (uint64_t)wrong_number(w) : take(w, 0, slot->length);
    ratp_seq *seq = handle_of(w, slot);
    w->may = slot->step ? 1u << RATP_WRONG_STATE : 0;
    if (slot->parent->retention == RATP_RETAIN_NEEDED || w->snapkv)
        w->may |= 1u << RATP_NOT_RETAINED;
    if (!called(w, "seq_truncate", ratp->seq_truncate(seq, length), seq))
        slot->length = (uint32_t)length;
}

static void switch_seq(struct world *w, struct slot *slot)
{
    const struct slot *policy = any_slot(w, POLICY);
    ratp_policy *to = policy && chance(w, 70) ? handle_of(w, policy) : NULL;
    ratp_seq *seq = handle_of(w, slot);
    w->may = slot->step ? 1u << RATP_WRONG_STATE : 0;
    if (to && policy->wild)
        w->may |= 1u << RATP_INVALID_ARGUMENT;
    if (slot->parent->retention == RATP_RETAIN_NEEDED || w->snapkv)
        w->may |= 1u << RATP_NOT_RETAINED;
    if ((slot->parent->retention == RATP_RETAIN_NEEDED || w->snapkv) && slot->parent->limited)
        w->may |= 1u << RATP_OUT_OF_MEMORY | 1u << RATP_CACHE_FULL;
    called(w, "seq_set_policy", ratp->seq_set_policy(seq, to), seq);
}

static void compress_seq(struct world *w, struct slot *slot)
{
    ratp_seq *seq = handle_of(w, slot);
    w->may = slot->step ? 1u << RATP_WRONG_STATE : 0;
    if (w->snapkv)
        w->may |= 1u << RATP_NOT_RETAINED;
    if (w->snapkv && slot->parent->limited)
        w->may |= 1u << RATP_OUT_OF_MEMORY | 1u << RATP_CACHE_FULL;
    called(w, "seq_compress", ratp->seq_compress(seq), seq);
}

void call_seq(struct world *w)
{
    struct slot *slot = any_slot(w, SEQ), *cache = any_slot(w, CACHE);
    uint32_t way = take(w, 0, 11);
    if (!slot || way <= 2) {
        if (cache)
            create_seq(w, cache);
        else
            create_cache(w);
    } else if (way <= 4) {
        ask_positions(w, slot);
    } else if (way <= 6) {
        fork_seq(w, slot);
    } else if (way == 7) {
        truncate_seq(w, slot);
    } else if (way == 8) {
        switch_seq(w, slot);
    } else if (way == 9) {
        compress_seq(w, slot);
    } else if (way == 10) {
        ratp_seq *seq = handle_of(w, slot);
        called(w, "seq_stats", ratp->seq_stats(seq, room(w, sizeof(struct ratp_seq_stats))), seq);
    } else {
        ratp_seq *seq = handle_of(w, slot);
        w->may = slot->step ? 1u << RATP_WRONG_STATE : 0;
        destroyed(w, "seq_destroy", ratp->seq_destroy(&seq), &seq, slot);
    }
}

/* ---- Steps ---- */

static uint32_t draw_tokens(struct world *w, const struct slot *seq)
{
    uint32_t n = chance(w, 50) ? 1 : take(w, 1, chance(w, 20) ? 24 : 8);
    if (n > seq->max_tokens - seq->length)
        w->may |= 1u << RATP_INVALID_ARGUMENT;
    if (!fault(w))
        return n;
    /* Many tokens only where they are refused, for a long input takes long. */
    n = wrong_number(w);
    return n > seq->max_tokens - seq->length ? n : 0;
}

static void begin_step(struct world *w, struct slot *cache)
{
    struct slot *slot = free_slot(w, STEP), step = {.parent = cache};
    ratp_seq *seqs[MAX_BATCH];
    for (int i = 0; i < SLOTS && step.count < MAX_BATCH; i++) {
        struct slot *seq = &w->slots[SEQ][i];
        if (seq->handle && (seq->parent == cache || fault(w)) && (!step.count || chance(w, 60))) {
            step.n_tokens[step.count] = draw_tokens(w, seq);
            step.pages[step.count] = w->before.seqs[i].pages;
            step.seqs[step.count++] = seq;
        }
    }
    if (!slot || !step.count)
        return;
    for (uint32_t i = 0; i < step.count; i++) {
        if (i && fault(w))
            step.seqs[i] = step.seqs[0];
        seqs[i] = handle_of(w, step.seqs[i]);
        step.rows += step.n_tokens[i];
    }
    struct ratp_step_params p = {.struct_size = sizeof p};
    p.count = fault(w) ? (chance(w, 50) ? 0 : 65537) : step.count;
    p.seqs = fault(w) ? NULL : memcpy(allocate(w, sizeof seqs), seqs, step.count * sizeof *seqs);
    p.n_tokens = fault(w) ? NULL : memcpy(allocate(w, sizeof step.n_tokens), step.n_tokens,
                                          step.count * sizeof *step.n_tokens);
    void *params = put(w, &p, sizeof p);
    ratp_cache *first = handle_of(w, cache);
    ratp_step *handle = (ratp_step *)w;
    if (cache->step)
        w->may |= 1u << RATP_WRONG_STATE;
    if (cache->limited)
        w->may |= 1u << RATP_CACHE_FULL | 1u << RATP_OUT_OF_MEMORY;
    if (called(w, "step_begin", ratp->step_begin(first, params, &handle), first)) {
        REQUIRE(!handle);
        return;
    }
    step.handle = handle;
    *slot = step;
    cache->step = slot;
    for (uint32_t i = 0; i < step.count; i++)
        step.seqs[i]->step = slot;
}

static void attend(struct world *w, struct slot *slot, uint32_t layer)
{
    struct slot *cache = slot->parent, *device = cache->parent;
    const struct ratp_geometry *g = &cache->geometry;
    const struct shape of_q = {1, slot->rows, g->query_heads, g->head_size, false, false, false},
                       of_k = {1, slot->rows, g->kv_heads, g->head_size, false, false, false},
                       of_v = {1, slot->rows, g->kv_heads, g->value_size, false, false, false},
                       of_out = {1, slot->rows, g->query_heads, g->value_size, false, false, false},
                       of_lse = {1, slot->rows, g->query_heads, 1, true, false, false},
                       of_sinks = {1, 1, 1, g->query_heads, true, false, false};
    struct ratp_attend_io io = {.struct_size = sizeof io};
    io.q = tensor(w, device, of_q);
    io.k = tensor(w, device, of_k);
    io.v = tensor(w, device, of_v);
    if (!g->memory == fault(w))
        io.f = tensor(w, device, of_k);
    if (chance(w, 50))
        io.o = tensor(w, device, of_out);
    io.out = tensor(w, device, of_out);
    if (chance(w, 50))
        io.lse = tensor(w, device, of_lse);
    if (chance(w, 30))
        io.sinks = tensor(w, device, of_sinks);
    const struct ratp_attend_io *params = fault(w) ? NULL : put(w, &io, sizeof io);
    ratp_step *step = handle_of(w, slot);
    layer = number(w, layer);
    w->may |= slot->wild ? 1u << RATP_WRONG_STATE : 0;
    w->may |= cache->limited ? 1u << RATP_OUT_OF_MEMORY : 0;
    if (layer >= 64 || slot->attended >> layer & 1) /* 64 are noted */
        w->may |= 1u << RATP_WRONG_STATE;
    ratp_status status = called(w, "step_attend", ratp->step_attend(step, layer, params), step);
    if (!status) {
        REQUIRE(layer < g->layers && (layer >= 64 || !(slot->attended >> layer & 1)));
        slot->attended |= layer < 64 ? (uint64_t)1 << layer : 0;
    } else if (status != RATP_INVALID_ARGUMENT && status != RATP_WRONG_STATE) {
        slot->wild = true;
    }
}

static void step_gone(const struct slot *step)
{
    step->parent->step = NULL;
    for (uint32_t i = 0; i < step->count; i++)
        step->seqs[i]->step = NULL;
}

static void commit(struct world *w, struct slot *slot, bool complete)
{
    ratp_step *step = handle_of(w, slot);
    w->may = !complete || slot->wild ? 1u << RATP_WRONG_STATE : 0;
    if (slot->parent->limited)
        w->may |= 1u << RATP_OUT_OF_MEMORY;
    const struct slot was = *slot;
    if (!destroyed(w, "step_commit", ratp->step_commit(&step), &step, slot))
        return;
    REQUIRE(complete);
    for (uint32_t i = 0; i < was.count; i++)
        was.seqs[i]->length += was.n_tokens[i];
    step_gone(&was);
}

static void abort_step(struct world *w, struct slot *slot)
{
    ratp_step *step = handle_of(w, slot);
    const struct slot was = *slot;
    if (!destroyed(w, "step_abort", ratp->step_abort(&step), &step, slot))
        return;
    for (uint32_t i = 0; i < was.count; i++) {
        struct ratp_seq_stats stats = {.struct_size = sizeof stats};
        REQUIRE(ratp->seq_stats(was.seqs[i]->handle, &stats) == RATP_OK);
        REQUIRE(stats.length == was.seqs[i]->length && stats.pages == was.pages[i]);
    }
    step_gone(&was);
}

void call_step(struct world *w)
{
    struct slot *slot = any_slot(w, STEP), *cache = any_slot(w, CACHE);
    if (cache && (!slot || chance(w, 10))) {
        begin_step(w, cache);
        return;
    }
    if (!slot) {
        create_cache(w);
        return;
    }
    uint32_t layers = slot->parent->geometry.layers, next = 0;
    while (next < 64 && slot->attended >> next & 1)
        next++;
    bool complete = next >= layers;
    if (chance(w, 8))
        abort_step(w, slot);
    else if (complete || chance(w, 5))
        commit(w, slot, complete);
    else
        attend(w, slot, chance(w, 30) && layers <= 64 ? take(w, 0, layers - 1) : next);
}

/* ---- Calls on a device ---- */

/* A variant whose queries choose, and whether the call has memory for what they choose by. */
static void draw_choice(struct world *w, const struct slot *device, struct ratp_external *p)
{
    bool quest = chance(w, 50);
    struct ratp_variant v = {.struct_size = sizeof v, .kind = quest ? RATP_QUEST : RATP_MOBA};
    if (quest) {
        v.page = number(w, 8 * take(w, 1, 2));
        v.budget = number(w, v.page * take(w, 1, 4));
    } else {
        v.block = number(w, 8 * take(w, 1, 2));
        v.topk = number(w, take(w, 1, 4));
    }
    v.selection = (ratp_selection)number(w, take(w, RATP_SELECT_HEAD, RATP_SELECT_GROUP));
    p->variant = put(w, &v, sizeof v);
    p->causal = !fault(w);
    p->first_position = number(w, p->key_tokens - p->query_tokens);
    struct ratp_external asked = *p;
    uint64_t bytes = 0;
    const struct ratp_external *params = fault(w) ? NULL : put(w, &asked, sizeof asked);
    ratp_device *first = handle_of(w, device);
    called(w, "external_summary_bytes",
           ratp->external_summary_bytes(first, params, fault(w) ? NULL : &bytes), first);
    const struct slot *buffer = any_slot(w, BUFFER);
    if (!buffer || chance(w, 30))
        return;
    p->summaries = handle_of(w, buffer);
    p->summaries_offset = fault(w) ? wrong_size(w) : 16 * (uint64_t)take(w, 0, 2);
    p->summarised = number(w, take(w, 0, p->key_tokens < 64 ? p->key_tokens : 64));
    if (buffer->parent != device || buffer->size < bytes + p->summaries_offset)
        w->may |= 1u << RATP_INVALID_ARGUMENT;
}

/* As many as the library may read. */
static const float *draw_slopes(struct world *w, uint32_t heads)
{
    enum { MOST_HEADS = 16384 };
    uint32_t count = heads < MOST_HEADS ? heads : MOST_HEADS;
    float *slopes = allocate(w, count * sizeof *slopes);
    for (uint32_t h = 0; h < count; h++)
        slopes[h] = real(w, 0.5f);
    return slopes;
}

void call_external(struct world *w)
{
    struct slot *device = any_slot(w, DEVICE);
    if (!device)
        return;
    struct ratp_external p = {.struct_size = sizeof p};
    bool choice = chance(w, 30);
    p.batch = number(w, take(w, 0, 3));
    p.query_tokens = number(w, take(w, 1, 5));
    p.key_tokens = number(w, take(w, choice ? 5 : 1, choice ? 60 : 24));
    p.kv_heads = number(w, take(w, 1, 2));
    p.query_heads = number(w, p.kv_heads * take(w, 1, 3));
    p.head_size = number(w, 8 * take(w, 1, 4));
    p.value_size = number(w, chance(w, 50) ? 8 * take(w, 1, 4) : 0);
    p.scale = real(w, chance(w, 30) ? 0.2f : 0);
    p.softcap = real(w, chance(w, 30) ? 4 : 0);
    p.causal = chance(w, 60);
    p.first_position = number(w, take(w, 0, 30));
    struct ratp_variant v = draw_variant(w);
    if (chance(w, 50))
        p.variant = put(w, &v, sizeof v);
    uint32_t batch = p.batch ? p.batch : 1, value_size = p.value_size ? p.value_size : p.head_size;
    const struct shape of_q = {batch, p.query_tokens, p.query_heads, p.head_size, false, false, false},
                       of_k = {batch, p.key_tokens, p.kv_heads, p.head_size, false, false, !choice},
                       of_v = {batch, p.key_tokens, p.kv_heads, value_size, false, false, true},
                       of_out = {batch, p.query_tokens, p.query_heads, value_size, false, false, false},
                       of_mask = {batch, p.query_tokens, p.query_heads, p.key_tokens, false, true, false},
                       of_lse = {batch, p.query_tokens, p.query_heads, 1, true, false, false},
                       of_sinks = {1, 1, 1, p.query_heads, true, false, false};
    p.q = tensor(w, device, of_q);
    p.k = tensor(w, device, of_k);
    p.v = tensor(w, device, of_v);
    if (chance(w, 40))
        p.o = tensor(w, device, of_out);
    if (choice ? fault(w) : chance(w, 40))
        p.mask = tensor(w, device, of_mask);
    if (choice)
        draw_choice(w, device, &p);
    if ((p.mask && chance(w, 40)) || fault(w))
        p.slopes = draw_slopes(w, p.query_heads);
    p.out = tensor(w, device, of_out);
    if (chance(w, 40))
        p.lse = tensor(w, device, of_lse);
    if (chance(w, 40))
        p.sinks = tensor(w, device, of_sinks);
    const struct ratp_external *params = fault(w) ? NULL : put(w, &p, sizeof p);
    ratp_device *first = handle_of(w, device);
    w->may |= device->limited ? 1u << RATP_OUT_OF_MEMORY : 0;
    called(w, "attend_external", ratp->attend_external(first, params), first);
}

void call_merge(struct world *w)
{
    enum { MOST = 4 };
    struct slot *device = any_slot(w, DEVICE);
    if (!device)
        return;
    struct ratp_merge p = {.struct_size = sizeof p};
    uint32_t parts = take(w, 1, MOST);
    p.parts = fault(w) ? (chance(w, 50) ? 0 : 65) : parts;
    p.tokens = number(w, take(w, 1, 6));
    p.heads = number(w, take(w, 1, 3));
    p.value_size = number(w, 8 * take(w, 1, 3));
    const struct shape of_out = {1, p.tokens, p.heads, p.value_size, false, false, false},
                       of_lse = {1, p.tokens, p.heads, 1, true, false, false};
    const struct ratp_tensor **outs = allocate(w, parts * sizeof *outs);
    const struct ratp_tensor **lses = allocate(w, parts * sizeof *lses);
    for (uint32_t i = 0; i < parts; i++) {
        outs[i] = tensor(w, device, of_out);
        lses[i] = tensor(w, device, of_lse);
    }
    p.part_out = fault(w) ? NULL : outs;
    p.part_lse = fault(w) ? NULL : lses;
    p.out = tensor(w, device, of_out);
    if (chance(w, 50))
        p.lse = tensor(w, device, of_lse);
    const struct ratp_merge *params = fault(w) ? NULL : put(w, &p, sizeof p);
    ratp_device *first = handle_of(w, device);
    w->may |= device->limited ? 1u << RATP_OUT_OF_MEMORY : 0;
    called(w, "merge", ratp->merge(first, params), first);
}
