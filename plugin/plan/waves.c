/* Waves: prompts that choose blocks of keys. */
#include "build.h"

#include <stdlib.h>

enum {
    LEAST_TOKENS = 32,    /* of a wave, where there are so many; fewer are quick one by one */
    MOST_CHOSEN = 16,     /* by a query: each is a partial result */
    MOST_BLOCKS = 65536,  /* that a table counts by */
    BLOCK_ROWS = 4        /* that are worth going together, on the average of blocks */
};

/* Tokens of a wave: as many as `wave_partials` has room for. */
static uint32_t wave_tokens(const struct gpu_view *view, const struct work_limits *limits)
{
    uint32_t tokens = limits->wave_partials / view->choose / LEAST_TOKENS * LEAST_TOKENS;
    tokens = tokens > LEAST_TOKENS ? tokens : LEAST_TOKENS;
    return tokens < view->rows ? tokens : view->rows;
}

bool view_has_waves(const struct gpu_view *view, const struct work_limits *limits)
{
    if (!view->select || !limits->wave_partials || view->rows < LEAST_TOKENS ||
        view->choose > MOST_CHOSEN)
        return false;
    /* A tile goes over a whole block. */
    if (limits->most_keys && view->block > limits->most_keys)
        return false;
    uint32_t blocks = blocks_at(view, view->pos0 + view->rows - 1);
    return blocks <= MOST_BLOCKS &&
           (uint64_t)wave_tokens(view, limits) * view->choose >= (uint64_t)BLOCK_ROWS * blocks;
}

/* Walks the waves of every view, and their tiles: tokens of one block. */
struct walk {
    const struct gpu_view *views;
    uint32_t count;
    const struct work_limits *limits;
    uint32_t view, chooser0; /* the view's first chooser */
    uint32_t token0, tokens; /* the wave's */
};

static bool walk_next(struct walk *w)
{
    uint32_t next = w->token0 + w->tokens;
    while (w->view < w->count &&
           (next >= w->views[w->view].rows || !view_has_waves(&w->views[w->view], w->limits))) {
        w->chooser0 += w->views[w->view].select ? w->views[w->view].rows : 0;
        w->view++;
        next = 0;
    }
    if (w->view == w->count)
        return false;
    const struct gpu_view *view = &w->views[w->view];
    uint32_t most = wave_tokens(view, w->limits), left = view->rows - next;
    w->token0 = next;
    w->tokens = left < most ? left : most;
    return true;
}

/* Tokens of the tile that begins at the view's token `token`. */
static uint32_t tile_tokens(const struct walk *w, uint32_t token)
{
    const struct gpu_view *view = &w->views[w->view];
    uint32_t wave = w->token0 + w->tokens - token;
    uint32_t block = view->block - (view->pos0 + token) % view->block;
    uint32_t least = wave < block ? wave : block;
    return least < w->limits->tile_tokens ? least : w->limits->tile_tokens;
}

static uint32_t tile_count(const struct walk *w)
{
    uint32_t tiles = 0, end = w->token0 + w->tokens;
    for (uint32_t token = w->token0; token < end; token += tile_tokens(w, token))
        tiles++;
    return tiles;
}

static void fill_wave(struct plan_class *cls, const struct walk *w, struct blob *blob,
                      const struct plan_wave *wave)
{
    const struct gpu_view *view = &w->views[w->view];
    *(struct gpu_wave *)(void *)(blob->data + wave->offset) = wave->wave;
    struct gpu_tile *tile = (void *)(blob->data + wave->tiles.offset);
    struct gpu_gather *gather = (void *)(blob->data + wave->gathers.offset);
    uint32_t end = w->token0 + w->tokens;
    for (uint32_t token = w->token0, tokens; token < end; token += tokens) {
        tokens = tile_tokens(w, token);
        *tile++ = (struct gpu_tile){.view = w->view, .token0 = token, .tokens = tokens,
                                    .splits = 1,
                                    .partial = wave->wave.partial + token - w->token0};
        /* The middle one stands for all of the tile's queries. */
        uint32_t t = view->pos0 + token + tokens / 2;
        cls->tile_queries += tokens;
        cls->tile_keys += (uint64_t)(t - block_start(view, t) + 1) * tokens;
    }
    for (uint32_t i = 0; i < w->tokens; i++)
        *gather++ = (struct gpu_gather){view->row0 + w->token0 + i, wave->wave.partial + i,
                                        w->tokens, chosen_at(view, view->pos0 + w->token0 + i)};
}

void plan_waves(struct plan_class *cls, struct blob *blob, const struct work_limits *limits,
                uint32_t *partials)
{
    if (blob->failed)
        return;
    const struct walk start = {(const void *)(blob->data + cls->views.offset), cls->views.count,
                               limits, 0, 0, 0, 0};
    uint32_t count = 0, most = 0;
    for (struct walk w = start; walk_next(&w);)
        count++;
    if (count == 0)
        return;
    cls->waves = calloc(count, sizeof *cls->waves);
    if (!cls->waves) {
        blob->failed = true;
        return;
    }
    cls->wave_count = count;
    struct plan_wave *wave = cls->waves;
    for (struct walk w = start; walk_next(&w); wave++) {
        const struct gpu_view *view = &w.views[w.view];
        uint32_t last = view->pos0 + w.token0 + w.tokens - 1;
        wave->wave = (struct gpu_wave){
            .view = w.view, .token0 = w.token0, .tokens = w.tokens,
            .chooser = w.chooser0 + w.token0, .places = chosen_at(view, last) - 1,
            .blocks = blocks_at(view, last) - 1, .partial = *partials};
        uint32_t taken = w.tokens * (wave->wave.places + 1);
        most = taken > most ? taken : most;
        wave->block = view->block;
        wave->tiles.count = tile_count(&w);
        wave->gathers.count = w.tokens;
        blob_add(blob, sizeof wave->wave, &wave->offset);
        blob_add(blob, wave->tiles.count * sizeof(struct gpu_tile), &wave->tiles.offset);
        blob_add(blob, w.tokens * sizeof(struct gpu_gather), &wave->gathers.offset);
        if (blob->failed)
            return;
        w.views = (const void *)(blob->data + cls->views.offset);
        fill_wave(cls, &w, blob, wave);
    }
    *partials += most;
}

/* Scores of blocks are made for as many queries at a time as this holds. */
enum { SCORE_BYTES = 32 << 20 };

struct choice_work choice_work(const struct plan_class *cls, uint32_t kv_heads, uint32_t group)
{
    uint64_t heads = (uint64_t)kv_heads * group;
    uint64_t one = heads * cls->most_blocks * sizeof(float), all = cls->choosers.count * one;
    uint64_t words = 0;
    for (uint32_t i = 0; i < cls->wave_count; i++) {
        uint64_t of_wave = wave_words(&cls->waves[i].wave, group);
        words = of_wave > words ? of_wave : words;
    }
    return (struct choice_work){
        .chosen = cls->choosers.count * heads * cls->most_chosen * sizeof(uint32_t),
        .scores = all < SCORE_BYTES ? all : one > SCORE_BYTES ? one : SCORE_BYTES,
        .table = words * kv_heads * sizeof(uint32_t),
    };
}
