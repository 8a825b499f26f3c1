/* What the attention kernels are dispatched with, and the parts of attention. */
#ifndef RATPLUS_KERNELS_ATTEND_H
#define RATPLUS_KERNELS_ATTEND_H

#include "items.h"

enum {
    ATTEND_CONSTANTS = 20,    /* shared ones; a kernel's own follow */
    ATTEND_OWN_CONSTANTS = 10, /* the most that a kernel adds */
    /* Mesa's llvmpipe ends all loops of an invocation, without a word, once they
     * have run 65535 times together (LP_MAX_TGSI_LOOP_ITERATIONS). */
    LLVMPIPE_LOOPS = 60000
};

/* As in shaders/include/attend.glsl: all of the 128 bytes that Vulkan promises. */
struct attend_push {
    uint64_t plan;
    uint32_t pages, views, items;
    uint32_t page_slots;
    uint64_t q, o, out, lse, partial;
    uint32_t q_token, o_token, out_token, lse_token;
    uint32_t q_head, o_head, out_head, lse_head;
    uint32_t slab;
    uint32_t mask_view;
    uint64_t rope_table;
    uint64_t mask;
    uint32_t mask_token, mask_head;
};
_Static_assert(sizeof(struct attend_push) == 128, "Vulkan promises no more");

struct attend_kernel {
    struct items_kernel items;
    uint32_t constants[ATTEND_CONSTANTS + ATTEND_OWN_CONSTANTS];
    struct attend_push push;
};

/* The bits of a constant. */
static inline uint32_t float_bits(float x)
{
    union {
        float f;
        uint32_t u;
    } both = {x};
    return both.u;
}

/* Fills all but the kernel's own constants, of which there are `own_count`.
 * `k` points into itself afterwards: it must not be copied. */
void attend_kernel_init(struct attend_kernel *k, const struct attend_args *args,
                        const struct vk_shader *shader, const uint32_t *own, uint32_t own_count);

/* Tiles of several tokens: the class's, or those of a wave. */
ratp_status kernels_attend_prompt(struct backend *b, struct stream *s,
                                  const struct attend_args *args, struct plan_list tiles,
                                  struct error *err);
/* The class's singles. */
ratp_status kernels_attend_decode(struct backend *b, struct stream *s,
                                  const struct attend_args *args, struct error *err);
/* The class's waves. */
ratp_status kernels_attend_waves(struct backend *b, struct stream *s,
                                 const struct attend_args *args, struct error *err);
/* Joins partial results; after a barrier. */
ratp_status kernels_gather(struct backend *b, struct stream *s, const struct attend_args *args,
                           struct plan_list gathers, struct error *err);

/* How the lanes that share a row add up; see shaders/include/team.glsl. */
enum team_way { TEAM_SHARED, TEAM_ADD, TEAM_ADD_WIDE, TEAM_SHUFFLE };

/* How the decode kernel cuts its work on a device. */
struct decode_form {
    enum team_way way;
    const char *name;   /* how lanes add up */
    const char *reason; /* why no faster way is used, or "" */
    uint32_t heads, lanes, teams, k_blocks, v_blocks, keys, subgroups;
};

struct decode_form decode_form(const struct vk_caps *caps, const struct layer_shape *shape);
/* Workgroup memory of decode_block.comp: where keys lie, and the sums of each subgroup. */
uint32_t decode_block_bytes(const struct decode_form *form, uint32_t subgroup);

enum { PREFILL_CONSTANTS = 9 };

/* How a form of the prompt kernel cuts its work. */
struct prefill_form {
    enum prefill_way way;
    const struct vk_shader *shader;
    const char *name;
    uint32_t rows;          /* tokens x heads of a workgroup */
    uint32_t heads, tokens; /* of a workgroup */
    uint32_t invocations;   /* of a workgroup */
    uint32_t last_constant; /* channels in shared memory, or keys at a time */
};

/* Its own constants. */
void prefill_constants(const struct vk_caps *caps, const struct prefill_form *form,
                       uint32_t own[PREFILL_CONSTANTS]);

/* Why no form uses cooperative matrices for layers of this shape; NULL: one can. */
const char *prefill_no_matrix(const struct vk_caps *caps, const struct layer_shape *shape);
/* Whether the device has such a form for them. */
bool prefill_runs(const struct vk_caps *caps, const struct layer_shape *shape,
                  enum prefill_way way);
/* The form for most work; its tiles are the largest. */
struct prefill_form prefill_form(const struct kernel_backend *k, const struct layer_shape *shape);
/* The form for rows that are gathered by their blocks: about so many have a block in common,
 * and all of them attend so many keys altogether. */
struct prefill_form prefill_gathered_form(const struct kernel_backend *k,
                                          const struct layer_shape *shape, double rows,
                                          double all_keys);
/* The most keys of a part of a tile; 0: no bound. */
uint32_t prefill_most_keys(const struct vk_caps *caps, const struct layer_shape *shape);

#endif
