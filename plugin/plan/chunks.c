#include "build.h"

static uint32_t chunks_of(uint32_t rows, uint32_t chunk)
{
    return (rows - 1) / chunk + 1;
}

void plan_chunks(struct plan *plan, struct blob *blob, uint32_t rows_offset, uint32_t views,
                 bool memory, const struct work_limits *limits)
{
    if (blob->failed)
        return;
    const uint32_t *rows = (const void *)(blob->data + rows_offset);
    uint32_t size = limits->chunk_tokens;
    uint32_t chunk_count = 0, scan_count = 0, carry_count = 0;
    for (uint32_t v = 0; v < views; v++) {
        uint32_t n = chunks_of(rows[v], size);
        chunk_count += n;
        if (memory && n > 1) {
            scan_count++;
            carry_count += n - 1;
        }
    }
    plan->chunks.count = chunk_count;
    plan->locals.count = carry_count;
    plan->scans.count = scan_count;
    plan->carries = carry_count;
    blob_add(blob, chunk_count * sizeof(struct gpu_chunk), &plan->chunks.offset);
    blob_add(blob, carry_count * sizeof(struct gpu_chunk), &plan->locals.offset);
    blob_add(blob, scan_count * sizeof(struct gpu_scan), &plan->scans.offset);
    if (blob->failed)
        return;

    rows = (const void *)(blob->data + rows_offset);
    struct gpu_chunk *chunk = (void *)(blob->data + plan->chunks.offset);
    struct gpu_chunk *local = (void *)(blob->data + plan->locals.offset);
    struct gpu_scan *scan = (void *)(blob->data + plan->scans.offset);
    uint32_t carry = 0;
    for (uint32_t v = 0; v < views; v++) {
        uint32_t n = chunks_of(rows[v], size);
        bool scanned = memory && n > 1;
        if (scanned)
            *scan++ = (struct gpu_scan){.view = v, .carry0 = carry, .carries = n - 1};
        for (uint32_t c = 0; c < n; c++) {
            uint32_t token0 = c * size;
            uint32_t tokens = rows[v] - token0 < size ? rows[v] - token0 : size;
            *chunk++ = (struct gpu_chunk){v, token0, tokens,
                                          scanned && c > 0 ? carry + c - 1 : NO_CARRY};
            if (scanned && c < n - 1)
                *local++ = (struct gpu_chunk){v, token0, tokens, carry + c};
        }
        if (scanned)
            carry += n - 1;
    }
}
