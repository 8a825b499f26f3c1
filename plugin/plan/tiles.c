#include "build.h"

#include <string.h>

/* More partial rows than this for one tile cost more to merge than they save. */
enum { MAX_SPLITS = 128 };

static uint64_t tile_keys(const struct gpu_view *view, uint32_t token0, uint32_t tokens)
{
    uint64_t keys = 0;
    for (uint32_t i = 0; i < view->segments; i++) {
        uint32_t lo, hi;
        segment_range(view, &view->segment[i], view->pos0 + token0,
                      view->pos0 + token0 + tokens - 1, &lo, &hi);
        keys += hi - lo;
    }
    return keys;
}

/* Walks the tiles of every view; both passes below share it. */
struct walk {
    const struct gpu_view *views;
    uint32_t count, tile_tokens;
    uint32_t view, token0, tokens;
};

static bool walk_next(struct walk *w)
{
    uint32_t next = w->token0 + w->tokens;
    while (w->view < w->count && next >= w->views[w->view].rows) {
        w->view++;
        next = 0;
    }
    if (w->view == w->count)
        return false;
    uint32_t left = w->views[w->view].rows - next;
    w->token0 = next;
    w->tokens = left < w->tile_tokens ? left : w->tile_tokens;
    if (w->views[w->view].select)
        w->tokens = 1; /* no two tokens have the same keys */
    return true;
}

static bool is_single(const struct walk *w)
{
    return w->views[w->view].rows == 1 || w->views[w->view].select;
}

/* Keys of a split such that all of them together are about `target_groups`
 * workgroups of equal work. */
static uint64_t split_size(uint64_t keys, const struct work_limits *limits)
{
    uint64_t size = (keys * limits->head_blocks + limits->target_groups - 1) /
                    limits->target_groups;
    if (size < limits->split_keys)
        size = limits->split_keys;
    return limits->most_keys && size > limits->most_keys ? limits->most_keys : size;
}

/* `most_keys` is a bound that a driver sets, and goes before MAX_SPLITS. */
static uint32_t split_count(uint64_t keys, uint64_t size, const struct work_limits *limits)
{
    uint64_t splits = keys ? (keys - 1) / size + 1 : 1;
    uint64_t least = limits->most_keys && keys ? (keys - 1) / limits->most_keys + 1 : 1;
    uint64_t most = least > MAX_SPLITS ? least : MAX_SPLITS;
    return (uint32_t)(splits < most ? splits : most);
}

/* The most that a chooser of the class has to choose from, and chooses. */
static void measure_choice(struct plan_class *cls, const struct gpu_view *views)
{
    cls->most_blocks = cls->most_chosen = 0;
    cls->heads_choose = false;
    memset(cls->block_entries, 0, sizeof cls->block_entries);
    for (uint32_t i = 0; i < cls->views.count; i++) {
        const struct gpu_view *view = &views[i];
        if (!view->select)
            continue;
        uint32_t blocks = blocks_at(view, view->pos0 + view->rows - 1);
        uint32_t chosen = blocks < view->choose ? blocks : view->choose;
        cls->most_blocks = blocks > cls->most_blocks ? blocks : cls->most_blocks;
        cls->most_chosen = chosen > cls->most_chosen ? chosen : cls->most_chosen;
        cls->heads_choose |= !view->by_group;
        uint32_t entries = view->block / view->entry_tokens;
        uint32_t *most = &cls->block_entries[view->select][view->by_group];
        *most = entries > *most ? entries : *most;
    }
    cls->most_blocks = (cls->most_blocks + 3) / 4 * 4; /* rows of scores are read in fours */
}

void plan_tiles(struct plan_class *cls, struct blob *blob, const struct work_limits *limits,
                uint32_t *partials)
{
    *partials = 0;
    if (blob->failed)
        return;
    struct walk start = {(const void *)(blob->data + cls->views.offset), cls->views.count,
                         limits->tile_tokens, 0, 0, 0};
    measure_choice(cls, start.views);
    /* A sequence with one new token is a single; a prompt's last tile may have
     * one token and is still a tile. */
    cls->tile_queries = cls->tile_keys = 0;
    uint64_t tile_total = 0, single_total = 0;
    for (struct walk w = start; walk_next(&w);) {
        if (view_has_waves(&w.views[w.view], limits))
            continue;
        uint64_t keys = tile_keys(&w.views[w.view], w.token0, w.tokens);
        if (is_single(&w)) {
            single_total += keys;
        } else {
            tile_total += keys;
            /* The middle one stands for all of the tile's queries. */
            cls->tile_queries += w.tokens;
            cls->tile_keys +=
                tile_keys(&w.views[w.view], w.token0 + w.tokens / 2, 1) * w.tokens;
        }
    }
    uint64_t tile_size = split_size(tile_total, limits);
    uint64_t single_size = split_size(single_total, limits);

    uint32_t tiles = 0, singles = 0, gathers = 0, choosers = 0;
    for (struct walk w = start; walk_next(&w);) {
        const struct gpu_view *view = &w.views[w.view];
        bool single = is_single(&w);
        choosers += view->select != SELECT_NONE;
        if (view_has_waves(view, limits))
            continue;
        uint32_t splits = split_count(tile_keys(view, w.token0, w.tokens),
                                      single ? single_size : tile_size, limits);
        *(single ? &singles : &tiles) += splits;
        if (splits > 1)
            gathers += w.tokens;
    }
    cls->tiles.count = tiles;
    cls->singles.count = singles;
    cls->gathers.count = gathers;
    cls->choosers.count = choosers;
    blob_add(blob, tiles * sizeof(struct gpu_tile), &cls->tiles.offset);
    blob_add(blob, singles * sizeof(struct gpu_tile), &cls->singles.offset);
    blob_add(blob, gathers * sizeof(struct gpu_gather), &cls->gathers.offset);
    blob_add(blob, choosers * sizeof(struct gpu_chooser), &cls->choosers.offset);
    if (blob->failed)
        return;

    start.views = (const void *)(blob->data + cls->views.offset);
    struct gpu_tile *tile = (void *)(blob->data + cls->tiles.offset);
    struct gpu_tile *one = (void *)(blob->data + cls->singles.offset);
    struct gpu_gather *gather = (void *)(blob->data + cls->gathers.offset);
    struct gpu_chooser *chooser = (void *)(blob->data + cls->choosers.offset);
    choosers = 0;
    for (struct walk w = start; walk_next(&w);) {
        const struct gpu_view *view = &w.views[w.view];
        bool single = is_single(&w);
        uint32_t number = choosers;
        if (view->select)
            chooser[choosers++] = (struct gpu_chooser){w.view, w.token0};
        if (view_has_waves(view, limits))
            continue;
        uint32_t splits = split_count(tile_keys(view, w.token0, w.tokens),
                                      single ? single_size : tile_size, limits);
        struct gpu_tile **at = single ? &one : &tile;
        for (uint32_t s = 0; s < splits; s++)
            *(*at)++ = (struct gpu_tile){w.view, w.token0,  w.tokens, s,
                                         splits, *partials, number};
        if (splits == 1)
            continue;
        for (uint32_t i = 0; i < w.tokens; i++)
            *gather++ = (struct gpu_gather){view->row0 + w.token0 + i, *partials + i, w.tokens,
                                            splits};
        *partials += splits * w.tokens;
    }
}
