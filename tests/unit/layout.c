/* The layout of everything that crosses the ABI, as released: a slot or a field
 * that moves breaks every host that is installed. New ones are added below. */
#include "../check.h"

#include <ratplus.h>
#include <ratplus_vulkan.h>

#if defined(__x86_64__) && !defined(__ILP32__)

#define SLOT(number, field)                                                       \
    _Static_assert(offsetof(struct ratp_api, field) == 16 + 8 * (number),         \
                   "slot of ratp_api: " #field)
#define VULKAN_SLOT(number, field)                                                \
    _Static_assert(offsetof(struct ratp_vulkan_api, field) == 8 + 8 * (number),   \
                   "slot of ratp_vulkan_api: " #field)
#define SIZE(type, size) _Static_assert(sizeof(struct type) == (size), "size of " #type)
#define AT(type, field, offset) \
    _Static_assert(offsetof(struct type, field) == (offset), #type "." #field)

AT(ratp_api, struct_size, 0);
AT(ratp_api, abi_major, 8);
AT(ratp_api, abi_minor, 12);
SLOT(0, version);
SLOT(1, status_name);
SLOT(2, last_error);
SLOT(3, instance_create);
SLOT(4, instance_destroy);
SLOT(5, get_extension);
SLOT(6, device_count);
SLOT(7, device_describe);
SLOT(8, device_open);
SLOT(9, device_close);
SLOT(10, device_info);
SLOT(11, device_kernel_form);
SLOT(12, device_wait);
SLOT(13, buffer_create);
SLOT(14, buffer_destroy);
SLOT(15, buffer_write);
SLOT(16, buffer_read);
SLOT(17, buffer_map);
SLOT(18, policy_create);
SLOT(19, policy_from_json);
SLOT(20, policy_set);
SLOT(21, policy_to_json);
SLOT(22, policy_destroy);
SLOT(23, cache_create);
SLOT(24, cache_destroy);
SLOT(25, cache_stats);
SLOT(26, seq_create);
SLOT(27, seq_destroy);
SLOT(28, seq_stats);
SLOT(29, seq_positions);
SLOT(30, step_begin);
SLOT(31, step_attend);
SLOT(32, step_commit);
SLOT(33, step_abort);
SLOT(34, attend_external);
SLOT(35, merge);
SLOT(36, seq_fork);
SLOT(37, seq_truncate);
SLOT(38, seq_set_policy);
SLOT(39, seq_save);
SLOT(40, seq_load);
SLOT(41, seq_save_file);
SLOT(42, seq_load_file);
SLOT(43, seq_compress);
SLOT(44, external_summary_bytes);
SLOT(45, policy_variant);
SIZE(ratp_api, 16 + 8 * 46);
VULKAN_SLOT(0, recommended_extensions);
VULKAN_SLOT(1, device_import);
VULKAN_SLOT(2, buffer_import);
VULKAN_SLOT(3, buffer_handle);
VULKAN_SLOT(4, step_record);
VULKAN_SLOT(5, step_recorded);
VULKAN_SLOT(6, step_sync);
VULKAN_SLOT(7, pipeline_cache_save);
VULKAN_SLOT(8, pipeline_cache_load);
VULKAN_SLOT(9, features);
SIZE(ratp_vulkan_api, 8 + 8 * 10);

AT(ratp_instance_params, struct_size, 0);
AT(ratp_instance_params, log, 8);
AT(ratp_instance_params, log_user, 16);
AT(ratp_instance_params, log_level, 24);
AT(ratp_instance_params, no_vulkan, 28);
AT(ratp_instance_params, validation, 32);
SIZE(ratp_instance_params, 40);

AT(ratp_device_info, struct_size, 0);
AT(ratp_device_info, kind, 8);
AT(ratp_device_info, usable, 12);
AT(ratp_device_info, name, 16);
AT(ratp_device_info, driver, 272);
AT(ratp_device_info, why_not, 528);
AT(ratp_device_info, memory_bytes, 784);
AT(ratp_device_info, max_allocation, 792);
AT(ratp_device_info, api_version, 800);
AT(ratp_device_info, subgroup_min, 804);
AT(ratp_device_info, subgroup_max, 808);
AT(ratp_device_info, shared_bytes, 812);
AT(ratp_device_info, vendor_id, 816);
AT(ratp_device_info, device_id, 820);
AT(ratp_device_info, features, 824);
AT(ratp_device_info, memory_free, 832);
SIZE(ratp_device_info, 840);

AT(ratp_device_params, struct_size, 0);
AT(ratp_device_params, name, 8);
AT(ratp_device_params, memory_budget, 16);
AT(ratp_device_params, wait_limit_ms, 24);
SIZE(ratp_device_params, 32);

AT(ratp_kernel_form, struct_size, 0);
AT(ratp_kernel_form, kernel, 8);
AT(ratp_kernel_form, form, 16);
AT(ratp_kernel_form, reason, 24);
SIZE(ratp_kernel_form, 32);

AT(ratp_buffer_params, struct_size, 0);
AT(ratp_buffer_params, size, 8);
AT(ratp_buffer_params, kind, 16);
AT(ratp_buffer_params, host, 24);
SIZE(ratp_buffer_params, 32);

AT(ratp_tensor, struct_size, 0);
AT(ratp_tensor, buffer, 8);
AT(ratp_tensor, host, 16);
AT(ratp_tensor, offset, 24);
AT(ratp_tensor, dtype, 32);
AT(ratp_tensor, token_stride, 40);
AT(ratp_tensor, head_stride, 48);
AT(ratp_tensor, batch_stride, 56);
SIZE(ratp_tensor, 64);

AT(ratp_rope, struct_size, 0);
AT(ratp_rope, style, 8);
AT(ratp_rope, size, 12);
AT(ratp_rope, theta, 16);
AT(ratp_rope, scale, 24);
AT(ratp_rope, factors, 32);
AT(ratp_rope, yarn_factor, 40);
AT(ratp_rope, yarn_context, 48);
AT(ratp_rope, yarn_beta_fast, 56);
AT(ratp_rope, yarn_beta_slow, 64);
AT(ratp_rope, yarn_attention, 72);
SIZE(ratp_rope, 80);

AT(ratp_geometry, struct_size, 0);
AT(ratp_geometry, layers, 8);
AT(ratp_geometry, query_heads, 12);
AT(ratp_geometry, kv_heads, 16);
AT(ratp_geometry, head_size, 20);
AT(ratp_geometry, value_size, 24);
AT(ratp_geometry, memory, 28);
AT(ratp_geometry, scale, 32);
AT(ratp_geometry, softcap, 36);
AT(ratp_geometry, max_tokens, 40);
AT(ratp_geometry, rope, 48);
AT(ratp_geometry, first_kv_head, 56);
AT(ratp_geometry, total_kv_heads, 60);
SIZE(ratp_geometry, 64);

AT(ratp_variant, struct_size, 0);
AT(ratp_variant, kind, 8);
AT(ratp_variant, dilation, 12);
AT(ratp_variant, window, 16);
AT(ratp_variant, sinks, 20);
AT(ratp_variant, page, 24);
AT(ratp_variant, budget, 28);
AT(ratp_variant, block, 32);
AT(ratp_variant, topk, 36);
AT(ratp_variant, selection, 40);
AT(ratp_variant, observe, 44);
AT(ratp_variant, capacity, 48);
AT(ratp_variant, kernel, 52);
AT(ratp_variant, pool, 56);
AT(ratp_variant, prompt, 64);
SIZE(ratp_variant, 72);

AT(ratp_range, first, 0);
AT(ratp_range, count, 4);
SIZE(ratp_range, 8);

AT(ratp_cache_params, struct_size, 0);
AT(ratp_cache_params, geometry, 8);
AT(ratp_cache_params, policy, 16);
AT(ratp_cache_params, budget, 24);
AT(ratp_cache_params, page_slots, 32);
AT(ratp_cache_params, k_dtype, 36);
AT(ratp_cache_params, v_dtype, 40);
AT(ratp_cache_params, retention, 44);
SIZE(ratp_cache_params, 48);

AT(ratp_cache_stats, struct_size, 0);
AT(ratp_cache_stats, budget_bytes, 8);
AT(ratp_cache_stats, pool_bytes, 16);
AT(ratp_cache_stats, used_bytes, 24);
AT(ratp_cache_stats, state_bytes, 32);
AT(ratp_cache_stats, scratch_bytes, 40);
AT(ratp_cache_stats, page_bytes, 48);
AT(ratp_cache_stats, pages_total, 56);
AT(ratp_cache_stats, pages_used, 64);
AT(ratp_cache_stats, sequences, 72);
AT(ratp_cache_stats, pages_free, 80);
AT(ratp_cache_stats, pages_shared, 88);
SIZE(ratp_cache_stats, 96);

AT(ratp_seq_stats, struct_size, 0);
AT(ratp_seq_stats, length, 8);
AT(ratp_seq_stats, pages, 16);
AT(ratp_seq_stats, bytes, 24);
AT(ratp_seq_stats, number, 32);
AT(ratp_seq_stats, pages_shared, 40);
SIZE(ratp_seq_stats, 48);

AT(ratp_step_params, struct_size, 0);
AT(ratp_step_params, count, 8);
AT(ratp_step_params, seqs, 16);
AT(ratp_step_params, n_tokens, 24);
AT(ratp_step_params, kinds, 32);
SIZE(ratp_step_params, 40);

AT(ratp_attend_io, struct_size, 0);
AT(ratp_attend_io, q, 8);
AT(ratp_attend_io, k, 16);
AT(ratp_attend_io, v, 24);
AT(ratp_attend_io, f, 32);
AT(ratp_attend_io, o, 40);
AT(ratp_attend_io, out, 48);
AT(ratp_attend_io, lse, 56);
AT(ratp_attend_io, sinks, 64);
SIZE(ratp_attend_io, 72);

AT(ratp_external, struct_size, 0);
AT(ratp_external, batch, 8);
AT(ratp_external, query_tokens, 12);
AT(ratp_external, key_tokens, 16);
AT(ratp_external, query_heads, 20);
AT(ratp_external, kv_heads, 24);
AT(ratp_external, head_size, 28);
AT(ratp_external, value_size, 32);
AT(ratp_external, scale, 36);
AT(ratp_external, softcap, 40);
AT(ratp_external, causal, 44);
AT(ratp_external, first_position, 48);
AT(ratp_external, variant, 56);
AT(ratp_external, q, 64);
AT(ratp_external, k, 72);
AT(ratp_external, v, 80);
AT(ratp_external, o, 88);
AT(ratp_external, mask, 96);
AT(ratp_external, out, 104);
AT(ratp_external, lse, 112);
AT(ratp_external, slopes, 120);
AT(ratp_external, sinks, 128);
AT(ratp_external, summaries, 136);
AT(ratp_external, summaries_offset, 144);
AT(ratp_external, summarised, 152);
SIZE(ratp_external, 160);

AT(ratp_merge, struct_size, 0);
AT(ratp_merge, parts, 8);
AT(ratp_merge, tokens, 12);
AT(ratp_merge, heads, 16);
AT(ratp_merge, value_size, 20);
AT(ratp_merge, part_out, 24);
AT(ratp_merge, part_lse, 32);
AT(ratp_merge, out, 40);
AT(ratp_merge, lse, 48);
SIZE(ratp_merge, 56);

AT(ratp_vulkan_device, struct_size, 0);
AT(ratp_vulkan_device, get_instance_proc_addr, 8);
AT(ratp_vulkan_device, instance, 16);
AT(ratp_vulkan_device, physical_device, 24);
AT(ratp_vulkan_device, device, 32);
AT(ratp_vulkan_device, api_version, 40);
AT(ratp_vulkan_device, queue_family, 44);
AT(ratp_vulkan_device, queue_index, 48);
AT(ratp_vulkan_device, lock_queue, 56);
AT(ratp_vulkan_device, unlock_queue, 64);
AT(ratp_vulkan_device, user, 72);
AT(ratp_vulkan_device, extensions, 80);
AT(ratp_vulkan_device, extension_count, 88);
AT(ratp_vulkan_device, features, 96);
AT(ratp_vulkan_device, memory_budget, 104);
AT(ratp_vulkan_device, wait_limit_ms, 112);
SIZE(ratp_vulkan_device, 120);

AT(ratp_vulkan_buffer, struct_size, 0);
AT(ratp_vulkan_buffer, buffer, 8);
AT(ratp_vulkan_buffer, offset, 16);
AT(ratp_vulkan_buffer, size, 24);
SIZE(ratp_vulkan_buffer, 32);

AT(ratp_vulkan_point, semaphore, 0);
AT(ratp_vulkan_point, value, 8);
SIZE(ratp_vulkan_point, 16);

AT(ratp_vulkan_feature, name, 0);
AT(ratp_vulkan_feature, extension, 8);
AT(ratp_vulkan_feature, gives, 16);
AT(ratp_vulkan_feature, type, 24);
AT(ratp_vulkan_feature, size, 28);
AT(ratp_vulkan_feature, offset, 32);
AT(ratp_vulkan_feature, required, 36);
SIZE(ratp_vulkan_feature, 40);

#endif

/* Numbers that stand in compiled hosts. */
static void test_codes(void)
{
    CHECK_EQUAL(RATP_INTERNAL, 10);
    CHECK_EQUAL(RATP_BF16, 3);
    CHECK_EQUAL(RATP_Q8_0, 4);
    CHECK_EQUAL(RATP_Q4_0, 5);
    CHECK_EQUAL(RATP_ROPE_INTERLEAVED, 2);
    CHECK_EQUAL(RATP_STREAMING, 2);
    CHECK_EQUAL(RATP_DEVICE_REFERENCE, 4);
    CHECK_EQUAL(RATP_RETAIN_NEEDED, 1);
    CHECK_EQUAL(RATP_MEMORY_HOST, 1);
    CHECK_EQUAL(RATP_MEMORY_SHARED, 2);
    CHECK_EQUAL(RATP_FEATURE_MEMORY_BUDGET, 64);
}

static void test_table(void)
{
    const struct ratp_api *ratp = ratp_get_api(RATP_ABI_MAJOR, NULL, 0);
    if (!CHECK(ratp))
        return;
    CHECK_EQUAL(ratp->struct_size, sizeof *ratp);
    CHECK_EQUAL(ratp->abi_major, RATP_ABI_MAJOR);
    CHECK_EQUAL(ratp->abi_minor, RATP_ABI_MINOR);
    CHECK(strcmp(ratp->version(), RATP_VERSION) == 0);
    /* No slot is empty. */
    const unsigned char *bytes = (const unsigned char *)ratp;
    for (size_t at = offsetof(struct ratp_api, version); at < sizeof *ratp; at += sizeof(void *)) {
        void *slot;
        memcpy(&slot, bytes + at, sizeof slot);
        CHECK(slot != NULL);
    }
    for (ratp_status s = RATP_OK; s <= RATP_INTERNAL; s++)
        CHECK_CONTAINS(ratp->status_name(s), "RATP_");
    CHECK_CONTAINS(ratp->status_name(RATP_INTERNAL + 1), "unknown status");
    CHECK_CONTAINS(ratp->status_name(-1), "unknown status");
}

static void test_versions(void)
{
    char reason[256] = "";
    CHECK(!ratp_get_api(RATP_ABI_MAJOR + 1, reason, sizeof reason));
    CHECK_CONTAINS(reason, "abi_major is 2");
    CHECK_CONTAINS(reason, RATP_VERSION);
    CHECK(!ratp_get_api(0, reason, 8));
    CHECK_EQUAL(strlen(reason), 7);
    CHECK(!ratp_get_api(RATP_ABI_MAJOR - 1, NULL, 0));
    CHECK(ratp_get_api(RATP_ABI_MAJOR, NULL, 0) == ratp_get_api(RATP_ABI_MAJOR, reason, 1));
}

int main(void)
{
    RUN(test_codes);
    RUN(test_table);
    RUN(test_versions);
    return check_result();
}
