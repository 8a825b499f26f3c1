/* Steps: wrong operands, calls out of order, handles of somebody else, and that
 * a refused call changes nothing. */
#include "api_host.h"

#include <stdlib.h>

enum { ROW_BYTES = QUERY_HEADS * HEAD_SIZE * 4 };

static uint64_t length_of(ratp_seq *seq)
{
    struct ratp_seq_stats stats = {.struct_size = sizeof stats};
    CHECK_EQUAL(ratp->seq_stats(seq, &stats), RATP_OK);
    return stats.length;
}

static void attend_all(ratp_step *step)
{
    struct ratp_attend_io io = host_io();
    for (uint32_t layer = 0; layer < LAYERS; layer++)
        CHECK_EQUAL(ratp->step_attend(step, layer, &io), RATP_OK);
}

/* Three pages fit. Pages that a step gave back are counted once, whatever is asked for next. */
static void test_budget(void)
{
    struct ratp_geometry geometry = {sizeof geometry, LAYERS, QUERY_HEADS, KV_HEADS, HEAD_SIZE,
                                     .memory = 1};
    struct ratp_cache_params params = {sizeof params, .geometry = &geometry, .budget = 53248};
    struct ratp_cache_stats stats = {.struct_size = sizeof stats};
    ratp_cache *cache = NULL;
    CHECK_EQUAL(ratp->cache_create(device, &params, &cache), RATP_OK);
    ratp_seq *seq = host_seq(cache);
    for (uint32_t tokens = 1; tokens <= 500; tokens += 60) {
        struct ratp_step_params p = {sizeof p, .count = 1, .seqs = &seq, .n_tokens = &tokens};
        ratp_step *step = NULL;
        if (tokens > 192)
            REFUSE(cache, ratp->step_begin(cache, &p, &step), RATP_CACHE_FULL, "the cache is full");
        else
            CHECK_EQUAL(ratp->step_begin(cache, &p, &step), RATP_OK);
        CHECK_EQUAL(ratp->step_abort(&step), RATP_OK);
        CHECK_EQUAL(ratp->cache_stats(cache, &stats), RATP_OK);
        CHECK_EQUAL(stats.pages_used, 0);
        CHECK(stats.pool_bytes + stats.state_bytes <= params.budget);
    }
    CHECK_EQUAL(ratp->seq_destroy(&seq), RATP_OK);
    CHECK_EQUAL(ratp->cache_destroy(&cache), RATP_OK);

    /* Eight GiB, where 32 bits would wrap to none. */
    geometry = (struct ratp_geometry){.struct_size = sizeof geometry, .layers = 1,
                                       .query_heads = 1024, .kv_heads = 1024, .head_size = 256};
    params = (struct ratp_cache_params){sizeof params, .geometry = &geometry, .page_slots = 4096,
                                        .k_dtype = RATP_F32, .v_dtype = RATP_F32};
    REFUSE(device, ratp->cache_create(device, &params, &cache), RATP_INVALID_ARGUMENT,
           "key/value heads takes 8589934592 bytes");
}

static void test_begin(void)
{
    ratp_cache *cache = host_cache(), *other_cache = host_cache();
    ratp_seq *seq = host_seq(cache), *other = host_seq(other_cache);
    ratp_seq *seqs[2] = {seq, seq};
    uint32_t tokens[2] = {4, 4};
    ratp_step *step = (ratp_step *)device;
    struct ratp_step_params p = {sizeof p, .count = 1, .seqs = seqs, .n_tokens = tokens};
    CHECK_EQUAL(ratp->step_begin(NULL, &p, &step), RATP_INVALID_ARGUMENT);
    CHECK(!step);
    REFUSE(device, ratp->step_begin((ratp_cache *)device, &p, &step), RATP_INVALID_ARGUMENT,
           "cache is the handle of a different kind: device");
    REFUSE(cache, ratp->step_begin(cache, NULL, &step), RATP_INVALID_ARGUMENT, "params is NULL");
    REFUSE(cache, ratp->step_begin(cache, &p, NULL), RATP_INVALID_ARGUMENT, "out is NULL");
    p.struct_size = 16;
    REFUSE(cache, ratp->step_begin(cache, &p, &step), RATP_INVALID_ARGUMENT,
           "params->struct_size is 16");
    p = (struct ratp_step_params){sizeof p, .count = 0, .seqs = seqs, .n_tokens = tokens};
    REFUSE(cache, ratp->step_begin(cache, &p, &step), RATP_INVALID_ARGUMENT, "count is 0");
    p.count = 65537;
    REFUSE(cache, ratp->step_begin(cache, &p, &step), RATP_INVALID_ARGUMENT, "count is 65537");
    p = (struct ratp_step_params){sizeof p, .count = 1, .seqs = NULL, .n_tokens = tokens};
    REFUSE(cache, ratp->step_begin(cache, &p, &step), RATP_INVALID_ARGUMENT,
           "params->seqs is NULL");
    p = (struct ratp_step_params){sizeof p, .count = 1, .seqs = seqs, .n_tokens = NULL};
    REFUSE(cache, ratp->step_begin(cache, &p, &step), RATP_INVALID_ARGUMENT,
           "params->n_tokens is NULL");
    p = (struct ratp_step_params){sizeof p, .count = 2, .seqs = seqs, .n_tokens = tokens};
    REFUSE(cache, ratp->step_begin(cache, &p, &step), RATP_INVALID_ARGUMENT,
           "seqs[1] is in the batch twice");
    seqs[1] = other;
    REFUSE(cache, ratp->step_begin(cache, &p, &step), RATP_INVALID_ARGUMENT,
           "seqs[1] belongs to another cache");
    seqs[1] = NULL;
    REFUSE(cache, ratp->step_begin(cache, &p, &step), RATP_INVALID_ARGUMENT,
           "params->seqs[1] is NULL");
    seqs[1] = (ratp_seq *)cache;
    REFUSE(cache, ratp->step_begin(cache, &p, &step), RATP_INVALID_ARGUMENT,
           "params->seqs[1] is the handle of a different kind: cache");
    p.count = 1;
    tokens[0] = 0;
    REFUSE(cache, ratp->step_begin(cache, &p, &step), RATP_INVALID_ARGUMENT, "n_tokens[0] is 0");
    tokens[0] = UINT32_MAX;
    REFUSE(cache, ratp->step_begin(cache, &p, &step), RATP_INVALID_ARGUMENT,
           "n_tokens[0] is 4294967295");
    CHECK(!step);
    CHECK_EQUAL(length_of(seq), 0);
    CHECK_EQUAL(ratp->seq_destroy(&seq), RATP_OK);
    CHECK_EQUAL(ratp->seq_destroy(&other), RATP_OK);
    CHECK_EQUAL(ratp->cache_destroy(&cache), RATP_OK);
    CHECK_EQUAL(ratp->cache_destroy(&other_cache), RATP_OK);
}

static void test_sequences(void)
{
    ratp_cache *cache = host_cache();
    ratp_seq *seq = NULL;
    REFUSE(cache, ratp->seq_create(cache, NULL), RATP_INVALID_ARGUMENT, "out is NULL");
    CHECK_EQUAL(ratp->seq_create(NULL, &seq), RATP_INVALID_ARGUMENT);
    seq = host_seq(cache);
    REFUSE(cache, ratp->cache_destroy(&cache), RATP_WRONG_STATE, "still has 1");
    struct ratp_seq_stats stats = {.struct_size = 4};
    REFUSE(seq, ratp->seq_stats(seq, &stats), RATP_INVALID_ARGUMENT, "stats->struct_size is 4");
    REFUSE(seq, ratp->seq_stats(seq, NULL), RATP_INVALID_ARGUMENT, "stats is NULL");
    CHECK_EQUAL(ratp->seq_stats(NULL, &stats), RATP_INVALID_ARGUMENT);
    uint64_t count = 1;
    REFUSE(seq, ratp->seq_positions(seq, LAYERS, 0, NULL, 0, &count), RATP_INVALID_ARGUMENT,
           "layer is 2");
    REFUSE(seq, ratp->seq_positions(seq, 0, KV_HEADS, NULL, 0, &count), RATP_INVALID_ARGUMENT,
           "kv_head is 2");
    REFUSE(seq, ratp->seq_positions(seq, 0, 0, NULL, 3, &count), RATP_INVALID_ARGUMENT,
           "positions is NULL and capacity is 3");
    REFUSE(seq, ratp->seq_positions(seq, 0, 0, NULL, 0, NULL), RATP_INVALID_ARGUMENT,
           "count is NULL");
    CHECK_EQUAL(ratp->seq_positions(NULL, 0, 0, NULL, 0, &count), RATP_INVALID_ARGUMENT);
    CHECK_EQUAL(ratp->seq_positions(seq, 0, 0, NULL, 0, &count), RATP_OK);
    CHECK_EQUAL(count, 0);
    CHECK_EQUAL(ratp->seq_destroy(&seq), RATP_OK);
    CHECK_EQUAL(ratp->seq_destroy(&seq), RATP_OK);
    CHECK_EQUAL(ratp->seq_destroy(NULL), RATP_INVALID_ARGUMENT);
    seq = (ratp_seq *)cache;
    REFUSE(cache, ratp->seq_destroy(&seq), RATP_INVALID_ARGUMENT,
           "*seq is the handle of a different kind: cache");
    CHECK_EQUAL(ratp->cache_destroy(&cache), RATP_OK);
}

static void test_order(void)
{
    ratp_cache *cache = host_cache();
    ratp_seq *seq = host_seq(cache);
    ratp_step *step = host_step(cache, seq, 4), *second = NULL;
    struct ratp_step_params p = {sizeof p, .count = 1, .seqs = &seq, .n_tokens = &(uint32_t){1}};
    struct ratp_attend_io io = host_io();
    REFUSE(cache, ratp->step_begin(cache, &p, &second), RATP_WRONG_STATE, "open step");
    REFUSE(seq, ratp->seq_destroy(&seq), RATP_WRONG_STATE, "open step");
    REFUSE(cache, ratp->cache_destroy(&cache), RATP_WRONG_STATE, "still has 2");
    REFUSE(step, ratp->step_commit(&step), RATP_WRONG_STATE, "0 of 2 layers were attended");
    REFUSE(step, ratp->step_attend(step, LAYERS, &io), RATP_INVALID_ARGUMENT, "layer is 2");
    CHECK_EQUAL(ratp->step_attend(NULL, 0, &io), RATP_INVALID_ARGUMENT);
    CHECK_EQUAL(ratp->step_attend(step, 1, &io), RATP_OK);
    REFUSE(step, ratp->step_attend(step, 1, &io), RATP_WRONG_STATE, "layer 1 was attended");
    REFUSE(step, ratp->step_commit(&step), RATP_WRONG_STATE, "layer 0 was not");
    CHECK_EQUAL(length_of(seq), 0);
    CHECK_EQUAL(ratp->step_attend(step, 0, &io), RATP_OK);
    CHECK_EQUAL(ratp->step_commit(&step), RATP_OK);
    CHECK(!step);
    CHECK_EQUAL(length_of(seq), 4);
    CHECK_EQUAL(ratp->step_commit(&step), RATP_INVALID_ARGUMENT);
    CHECK_EQUAL(ratp->step_commit(NULL), RATP_INVALID_ARGUMENT);
    CHECK_EQUAL(ratp->step_abort(&step), RATP_OK);
    CHECK_EQUAL(ratp->step_abort(NULL), RATP_INVALID_ARGUMENT);
    step = (ratp_step *)cache;
    REFUSE(cache, ratp->step_commit(&step), RATP_INVALID_ARGUMENT, "*step is the handle");
    REFUSE(cache, ratp->step_abort(&step), RATP_INVALID_ARGUMENT, "*step is the handle");

    step = host_step(cache, seq, 60);
    attend_all(step);
    CHECK_EQUAL(ratp->step_abort(&step), RATP_OK);
    CHECK_EQUAL(length_of(seq), 4);
    CHECK_EQUAL(ratp->seq_destroy(&seq), RATP_OK);
    CHECK_EQUAL(ratp->cache_destroy(&cache), RATP_OK);
}

/* Attends layer 0 with one tensor changed, which must be refused. */
static void refuse_tensor(ratp_step *step, size_t member, struct ratp_tensor tensor,
                          const char *part)
{
    struct ratp_attend_io io = host_io();
    const struct ratp_tensor *changed = &tensor;
    memcpy((char *)&io + member, &changed, sizeof changed);
    REFUSE(step, ratp->step_attend(step, 0, &io), RATP_INVALID_ARGUMENT, part);
}

static void test_operands(void)
{
    enum { TOKENS = 4 };
    ratp_cache *cache = host_cache();
    ratp_seq *seq = host_seq(cache);
    ratp_step *step = host_step(cache, seq, TOKENS);
    ratp_buffer *buffer = NULL, *foreign = NULL;
    ratp_device *second = NULL;
    struct ratp_buffer_params size = {sizeof size, .size = TOKENS * ROW_BYTES};
    struct ratp_device_params reference = {sizeof reference, .name = "reference"};
    CHECK_EQUAL(ratp->buffer_create(device, &size, &buffer), RATP_OK);
    CHECK_EQUAL(ratp->device_open(instance, &reference, &second), RATP_OK);
    CHECK_EQUAL(ratp->buffer_create(second, &size, &foreign), RATP_OK);

    struct ratp_attend_io io = host_io();
    REFUSE(step, ratp->step_attend(step, 0, NULL), RATP_INVALID_ARGUMENT, "io is NULL");
    io.struct_size = 16;
    REFUSE(step, ratp->step_attend(step, 0, &io), RATP_INVALID_ARGUMENT, "io->struct_size is 16");
#define MISSING(field)                                                                           \
    (io = host_io(), io.field = NULL,                                                            \
     CHECK_EQUAL(ratp->step_attend(step, 0, &io), RATP_INVALID_ARGUMENT),                        \
     CHECK_CONTAINS(host_message(step), "io->" #field " is NULL"))
    MISSING(q);
    MISSING(k);
    MISSING(v);
    MISSING(f);
    MISSING(out);
#undef MISSING

    const size_t q = offsetof(struct ratp_attend_io, q), out = offsetof(struct ratp_attend_io, out);
    const size_t sinks = offsetof(struct ratp_attend_io, sinks);
    const size_t lse = offsetof(struct ratp_attend_io, lse), k = offsetof(struct ratp_attend_io, k);
    void *host = host_out();
    const struct ratp_tensor good = {sizeof good, .buffer = buffer};
    struct ratp_tensor t;
#define TENSOR(member, part, ...)                                           \
    (t = (struct ratp_tensor){sizeof t, __VA_ARGS__}, refuse_tensor(step, member, t, part))
    t = good;
    t.struct_size = 8;
    refuse_tensor(step, q, t, "io->q->struct_size is 8");
    TENSOR(q, "io->q: buffer and host are both NULL", .offset = 0);
    TENSOR(q, "io->q: buffer and host are both given", .buffer = buffer, .host = host);
    TENSOR(q, "io->q: buffer is the handle of a different kind: device",
           .buffer = (ratp_buffer *)device);
    TENSOR(q, "io->q: buffer belongs to another device", .buffer = foreign);
    TENSOR(q, "io->q: dtype is 6, it must be", .buffer = buffer, .dtype = 6);
    TENSOR(q, "io->q: dtype is q8_0, which only k and v of attend_external may be",
           .buffer = buffer, .dtype = RATP_Q8_0);
    TENSOR(k, "io->k: dtype is q4_0, which only k and v of attend_external may be",
           .buffer = buffer, .dtype = RATP_Q4_0);
    TENSOR(sinks, "io->sinks: dtype is float16, it must be float32", .host = host,
           .dtype = RATP_F16);
    TENSOR(sinks, "io->sinks: 16 bytes from offset 1012 are needed, the buffer has 1024",
           .buffer = buffer, .offset = 1012);
    TENSOR(q, "io->q: dtype is -1", .host = host, .dtype = -1);
    TENSOR(q, "io->q: offset is 2, it must be a multiple of 4", .buffer = buffer, .offset = 2);
    TENSOR(q, "io->q: 1024 bytes from offset 4 are needed, the buffer has 1024",
           .buffer = buffer, .offset = 4);
    TENSOR(q, "io->q: offset 18446744073709551612", .buffer = buffer, .offset = UINT64_MAX - 3);
    TENSOR(q, "lead beyond 64 bits", .host = host, .token_stride = UINT64_MAX - 3);
    TENSOR(q, "lead beyond the address space", .host = host, .token_stride = UINT64_MAX / 4 - 3);
    TENSOR(q, "io->q: token_stride is 258 bytes, it must be a multiple of 4", .buffer = buffer,
           .token_stride = 258);
    TENSOR(q, "io->q: head_stride is 60 bytes, its channels take 64", .buffer = buffer,
           .head_stride = 60);
    TENSOR(q, "io->q: token_stride is 4294967296 bytes, at most 4294967295", .buffer = buffer,
           .token_stride = 1ull << 32);
    TENSOR(q, "the buffer has 1024", .buffer = buffer, .token_stride = 260);
    TENSOR(q, "io->q: host + offset is", .host = (char *)host + 2);
    TENSOR(k, "io->k: 1088 bytes from offset 0", .buffer = buffer, .token_stride = 320);
    TENSOR(out, "io->out: 1024 bytes from offset 1024", .buffer = buffer, .offset = 1024);
    TENSOR(lse, "io->lse: dtype is float16, it must be float32", .buffer = buffer,
           .dtype = RATP_F16);
#undef TENSOR
    /* Nothing of this spoilt the step. */
    attend_all(step);
    CHECK_EQUAL(ratp->step_commit(&step), RATP_OK);
    CHECK_EQUAL(length_of(seq), TOKENS);
    CHECK_EQUAL(ratp->buffer_destroy(&buffer), RATP_OK);
    CHECK_EQUAL(ratp->buffer_destroy(&foreign), RATP_OK);
    CHECK_EQUAL(ratp->device_close(&second), RATP_OK);
    CHECK_EQUAL(ratp->seq_destroy(&seq), RATP_OK);
    CHECK_EQUAL(ratp->cache_destroy(&cache), RATP_OK);
}

/* The same numbers from host memory, from buffers, and with odd strides. */
static void test_staging(void)
{
    enum { TOKENS = 20, WIDE = ROW_BYTES + 64 };
    ratp_cache *cache = host_cache();
    ratp_seq *packed = host_seq(cache), *strided = host_seq(cache);
    struct ratp_attend_io io = host_io();
    float *wanted = malloc(TOKENS * ROW_BYTES), *got = calloc(TOKENS, WIDE);
    unsigned char *wide = calloc(TOKENS, WIDE);
    ratp_buffer *buffer = NULL;
    struct ratp_buffer_params size = {sizeof size, .size = TOKENS * WIDE};
    CHECK_EQUAL(ratp->buffer_create(device, &size, &buffer), RATP_OK);
    if (!CHECK(wanted && got && wide))
        exit(1);
    ratp_step *step = host_step(cache, packed, TOKENS);
    attend_all(step);
    CHECK_EQUAL(ratp->step_commit(&step), RATP_OK);
    memcpy(wanted, host_out(), TOKENS * ROW_BYTES);

    for (int t = 0; t < TOKENS; t++)
        memcpy(wide + t * WIDE, (const char *)io.q->host + t * ROW_BYTES, ROW_BYTES);
    CHECK_EQUAL(ratp->buffer_write(buffer, 0, wide, TOKENS * WIDE), RATP_OK);
    struct ratp_tensor q = {sizeof q, .buffer = buffer, .token_stride = WIDE};
    struct ratp_tensor o = {sizeof o, .host = wide, .token_stride = WIDE};
    struct ratp_tensor out = {sizeof out, .host = got, .token_stride = WIDE};
    io.q = &q;
    io.o = &o;
    io.out = &out;
    step = host_step(cache, strided, TOKENS);
    for (uint32_t layer = 0; layer < LAYERS; layer++)
        CHECK_EQUAL(ratp->step_attend(step, layer, &io), RATP_OK);
    CHECK_EQUAL(ratp->step_commit(&step), RATP_OK);
    for (int t = 0; t < TOKENS; t++) {
        const unsigned char *row = (const unsigned char *)got + t * WIDE;
        CHECK(memcmp(row, (const char *)wanted + t * ROW_BYTES, ROW_BYTES) == 0);
        for (int i = ROW_BYTES; i < WIDE; i++)
            if (!CHECK_EQUAL(row[i], 0))
                break;
    }
    free(wanted);
    free(got);
    free(wide);
    CHECK_EQUAL(ratp->buffer_destroy(&buffer), RATP_OK);
    CHECK_EQUAL(ratp->seq_destroy(&packed), RATP_OK);
    CHECK_EQUAL(ratp->seq_destroy(&strided), RATP_OK);
    CHECK_EQUAL(ratp->cache_destroy(&cache), RATP_OK);
}

int main(int argc, char **argv)
{
    host_open(argc, argv);
    RUN(test_budget);
    RUN(test_begin);
    RUN(test_sequences);
    RUN(test_order);
    RUN(test_operands);
    RUN(test_staging);
    host_close();
    return check_result();
}
