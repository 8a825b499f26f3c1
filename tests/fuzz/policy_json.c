/* A policy's JSON, through the ABI. What was read must print, and the print
 * must read as the same policy. */
#include "fuzz.h"

#include <ratplus.h>

#include <string.h>

static const struct ratp_api *ratp;
static ratp_instance *instance;
static unsigned long accepted, refused, rules;

bool fuzz_start(void)
{
    ratp = ratp_get_api(RATP_ABI_MAJOR, NULL, 0);
    struct ratp_instance_params params = {sizeof params, .no_vulkan = 1};
    REQUIRE(ratp && ratp->instance_create(&params, &instance, NULL, 0) == RATP_OK);
    return true;
}

void fuzz_end(void)
{
    REQUIRE(ratp->instance_destroy(&instance) == RATP_OK);
}

size_t fuzz_seed(size_t index, uint8_t *out)
{
    static const char *const seeds[] = {
        "{}",
        "{\"default\": \"d16w256s4\", \"rules\": [{\"layers\": \"0-1,31-\", \"variant\": \"dense\"},"
        " {\"layers\": 5, \"variant\": {\"kind\": \"streaming\", \"window\": 1024, \"sinks\": 4}},"
        " {\"layers\": [8, 15], \"heads\": \"0-3\", \"variant\": \"d32w512s4\"}]}",
        "{\"default\": {\"kind\": \"dilated\", \"dilation\": 16777216, \"window\": 16777216}}",
        "{\"rules\": [{\"layers\": \"0,1,2,3,4,5,6,7\", \"heads\": \"0-1,2-3,4-5,6-\","
        " \"variant\": \"streamw7s1\"}]}",
        "{\"rules\": [{\"layers\": [65535, 65535], \"heads\": 65535, \"variant\": \"d1\"}]}",
        "{\"default\": \"stream\", \"rules\": [\n\t{\"variant\": {\"kind\": \"dense\","
        " \"dilation\": 1}}\r\n]}",
        "{\"default\": {\"kind\": \"quest\", \"page\": 32, \"budget\": 1024, \"selection\": \"group\","
        " \"prompt\": {\"kind\": \"moba\", \"block\": 64, \"topk\": 3}}, \"rules\": [{\"variant\":"
        " {\"kind\": \"snapkv\", \"observe\": 16, \"capacity\": 64, \"kernel\": 5, \"pool\": \"avg\","
        " \"prompt\": \"d16w256s4\"}}]}",
        "{\"default\": \"d8:quest1024p32g\", \"rules\": [{\"layers\": 0, \"variant\": \"moba512k3g\"},"
        " {\"layers\": 1, \"variant\": \"snapkv1024o16n5avg\"}, {\"layers\": 2, \"variant\":"
        " \"dense:d16\"}]}",
        "{\"default\": \"d\\u0031\\u0036\", \"rules\": [[[[]]]]}",
        "[1, 2.5, null, true, \"\\ud83d\\ude00\", {\"a\": {\"b\": []}}]",
    };
    if (index >= sizeof seeds / sizeof *seeds)
        return 0;
    memcpy(out, seeds[index], strlen(seeds[index]));
    return strlen(seeds[index]);
}

/* To be freed. */
static char *print(const ratp_policy *policy, size_t *size)
{
    size_t needed = 0;
    REQUIRE(ratp->policy_to_json(policy, NULL, 0, size) == RATP_OK);
    char *text = malloc(*size + 1);
    REQUIRE(text);
    /* Cut short first: what is there is the start, with its NUL. */
    size_t half = *size / 2 + 1;
    REQUIRE(ratp->policy_to_json(policy, text, half, &needed) == RATP_OK);
    REQUIRE(needed == *size && strlen(text) == half - 1);
    REQUIRE(ratp->policy_to_json(policy, text, *size + 1, &needed) == RATP_OK);
    REQUIRE(needed == *size && strlen(text) == *size);
    return text;
}

static void check_refusal(ratp_status status, size_t size)
{
    char message[512];
    unsigned line = 0, column = 0;
    REQUIRE(status == RATP_PARSE_ERROR);
    REQUIRE(ratp->last_error(instance, message, sizeof message) > 0);
    REQUIRE(sscanf(message, "line %u, column %u: ", &line, &column) == 2);
    REQUIRE(line >= 1 && column >= 1 && line + column <= size + 2);
    refused++;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!ratp && !fuzz_start())
        return 0;
    ratp_policy *policy = (ratp_policy *)&instance, *again = NULL;
    ratp_status status = ratp->policy_from_json(instance, (const char *)data, size, &policy);
    if (status) {
        REQUIRE(!policy);
        /* The limits of a policy are no matter of its text. */
        if (status != RATP_INVALID_ARGUMENT)
            check_refusal(status, size);
        return 0;
    }
    size_t first_size, second_size;
    char *first = print(policy, &first_size);
    REQUIRE(ratp->policy_from_json(instance, first, first_size, &again) == RATP_OK);
    char *second = print(again, &second_size);
    REQUIRE(first_size == second_size && memcmp(first, second, first_size) == 0);
    accepted++;
    rules += strstr(first, "}]") != NULL;
    free(first);
    free(second);
    REQUIRE(ratp->policy_destroy(&policy) == RATP_OK && !policy);
    REQUIRE(ratp->policy_destroy(&again) == RATP_OK && !again);
    return 0;
}

bool fuzz_report(void)
{
    printf("%lu policies, %lu of them with rules; %lu refused with line and column\n", accepted,
           rules, refused);
    return accepted && rules && refused;
}
