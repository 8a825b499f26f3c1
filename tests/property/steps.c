/* Random models, batches, chunks, aborts and variants on every device; worlds.h has the
 * arguments. */
#include "world.h"
#include "worlds.h"

static void run(struct host *host, ratp_device *device, uint64_t seed)
{
    struct world w;
    if (!world_open(&w, host, device, seed))
        return;
    bool more = true;
    while (more) {
        world_change(&w);
        world_refuse(&w);
        more = world_step(&w, !random_chance(&w.random, 15));
    }
    world_check(&w);
    world_close(&w);
}

int main(int count, char **arguments)
{
    return worlds_run(count, arguments, run) ? check_result() : CHECK_SKIPPED;
}
