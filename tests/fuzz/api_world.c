#include "api_world.h"

#include <math.h>

enum { LARGEST = 1 << 20 }; /* bytes of an operand in host memory */

const struct ratp_api *ratp;

/* ---- Decisions ---- */

static uint32_t next_byte(struct world *w)
{
    if (w->left == 0)
        return 0;
    w->left--;
    return *w->data++;
}

uint32_t take(struct world *w, uint32_t low, uint32_t high)
{
    uint32_t value = next_byte(w);
    if (high - low > UINT8_MAX)
        value |= next_byte(w) << 8;
    return low + value % (high - low + 1);
}

bool chance(struct world *w, uint32_t percent)
{
    return next_byte(w) > 255 - 255 * percent / 100;
}

bool fault(struct world *w)
{
    bool now = w->first_fault == 0 || w->second_fault == 0;
    w->first_fault -= w->first_fault >= 0;
    w->second_fault -= w->second_fault >= 0;
    w->faulty |= now;
    return now;
}

uint32_t wrong_number(struct world *w)
{
    static const uint32_t numbers[] = {0,    1,     3,     7,       9,           65,
                                       1025, 4097,  65535, 65537,   (1u << 24) + 1, 1u << 31,
                                       UINT32_MAX - 7, UINT32_MAX};
    return numbers[take(w, 0, sizeof numbers / sizeof *numbers - 1)];
}

uint64_t wrong_size(struct world *w)
{
    static const uint64_t sizes[] = {0, 1, 2, 3, 4, 6, 12, 4095, 65537, 1u << 31, UINT32_MAX,
                                     (uint64_t)1 << 32, ((uint64_t)1 << 32) + 4, (uint64_t)1 << 50,
                                     (uint64_t)1 << 63, UINT64_MAX - 3, UINT64_MAX};
    return sizes[take(w, 0, sizeof sizes / sizeof *sizes - 1)];
}

double wrong_real(struct world *w)
{
    const double reals[] = {(double)NAN, (double)INFINITY, -(double)INFINITY, -1, 1e38, 1e-38, -0.0};
    return reals[take(w, 0, sizeof reals / sizeof *reals - 1)];
}

uint32_t number(struct world *w, uint32_t right)
{
    return fault(w) ? wrong_number(w) : right;
}

float real(struct world *w, float right)
{
    return fault(w) ? (float)wrong_real(w) : right;
}

/* ---- Handles ---- */

struct slot *any_slot(struct world *w, enum kind kind)
{
    uint32_t start = take(w, 0, SLOTS - 1);
    for (uint32_t i = 0; i < SLOTS; i++) {
        struct slot *slot = &w->slots[kind][(start + i) % SLOTS];
        if (slot->handle)
            return slot;
    }
    return NULL;
}

struct slot *free_slot(struct world *w, enum kind kind)
{
    for (uint32_t i = 0; i < SLOTS; i++)
        if (!w->slots[kind][i].handle)
            return &w->slots[kind][i];
    return NULL;
}

static void *wrong_handle(struct world *w, const struct slot *slot)
{
    if (chance(w, 30))
        return NULL;
    if (chance(w, 30))
        return allocate(w, sizeof(uint64_t));
    enum kind kind = (enum kind)take(w, 0, KINDS - 1);
    const struct slot *other = any_slot(w, kind);
    /* One of the same kind would be right. */
    bool same = slot >= w->slots[kind] && slot < w->slots[kind] + SLOTS;
    return other && !same ? other->handle : NULL;
}

void *handle_of(struct world *w, const struct slot *slot)
{
    void *handle = fault(w) ? wrong_handle(w, slot) : slot->handle;
    w->given = handle;
    return handle;
}

bool has_children(const struct world *w, const struct slot *slot)
{
    for (int kind = 0; kind < KINDS; kind++)
        for (int i = 0; i < SLOTS; i++)
            if (w->slots[kind][i].handle && w->slots[kind][i].parent == slot)
                return true;
    return false;
}

static bool is_handle(const struct world *w, const void *object)
{
    for (int kind = 0; kind < KINDS; kind++)
        for (int i = 0; i < SLOTS; i++)
            if (object && w->slots[kind][i].handle == object)
                return true;
    return false;
}

/* ---- Memory ---- */

void *allocate(struct world *w, size_t size)
{
    void *memory = calloc(1, size ? size : 1);
    REQUIRE(memory && w->allocation_count < MAX_ALLOCATIONS);
    w->allocations[w->allocation_count++] = memory;
    return memory;
}

/* Older structs end before a pointer or after it. */
static size_t wrong_struct_size(struct world *w, size_t size)
{
    const size_t sizes[] = {0, 7, sizeof(size_t), size / 16 * 8, size - 16, size - 8, size + 8,
                            size + 100, 4096, 4097, SIZE_MAX};
    return sizes[take(w, 0, sizeof sizes / sizeof *sizes - 1)];
}

/* Memory for as much of a struct as the library may look at. */
static void *sized(struct world *w, size_t size)
{
    return allocate(w, size > 4096 || size < sizeof(size_t) ? sizeof(size_t) : size);
}

void *put(struct world *w, void *in, size_t size)
{
    size_t given = fault(w) ? wrong_struct_size(w, size) : size;
    bool tail = given > size && given <= 4096 && chance(w, 30);
    unsigned char *copy = sized(w, given);
    memcpy(in, &given, sizeof given);
    if (given < size && given >= sizeof given)
        memset((unsigned char *)in + given, 0, size - given);
    memcpy(copy, in, given > 4096 || given < sizeof given ? sizeof given
                                                          : given < size ? given : size);
    if (tail)
        copy[given - 1] = 1;
    return copy;
}

void *room(struct world *w, size_t size)
{
    size_t given = fault(w) ? wrong_struct_size(w, size) : size;
    void *memory = sized(w, given);
    if (given > 4096 || given < sizeof given)
        w->may |= 1u << RATP_INVALID_ARGUMENT;
    memcpy(memory, &given, sizeof given);
    return memory;
}

/* ---- Tensors ---- */

static void fill(struct world *w, unsigned char *data, size_t size, uint32_t element)
{
    uint32_t state = take(w, 1, 255) * 2654435761u;
    bool wild = chance(w, 5);
    for (size_t i = 0; i < size && i < 16384; i++) {
        state = state * 1664525u + 1013904223u;
        data[i] = (unsigned char)(state >> 24);
        /* Without the exponent's highest bit a number is below 2 in every type. */
        if (i % element == element - 1 && !wild)
            data[i] &= 0xbf;
    }
}

static uint64_t row_bytes(ratp_dtype dtype, uint64_t channels)
{
    if (dtype == RATP_Q8_0 || dtype == RATP_Q4_0)
        return channels / 32 * (dtype == RATP_Q8_0 ? 34 : 18);
    return channels * (dtype > RATP_F32 ? 2 : 4);
}

/* The end of the last row, as the library is to count it; false past 64 bits. */
static bool end_of(const struct ratp_tensor *t, const struct shape *s, uint64_t row, uint64_t *out)
{
    bool shared = s->mask && t->head_stride == 0;
    uint64_t heads = shared ? 1 : s->heads, token = t->token_stride, head = t->head_stride,
             batch = t->batch_stride, piece;
    if (!token)
        token = s->mask ? row : heads * row;
    if (!head)
        head = row;
    if (!batch && __builtin_mul_overflow(s->mask && !shared ? heads : s->tokens,
                                         s->mask && !shared ? head : token, &batch) && s->batch > 1)
        return false;
    if (__builtin_add_overflow(t->offset, row, out) ||
        __builtin_mul_overflow(s->batch - 1, batch, &piece) ||
        __builtin_add_overflow(*out, piece, out) ||
        __builtin_mul_overflow(s->tokens - 1, token, &piece) ||
        __builtin_add_overflow(*out, piece, out))
        return false;
    return !__builtin_mul_overflow(heads - 1, head, &piece) &&
           !__builtin_add_overflow(*out, piece, out);
}

/* Strides with gaps. */
static void set_strides(struct world *w, struct ratp_tensor *t, const struct shape *s, uint64_t row)
{
    uint64_t packed = (row + 3) / 4 * 4;
    if (s->mask) {
        t->token_stride = packed + 4 * (uint64_t)(chance(w, 30) ? take(w, 1, 8) : 0);
        if (chance(w, 40))
            t->head_stride = t->token_stride * s->tokens;
        if (chance(w, 20))
            t->batch_stride = t->token_stride * s->tokens * s->heads;
    } else if (chance(w, 40)) {
        t->head_stride = packed + 4 * (uint64_t)take(w, 0, 8);
        t->token_stride = t->head_stride * s->heads + 4 * (uint64_t)take(w, 0, 8);
        t->batch_stride = t->token_stride * s->tokens + 4 * (uint64_t)take(w, 0, 8);
    }
    if (fault(w))
        t->token_stride = chance(w, 30) ? row - 4 : wrong_size(w);
    if (fault(w))
        t->head_stride = chance(w, 30) ? row - 4 : wrong_size(w);
    if (fault(w))
        t->batch_stride = wrong_size(w);
    if (fault(w))
        t->offset = wrong_size(w);
}

static const struct slot *buffer_with(struct world *w, const struct slot *device, uint64_t bytes)
{
    for (uint32_t i = 0, start = take(w, 0, SLOTS - 1); i < SLOTS; i++) {
        const struct slot *buffer = &w->slots[BUFFER][(start + i) % SLOTS];
        if (buffer->handle && buffer->parent == device && buffer->size >= bytes)
            return buffer;
    }
    return NULL;
}

/* Host memory for just what `t` describes; little for what no memory can hold. */
static void *host_memory(struct world *w, const struct ratp_tensor *t, const struct shape *s)
{
    uint32_t element = t->dtype > RATP_F32 ? 2 : 4;
    uint64_t end = 0;
    if (!end_of(t, s, row_bytes(t->dtype, s->channels), &end) || end > INT64_MAX)
        end = 64;
    if (end > LARGEST)
        return NULL;
    void *memory = allocate(w, (size_t)end);
    fill(w, memory, (size_t)end, element);
    return memory;
}

const struct ratp_tensor *tensor(struct world *w, const struct slot *device, struct shape s)
{
    if (fault(w))
        return NULL;
    struct ratp_tensor t = {.struct_size = sizeof t};
    if (!s.tokens || !s.heads || !s.batch)
        s.tokens = s.heads = s.batch = 1; /* refused before the operands are looked at */
    if (!s.float32_only)
        t.dtype = (ratp_dtype)take(w, RATP_DTYPE_DEFAULT,
                                   s.mask ? RATP_F16 : s.blocks ? RATP_Q4_0 : RATP_BF16);
    if (t.dtype > RATP_BF16 && s.channels % 32)
        w->may |= 1u << RATP_UNSUPPORTED;
    uint64_t row = row_bytes(t.dtype, s.channels), end = 0;
    if (chance(w, 10))
        t.offset = 4 * (uint64_t)take(w, 0, 64);
    set_strides(w, &t, &s, row);
    bool counted = end_of(&t, &s, row, &end);
    const struct slot *buffer = NULL;
    if (counted && chance(w, 25))
        buffer = buffer_with(w, device, (end + 3) / 4 * 4);
    if (counted && end > LARGEST && end <= INT64_MAX) {
        /* More than a host here would have: in a buffer it is seen to be too much. */
        buffer = any_slot(w, BUFFER);
        w->faulty = true;
    }
    if (buffer)
        t.buffer = handle_of(w, buffer);
    if (fault(w))
        t.dtype = (ratp_dtype)wrong_number(w);
    struct ratp_tensor *copy = put(w, &t, sizeof t);
    if ((!buffer || fault(w)) && t.struct_size >= offsetof(struct ratp_tensor, offset) &&
        t.struct_size <= 4096)
        w->faulty |= !(copy->host = host_memory(w, &t, &s));
    return copy;
}

/* ---- Calls ---- */

enum { MAX_CALLS = 64 };
static struct {
    const char *name;
    unsigned long good, failed;
} counts[MAX_CALLS];

static void count(const char *call, bool good)
{
    int i = 0;
    while (counts[i].name && strcmp(counts[i].name, call) != 0)
        i++;
    REQUIRE(i < MAX_CALLS - 1);
    counts[i].name = call;
    counts[i].good += good;
    counts[i].failed += !good;
}

bool calls_report(void)
{
    bool all = true;
    for (int i = 0; counts[i].name; i++) {
        printf("%-20s %8lu good %8lu refused\n", counts[i].name, counts[i].good, counts[i].failed);
        all &= counts[i].good > 0;
    }
    return all && counts[0].name;
}

void take_snapshot(const struct world *w, struct snapshot *out)
{
    memset(out, 0, sizeof *out);
    for (int i = 0; i < SLOTS; i++) {
        out->seqs[i].struct_size = sizeof out->seqs[i];
        out->caches[i].struct_size = sizeof out->caches[i];
        if (w->slots[SEQ][i].handle) {
            REQUIRE(ratp->seq_stats(w->slots[SEQ][i].handle, &out->seqs[i]) == RATP_OK);
            REQUIRE(out->seqs[i].length == w->slots[SEQ][i].length);
        }
        if (w->slots[CACHE][i].handle)
            REQUIRE(ratp->cache_stats(w->slots[CACHE][i].handle, &out->caches[i]) == RATP_OK);
        /* Blocks that a refused call took and left empty are no change. */
        out->caches[i].pool_bytes = out->caches[i].scratch_bytes = 0;
        out->caches[i].pages_total = out->caches[i].pages_free = 0;
    }
}

void call_begin(struct world *w)
{
    uint32_t mood = take(w, 0, 255);
    w->first_fault = mood < 150 ? -1 : (int)take(w, 0, mood < 200 ? 12 : 80);
    w->second_fault = mood < 240 ? -1 : (int)take(w, 0, 80);
    w->faulty = false;
    w->may = 0;
    take_snapshot(w, &w->before);
}

ratp_status called(struct world *w, const char *call, ratp_status status, const void *object)
{
    char text[640];
    size_t length = ratp->last_error(object, text, sizeof text);
    bool ours = is_handle(w, object);
    count(call, status == RATP_OK);
    if (status >= RATP_OK && status < RATP_DEVICE_LOST && status != RATP_OK &&
        !w->faulty && !(w->may >> status & 1))
        fprintf(stderr, "%s: %s: %s\n", call, ratp->status_name(status), text);
    REQUIRE(status >= RATP_OK && status < RATP_DEVICE_LOST);
    REQUIRE(length == strlen(text));
    REQUIRE(!status || !ours || length > 0);
    REQUIRE(ours || length == 0);
    REQUIRE(!status || w->faulty || w->may >> status & 1);
    if (status) {
        struct snapshot after;
        take_snapshot(w, &after);
        REQUIRE(memcmp(&after, &w->before, sizeof after) == 0);
    }
    return status;
}

bool destroyed(struct world *w, const char *call, ratp_status status, const void *handle,
               struct slot *slot)
{
    const void *now;
    memcpy(&now, handle, sizeof now);
    REQUIRE(now == (status ? w->given : NULL));
    if (called(w, call, status, now) || !w->given)
        return false;
    REQUIRE(w->given == slot->handle);
    *slot = (struct slot){0};
    return true;
}

void call_end(struct world *w)
{
    while (w->allocation_count > 0)
        free(w->allocations[--w->allocation_count]);
}
