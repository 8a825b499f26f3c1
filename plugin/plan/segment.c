#include "plan.h"

/* The same functions stand in shaders/include/plan.glsl. */

uint32_t blocks_at(const struct gpu_view *view, uint32_t t)
{
    return t / view->block + 1;
}

uint32_t chosen_at(const struct gpu_view *view, uint32_t t)
{
    uint32_t blocks = blocks_at(view, t);
    return blocks < view->choose ? blocks : view->choose;
}

uint32_t chosen_keys(const struct gpu_view *view, uint32_t t)
{
    return (chosen_at(view, t) - 1) * view->block + t % view->block + 1;
}

uint32_t block_start(const struct gpu_view *view, uint32_t t)
{
    return t / view->block * view->block;
}

uint64_t wave_rows(const struct gpu_wave *wave, uint32_t group)
{
    return (uint64_t)wave->tokens * wave->places * group;
}

uint64_t wave_tiles(const struct gpu_wave *wave, uint32_t group, uint32_t tile_rows)
{
    return wave->blocks + wave_rows(wave, group) / tile_rows;
}

uint64_t wave_words(const struct gpu_wave *wave, uint32_t group)
{
    return 1 + 3 * wave_tiles(wave, group, WAVE_TILE_ROWS) + wave_rows(wave, group) +
           wave->blocks;
}

void segment_range(const struct gpu_view *view, const struct gpu_segment *segment,
                   uint32_t first_t, uint32_t last_t, uint32_t *lo, uint32_t *hi)
{
    *lo = 0;
    *hi = segment->keys;
    if (!view->causal || segment->keys == 0)
        return;
    if (last_t < segment->pos0) {
        *hi = 0;
        return;
    }
    if (view->select) {
        *hi = chosen_keys(view, last_t);
        return;
    }
    uint32_t visible = (last_t - segment->pos0) / segment->pos_step + 1;
    if (visible < *hi)
        *hi = visible;
    /* The oldest position in any query's window is first_t - window. */
    if (segment->windowed && view->window < first_t && first_t - view->window > segment->pos0) {
        uint32_t before = first_t - view->window - segment->pos0;
        uint32_t hidden = (before + segment->pos_step - 1) / segment->pos_step;
        *lo = hidden < *hi ? hidden : *hi;
    }
}

bool segment_attends(const struct gpu_view *view, const struct gpu_segment *segment, uint32_t t,
                     uint32_t pos)
{
    if (!view->causal)
        return true;
    if (pos > t)
        return false;
    if (!segment->windowed)
        return true;
    return t - pos <= view->window && pos >= view->sinks &&
           (view->dilation == 0 || (pos + 1) % view->dilation != 0);
}

uint32_t kept_index(uint32_t p, uint32_t sinks, uint32_t dilation)
{
    return p < sinks ? p : sinks + (p + 1) / dilation - 1 - sinks / dilation;
}
