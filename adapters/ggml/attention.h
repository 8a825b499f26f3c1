/* FLASH_ATTN_EXT nodes under a policy. */
#ifndef RATPLUS_GGML_ATTENTION_H
#define RATPLUS_GGML_ATTENTION_H

#include "adapter.h"
#include "mask.h"
#include "policy.h"

enum { MAX_HEADS = 1024 };

/* What a backend knows of the forward pass under way. ggml's scheduler gives a pass in
 * several graphs, often one a layer: it lasts while their layers ascend, from one device to the
 * next. Zero it to begin. */
struct pass {
    struct adapter_policy *policy; /* held; NULL: dense */
    bool under_way;
    int layer; /* of the last attention node */
    struct mask_memory masks;
    struct head_run runs[MAX_HEADS];
    /* Of the node under way, when its heads are packed (packed.h): their first halves alone
     * are attended and written, and these are the output gates' logits. NULL: they are not. */
    const struct ratp_tensor *gate;
};

/* Before a graph's nodes: a new pass has the policy that the file says now, one that another
 * device began has the same as there. */
void pass_graph(struct pass *pass, struct ggml_cgraph *graph);
void pass_end(struct pass *pass);

bool attention_is_supported(const struct ggml_tensor *op);
/* Submits a FLASH_ATTN_EXT node and does not wait. */
ratp_status attention_run(struct adapter_device *device, struct pass *pass,
                          const struct ggml_tensor *op);

#endif
