/* Wrong arguments of instances, devices, buffers, policies and caches: each is
 * answered with a status and a message that names it. */
#include "api_host.h"

#include <math.h>

static void test_instance(void)
{
    ratp_instance *other = (ratp_instance *)&other;
    char reason[200] = "";
    CHECK_EQUAL(ratp->instance_create(NULL, NULL, reason, sizeof reason), RATP_INVALID_ARGUMENT);
    CHECK_CONTAINS(reason, "out is NULL");
    struct ratp_instance_params params = {0};
    CHECK_EQUAL(ratp->instance_create(&params, &other, reason, sizeof reason),
                RATP_INVALID_ARGUMENT);
    CHECK(!other);
    CHECK_CONTAINS(reason, "params->struct_size is 0, at least 8");
    params = (struct ratp_instance_params){sizeof params, .log_level = 9};
    CHECK_EQUAL(ratp->instance_create(&params, &other, NULL, 0), RATP_INVALID_ARGUMENT);
    CHECK_EQUAL(ratp->instance_create(&params, &other, reason, sizeof reason),
                RATP_INVALID_ARGUMENT);
    CHECK_CONTAINS(reason, "log_level is 9");
    CHECK_EQUAL(ratp->instance_destroy(NULL), RATP_INVALID_ARGUMENT);
    CHECK_EQUAL(ratp->instance_destroy(&other), RATP_OK);
    REFUSE(instance, ratp->instance_destroy(&instance), RATP_WRONG_STATE,
           "still has 1 devices or policies");
    other = (ratp_instance *)device;
    REFUSE(device, ratp->instance_destroy(&other), RATP_INVALID_ARGUMENT,
           "*instance is the handle of a different kind: device, wanted: instance");
    uint64_t garbage = 0x1234567;
    other = (ratp_instance *)&garbage;
    CHECK_EQUAL(ratp->instance_destroy(&other), RATP_INVALID_ARGUMENT);
    CHECK_EQUAL(strlen(host_message(other)), 0);
    CHECK_EQUAL(strlen(host_message(NULL)), 0);

    CHECK(!ratp->get_extension(NULL, "ratplus.vulkan/1"));
    CHECK(!ratp->get_extension(instance, NULL));
    CHECK(!ratp->get_extension(instance, "ratplus.vulkan/999"));
    CHECK_CONTAINS(host_message(instance), "id is \"ratplus.vulkan/999\"");
    char tiny[5];
    CHECK(ratp->last_error(instance, tiny, sizeof tiny) > 30);
    CHECK(strcmp(tiny, "id i") == 0);
    CHECK(ratp->last_error(instance, NULL, 0) > 30);
}

static void test_devices(void)
{
    uint32_t count = 0;
    struct ratp_device_info info = {.struct_size = sizeof info};
    struct ratp_kernel_form form = {.struct_size = sizeof form};
    CHECK_EQUAL(ratp->device_count(NULL, &count), RATP_INVALID_ARGUMENT);
    REFUSE(device, ratp->device_count((ratp_instance *)device, &count), RATP_INVALID_ARGUMENT,
           "instance is the handle of a different kind: device");
    REFUSE(instance, ratp->device_count(instance, NULL), RATP_INVALID_ARGUMENT, "count is NULL");
    CHECK_EQUAL(ratp->device_count(instance, &count), RATP_OK);
    REFUSE(instance, ratp->device_describe(instance, count, &info), RATP_NOT_FOUND, "index is");
    REFUSE(instance, ratp->device_describe(instance, 0, NULL), RATP_INVALID_ARGUMENT,
           "info is NULL");
    CHECK_EQUAL(ratp->device_describe(instance, count - 1, &info), RATP_OK);
    CHECK_EQUAL(info.kind, RATP_DEVICE_REFERENCE);
    CHECK(strcmp(info.name, "reference") == 0);
    info.struct_size = 0;
    REFUSE(instance, ratp->device_describe(instance, 0, &info), RATP_INVALID_ARGUMENT,
           "info->struct_size is 0");
    REFUSE(device, ratp->device_info(device, &info), RATP_INVALID_ARGUMENT, "info->struct_size");
    REFUSE(device, ratp->device_info(device, NULL), RATP_INVALID_ARGUMENT, "info is NULL");
    CHECK_EQUAL(ratp->device_info(NULL, &info), RATP_INVALID_ARGUMENT);

    ratp_device *other = device;
    struct ratp_device_params params = {sizeof params, .name = "no such device"};
    REFUSE(instance, ratp->device_open(instance, &params, &other), RATP_NOT_FOUND,
           "params->name is \"no such device\"");
    CHECK(!other);
    params.name = "99";
    REFUSE(instance, ratp->device_open(instance, &params, &other), RATP_NOT_FOUND, "\"99\"");
    params.name = "99999999999999999999999999";
    REFUSE(instance, ratp->device_open(instance, &params, &other), RATP_NOT_FOUND, "999999");
    REFUSE(instance, ratp->device_open(instance, &params, NULL), RATP_INVALID_ARGUMENT,
           "out is NULL");
    params.struct_size = 3;
    REFUSE(instance, ratp->device_open(instance, &params, &other), RATP_INVALID_ARGUMENT,
           "params->struct_size is 3");
    CHECK_EQUAL(ratp->device_open(NULL, NULL, &other), RATP_INVALID_ARGUMENT);
    params = (struct ratp_device_params){sizeof params, .name = "REFERENCE"};
    CHECK_EQUAL(ratp->device_open(instance, &params, &other), RATP_OK);
    CHECK_EQUAL(ratp->device_close(&other), RATP_OK);
    CHECK_EQUAL(ratp->device_close(&other), RATP_OK);
    CHECK_EQUAL(ratp->device_close(NULL), RATP_INVALID_ARGUMENT);

    uint32_t kernels = 0;
    while (ratp->device_kernel_form(device, kernels, &form) == RATP_OK) {
        CHECK(form.kernel[0] && form.form[0] && form.reason);
        kernels++;
    }
    CHECK(kernels > 0);
    REFUSE(device, ratp->device_kernel_form(device, kernels, &form), RATP_NOT_FOUND, "index is");
    REFUSE(device, ratp->device_kernel_form(device, 0, NULL), RATP_INVALID_ARGUMENT,
           "form is NULL");
    CHECK_EQUAL(ratp->device_kernel_form(NULL, 0, &form), RATP_INVALID_ARGUMENT);
    CHECK_EQUAL(ratp->device_wait(NULL), RATP_INVALID_ARGUMENT);
    REFUSE(instance, ratp->device_wait((ratp_device *)instance), RATP_INVALID_ARGUMENT,
           "device is the handle of a different kind: instance");
    CHECK_EQUAL(ratp->device_wait(device), RATP_OK);
}

static void test_buffers(void)
{
    ratp_buffer *buffer = (ratp_buffer *)device;
    unsigned char bytes[64] = {7, 8, 9};
    void *mapped = NULL;
    struct ratp_buffer_params params = {sizeof params, .size = 0};
    REFUSE(device, ratp->buffer_create(device, &params, &buffer), RATP_INVALID_ARGUMENT,
           "params->size is 0");
    CHECK(!buffer);
    REFUSE(device, ratp->buffer_create(device, NULL, &buffer), RATP_INVALID_ARGUMENT,
           "params is NULL");
    params.size = 64;
    REFUSE(device, ratp->buffer_create(device, &params, NULL), RATP_INVALID_ARGUMENT,
           "out is NULL");
    params.kind = 7;
    REFUSE(device, ratp->buffer_create(device, &params, &buffer), RATP_INVALID_ARGUMENT,
           "params->kind is 7");
    params.struct_size = 8;
    REFUSE(device, ratp->buffer_create(device, &params, &buffer), RATP_INVALID_ARGUMENT,
           "params->struct_size is 8");
    params = (struct ratp_buffer_params){sizeof params, .size = UINT64_MAX};
    CHECK_EQUAL(ratp->buffer_create(device, &params, &buffer), RATP_OUT_OF_MEMORY);
    CHECK(host_message(device)[0]);
    CHECK_EQUAL(ratp->buffer_create(NULL, &params, &buffer), RATP_INVALID_ARGUMENT);

    params = (struct ratp_buffer_params){sizeof params, .size = 64, .kind = RATP_MEMORY_HOST};
    CHECK_EQUAL(ratp->buffer_create(device, &params, &buffer), RATP_OK);
    REFUSE(device, ratp->device_close(&device), RATP_WRONG_STATE, "still has 1 caches or buffers");
    REFUSE(buffer, ratp->buffer_write(buffer, 1, bytes, 64), RATP_INVALID_ARGUMENT,
           "offset 1 and size 64 reach beyond the buffer's 64 bytes");
    REFUSE(buffer, ratp->buffer_write(buffer, UINT64_MAX, bytes, 4), RATP_INVALID_ARGUMENT,
           "offset 18446744073709551615");
    REFUSE(buffer, ratp->buffer_read(buffer, 4, bytes, UINT64_MAX - 1), RATP_INVALID_ARGUMENT,
           "size 18446744073709551614");
    REFUSE(buffer, ratp->buffer_read(buffer, 0, NULL, 4), RATP_INVALID_ARGUMENT, "data is NULL");
    REFUSE(buffer, ratp->buffer_write(buffer, 0, NULL, 4), RATP_INVALID_ARGUMENT, "data is NULL");
    REFUSE(buffer, ratp->buffer_map(buffer, NULL), RATP_INVALID_ARGUMENT, "address is NULL");
    CHECK_EQUAL(ratp->buffer_map(NULL, &mapped), RATP_INVALID_ARGUMENT);
    CHECK_EQUAL(ratp->buffer_write(NULL, 0, bytes, 4), RATP_INVALID_ARGUMENT);
    REFUSE(device, ratp->buffer_read((ratp_buffer *)device, 0, bytes, 4), RATP_INVALID_ARGUMENT,
           "buffer is the handle of a different kind: device, wanted: buffer");
    CHECK_EQUAL(ratp->buffer_write(buffer, 0, bytes, 0), RATP_OK);
    CHECK_EQUAL(ratp->buffer_write(buffer, 61, bytes, 3), RATP_OK);
    unsigned char back[3] = {0};
    CHECK_EQUAL(ratp->buffer_read(buffer, 61, back, 3), RATP_OK);
    CHECK(back[0] == 7 && back[1] == 8 && back[2] == 9);
    CHECK_EQUAL(ratp->buffer_map(buffer, &mapped), RATP_OK);
    CHECK(mapped && ((unsigned char *)mapped)[63] == 9);
    CHECK_EQUAL(ratp->buffer_destroy(&buffer), RATP_OK);
    CHECK_EQUAL(ratp->buffer_destroy(&buffer), RATP_OK);
    CHECK_EQUAL(ratp->buffer_destroy(NULL), RATP_INVALID_ARGUMENT);
    params.kind = RATP_MEMORY_SHARED;
    CHECK_EQUAL(ratp->buffer_create(device, &params, &buffer), RATP_OK);
    CHECK_EQUAL(ratp->buffer_map(buffer, &mapped), RATP_OK);
    memcpy((unsigned char *)mapped + 7, bytes, 3);
    CHECK_EQUAL(ratp->buffer_read(buffer, 7, back, 3), RATP_OK);
    CHECK(back[0] == 7 && back[1] == 8 && back[2] == 9);
    CHECK_EQUAL(ratp->buffer_destroy(&buffer), RATP_OK);
    buffer = (ratp_buffer *)device;
    REFUSE(device, ratp->buffer_destroy(&buffer), RATP_INVALID_ARGUMENT, "*buffer is the handle");
}

static void test_policies(void)
{
    ratp_policy *policy = NULL;
    char text[100];
    size_t needed = 0;
    struct ratp_range all = {0, 0};
    struct ratp_variant d16 = {sizeof d16, RATP_DILATED, .dilation = 16, .window = 256, .sinks = 4};
    REFUSE(instance, ratp->policy_create(instance, NULL), RATP_INVALID_ARGUMENT, "out is NULL");
    CHECK_EQUAL(ratp->policy_create(NULL, &policy), RATP_INVALID_ARGUMENT);
    REFUSE(device, ratp->policy_create((ratp_instance *)device, &policy), RATP_INVALID_ARGUMENT,
           "instance is the handle of a different kind: device");
    REFUSE(instance, ratp->policy_from_json(instance, NULL, 3, &policy), RATP_INVALID_ARGUMENT,
           "text is NULL");
    REFUSE(instance, ratp->policy_from_json(instance, "{}", 2, NULL), RATP_INVALID_ARGUMENT,
           "out is NULL");
    REFUSE(instance, ratp->policy_from_json(instance, "{\n ]", 4, &policy), RATP_PARSE_ERROR,
           "line 2, column 2");
    CHECK(!policy);
    CHECK_EQUAL(ratp->policy_from_json(NULL, "{}", 2, &policy), RATP_INVALID_ARGUMENT);

    CHECK_EQUAL(ratp->policy_create(instance, &policy), RATP_OK);
    REFUSE(policy, ratp->policy_set(policy, all, all, NULL), RATP_INVALID_ARGUMENT,
           "variant is NULL");
    REFUSE(policy, ratp->policy_set(policy, (struct ratp_range){1, UINT32_MAX}, all, &d16),
           RATP_INVALID_ARGUMENT, "layers");
    REFUSE(policy, ratp->policy_set(policy, all, (struct ratp_range){1, UINT32_MAX}, &d16),
           RATP_INVALID_ARGUMENT, "kv_heads");
    d16.struct_size = 8;
    REFUSE(policy, ratp->policy_set(policy, all, all, &d16), RATP_INVALID_ARGUMENT,
           "variant->struct_size is 8");
    d16 = (struct ratp_variant){sizeof d16, RATP_DILATED, .window = 256, .sinks = 4};
    REFUSE(policy, ratp->policy_set(policy, all, all, &d16), RATP_INVALID_ARGUMENT,
           "variant.dilation is 0");
    d16.dilation = 16;
    CHECK_EQUAL(ratp->policy_set(policy, all, all, &d16), RATP_OK);
    struct ratp_variant quest = {sizeof quest, RATP_QUEST, .budget = 64, .prompt = &d16};
    CHECK_EQUAL(ratp->policy_set(policy, all, all, &quest), RATP_OK);
    d16.struct_size = 8;
    REFUSE(policy, ratp->policy_set(policy, all, all, &quest), RATP_INVALID_ARGUMENT,
           "variant.prompt->struct_size is 8");
    d16.struct_size = sizeof d16;
    d16.prompt = &d16;
    REFUSE(policy, ratp->policy_set(policy, all, all, &quest), RATP_INVALID_ARGUMENT,
           "variant.prompt.prompt is given, it must be NULL");
    d16.prompt = NULL;
    quest.prompt = &quest;
    REFUSE(policy, ratp->policy_set(policy, all, all, &quest), RATP_INVALID_ARGUMENT,
           "variant.prompt.prompt is given");
    quest.budget = 0;
    REFUSE(policy, ratp->policy_set(policy, all, all, &quest), RATP_INVALID_ARGUMENT,
           "variant.budget is 0, for kind quest it must be 8 to 16777216");
    CHECK_EQUAL(ratp->policy_set(policy, all, all, &d16), RATP_OK);
    CHECK_EQUAL(ratp->policy_set(NULL, all, all, &d16), RATP_INVALID_ARGUMENT);
    REFUSE(policy, ratp->policy_to_json(policy, NULL, 5, &needed), RATP_INVALID_ARGUMENT,
           "text is NULL");
    CHECK_EQUAL(ratp->policy_to_json(NULL, text, sizeof text, &needed), RATP_INVALID_ARGUMENT);
    CHECK_EQUAL(ratp->policy_to_json(policy, text, sizeof text, &needed), RATP_OK);
    CHECK_CONTAINS(text, "{\"default\": \"d16w256s4\"");
    CHECK_EQUAL(needed, strlen(text));
    CHECK_EQUAL(ratp->policy_to_json(policy, NULL, 0, &needed), RATP_OK);
    CHECK_EQUAL(ratp->policy_destroy(&policy), RATP_OK);
    CHECK_EQUAL(ratp->policy_destroy(&policy), RATP_OK);
    CHECK_EQUAL(ratp->policy_destroy(NULL), RATP_INVALID_ARGUMENT);
    policy = (ratp_policy *)instance;
    REFUSE(instance, ratp->policy_destroy(&policy), RATP_INVALID_ARGUMENT,
           "*policy is the handle of a different kind: instance");
}

static void test_policy_variant(void)
{
    static const char json[] = "{\"default\": \"d16w256:quest1024\", \"rules\": ["
                               "{\"layers\": 1, \"heads\": \"2-\", \"variant\": \"d1\"},"
                               "{\"layers\": 2, \"variant\": \"moba64k3g\"},"
                               "{\"layers\": 65535, \"variant\": \"snapkv1024o16n5avg\"}]}";
    ratp_policy *policy = NULL;
    struct ratp_variant v = {sizeof v, .prompt = &v};
    CHECK_EQUAL(ratp->policy_from_json(instance, json, sizeof json - 1, &policy), RATP_OK);
    CHECK_EQUAL(ratp->policy_variant(policy, 0, 0, RATP_PART_PROMPT, &v), RATP_OK);
    CHECK_EQUAL(v.kind, RATP_DILATED);
    CHECK_EQUAL(v.dilation, 16);
    CHECK_EQUAL(v.window, 256);
    CHECK(!v.prompt);
    CHECK_EQUAL(ratp->policy_variant(policy, 1, 1, RATP_PART_DECODE, &v), RATP_OK);
    CHECK_EQUAL(v.kind, RATP_QUEST);
    CHECK_EQUAL(v.page, 16);
    CHECK_EQUAL(v.budget, 1024);
    CHECK_EQUAL(v.window, 0);
    CHECK_EQUAL(ratp->policy_variant(policy, 1, 2, RATP_PART_DECODE, &v), RATP_OK);
    CHECK_EQUAL(v.kind, RATP_DENSE);
    CHECK_EQUAL(v.dilation, 0);
    CHECK_EQUAL(ratp->policy_variant(policy, 2, 65535, RATP_PART_PROMPT, &v), RATP_OK);
    CHECK_EQUAL(v.kind, RATP_MOBA);
    CHECK_EQUAL(v.block, 64);
    CHECK_EQUAL(v.topk, 3);
    CHECK_EQUAL(v.selection, RATP_SELECT_GROUP);
    CHECK_EQUAL(ratp->policy_variant(policy, 65535, 0, RATP_PART_DECODE, &v), RATP_OK);
    CHECK_EQUAL(v.kind, RATP_SNAPKV);
    CHECK_EQUAL(v.capacity, 1024);
    CHECK_EQUAL(v.observe, 16);
    CHECK_EQUAL(v.kernel, 5);
    CHECK_EQUAL(v.pool, RATP_POOL_AVG);
    /* An older caller gets what it has room for. */
    v = (struct ratp_variant){offsetof(struct ratp_variant, page), .page = 7};
    CHECK_EQUAL(ratp->policy_variant(policy, 1, 0, RATP_PART_DECODE, &v), RATP_OK);
    CHECK_EQUAL(v.page, 7);

    REFUSE(policy, ratp->policy_variant(policy, 65536, 0, RATP_PART_DECODE, &v),
           RATP_INVALID_ARGUMENT, "layer is 65536, it must be at most 65535");
    REFUSE(policy, ratp->policy_variant(policy, 0, 65536, RATP_PART_DECODE, &v),
           RATP_INVALID_ARGUMENT, "kv_head is 65536");
    REFUSE(policy, ratp->policy_variant(policy, 0, 0, RATP_PART_AUTO, &v), RATP_INVALID_ARGUMENT,
           "part is 0, it must be 1");
    REFUSE(policy, ratp->policy_variant(policy, 0, 0, 3, &v), RATP_INVALID_ARGUMENT, "part is 3");
    REFUSE(policy, ratp->policy_variant(policy, 0, 0, RATP_PART_DECODE, NULL),
           RATP_INVALID_ARGUMENT, "variant is NULL");
    v.struct_size = 8;
    REFUSE(policy, ratp->policy_variant(policy, 0, 0, RATP_PART_DECODE, &v),
           RATP_INVALID_ARGUMENT, "variant->struct_size is 8");
    CHECK_EQUAL(ratp->policy_variant(NULL, 0, 0, RATP_PART_DECODE, &v), RATP_INVALID_ARGUMENT);
    CHECK_EQUAL(ratp->policy_destroy(&policy), RATP_OK);
}

static void refuse_geometry(struct ratp_geometry geometry, const char *part)
{
    struct ratp_cache_params params = {sizeof params, .geometry = &geometry};
    ratp_cache *cache = (ratp_cache *)device;
    REFUSE(device, ratp->cache_create(device, &params, &cache), RATP_INVALID_ARGUMENT, part);
    CHECK(!cache);
}

static void test_geometry(void)
{
    const struct ratp_geometry good = {sizeof good, 2, 4, 2, 16, .memory = 1};
    struct ratp_geometry g;
#define WRONG(field, value, part) (g = good, g.field = (value), refuse_geometry(g, part))
    WRONG(struct_size, 0, "params->geometry->struct_size is 0");
    WRONG(layers, 0, "geometry.layers is 0");
    WRONG(layers, 4097, "geometry.layers is 4097");
    WRONG(query_heads, 0, "geometry.query_heads is 0");
    WRONG(query_heads, 5, "geometry.query_heads is 5");
    WRONG(query_heads, UINT32_MAX - 1, "geometry.query_heads is");
    WRONG(kv_heads, 0, "geometry.kv_heads is 0");
    WRONG(kv_heads, 1025, "geometry.kv_heads is 1025");
    WRONG(head_size, 0, "geometry.head_size is 0");
    WRONG(head_size, 12, "geometry.head_size is 12");
    WRONG(head_size, 264, "geometry.head_size is 264");
    WRONG(value_size, 8, "geometry.value_size is 8");
    WRONG(value_size, 7, "geometry.value_size is 7");
    WRONG(scale, NAN, "geometry.scale");
    WRONG(softcap, -1, "softcap");
    WRONG(max_tokens, (1 << 24) + 1, "geometry.max_tokens is 16777217");
    WRONG(first_kv_head, 1, "geometry.first_kv_head is 1");
    WRONG(total_kv_heads, 1, "total_kv_heads");
    struct ratp_rope rope = {sizeof rope, .style = 9};
    WRONG(rope, &rope, "style is 9");
    rope = (struct ratp_rope){sizeof rope, .style = RATP_ROPE_HALF, .size = 24};
    WRONG(rope, &rope, "size is 24");
    rope = (struct ratp_rope){8, .style = RATP_ROPE_HALF};
    WRONG(rope, &rope, "geometry->rope->struct_size is 8");
    rope = (struct ratp_rope){sizeof rope, .style = RATP_ROPE_HALF, .theta = NAN};
    WRONG(rope, &rope, "theta");
#undef WRONG
}

static void test_caches(void)
{
    ratp_cache *cache = NULL;
    struct ratp_geometry geometry = {sizeof geometry, 2, 4, 2, 16, .memory = 1};
    struct ratp_cache_params params = {sizeof params, .geometry = &geometry};
    REFUSE(device, ratp->cache_create(device, &params, NULL), RATP_INVALID_ARGUMENT,
           "out is NULL");
    REFUSE(device, ratp->cache_create(device, NULL, &cache), RATP_INVALID_ARGUMENT,
           "params is NULL");
    CHECK_EQUAL(ratp->cache_create(NULL, &params, &cache), RATP_INVALID_ARGUMENT);
    params.geometry = NULL;
    REFUSE(device, ratp->cache_create(device, &params, &cache), RATP_INVALID_ARGUMENT,
           "params->geometry is NULL");
    params.geometry = &geometry;
    params.page_slots = 9;
    REFUSE(device, ratp->cache_create(device, &params, &cache), RATP_INVALID_ARGUMENT,
           "page_slots is 9");
    params.page_slots = 0;
    params.k_dtype = 6;
    REFUSE(device, ratp->cache_create(device, &params, &cache), RATP_INVALID_ARGUMENT,
           "k_dtype is 6");
    params.k_dtype = RATP_Q4_0;
    REFUSE(device, ratp->cache_create(device, &params, &cache), RATP_INVALID_ARGUMENT,
           "k_dtype is q4_0, which is for attend_external");
    params.k_dtype = RATP_Q8_0;
    REFUSE(device, ratp->cache_create(device, &params, &cache), RATP_UNSUPPORTED,
           "k_dtype is q8_0 and geometry.head_size is 16: q8_0 needs a multiple of 32");
    params.k_dtype = 0;
    params.v_dtype = RATP_Q8_0;
    REFUSE(device, ratp->cache_create(device, &params, &cache), RATP_UNSUPPORTED,
           "v_dtype is q8_0 and geometry.value_size is 16");
    params.v_dtype = 0;
    params.retention = 2;
    REFUSE(device, ratp->cache_create(device, &params, &cache), RATP_INVALID_ARGUMENT,
           "retention is 2");
    params.retention = 0;
    params.policy = (const ratp_policy *)device;
    REFUSE(device, ratp->cache_create(device, &params, &cache), RATP_INVALID_ARGUMENT,
           "params->policy is the handle of a different kind: device");
    ratp_instance *foreign = NULL;
    ratp_policy *policy = NULL;
    struct ratp_instance_params quiet = {sizeof quiet, .no_vulkan = 1};
    CHECK_EQUAL(ratp->instance_create(&quiet, &foreign, NULL, 0), RATP_OK);
    CHECK_EQUAL(ratp->policy_create(foreign, &policy), RATP_OK);
    params.policy = policy;
    REFUSE(device, ratp->cache_create(device, &params, &cache), RATP_INVALID_ARGUMENT,
           "params->policy belongs to another instance");
    REFUSE(foreign, ratp->instance_destroy(&foreign), RATP_WRONG_STATE, "policies");
    CHECK_EQUAL(ratp->policy_destroy(&policy), RATP_OK);
    CHECK_EQUAL(ratp->instance_destroy(&foreign), RATP_OK);
    static const char beyond[] = "{\"rules\": [{\"layers\": 2, \"variant\": \"d4\"}]}";
    CHECK_EQUAL(ratp->policy_from_json(instance, beyond, sizeof beyond - 1, &policy), RATP_OK);
    params.policy = policy;
    REFUSE(device, ratp->cache_create(device, &params, &cache), RATP_INVALID_ARGUMENT,
           "layers begin at 2, the model has 2");
    CHECK_EQUAL(ratp->policy_destroy(&policy), RATP_OK);

    cache = host_cache();
    struct ratp_cache_stats stats = {0};
    REFUSE(cache, ratp->cache_stats(cache, &stats), RATP_INVALID_ARGUMENT,
           "stats->struct_size is 0");
    REFUSE(cache, ratp->cache_stats(cache, NULL), RATP_INVALID_ARGUMENT, "stats is NULL");
    CHECK_EQUAL(ratp->cache_stats(NULL, &stats), RATP_INVALID_ARGUMENT);
    CHECK_EQUAL(ratp->cache_destroy(&cache), RATP_OK);
    CHECK_EQUAL(ratp->cache_destroy(&cache), RATP_OK);
    CHECK_EQUAL(ratp->cache_destroy(NULL), RATP_INVALID_ARGUMENT);
    cache = (ratp_cache *)device;
    REFUSE(device, ratp->cache_destroy(&cache), RATP_INVALID_ARGUMENT, "*cache is the handle");
}

int main(int argc, char **argv)
{
    host_open(argc, argv);
    RUN(test_instance);
    RUN(test_devices);
    RUN(test_buffers);
    RUN(test_policies);
    RUN(test_policy_variant);
    RUN(test_geometry);
    RUN(test_caches);
    host_close();
    return check_result();
}
