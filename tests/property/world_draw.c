/* What a random world is: its model, caches and policies. */
#include "world.h"

static uint32_t pick(struct random *r, const uint32_t *from, uint32_t count)
{
    return from[random_in(r, 0, count - 1)];
}

/* Tokens of blocks that go together with the pages of both caches. */
static uint32_t draw_block(struct world *w)
{
    for (uint32_t tries = 0; tries < 8; tries++) {
        uint32_t block = random_in(&w->random, 1, 16) * 8;
        const uint32_t slots[] = {w->params.page_slots, w->spare_slots};
        bool fits = true;
        for (int i = 0; i < 2; i++)
            fits &= slots[i] % block == 0 || block % slots[i] == 0;
        if (fits)
            return block;
    }
    return 8;
}

static struct ratp_variant draw_variant(struct world *w, bool of_prompt)
{
    static const ratp_variant_kind decoded[] = {RATP_DENSE, RATP_DILATED, RATP_STREAMING,
                                                RATP_MOBA, RATP_QUEST};
    struct random *r = &w->random;
    struct ratp_variant v = {.struct_size = sizeof v};
    v.kind = decoded[w->thin ? random_in(r, 1, 2) : random_in(r, 0, of_prompt ? 3 : 4)];
    if (v.kind == RATP_QUEST) {
        v.page = draw_block(w);
        v.budget = v.page * random_in(r, 1, 6);
    }
    if (v.kind == RATP_MOBA) {
        v.block = draw_block(w);
        v.topk = random_in(r, 1, 6);
    }
    if (v.kind == RATP_QUEST || v.kind == RATP_MOBA) {
        v.selection = (ratp_selection)random_in(r, 0, 1);
        return v;
    }
    if (v.kind == RATP_DILATED)
        v.dilation = random_in(r, 1, 20);
    if (v.kind != RATP_DENSE) {
        v.window = random_chance(r, 30) ? 0 : random_in(r, 0, 60);
        v.sinks = random_chance(r, 50) ? 0 : random_in(r, 0, 30);
    }
    return v;
}

static void draw(struct world *w)
{
    struct random *r = &w->random;
    static const uint32_t sizes[] = {8, 32, 40, 64, 80, 96, 128, 256};
    static const uint32_t groups[] = {1, 1, 2, 3, 4, 8};
    struct ratp_geometry *g = &w->geometry;
    *g = (struct ratp_geometry){.struct_size = sizeof *g};
    g->layers = random_in(r, 1, MAX_LAYERS);
    g->kv_heads = random_in(r, 1, MAX_HEADS);
    g->query_heads = g->kv_heads * pick(r, groups, 6);
    g->head_size = g->value_size = pick(r, sizes, 8);
    g->memory = random_chance(r, 70);
    if (!g->memory && random_chance(r, 50))
        g->value_size = pick(r, sizes, 8);
    g->softcap = random_chance(r, 25) ? 10 : 0;
    g->max_tokens = 4096;
    w->rope = (struct ratp_rope){.struct_size = sizeof w->rope};
    w->rope.style = (ratp_rope_style)random_in(r, 0, 2);
    if (random_chance(r, 30))
        w->rope.size = random_in(r, 1, g->head_size / 4) * 4;
    if (random_chance(r, 30))
        w->rope.scale = 4;
    g->rope = &w->rope;
    static const ratp_dtype dtypes[] = {RATP_F32, RATP_F16, RATP_BF16, RATP_Q8_0};
    w->params = (struct ratp_cache_params){
        .struct_size = sizeof w->params,
        .geometry = g,
        .page_slots = random_in(r, 1, 8) * 8,
        .k_dtype = dtypes[random_in(r, 0, g->head_size % 32 ? 2 : 3)],
        .v_dtype = dtypes[random_in(r, 0, g->value_size % 32 ? 2 : 3)],
        .retention = (ratp_retention)random_in(r, 0, 1),
    };
    if (w->thin)
        w->params.retention = RATP_RETAIN_NEEDED;
    w->spare_slots = random_in(r, 1, 8) * 8;
    w->io_dtype = dtypes[random_chance(r, 50) ? 0 : random_in(r, 1, 2)];
    w->output_gate = random_chance(r, 60);
    w->buffers = random_chance(r, 40);
    w->sunk = random_chance(r, 40);
    for (uint32_t l = 0; l < MAX_LAYERS; l++)
        for (uint32_t h = 0; h < MAX_QUERY_HEADS; h++)
            w->sinks[l][h] = random_chance(r, 10) ? -INFINITY : 3 * random_normal(r);
    w->max_tokens = random_in(r, 20, g->head_size > 96 ? 90 : MAX_TOKENS);
    w->count = random_in(r, 1, MAX_SEQS);
    w->next_id = w->count;
}

static bool make_policy(struct world *w, uint32_t p)
{
    const struct ratp_api *api = w->host->api;
    if (!host_ok(w->host, w->host->instance,
                 api->policy_create(w->host->instance, &w->policies[p]), "policy_create"))
        return false;
    bool same = random_chance(&w->random, 50), by_head = random_chance(&w->random, 50);
    for (uint32_t l = 0; l < w->geometry.layers; l++)
        for (uint32_t h = 0; h < w->geometry.kv_heads; h++) {
            struct ratp_variant *v = &w->variants[p][l][h];
            if (l && same)
                *v = w->variants[p][0][h];
            else if (h && (!by_head || random_chance(&w->random, 40)))
                *v = w->variants[p][l][random_in(&w->random, 0, h - 1)];
            else
                *v = draw_variant(w, false);
            if (!v->prompt && random_chance(&w->random, w->thin ? 3 : 15)) {
                w->prompts[p][l][h] = draw_variant(w, true);
                v->prompt = &w->prompts[p][l][h];
            }
            ratp_status status = api->policy_set(w->policies[p], (struct ratp_range){l, 1},
                                                 (struct ratp_range){h, 1}, v);
            host_ok(w->host, w->policies[p], status, "policy_set");
        }
    return true;
}

bool world_draw(struct world *w)
{
    draw(w);
    for (uint32_t p = 0; p < MAX_POLICIES; p++)
        if (!make_policy(w, p))
            return false;
    return true;
}
