/* The functions of the table, spread over api_*.c by subject; each checks its
 * arguments and makes one call inward. ratplus.h says what they do. */
#ifndef RATPLUS_API_H
#define RATPLUS_API_H

#include "device.h"

/* What every function of the table ends with: keeps the message of a failure
 * for last_error(), where `handle` is an object at all. */
ratp_status api_return(const void *handle, ratp_status status, const struct error *err);

/* RATP_INVALID_ARGUMENT when `pointer` is NULL. */
ratp_status api_not_null(const void *pointer, const char *what, struct error *err);

/* api_vulkan.c: the extension's table. */
struct ratp_vulkan_api;
extern const struct ratp_vulkan_api api_vulkan_table;

/* api_device.c */
ratp_status api_instance_create(const struct ratp_instance_params *params, ratp_instance **out,
                                char *reason, size_t reason_size);
ratp_status api_instance_destroy(ratp_instance **instance);
const void *api_get_extension(const ratp_instance *instance, const char *id);
ratp_status api_device_count(ratp_instance *instance, uint32_t *count);
ratp_status api_device_describe(ratp_instance *instance, uint32_t index,
                                struct ratp_device_info *info);
ratp_status api_device_open(ratp_instance *instance, const struct ratp_device_params *params,
                            ratp_device **out);
ratp_status api_device_close(ratp_device **device);
ratp_status api_device_info(ratp_device *device, struct ratp_device_info *info);
ratp_status api_device_kernel_form(ratp_device *device, uint32_t index,
                                   struct ratp_kernel_form *form);
ratp_status api_device_wait(ratp_device *device);

/* api_buffer.c */
ratp_status api_buffer_create(ratp_device *device, const struct ratp_buffer_params *params,
                              ratp_buffer **out);
ratp_status api_buffer_destroy(ratp_buffer **buffer);
ratp_status api_buffer_write(ratp_buffer *buffer, uint64_t offset, const void *data,
                             uint64_t size);
ratp_status api_buffer_read(ratp_buffer *buffer, uint64_t offset, void *data, uint64_t size);
ratp_status api_buffer_map(ratp_buffer *buffer, void **address);

/* api_policy.c */
ratp_status api_policy_create(ratp_instance *instance, ratp_policy **out);
ratp_status api_policy_from_json(ratp_instance *instance, const char *text, size_t size,
                                 ratp_policy **out);
ratp_status api_policy_set(ratp_policy *policy, struct ratp_range layers,
                           struct ratp_range kv_heads, const struct ratp_variant *variant);
ratp_status api_policy_to_json(const ratp_policy *policy, char *text, size_t size,
                               size_t *needed);
ratp_status api_policy_destroy(ratp_policy **policy);
ratp_status api_policy_variant(const ratp_policy *policy, uint32_t layer, uint32_t kv_head,
                               ratp_part_kind part, struct ratp_variant *variant);

/* api_cache.c */
ratp_status api_cache_create(ratp_device *device, const struct ratp_cache_params *params,
                             ratp_cache **out);
ratp_status api_cache_destroy(ratp_cache **cache);
ratp_status api_cache_stats(ratp_cache *cache, struct ratp_cache_stats *stats);
ratp_status api_seq_create(ratp_cache *cache, ratp_seq **out);
ratp_status api_seq_destroy(ratp_seq **seq);
ratp_status api_seq_fork(ratp_seq *seq, ratp_seq **out);
ratp_status api_seq_truncate(ratp_seq *seq, uint64_t length);
ratp_status api_seq_set_policy(ratp_seq *seq, const ratp_policy *policy);
ratp_status api_seq_compress(ratp_seq *seq);
ratp_status api_seq_stats(ratp_seq *seq, struct ratp_seq_stats *stats);
ratp_status api_seq_positions(ratp_seq *seq, uint32_t layer, uint32_t kv_head,
                              uint32_t *positions, uint64_t capacity, uint64_t *count);
ratp_status api_step_begin(ratp_cache *cache, const struct ratp_step_params *params,
                           ratp_step **out);
ratp_status api_step_attend(ratp_step *step, uint32_t layer, const struct ratp_attend_io *io);
ratp_status api_step_commit(ratp_step **step);
ratp_status api_step_abort(ratp_step **step);

/* api_snapshot.c */
ratp_status api_seq_save(ratp_seq *seq, void *data, uint64_t size, uint64_t *needed);
ratp_status api_seq_load(ratp_cache *cache, const void *data, uint64_t size, ratp_seq **out);
ratp_status api_seq_save_file(ratp_seq *seq, const char *path);
ratp_status api_seq_load_file(ratp_cache *cache, const char *path, ratp_seq **out);

/* api_external.c, api_merge.c */
ratp_status api_attend_external(ratp_device *device, const struct ratp_external *params);
ratp_status api_merge(ratp_device *device, const struct ratp_merge *params);

#endif
