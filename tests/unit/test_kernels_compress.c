/* Compression on every Vulkan device against the reference, on random work: the same
 * pages, queries and positions on both. Each must have moved the rows of the tokens that
 * it says it kept, and nothing else; both must have kept the same. Arguments: jobs, first
 * seed. */
#include "../kernel_devices.h"
#include "../random.h"

#include "../../plugin/dtype.h"
#include "../../plugin/plan/plan.h"

#include <stdlib.h>

enum { NOTHING = 0x7fc00000 }; /* NaN, where there is nothing */

static uint32_t jobs = 40;
static uint64_t first_seed = 1;

/* One job, the same on every device. */
struct job {
    struct layer_shape shape;
    uint32_t held, length, capacity, observe, kernel;
    bool average;
    bool odd; /* some K or q are not finite */
    uint32_t from_pages, to_pages, page_bytes;
    uint32_t query_at, query_ring;
    uint64_t work_bytes;
    unsigned char *from; /* [from_pages][page_bytes] */
    float *queries, *rope;
    size_t query_count, rope_count;
    uint32_t *positions;
};

static void make_shape(struct random *r, struct layer_shape *s)
{
    static const ratp_dtype dtypes[] = {RATP_F32, RATP_F16, RATP_BF16, RATP_Q8_0};
    static const uint32_t slots[] = {8, 16, 64};
    uint32_t group = random_in(r, 1, 8);
    s->kv_heads = random_in(r, 1, 3);
    s->query_heads = s->kv_heads * group;
    s->head_size = 32 * random_in(r, 1, 4);
    s->value_size = random_chance(r, 70) ? s->head_size : 32 * random_in(r, 1, 4);
    s->k_dtype = dtypes[random_in(r, 0, 3)];
    s->v_dtype = dtypes[random_in(r, 0, 3)];
    s->scale = 1 / sqrtf((float)s->head_size);
    s->softcap = random_chance(r, 25) ? 5 : 0;
    s->page_slots = slots[random_in(r, 0, 2)];
    s->k_slot = (uint32_t)dtype_row_bytes(s->k_dtype, s->head_size);
    s->v_slot = (uint32_t)dtype_row_bytes(s->v_dtype, s->value_size);
    s->k_head = s->v_head = (s->k_slot + s->v_slot) * s->page_slots;
    s->rope_style = (ratp_rope_style)random_in(r, 0, 2);
    s->rope_size = s->rope_style == RATP_ROPE_NONE ? 0 : s->head_size;
    s->max_tokens = 4096;
}

/* Angles of theta 10000, as plan.h has them. */
static void make_rope(struct job *job)
{
    const struct layer_shape *s = &job->shape;
    uint32_t pairs = s->rope_size / 2, coarse = s->max_tokens / ROPE_FINE;
    job->rope_count = (size_t)(coarse + ROPE_FINE) * pairs * 2;
    job->rope = malloc(job->rope_count * sizeof(float) + 1);
    for (uint32_t row = 0; row < coarse + ROPE_FINE; row++)
        for (uint32_t i = 0; i < pairs; i++) {
            double position = row < coarse ? (double)row * ROPE_FINE : row - coarse;
            double angle = position * pow(10000, -2.0 * i / s->rope_size);
            job->rope[(row * pairs + i) * 2] = (float)cos(angle);
            job->rope[(row * pairs + i) * 2 + 1] = (float)sin(angle);
        }
}

static void make_pages(struct random *r, struct job *job)
{
    const struct layer_shape *s = &job->shape;
    float row[256];
    bool odd = random_chance(r, 25);
    job->odd |= odd;
    job->from = malloc((size_t)job->from_pages * job->page_bytes);
    for (size_t i = 0; i < (size_t)job->from_pages * job->page_bytes / 4; i++)
        memcpy(job->from + 4 * i, &(uint32_t){NOTHING}, 4);
    for (uint32_t slot = 0; slot < job->held; slot++)
        for (uint32_t head = 0; head < s->kv_heads; head++) {
            unsigned char *k = job->from + (size_t)(slot / s->page_slots) * job->page_bytes +
                               (size_t)head * s->k_head;
            unsigned char *v = k + (size_t)s->page_slots * s->k_slot;
            for (uint32_t c = 0; c < s->head_size; c++)
                row[c] = random_normal(r);
            if (odd && random_chance(r, 1))
                row[random_in(r, 0, s->head_size - 1)] = random_chance(r, 50) ? NAN : -INFINITY;
            dtype_store_row(k + (size_t)(slot % s->page_slots) * s->k_slot, s->k_dtype,
                            s->head_size, row);
            for (uint32_t c = 0; c < s->value_size; c++)
                row[c] = random_normal(r);
            dtype_store_row(v + (size_t)(slot % s->page_slots) * s->v_slot, s->v_dtype,
                            s->value_size, row);
        }
}

static void make_job(struct random *r, struct job *job)
{
    memset(job, 0, sizeof *job);
    struct layer_shape *s = &job->shape;
    make_shape(r, s);
    job->observe = random_in(r, 1, 64);
    job->capacity = job->observe + random_in(r, 1, random_chance(r, 30) ? 700 : 60);
    job->held = job->capacity + random_in(r, 1, random_chance(r, 30) ? 1200 : 100);
    job->length = job->held + (random_chance(r, 40) ? random_in(r, 1, 1000) : 0);
    job->kernel = 2 * random_in(r, 0, random_chance(r, 20) ? 127 : 5) + 1;
    job->average = random_chance(r, 50);
    job->query_ring = job->observe * random_in(r, 1, 3);
    job->query_at = random_in(r, 0, job->query_ring - 1);
    job->from_pages = (job->held - 1) / s->page_slots + 1;
    job->to_pages = (job->capacity - 1) / s->page_slots + 1;
    job->page_bytes = s->kv_heads * s->k_head;
    uint64_t rows = (uint64_t)job->observe * (s->query_heads / s->kv_heads);
    uint64_t head = compress_head_bytes(job->held, job->capacity);
    uint64_t row = compress_row_bytes(job->held);
    job->work_bytes = random_chance(r, 40) ? head + row * random_in(r, 1, 20)
                                           : (head + rows * row) * random_in(r, 1, s->kv_heads);
    make_pages(r, job);
    make_rope(job);
    job->query_count = (size_t)job->query_ring * s->query_heads * s->head_size;
    job->queries = malloc(job->query_count * sizeof(float));
    for (size_t i = 0; i < job->query_count; i++)
        job->queries[i] = random_normal(r);
    /* What is not finite has all votes of the queries that see it so. */
    static const float odd[] = {NAN, INFINITY, -INFINITY};
    if (random_chance(r, 25)) {
        job->odd = true;
        job->queries[random_in(r, 0, (uint32_t)job->query_count - 1)] = odd[random_in(r, 0, 2)];
    }
    /* Ascending, as an earlier compression has left them. */
    job->positions = malloc((size_t)s->kv_heads * job->capacity * sizeof(uint32_t));
    uint32_t gone = job->length - job->held;
    for (uint32_t h = 0; h < s->kv_heads; h++)
        for (uint32_t i = 0; i < job->capacity; i++)
            job->positions[h * job->capacity + i] =
                i + (i >= job->capacity / 2 ? gone : h % 2 && gone);
}

static void free_job(struct job *job)
{
    free(job->from);
    free(job->queries);
    free(job->rope);
    free(job->positions);
}

static struct mem put(struct backend *b, const void *data, uint64_t size)
{
    struct mem mem = {0};
    struct error err;
    CHECK_EQUAL(b->ops->mem_alloc(b, size ? size : 4, MEM_DEVICE, "test", &mem, &err), RATP_OK);
    if (size)
        CHECK_EQUAL(b->ops->mem_write(b, &mem, 0, data, size, &err), RATP_OK);
    return mem;
}

/* Runs the job; *positions and *pages, to be freed, get what came of it. */
static void run(struct backend *b, const struct job *job, uint32_t **positions,
                unsigned char **pages)
{
    struct layer_shape shape = job->shape;
    struct error err = {""};
    uint32_t page_count = job->from_pages + job->to_pages;
    uint64_t from_bytes = (uint64_t)job->from_pages * job->page_bytes;
    uint64_t to_bytes = (uint64_t)job->to_pages * job->page_bytes;
    uint64_t kept_bytes = (uint64_t)shape.kv_heads * job->capacity * sizeof(uint32_t);
    *pages = malloc(to_bytes);
    *positions = malloc(kept_bytes);
    memset(*pages, 0x55, to_bytes);
    struct mem from = put(b, job->from, from_bytes), to = put(b, *pages, to_bytes);
    struct mem queries = put(b, job->queries, job->query_count * sizeof(float));
    struct mem rope = put(b, job->rope, job->rope_count * sizeof(float));
    struct mem before = put(b, job->positions, kept_bytes);
    struct mem after = put(b, job->positions, kept_bytes);
    struct mem work = {0}, params = {0};
    CHECK_EQUAL(b->ops->mem_alloc(b, job->work_bytes, MEM_DEVICE, "test", &work, &err), RATP_OK);
    CHECK_EQUAL(b->ops->mem_alloc(b, page_count * sizeof(struct gpu_page), MEM_UPLOAD, "test",
                                  &params, &err), RATP_OK);
    struct gpu_page *page = params.host;
    for (uint32_t i = 0; i < page_count; i++) {
        uint64_t k = i < job->from_pages
                         ? from.address + (uint64_t)i * job->page_bytes
                         : to.address + (uint64_t)(i - job->from_pages) * job->page_bytes;
        uint64_t v = k + (uint64_t)shape.page_slots * shape.k_slot;
        page[i] = (struct gpu_page){{(uint32_t)k, (uint32_t)(k >> 32)},
                                    {(uint32_t)v, (uint32_t)(v >> 32)}};
    }
    shape.rope_table = rope.address;
    struct plan plan = {.params = &params, .pages = {0, page_count}};
    const struct compress_args args = {
        .plan = &plan, .shape = &shape,
        .from_pages = job->from_pages, .to_page0 = job->from_pages, .to_pages = job->to_pages,
        .held = job->held, .length = job->length, .capacity = job->capacity,
        .observe = job->observe, .kernel = job->kernel, .average = job->average,
        .queries = queries.address, .query_at = job->query_at, .query_ring = job->query_ring,
        .positions_in = before.address, .positions = after.address,
        .work = work.address, .work_bytes = job->work_bytes,
    };
    struct stream *stream = NULL;
    ticket done = 0;
    CHECK_EQUAL(b->ops->stream_begin(b, &stream, &err), RATP_OK);
    if (!CHECK_EQUAL(b->ops->compress(b, stream, &args, &err), RATP_OK))
        fprintf(stderr, "    %s\n", err.text);
    CHECK_EQUAL(b->ops->stream_submit(b, stream, &done, &err), RATP_OK);
    CHECK_EQUAL(b->ops->mem_read(b, &after, 0, *positions, kept_bytes, &err), RATP_OK);
    CHECK_EQUAL(b->ops->mem_read(b, &to, 0, *pages, to_bytes, &err), RATP_OK);
    struct mem *all[] = {&from, &to, &queries, &rope, &before, &after, &work, &params};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        b->ops->mem_free(b, all[i]);
}

/* The slot that held a position before. */
static uint32_t slot_of(const struct job *job, uint32_t head, uint32_t position)
{
    uint32_t gone = job->length - job->held;
    if (!gone || position >= job->capacity + gone)
        return position - gone;
    uint32_t slot = 0;
    while (slot < job->capacity && job->positions[head * job->capacity + slot] != position)
        slot++;
    return slot;
}

static const unsigned char *row_of(const struct job *job, const unsigned char *pages, uint32_t head,
                                   uint32_t slot, bool k)
{
    const struct layer_shape *s = &job->shape;
    const unsigned char *at = pages + (size_t)(slot / s->page_slots) * job->page_bytes +
                              (size_t)head * s->k_head;
    return k ? at + (size_t)(slot % s->page_slots) * s->k_slot
             : at + (size_t)s->page_slots * s->k_slot + (size_t)(slot % s->page_slots) * s->v_slot;
}

/* Positions ascend, the last are those that observed, and rows have come with them. */
static void check_moved(const struct job *job, const uint32_t *positions,
                        const unsigned char *pages)
{
    const struct layer_shape *s = &job->shape;
    bool ascending = true, observers = true, rows = true, rest = true;
    for (uint32_t h = 0; h < s->kv_heads; h++)
        for (uint32_t i = 0; i < job->to_pages * s->page_slots; i++) {
            const unsigned char *k = row_of(job, pages, h, i, true);
            const unsigned char *v = row_of(job, pages, h, i, false);
            if (i >= job->capacity) {
                for (uint32_t c = 0; c < s->k_slot; c++)
                    rest = rest && k[c] == 0x55;
                continue;
            }
            const uint32_t *kept = &positions[h * job->capacity + i];
            ascending = ascending && (i == 0 || kept[0] > kept[-1]);
            observers = observers && (i + job->observe < job->capacity ||
                                      *kept == job->length - (job->capacity - i));
            uint32_t slot = slot_of(job, h, *kept);
            rows = rows && slot < job->held &&
                   !memcmp(k, row_of(job, job->from, h, slot, true), s->k_slot) &&
                   !memcmp(v, row_of(job, job->from, h, slot, false), s->v_slot);
        }
    CHECK(ascending);
    CHECK(observers);
    CHECK(rows);
    CHECK(rest);
}

/* How many of a's numbers b has not; both ascend. */
static uint32_t missing_of(const uint32_t *a, const uint32_t *b, uint32_t count)
{
    uint32_t missing = 0;
    for (uint32_t i = 0, k = 0; i < count; i++) {
        while (k < count && b[k] < a[i])
            k++;
        missing += k == count || b[k] != a[i];
    }
    return missing;
}

static void test_device(struct backend *vulkan, struct backend *reference)
{
    uint64_t kept = 0, other = 0;
    for (uint32_t i = 0; i < jobs; i++) {
        struct random r = {first_seed + i};
        struct job job;
        int before = check_failures;
        make_job(&r, &job);
        uint32_t *a, *b, count = job.shape.kv_heads * job.capacity;
        unsigned char *a_pages, *b_pages;
        run(vulkan, &job, &a, &a_pages);
        run(reference, &job, &b, &b_pages);
        check_moved(&job, a, a_pages);
        check_moved(&job, b, b_pages);
        uint32_t missing = 0;
        for (uint32_t head = 0; head < job.shape.kv_heads; head++)
            missing += missing_of(a + head * job.capacity, b + head * job.capacity, job.capacity);
        /* Where few keys have all the votes, very many averages are equal but for rounding. */
        if (job.odd && job.average) {
            CHECK(missing * 20 <= count);
        } else {
            kept += count;
            other += missing;
        }
        if (check_failures > before)
            fprintf(stderr, "    seed %llu: %u of %u tokens to %u, %u observe, kernel %u\n",
                    (unsigned long long)(first_seed + i), job.held, job.length, job.capacity,
                    job.observe, job.kernel);
        free(a);
        free(b);
        free(a_pages);
        free(b_pages);
        free_job(&job);
    }
    printf("%u jobs: %llu of %llu tokens are others\n", jobs, (unsigned long long)other,
           (unsigned long long)kept);
    /* Votes that differ by less than float32 tells may fall either way. */
    CHECK(other * 1000 <= kept);
}

int main(int argc, char **argv)
{
    if (argc > 1)
        jobs = (uint32_t)strtoul(argv[1], NULL, 10);
    if (argc > 2)
        first_seed = strtoull(argv[2], NULL, 10);
    CHECK(kernel_devices_each(test_device) > 0);
    return check_result();
}
