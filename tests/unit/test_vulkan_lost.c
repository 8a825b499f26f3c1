/* A GPU that is lost in the middle of a pass, by a fault and by work that does not end: every
 * handle can be destroyed, other devices go on, and a new one can be opened. Devices on the
 * CPU are skipped: there a fault ends the process, and work that does not end holds up the
 * threads that all devices share. */
#include "vulkan_world.h"

#include "cache/cache.h"

#include "vulkan_add.spv.h"
#include "vulkan_spin.spv.h"

struct push {
    uint64_t address;
    uint32_t count, unused;
};

static const struct vk_shader add_shader = {.name = "test add", .code = vulkan_add_spv,
                                            .size = sizeof vulkan_add_spv,
                                            .push_bytes = sizeof(struct push)};
static const struct vk_shader spin_shader = {.name = "test spin", .code = vulkan_spin_spv,
                                             .size = sizeof vulkan_spin_spv,
                                             .push_bytes = sizeof(struct push)};

/* A step with the shader's work between its layers. */
static void commit_with(struct world *w, const struct vk_shader *shader, struct push push)
{
    struct error err = {""};
    struct stream *stream = NULL;
    uint32_t constant = 1;
    ratp_step *step = begin(w);
    CHECK(good(step, attend(w, step, 0)));
    CHECK_EQUAL(step_stream(step, &stream, &err), RATP_OK);
    CHECK_EQUAL(vk_dispatch(kernel_stream(stream), shader, &constant, shader == &add_shader, &push,
                            sizeof push, 1, 1, 1, &err), RATP_OK);
    CHECK(good(step, attend(w, step, 1)));
    CHECK(good(step, ratp->step_commit(&step)));
}

static void check_pass(struct world *w, const float *expected)
{
    static float out[TOKENS * ROW];
    memset(out, 0, sizeof out);
    whole_pass(w, out);
    CHECK(memcmp(expected, out, sizeof out) == 0);
}

/* A pass of `w` with the shader in its middle, while a step of another cache of the device is
 * half recorded. False: the device was not lost. */
static bool lose(struct world *w, const struct vk_shader *shader, struct push push)
{
    static float out[TOKENS * ROW];
    struct world second = {.device = w->device};
    if (!world_fill(&second))
        return false;
    ratp_step *step = begin(&second);
    CHECK(good(step, attend(&second, step, 0)));
    commit_with(w, shader, push);
    ratp_status status = ratp->device_wait(w->device);
    bool lost = status == RATP_DEVICE_LOST;
    CHECK(lost || status == RATP_OK);
    if (lost) {
        printf("%s\n", message_of(w->device));
        CHECK_EQUAL(attend(&second, step, 1), RATP_DEVICE_LOST);
        CHECK(ratp->step_commit(&step) != RATP_OK);
        CHECK_EQUAL(ratp->buffer_read(w->buffers[0], 0, out, BYTES), RATP_DEVICE_LOST);
    }
    CHECK(good(step, ratp->step_abort(&step)));
    world_empty(&second);
    return lost;
}

/* Closes a device that was lost. True: the driver never said so, and what it may still use
 * had to be left to it. */
static bool close_lost(struct world *w)
{
    world_empty(w);
    bool denied = atomic_load(&inside(w->device)->denied);
    ratp_status status = ratp->device_close(&w->device);
    CHECK(status == RATP_OK || (status == RATP_DEVICE_LOST && !denied));
    CHECK(!w->device);
    return status == RATP_DEVICE_LOST;
}

/* A device that was open before goes on, and a new one is as good. */
static void check_others(struct world *other, const float *expected)
{
    struct world fresh;
    check_pass(other, expected);
    if (world_open(&fresh, 0)) {
        check_pass(&fresh, expected);
        world_close(&fresh);
    }
}

static void test_fault(void)
{
    static float expected[TOKENS * ROW];
    struct world w, other;
    const struct push nowhere = {.address = UINT64_C(0x7ead00000000), .count = 64};
    if (!world_open(&w, 20000) || !world_open(&other, 0))
        return;
    whole_pass(&w, expected);
    check_pass(&other, expected);
    if (lose(&w, &add_shader, nowhere)) {
        check_others(&other, expected);
        close_lost(&w);
    } else {
        printf("this driver is not lost by a shader that writes where no memory is\n");
        world_close(&w);
    }
    check_others(&other, expected);
    world_close(&other);
}

static void test_endless(void)
{
    static float expected[TOKENS * ROW];
    struct world w, other;
    struct mem word = {0};
    struct error err = {""};
    if (!world_open(&w, 3000) || !world_open(&other, 0))
        return;
    whole_pass(&w, expected);
    check_pass(&other, expected);
    struct vk_device *d = inside(w.device);
    if (!CHECK_EQUAL(vk_mem_alloc(d, 8, MEM_READBACK, "word", &word, &err), RATP_OK))
        return;
    volatile uint32_t *stop = word.host;
    *stop = 0;
    CHECK(lose(&w, &spin_shader, (struct push){.address = word.address, .count = UINT32_MAX}));
    check_others(&other, expected);
    vk_mem_free(d, &word);
    if (close_lost(&w))
        *stop = 1; /* what was left to the driver is mapped still */
    check_others(&other, expected);
    world_close(&other);
}

int main(int argc, char **argv)
{
    struct ratp_device_info info = {.struct_size = sizeof info};
    struct ratp_device_params params = {.struct_size = sizeof params};
    ratp_device *device = NULL;
    params.name = device_name = argc > 1 ? argv[1] : "software";
    if (!start(true) || !CHECK(good(instance, ratp->device_open(instance, &params, &device))))
        return check_result();
    CHECK(good(device, ratp->device_info(device, &info)));
    CHECK(good(instance, ratp->device_close(&device)));
    if (info.kind == RATP_DEVICE_SOFTWARE || info.kind == RATP_DEVICE_REFERENCE) {
        printf("skipped: \"%s\" runs on the CPU; name a GPU with meson's option test_device\n",
               info.name);
        CHECK(good(instance, ratp->instance_destroy(&instance)));
        return check_failures ? check_result() : CHECK_SKIPPED;
    }
    RUN(test_fault);
    RUN(test_endless);
    CHECK(good(instance, ratp->instance_destroy(&instance)));
    return check_result();
}
