/* Sequences of ABI calls on the reference device, decoded from the input's
 * bytes: right ones and, now and then, one with a wrong argument. */
#include "api_calls.h"

static struct world world;
static _Alignas(4096) unsigned char imported[SLOTS][IMPORT_BYTES];

/* ---- Instance and devices ---- */

static void open_device(struct world *w)
{
    struct slot *slot = free_slot(w, DEVICE), *instance = &w->slots[INSTANCE][0];
    if (!slot || slot > &w->slots[DEVICE][1])
        return;
    struct ratp_device_params p = {sizeof p, .name = "Reference"};
    if (chance(w, 30))
        p.memory_budget = (uint64_t)take(w, 0, 400) << take(w, 0, 12);
    if (fault(w))
        p.name = chance(w, 50) ? "1" : "no such device";
    void *params = put(w, &p, sizeof p);
    ratp_device *device = (ratp_device *)w;
    void *first = handle_of(w, instance);
    w->may |= p.memory_budget ? 1u << RATP_OUT_OF_MEMORY : 0;
    if (called(w, "device_open", ratp->device_open(first, params, &device), first)) {
        REQUIRE(!device);
        return;
    }
    *slot = (struct slot){.handle = device, .parent = instance, .limited = p.memory_budget > 0};
}

static void call_instance(struct world *w)
{
    void *instance = handle_of(w, &w->slots[INSTANCE][0]);
    uint32_t count = 0;
    switch (take(w, 0, 4)) {
    case 0:
        called(w, "device_count", ratp->device_count(instance, fault(w) ? NULL : &count), instance);
        break;
    case 1:
        called(w, "device_describe",
               ratp->device_describe(instance, number(w, 0),
                                     room(w, sizeof(struct ratp_device_info))), instance);
        break;
    case 2:
        REQUIRE(!ratp->get_extension(instance, "ratplus.none/1"));
        REQUIRE(ratp->status_name((ratp_status)wrong_number(w))[0]);
        break;
    default:
        open_device(w);
        break;
    }
}

static void call_device(struct world *w)
{
    struct slot *slot = any_slot(w, DEVICE);
    if (!slot)
        return;
    ratp_device *device = handle_of(w, slot);
    switch (take(w, 0, 3)) {
    case 0:
        called(w, "device_info", ratp->device_info(device, room(w, sizeof(struct ratp_device_info))),
               device);
        break;
    case 1:
        called(w, "device_kernel_form",
               ratp->device_kernel_form(device, number(w, take(w, 0, 4)),
                                        room(w, sizeof(struct ratp_kernel_form))), device);
        break;
    case 2:
        called(w, "device_wait", ratp->device_wait(device), device);
        break;
    default:
        w->may = has_children(w, slot) ? 1u << RATP_WRONG_STATE : 0;
        destroyed(w, "device_close", ratp->device_close(&device), &device, slot);
        break;
    }
}

/* ---- Buffers ---- */

static void create_buffer(struct world *w)
{
    struct slot *slot = free_slot(w, BUFFER), *device = any_slot(w, DEVICE);
    if (!slot || !device)
        return;
    struct ratp_buffer_params p = {sizeof p, .size = 1 + ((uint64_t)take(w, 0, 255) << take(w, 0, 8))};
    p.kind = (ratp_memory_kind)take(w, RATP_MEMORY_DEVICE, RATP_MEMORY_SHARED);
    if (fault(w))
        p.size = chance(w, 50) ? 0 : UINT64_MAX - wrong_number(w);
    if (fault(w))
        p.kind = (ratp_memory_kind)(3 + wrong_number(w) % 1000);
    if (chance(w, 20) && p.size <= IMPORT_BYTES)
        p.host = imported[slot - w->slots[BUFFER]];
    void *params = put(w, &p, sizeof p);
    ratp_device *first = handle_of(w, device);
    ratp_buffer *buffer = (ratp_buffer *)w;
    w->may = device->limited ? 1u << RATP_OUT_OF_MEMORY : 0;
    if (called(w, "buffer_create", ratp->buffer_create(first, params, &buffer), first)) {
        REQUIRE(!buffer);
        return;
    }
    *slot = (struct slot){.handle = buffer, .parent = device, .size = p.size};
}

static void call_buffer(struct world *w)
{
    struct slot *slot = any_slot(w, BUFFER);
    uint32_t way = take(w, 0, 5);
    if (!slot || way == 0) {
        create_buffer(w);
        return;
    }
    ratp_buffer *buffer = handle_of(w, slot);
    uint64_t offset = take(w, 0, 300) % slot->size, size = take(w, 0, 600) % (slot->size - offset + 1);
    void *data = allocate(w, size), *address = NULL;
    if (fault(w))
        offset = chance(w, 50) ? slot->size - size + 1 : UINT64_MAX - size + 1;
    if (fault(w))
        data = NULL;
    switch (way) {
    case 1:
        called(w, "buffer_write", ratp->buffer_write(buffer, offset, data, size), buffer);
        break;
    case 2:
        called(w, "buffer_read", ratp->buffer_read(buffer, offset, data, size), buffer);
        break;
    case 3:
        if (!called(w, "buffer_map", ratp->buffer_map(buffer, fault(w) ? NULL : &address), buffer))
            ((unsigned char *)address)[slot->size - 1] = 1;
        break;
    default:
        /* An open step's operands must stay. */
        if (w->slots[STEP][0].handle || any_slot(w, STEP))
            break;
        destroyed(w, "buffer_destroy", ratp->buffer_destroy(&buffer), &buffer, slot);
        break;
    }
}

/* ---- Policies ---- */

struct ratp_variant draw_variant(struct world *w)
{
    struct ratp_variant v = {.struct_size = sizeof v};
    v.kind = (ratp_variant_kind)take(w, RATP_DENSE, RATP_STREAMING);
    if (v.kind == RATP_DILATED)
        v.dilation = take(w, 1, 20);
    if (v.kind != RATP_DENSE) {
        v.window = take(w, 0, 40);
        v.sinks = take(w, 0, 20);
    }
    if (fault(w))
        v.kind = (ratp_variant_kind)wrong_number(w);
    v.dilation = number(w, v.dilation);
    v.window = number(w, v.window);
    v.sinks = number(w, v.sinks);
    return v;
}

static void create_policy(struct world *w, struct slot *slot)
{
    static const char *const texts[] = {
        "{}", "{\"default\": \"d4w8s2\"}", "{\"default\": \"streamw5s1\", \"rules\": [{\"layers\": 0}]}",
        "{\"rules\": [{\"layers\": \"0-1,1-\", \"heads\": 0, \"variant\": \"d3\"}]}",
        "{\"default\": \"snapkv12o4n3\"}",
        "{\"default\": \"d3w4:snapkv9o8\", \"rules\": [{\"layers\": 0, \"variant\": \"d4w8s2\"}]}",
        "{\"default\": \"quest16p8\"}",
        "{\"default\": \"moba8k2g\", \"rules\": [{\"layers\": 0, \"variant\": \"quest24p8g\"}]}",
    };
    ratp_instance *instance = handle_of(w, &w->slots[INSTANCE][0]);
    ratp_policy *policy = (ratp_policy *)w;
    ratp_status status;
    bool wild = false;
    if (chance(w, 50)) {
        status = called(w, "policy_create", ratp->policy_create(instance, &policy), instance);
    } else {
        uint32_t i = take(w, 0, sizeof texts / sizeof *texts - 1);
        size_t size = strlen(texts[i]);
        char *text = allocate(w, size);
        memcpy(text, texts[i], size);
        size = fault(w) ? take(w, 0, (uint32_t)size) : size;
        wild = i == 3;
        w->snapkv |= i == 4 || i == 5;
        w->may = i == 2 ? 1u << RATP_PARSE_ERROR : 0;
        status = called(w, "policy_from_json",
                        ratp->policy_from_json(instance, fault(w) ? NULL : text, size, &policy),
                        instance);
    }
    if (status)
        REQUIRE(!policy);
    else
        *slot = (struct slot){.handle = policy, .parent = &w->slots[INSTANCE][0], .wild = wild};
}

static void call_policy(struct world *w)
{
    struct slot *slot = any_slot(w, POLICY), *empty = free_slot(w, POLICY);
    uint32_t way = take(w, 0, 6);
    if (!slot || (way == 0 && empty)) {
        create_policy(w, empty);
        return;
    }
    ratp_policy *policy = handle_of(w, slot);
    if (way <= 2) {
        struct ratp_range layers = {0, 0}, heads = {0, 0};
        if (chance(w, 40))
            layers = (struct ratp_range){number(w, take(w, 0, 3)), number(w, take(w, 0, 3))};
        if (chance(w, 20))
            heads = (struct ratp_range){number(w, take(w, 0, 3)), number(w, take(w, 0, 3))};
        struct ratp_variant v = draw_variant(w);
        const struct ratp_variant *variant = fault(w) ? NULL : put(w, &v, sizeof v);
        called(w, "policy_set", ratp->policy_set(policy, layers, heads, variant), policy);
        slot->wild |= layers.first || layers.count || heads.first || heads.count;
    } else if (way == 3) {
        size_t size = take(w, 0, 200), needed = 0;
        char *text = fault(w) ? NULL : allocate(w, size);
        called(w, "policy_to_json", ratp->policy_to_json(policy, text, size, &needed), policy);
    } else if (way == 4) {
        uint32_t layer = number(w, take(w, 0, 3)), head = number(w, take(w, 0, 3));
        ratp_part_kind part = (ratp_part_kind)number(w, take(w, RATP_PART_PROMPT, RATP_PART_DECODE));
        struct ratp_variant v = {.struct_size = sizeof v};
        struct ratp_variant *variant = fault(w) ? NULL : put(w, &v, sizeof v);
        called(w, "policy_variant", ratp->policy_variant(policy, layer, head, part, variant),
               policy);
    } else {
        destroyed(w, "policy_destroy", ratp->policy_destroy(&policy), &policy, slot);
    }
}

/* ---- The life of a world ---- */

static void world_open(struct world *w, const uint8_t *data, size_t size)
{
    memset(w, 0, sizeof *w);
    w->data = data;
    w->left = size;
    struct ratp_instance_params params = {sizeof params, .no_vulkan = 1};
    ratp_instance *instance = NULL;
    REQUIRE(ratp->instance_create(&params, &instance, NULL, 0) == RATP_OK);
    w->slots[INSTANCE][0].handle = instance;
}

#define DESTROY(kind, type, function)                                       \
    for (int i = 0; i < SLOTS; i++) {                                       \
        type *handle = w->slots[kind][i].handle;                            \
        if (handle)                                                         \
            REQUIRE(ratp->function(&handle) == RATP_OK && !handle);         \
        w->slots[kind][i] = (struct slot){0};                                       \
    }

/* Everything can be destroyed, and caches without sequences hold nothing. */
static void world_close(struct world *w)
{
    struct snapshot s;
    DESTROY(STEP, ratp_step, step_abort)
    take_snapshot(w, &s);
    DESTROY(SEQ, ratp_seq, seq_destroy)
    take_snapshot(w, &s);
    for (int i = 0; i < SLOTS; i++)
        REQUIRE(!s.caches[i].pages_used && !s.caches[i].used_bytes && !s.caches[i].state_bytes &&
                !s.caches[i].sequences);
    DESTROY(CACHE, ratp_cache, cache_destroy)
    DESTROY(POLICY, ratp_policy, policy_destroy)
    DESTROY(BUFFER, ratp_buffer, buffer_destroy)
    DESTROY(DEVICE, ratp_device, device_close)
    DESTROY(INSTANCE, ratp_instance, instance_destroy)
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const calls[])(struct world *) = {
        call_step, call_step, call_step, call_step, call_step, call_step, call_step,
        call_seq, call_seq, call_snapshot, call_cache, call_external, call_merge, call_policy, call_buffer,
        call_device, call_instance,
    };
    enum { MAX_CALLS = 300 };
    struct world *w = &world;
    if (!ratp)
        fuzz_start();
    world_open(w, data, size);
    for (int i = 0; i < MAX_CALLS && w->left; i++) {
        call_begin(w);
        if (!any_slot(w, DEVICE))
            open_device(w);
        else
            calls[take(w, 0, sizeof calls / sizeof *calls - 1)](w);
        call_end(w);
    }
    world_close(w);
    return 0;
}

bool fuzz_start(void)
{
    ratp = ratp_get_api(RATP_ABI_MAJOR, NULL, 0);
    REQUIRE(ratp);
    snapshot_start();
    return true;
}

void fuzz_end(void)
{
    snapshot_end();
}

/* Any bytes are calls. */
size_t fuzz_seed(size_t index, uint8_t *out)
{
    enum { SEEDS = 24 };
    size_t size = 200 + 100 * index;
    uint64_t state = index + 1;
    if (index >= SEEDS)
        return 0;
    for (size_t i = 0; i < size; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        out[i] = (uint8_t)(state >> 56);
    }
    return size;
}

bool fuzz_report(void)
{
    return calls_report();
}
