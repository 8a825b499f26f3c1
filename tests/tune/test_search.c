/* The search for a policy, with losses that a formula gives: against trying every
 * policy where losses add up, and for its promises where they do not. */
#include "../check.h"
#include "../random.h"
#include "cost.h"
#include "search.h"

#include <math.h>
#include <stdlib.h>

enum { LAYERS = 4, VARIANTS = 5, POLICIES = 5 * 5 * 5 * 5 };

struct world {
    double loss[LAYERS][VARIANTS];
    double together; /* of what neighbours that differ lose beside that */
    double chance; /* by which losses may differ */
    uint32_t asked;
    uint32_t fail_at; /* 0: never */
};

static double loss_of(const struct world *w, const uint32_t *choice)
{
    double sum = 0;
    for (uint32_t i = 0; i < LAYERS; i++) {
        sum += w->loss[i][choice[i]];
        if (i > 0 && choice[i] != choice[i - 1])
            sum += w->together * (choice[i] + i);
    }
    return sum;
}

static bool measure(void *user, const uint32_t *choice, double *loss, struct problem *problem)
{
    struct world *w = user;
    if (++w->asked == w->fail_at)
        return problem_set(problem, "the device is lost");
    *loss = loss_of(w, choice);
    return true;
}

static struct world make_world(struct random *random, double together)
{
    struct world world = {.together = together};
    for (uint32_t i = 0; i < LAYERS; i++)
        for (uint32_t v = 0; v < VARIANTS; v++)
            world.loss[i][v] = random_in(random, 0, 10000) * 1e-3;
    return world;
}

static struct search make_search(struct world *world, const double *cost, double target,
                                 double *uniform)
{
    for (uint32_t v = 0; v < VARIANTS; v++) {
        const uint32_t choice[LAYERS] = {v, v, v, v};
        uniform[v] = loss_of(world, choice);
    }
    return (struct search){.layers = LAYERS, .variants = VARIANTS, .cost = cost, .target = target,
                           .uniform = uniform, .patience = 8, .measure = measure, .user = world};
}

static double cost_of(const double *cost, const uint32_t *choice)
{
    double sum = 0;
    for (uint32_t i = 0; i < LAYERS; i++)
        sum += cost[choice[i]];
    return sum / LAYERS;
}

/* The least loss of all policies within the target. */
static double best_of_all(const struct world *world, const double *cost, double target)
{
    double best = INFINITY;
    for (uint32_t n = 0; n < POLICIES; n++) {
        uint32_t choice[LAYERS];
        for (uint32_t i = 0, rest = n; i < LAYERS; i++, rest /= VARIANTS)
            choice[i] = rest % VARIANTS;
        if (cost_of(cost, choice) <= target && loss_of(world, choice) < best)
            best = loss_of(world, choice);
    }
    return best;
}

static const double costs[VARIANTS] = {64, 32, 16, 8, 1};

static void test_losses_that_add_up(void)
{
    struct random random = {7};
    for (int i = 0; i < 50; i++) {
        struct world world = make_world(&random, 0);
        double uniform[VARIANTS];
        const double target = random_in(&random, 1, 64);
        const struct search search = make_search(&world, costs, target, uniform);
        struct search_result result;
        struct problem problem;
        if (!CHECK(search_run(&search, &result, &problem)))
            continue;
        CHECK(fabs(result.loss - best_of_all(&world, costs, target)) < 1e-9);
        CHECK(fabs(result.loss - loss_of(&world, result.choice)) < 1e-9);
        CHECK(cost_of(costs, result.choice) <= target);
        search_result_free(&result);
    }
}

static void test_losses_that_do_not(void)
{
    struct random random = {8};
    uint32_t better = 0, worlds = 50;
    for (uint32_t i = 0; i < worlds; i++) {
        struct world world = make_world(&random, 0.1), copy = world;
        double uniform[VARIANTS];
        const struct search search = make_search(&world, costs, 16, uniform);
        struct search again = search;
        struct search_result result, second;
        struct problem problem;
        again.user = &copy;
        if (!CHECK(search_run(&search, &result, &problem)) ||
            !CHECK(search_run(&again, &second, &problem)))
            return;
        CHECK(cost_of(costs, result.choice) <= 16);
        CHECK(uniform[result.base] <= fmin(uniform[2], fmin(uniform[3], uniform[4])));
        CHECK(result.loss <= uniform[result.base]);
        CHECK(fabs(result.loss - loss_of(&world, result.choice)) < 1e-9);
        CHECK(memcmp(result.choice, second.choice, sizeof(uint32_t[LAYERS])) == 0);
        CHECK_EQUAL(world.asked, copy.asked);
        better += result.loss < uniform[result.base];
        search_result_free(&result);
        search_result_free(&second);
    }
    CHECK(better > worlds * 9 / 10);
}

/* Nothing is lost by a variant that costs exactly what the target allows. */
static void test_target_at_a_variant(void)
{
    struct random random = {9};
    struct world world = make_world(&random, 0);
    const double thirds[VARIANTS] = {1e6 / 3, 1e5 / 3, 1e4 / 3, 1e3 / 3, 1e2 / 3};
    double uniform[VARIANTS];
    for (uint32_t i = 0; i < LAYERS; i++)
        for (uint32_t v = 0; v < VARIANTS; v++)
            world.loss[i][v] = v == 1 ? 0 : 1;
    const struct search search = make_search(&world, thirds, thirds[1], uniform);
    struct search_result result;
    struct problem problem;
    CHECK(search_run(&search, &result, &problem));
    CHECK_EQUAL(result.base, 1);
    for (uint32_t i = 0; i < LAYERS; i++)
        CHECK_EQUAL(result.choice[i], 1);
    search_result_free(&result);
}

/* What no policy within the target can hold is not measured. */
static void test_too_dear(void)
{
    struct random random = {12};
    struct world world = make_world(&random, 0.1);
    double uniform[VARIANTS];
    struct search search = make_search(&world, costs, 1, uniform);
    struct search_result result;
    struct problem problem;
    CHECK(search_run(&search, &result, &problem));
    CHECK_EQUAL(result.base, 4);
    CHECK(world.asked <= 1);
    search_result_free(&result);
    /* 67 in all hold 64 beside three layers of 1; 66 do not. */
    search.target = 67.0 / LAYERS;
    for (uint32_t i = 0; i < LAYERS; i++)
        world.loss[i][0] = i == 1 ? -100 : 100;
    CHECK(search_run(&search, &result, &problem));
    const uint32_t wanted[LAYERS] = {4, 0, 4, 4};
    CHECK(memcmp(result.choice, wanted, sizeof wanted) == 0);
    search_result_free(&result);
    search.target = 66.0 / LAYERS;
    CHECK(search_run(&search, &result, &problem));
    for (uint32_t i = 0; i < LAYERS; i++)
        CHECK(result.choice[i] != 0);
    search_result_free(&result);
}

static double doubt(void *user, const uint32_t *a, const uint32_t *b)
{
    const struct world *w = user;
    return memcmp(a, b, sizeof(uint32_t[LAYERS])) == 0 ? 0 : w->chance;
}

/* What may be chance is not taken, and what is not, is. */
static void test_doubt(void)
{
    struct random random = {13};
    uint32_t moved = 0;
    for (int i = 0; i < 30; i++) {
        struct world world = make_world(&random, 0);
        double uniform[VARIANTS];
        struct search search = make_search(&world, costs, 16, uniform);
        struct search_result result;
        struct problem problem;
        search.doubt = doubt;
        world.chance = 100;
        if (!CHECK(search_run(&search, &result, &problem)))
            return;
        for (uint32_t layer = 0; layer < LAYERS; layer++)
            CHECK_EQUAL(result.choice[layer], result.base);
        search_result_free(&result);
        world.chance = 2;
        if (!CHECK(search_run(&search, &result, &problem)))
            return;
        const double gain = uniform[result.base] - result.loss;
        CHECK(gain == 0 || gain > 2);
        moved += gain > 0;
        search_result_free(&result);
    }
    CHECK(moved > 20);
}

static void test_failures(void)
{
    struct random random = {10};
    struct world world = make_world(&random, 0);
    double uniform[VARIANTS];
    struct search search = make_search(&world, costs, 0.5, uniform);
    struct search_result result;
    struct problem problem;
    CHECK(!search_run(&search, &result, &problem));
    CHECK_CONTAINS(problem.text, "the target is 0.5, but the cheapest variant costs 1");
    search.target = 16;
    for (uint32_t i = 1; i < 20; i += 6) {
        world.asked = 0;
        world.fail_at = i;
        CHECK(!search_run(&search, &result, &problem));
        CHECK_CONTAINS(problem.text, "the device is lost");
        CHECK_EQUAL(world.asked, i);
    }
}

static bool attends(const struct ratp_variant *v, uint32_t t, uint32_t j)
{
    if (v->kind == RATP_DENSE)
        return true;
    return t - j <= v->window || j < v->sinks ||
           (v->kind == RATP_DILATED && (j + 1) % v->dilation == 0);
}

static void test_attended_keys(void)
{
    struct random random = {11};
    for (int i = 0; i < 300; i++) {
        static const ratp_variant_kind kinds[] = {RATP_DENSE, RATP_DILATED, RATP_STREAMING};
        const struct ratp_variant variant = {
            .struct_size = sizeof variant,
            .kind = kinds[i % 3],
            .dilation = random_in(&random, 1, 9),
            .window = random_in(&random, 0, 20),
            .sinks = random_in(&random, 0, 12),
        };
        const uint32_t length = random_in(&random, 1, 60);
        uint32_t count = 0;
        for (uint32_t t = 0; t < length; t++)
            for (uint32_t j = 0; j <= t; j++)
                count += attends(&variant, t, j);
        CHECK(fabs(attended_keys(&variant, length) * length - count) < 1e-6);
    }
}

int main(void)
{
    RUN(test_losses_that_add_up);
    RUN(test_losses_that_do_not);
    RUN(test_target_at_a_variant);
    RUN(test_too_dear);
    RUN(test_doubt);
    RUN(test_failures);
    RUN(test_attended_keys);
    return check_result();
}
