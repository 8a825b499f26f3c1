/* Each operation of a device fails once, in each place where a call on a sequence makes it,
 * before it did anything or after: the call fails, a step is aborted, and what could become
 * of the sequence still can. */
#include "../futures.h"
#include "../host.h"
#include "../random.h"

#include "device.h"

enum { LAYERS = 2, KV_HEADS = 2, QUERY_HEADS = 4, SIZE = 8, ROWS = 60, POLICIES = 3 };

/* ---- Operations that fail ---- */

static struct backend_ops ops;
static const struct backend_ops *real;
static int countdown = -1; /* operations until one fails; below 0: none does */
static bool late;          /* it fails after it has done its work */
static bool fired;

static bool fails(void)
{
    if (countdown < 0 || countdown-- > 0)
        return false;
    return fired = true;
}

static ratp_status broken(const char *name, struct error *err)
{
    return fail(err, RATP_OUT_OF_MEMORY, "%s was made to fail", name);
}

#define RECORDING(X)                                                                              \
    X(copy, (struct backend *b, struct stream *s, const struct mem *to, uint64_t to_offset,       \
             const struct mem *from, uint64_t from_offset, uint64_t size, struct error *err),     \
      (b, s, to, to_offset, from, from_offset, size, err))                                        \
    X(fill_zero, (struct backend *b, struct stream *s, const struct mem *m, uint64_t offset,      \
                  uint64_t size, struct error *err), (b, s, m, offset, size, err))                \
    X(move, (struct backend *b, struct stream *s, const struct memory_args *args,                 \
             struct error *err), (b, s, args, err))                                               \
    X(memory, (struct backend *b, struct stream *s, const struct memory_args *args,               \
               struct error *err), (b, s, args, err))                                             \
    X(summarise, (struct backend *b, struct stream *s, const struct memory_args *args,            \
                  struct error *err), (b, s, args, err))                                          \
    X(restore, (struct backend *b, struct stream *s, const struct restore_args *args,             \
                struct error *err), (b, s, args, err))                                            \
    X(choose, (struct backend *b, struct stream *s, const struct attend_args *args,               \
               struct error *err), (b, s, args, err))                                             \
    X(attend, (struct backend *b, struct stream *s, const struct attend_args *args,               \
               struct error *err), (b, s, args, err))                                             \
    X(observe, (struct backend *b, struct stream *s, const struct attend_args *args,              \
                struct error *err), (b, s, args, err))                                            \
    X(compress, (struct backend *b, struct stream *s, const struct compress_args *args,           \
                 struct error *err), (b, s, args, err))                                           \
    X(mem_write, (struct backend *b, const struct mem *m, uint64_t offset, const void *data,      \
                  uint64_t size, struct error *err), (b, m, offset, data, size, err))             \
    X(mem_read, (struct backend *b, const struct mem *m, uint64_t offset, void *data,             \
                 uint64_t size, struct error *err), (b, m, offset, data, size, err))              \
    X(wait, (struct backend *b, ticket t, struct error *err), (b, t, err))

#define FAULTY(name, parameters, arguments)                                                       \
    static ratp_status faulty_##name parameters                                                   \
    {                                                                                             \
        if (!fails())                                                                             \
            return real->name arguments;                                                          \
        ratp_status status = late ? real->name arguments : RATP_OK;                               \
        return status ? status : broken(#name, err);                                              \
    }
RECORDING(FAULTY)

static ratp_status faulty_mem_alloc(struct backend *b, uint64_t size, enum mem_kind kind,
                                    const char *name, struct mem *out, struct error *err)
{
    return fails() ? broken("mem_alloc", err) : real->mem_alloc(b, size, kind, name, out, err);
}

static ratp_status faulty_stream_begin(struct backend *b, struct stream **out, struct error *err)
{
    *out = NULL;
    return fails() ? broken("stream_begin", err) : real->stream_begin(b, out, err);
}

static ratp_status faulty_stream_submit(struct backend *b, struct stream *s, ticket *out,
                                        struct error *err)
{
    if (!fails())
        return real->stream_submit(b, s, out, err);
    ratp_status status = RATP_OK;
    if (late)
        status = real->stream_submit(b, s, out, err);
    else
        real->stream_drop(b, s);
    *out = 0;
    return status ? status : broken("stream_submit", err);
}

static void make_faulty(struct backend *b)
{
    real = b->ops;
    ops = *real;
#define REPLACE(name, parameters, arguments) ops.name = faulty_##name;
    RECORDING(REPLACE)
    ops.mem_alloc = faulty_mem_alloc;
    ops.stream_begin = faulty_stream_begin;
    ops.stream_submit = faulty_stream_submit;
    b->ops = &ops;
}

/* ---- Sequences ---- */

static const struct ratp_api *api;
static struct host host;
static ratp_cache *cache;
static ratp_policy *policies[POLICIES];
static unsigned char snapshot[1 << 20];
static uint64_t snapshot_size;

static ratp_status attend(ratp_step *step, uint32_t layer)
{
    enum { COUNT = ROWS * QUERY_HEADS * SIZE };
    static float in[COUNT], out[COUNT];
    struct random r = {layer};
    for (int i = 0; i < COUNT; i++)
        in[i] = random_normal(&r);
    const struct ratp_tensor t = {.struct_size = sizeof t, .host = in};
    const struct ratp_tensor o = {.struct_size = sizeof o, .host = out};
    const struct ratp_attend_io io = {.struct_size = sizeof io, .q = &t, .k = &t, .v = &t, .f = &t,
                                      .out = &o};
    return api->step_attend(step, layer, &io);
}

static ratp_status pass(ratp_seq *seq, uint32_t rows, ratp_part_kind kind)
{
    const struct ratp_step_params params = {.struct_size = sizeof params, .count = 1, .seqs = &seq,
                                            .n_tokens = &rows, .kinds = &kind};
    ratp_step *step = NULL;
    ratp_status status = api->step_begin(cache, &params, &step);
    for (uint32_t l = 0; l < LAYERS && !status; l++)
        status = attend(step, l);
    if (!status)
        status = api->step_commit(&step);
    if (step)
        CHECK(api->step_abort(&step) == RATP_OK);
    return status;
}

/* Calls that succeed on a sequence of the 50 tokens that `run` feeds. */
enum { CALLS = 10 };

static ratp_status call(uint32_t number, ratp_seq *seq)
{
    static unsigned char data[1 << 20];
    uint64_t size = 0;
    ratp_seq *made = NULL;
    ratp_status status = RATP_INTERNAL;
    switch (number) {
    case 0: return pass(seq, 1, RATP_PART_DECODE);
    case 1: return pass(seq, 1, RATP_PART_PROMPT);
    case 2: return pass(seq, 5, RATP_PART_DECODE);
    case 3: return pass(seq, 40, RATP_PART_PROMPT);
    case 4: return api->seq_truncate(seq, 47);
    case 5: return api->seq_compress(seq);
    case 6: return api->seq_set_policy(seq, policies[1]);
    case 7: status = api->seq_fork(seq, &made); break;
    case 8: return api->seq_save(seq, data, sizeof data, &size);
    case 9: status = api->seq_load(cache, snapshot, snapshot_size, &made); break;
    }
    CHECK(!made == (status != RATP_OK));
    CHECK(api->seq_destroy(&made) == RATP_OK);
    return status;
}

static void futures_of(ratp_seq *seq, struct futures *out)
{
    const struct future_view view = {.api = api, .policies = policies, .policy_count = POLICIES,
                                     .layers = LAYERS, .kv_heads = KV_HEADS, .lengths = 20,
                                     .samples = 1, .seed = 1};
    futures_read(&view, seq, out);
}

static void try_call(ratp_seq *seq, uint32_t number, bool alone)
{
    static struct futures before, after;
    for (int nth = 0;; nth++) {
        ratp_seq *tried = NULL;
        CHECK(api->seq_fork(seq, &tried) == RATP_OK);
        /* Alone, it shares no page. */
        if (alone && !CHECK(api->seq_destroy(&tried) == RATP_OK &&
                            api->seq_load(cache, snapshot, snapshot_size, &tried) == RATP_OK))
            exit(1);
        futures_of(tried, &before);
        fired = false;
        countdown = nth;
        ratp_status status = call(number, tried);
        countdown = -1;
        if (fired && status) {
            futures_of(tried, &after);
            if (!CHECK(status == RATP_OUT_OF_MEMORY) |
                !futures_equal(&before, &after, "after a failure"))
                fprintf(stderr, "    call %u, operation %d, %s\n", number, nth,
                        late ? "late" : "early");
            /* And it still can. */
            CHECK(call(number, tried) == RATP_OK);
        } else if (!CHECK(status == RATP_OK)) {
            fprintf(stderr, "    call %u: %s\n", number, api->status_name(status));
        }
        CHECK(api->seq_destroy(&tried) == RATP_OK);
        if (!fired) {
            CHECK(nth > 1);
            return;
        }
    }
}

static void run(ratp_device *device)
{
    static const char *const json[POLICIES] = {
        "{\"default\": \"snapkv20o6\", \"rules\": [{\"layers\": 1, \"variant\": \"d4w10s2\"}]}",
        "{\"default\": \"snapkv20o6\", \"rules\": [{\"layers\": 1, \"variant\": \"d8w3s1\"}]}",
        "{\"default\": \"quest32p8\", \"rules\": [{\"layers\": 1, \"variant\": \"streamw9\"}]}"};
    const struct ratp_rope rope = {.struct_size = sizeof rope, .style = RATP_ROPE_HALF};
    const struct ratp_geometry geometry = {
        .struct_size = sizeof geometry, .layers = LAYERS, .query_heads = QUERY_HEADS,
        .kv_heads = KV_HEADS, .head_size = SIZE, .memory = 1, .max_tokens = 4096, .rope = &rope};
    struct ratp_cache_params params = {.struct_size = sizeof params, .geometry = &geometry,
                                       .page_slots = 8, .retention = RATP_RETAIN_NEEDED};
    for (int i = 0; i < POLICIES; i++)
        CHECK(api->policy_from_json(host.instance, json[i], strlen(json[i]), &policies[i]) ==
              RATP_OK);
    params.policy = policies[0];
    make_faulty(device->backend);
    CHECK(api->cache_create(device, &params, &cache) == RATP_OK);
    ratp_seq *seq = NULL;
    CHECK(api->seq_create(cache, &seq) == RATP_OK);
    CHECK(pass(seq, 38, RATP_PART_PROMPT) == RATP_OK);
    for (int i = 0; i < 12; i++)
        CHECK(pass(seq, 1, RATP_PART_PROMPT) == RATP_OK);
    CHECK(api->seq_save(seq, snapshot, sizeof snapshot, &snapshot_size) == RATP_OK);
    for (uint32_t i = 0; i < CALLS; i++)
        for (int how = 0; how < 4; how++) {
            late = how % 2;
            try_call(seq, i, how / 2);
        }
    CHECK(api->seq_destroy(&seq) == RATP_OK);
    CHECK(api->cache_destroy(&cache) == RATP_OK);
    for (int i = 0; i < POLICIES; i++)
        CHECK(api->policy_destroy(&policies[i]) == RATP_OK);
    device->backend->ops = real;
}

/* The argument: which device, as device_open takes it. */
int main(int count, char **arguments)
{
    const struct ratp_device_params params = {
        .struct_size = sizeof params, .name = count > 1 ? arguments[1] : "reference"};
    ratp_device *device = NULL;
    if (!host_open(&host))
        return check_result();
    api = host.api;
    bool opened = api->device_open(host.instance, &params, &device) == RATP_OK;
    if (opened) {
        run(device);
        CHECK(api->device_close(&device) == RATP_OK);
    }
    host_close(&host);
    return opened ? check_result() : CHECK_SKIPPED;
}
