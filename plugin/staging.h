/* Operands in host memory: packed into memory of the device before a call, and
 * results copied back after it. */
#ifndef RATPLUS_STAGING_H
#define RATPLUS_STAGING_H

#include "operands.h"

/* Memory that grows and is kept: a call takes a staging, and gives it back. */
struct staging {
    struct staging *next;
    struct mem upload, readback;
};

/* One operand of a call. */
struct staged {
    struct operand_view view; /* filled by the caller; want.tokens 0: absent */
    struct operand operand;   /* what kernels take */
    uint64_t batch_stride;
    uint64_t offset; /* of host memory's copy, in upload or readback */
};

/* Fills the operands; *out is NULL when nothing is in host memory. */
ratp_status staging_take(ratp_device *device, struct staged *items, uint32_t count,
                         struct staging **out, struct error *err);
/* Copies results to host memory, after the wait. */
void staging_fetch(const struct staging *s, const struct staged *items, uint32_t count);
/* Gives it back after a call that ended with `status`. NULL is accepted. */
void staging_give(ratp_device *device, struct staging *s, ratp_status status);

/* With the device, whose spares come first and go last. */
void staging_init(ratp_device *device);
void staging_fini(ratp_device *device);

#endif
