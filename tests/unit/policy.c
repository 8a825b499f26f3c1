/* Policies: rules, JSON and its error positions. */
#include "../check.h"

#include "index.h"
#include "policy.h"
#include "../random.h"

#include <stdlib.h>

static const struct ratp_range all = {0, 0};

static struct variant variant_of(ratp_variant_kind kind, uint32_t d, uint32_t w, uint32_t s)
{
    struct ratp_variant in = {sizeof in, kind, .dilation = d, .window = w, .sinks = s};
    struct variant out;
    struct error err = {""};
    CHECK_EQUAL(variant_from_public(&in, "variant", &out, &err), RATP_OK);
    return out;
}

static ratp_status add(struct ratp_policy *p, struct ratp_range layers, struct ratp_range kv_heads,
                       const struct variant *v, struct error *err)
{
    struct choice both = choice_of(v);
    return policy_add(p, &layers, 1, &kv_heads, 1, &both, err);
}

static void test_rules(void)
{
    struct ratp_policy p = {0};
    struct error err = {""};
    struct variant d16 = variant_of(RATP_DILATED, 16, 256, 4);
    struct variant stream = variant_of(RATP_STREAMING, 0, 64, 4);
    CHECK_EQUAL(policy_at(&p, 3, 1).decode.kind, RATP_DENSE);
    add(&p, all, all, &d16, &err);
    add(&p, (struct ratp_range){2, 3}, (struct ratp_range){1, 0}, &stream, &err);
    CHECK_EQUAL(policy_at(&p, 1, 5).decode.kind, RATP_DILATED);
    CHECK_EQUAL(policy_at(&p, 2, 0).decode.kind, RATP_DILATED);
    CHECK_EQUAL(policy_at(&p, 2, 1).decode.kind, RATP_STREAMING);
    CHECK_EQUAL(policy_at(&p, 4, 9).decode.kind, RATP_STREAMING);
    CHECK_EQUAL(policy_at(&p, 5, 9).decode.kind, RATP_DILATED);
    CHECK_EQUAL(policy_check(&p, 5, 2, &err), RATP_OK);
    CHECK_EQUAL(policy_check(&p, 4, 2, &err), RATP_INVALID_ARGUMENT);
    CHECK_CONTAINS(err.text, "layers end at 4, the model has 4");
    CHECK_EQUAL(policy_check(&p, 5, 1, &err), RATP_INVALID_ARGUMENT);
    CHECK_CONTAINS(err.text, "heads begin at 1, the model has 1");
    CHECK_EQUAL(add(&p, (struct ratp_range){UINT32_MAX, 2}, all, &d16, &err),
                RATP_INVALID_ARGUMENT);
    CHECK_CONTAINS(err.text, "layers: first 4294967295");
    CHECK_EQUAL(add(&p, all, (struct ratp_range){1, UINT32_MAX}, &d16, &err),
                RATP_INVALID_ARGUMENT);
    CHECK_CONTAINS(err.text, "kv_heads: first 1 and count 4294967295");
    /* A rule that hides others takes their place. */
    for (int i = 0; i < 1000; i++)
        add(&p, all, all, i % 2 ? &d16 : &stream, &err);
    CHECK_EQUAL(p.count, 1);
    CHECK_EQUAL(policy_at(&p, 0, 0).decode.kind, RATP_DILATED);
    free(p.rules);
}

static void parse(const char *text, struct ratp_policy *out)
{
    struct error err = {""};
    *out = (struct ratp_policy){0};
    if (!CHECK_EQUAL(policy_parse(text, strlen(text), out, &err), RATP_OK))
        fprintf(stderr, "    %s\n    %s\n", text, err.text);
}

static void test_json(void)
{
    struct ratp_policy p;
    parse("{}", &p);
    CHECK_EQUAL(p.count, 0);
    parse("\xef\xbb\xbf {\"rules\": [{\"variant\": \"d4\", \"layers\": [1, 2]}], "
          "\"default\": \"streamw9\"}\n",
          &p);
    CHECK_EQUAL(policy_at(&p, 0, 0).decode.window, 9);
    CHECK_EQUAL(policy_at(&p, 2, 7).decode.dilation, 4);
    CHECK_EQUAL(policy_at(&p, 3, 7).decode.dilation, 0);
    free(p.rules);
    parse("{\"default\": {\"kind\": \"dilated\", \"dilation\": 16, \"window\": 256, \"sinks\": 4},"
          "\"rules\": [{\"layers\": \"0-1,5,8-\", \"heads\": 3, \"variant\": \"dense\"},"
          "{\"layers\": 0, \"variant\": {\"kind\": \"streaming\", \"window\": 64}}]}",
          &p);
    static const struct {
        uint32_t layer, head, dilation, window;
    } wanted[] = {{0, 3, 0, 64}, {1, 3, 1, 0}, {1, 2, 16, 256}, {5, 3, 1, 0}, {6, 3, 16, 256},
                  {8, 3, 1, 0},  {900, 3, 1, 0}};
    char text[1024], again[1024];
    size_t length = policy_print(&p, text, sizeof text);
    CHECK_EQUAL(length, strlen(text));
    struct ratp_policy q;
    parse(text, &q);
    policy_print(&q, again, sizeof again);
    CHECK(strcmp(text, again) == 0);
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        struct variant v = policy_at(&p, wanted[i].layer, wanted[i].head).decode;
        struct variant w = policy_at(&q, wanted[i].layer, wanted[i].head).decode;
        CHECK_EQUAL(v.dilation, wanted[i].dilation);
        CHECK_EQUAL(v.window, wanted[i].window);
        CHECK(variant_equal(&v, &w));
    }
    char small[8];
    CHECK_EQUAL(policy_print(&p, small, sizeof small), length);
    CHECK_EQUAL(strlen(small), sizeof small - 1);
    CHECK_EQUAL(policy_print(&p, NULL, 0), length);
    free(p.rules);
    free(q.rules);
}

static void test_json_errors(void)
{
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"", "line 1, column 1: the JSON text ends early"},
        {"{", "line 1, column 2: the JSON text ends early"},
        {"{\n  \"default\": \"d16\"\n", "line 3, column 1: the JSON text ends early"},
        {"{\n  \"default\" \"d16\"}", "line 2, column 13: not JSON"},
        {"{\"default\": \"d16\",\n \"rules\": [1 2]}", "line 2, column 14: not JSON"},
        {"{\"default\": tru}", "line 1, column 13: not JSON"},
        {"{\n ]", "line 2, column 2: not JSON"},
        {"{\"default\": \"d16\", x}", "line 1, column 20: not JSON"},
        {"{\"rules\": [1,2x]}", "line 1, column 15: not JSON"},
        {"{\"rules\": \"d16}", "line 1, column 12: not JSON"},
        {"{} x", "line 1, column 4: text after"},
        {"[]", "line 1, column 1: the policy is a list"},
        {"{\"\xc3\xa9\": 1, \"x\": 2}", "line 1, column 2: unknown key \"\xc3\xa9\""},
        {"{\"default\": \"d16\", \"defualt\": 1}", "line 1, column 20: unknown key \"defualt\""},
        {"{\"rules\": [],\n\"rules\": []}", "line 2, column 1: rules is given twice"},
        {"{\"default\": 7}", "line 1, column 13: default is 7"},
        {"{\"default\": \"d0\"}", "line 1, column 13: default.dilation is 0"},
        {"{\"default\": \"w7\"}", "line 1, column 13: default is \"w7\""},
        {"{\"rules\": {}}", "line 1, column 11: rules is an object"},
        {"{\"rules\": [\n{\"variant\": \"dense\"},\n{\"variant\": \"dense\"},\n"
         "  {\"variant\": {\"kind\": \"dilated\", \"dilation\": 4, \"window\": -1}}]}",
         "line 4, column 60: rules[2].variant.window is -1"},
        {"{\"rules\": [{\"variant\": {\"kind\": \"dilated\", \"dilation\": 0}}]}",
         "line 1, column 56: rules[0].variant.dilation is 0"},
        {"{\"rules\": [{\"variant\": {\"kind\": \"dilated\"}}]}",
         "line 1, column 24: rules[0].variant.dilation is 0"},
        {"{\"rules\": [{\"variant\": {\"kind\": \"best\"}}]}",
         "line 1, column 33: rules[0].variant.kind is \"best\", it must be \"dense\", \"dilated\""},
        {"{\"rules\": [{\"variant\": {\"kind\": \"quest\"}}]}",
         "line 1, column 24: rules[0].variant.budget is 0, for kind quest it must be 8 to"},
        {"{\"default\": {\"kind\": \"quest\", \"budget\": 64,\n \"page\": 20}}",
         "line 2, column 10: default.page is 20, it must be a multiple of 8"},
        {"{\"default\": {\"kind\": \"quest\", \"budget\": 64, \"selection\": 1}}",
         "line 1, column 58: default.selection is 1, it must be \"head\" or \"group\""},
        {"{\"default\": {\"kind\": \"moba\", \"topk\": 3, \"selection\": \"all\"}}",
         "line 1, column 54: default.selection is \"all\""},
        {"{\"default\": {\"kind\": \"moba\", \"topk\": 3, \"budget\": 9}}",
         "line 1, column 51: default.budget is 9, for kind moba it must be 0"},
        {"{\"default\": {\"kind\": \"snapkv\", \"capacity\": 99, \"pool\": \"avg\","
         " \"kernel\": 4}}",
         "line 1, column 73: default.kernel is 4, it must be odd"},
        {"{\"default\": {\"kind\": \"snapkv\", \"capacity\": 99, \"pool\": \"mean\"}}",
         "line 1, column 56: default.pool is \"mean\", it must be \"max\" or \"avg\""},
        {"{\"default\": {\"kind\": \"snapkv\", \"capacity\": 9, \"observe\": 9}}",
         "line 1, column 44: default.capacity is 9, it must be above observe, 9"},
        {"{\"default\": {\"kind\": \"dense\", \"prompt\": 3}}",
         "line 1, column 41: default.prompt is 3, it must be a name such as"},
        {"{\"default\": {\"kind\": \"dense\", \"prompt\": \"quest64\"}}",
         "line 1, column 41: default.prompt is quest, which is for decoded tokens"},
        {"{\"default\": {\"kind\": \"dense\", \"prompt\": \"d4:d8\"}}",
         "line 1, column 41: default.prompt is \"d4:d8\""},
        {"{\"default\": \"d4:d0\"}", "line 1, column 13: default.dilation is 0"},
        {"{\"default\": \"d0:d4\"}", "line 1, column 13: default.prompt.dilation is 0"},
        {"{\"rules\": [{\"variant\": {\"kind\": \"dense\",\n\"prompt\": {\"kind\": \"moba\","
         "\n \"topk\": -1}}}]}",
         "line 3, column 10: rules[0].variant.prompt.topk is -1"},
        {"{\"rules\": [{\"variant\": {\"kind\": \"dense\",\n\"prompt\": {\"kind\": \"snapkv\","
         " \"capacity\": 64}}}]}",
         "line 2, column 11: rules[0].variant.prompt is snapkv, which is for decoded tokens"},
        {"{\"rules\": [{\"variant\": {\"kind\": \"dense\",\n\"prompt\": {\"kind\": \"dense\","
         " \"prompt\": {\"kind\": 1}}}}]}",
         "line 2, column 29: unknown key \"prompt\" in rules[0].variant.prompt"},
        {"{\"rules\": [{\"variant\": {\"window\": 3}}]}",
         "line 1, column 24: rules[0].variant has no \"kind\""},
        {"{\"rules\": [{\"layers\": \"3-1\", \"variant\": \"dense\"}]}",
         "line 1, column 23: rules[0].layers is \"3-1\""},
        {"{\"rules\": [{\"layers\": [3, 1], \"variant\": \"dense\"}]}",
         "line 1, column 27: rules[0].layers[1] is 1"},
        {"{\"rules\": [{\"layers\": [3], \"variant\": \"dense\"}]}",
         "line 1, column 23: rules[0].layers is a list"},
        {"{\"rules\": [{\"heads\": 1.5, \"variant\": \"dense\"}]}",
         "line 1, column 22: rules[0].heads is 1.5"},
        {"{\"rules\": [{\"heads\": 65536, \"variant\": \"dense\"}]}",
         "line 1, column 22: rules[0].heads is 65536"},
        {"{\"rules\": [{\"heads\": 1e99, \"variant\": \"dense\"}]}", "rules[0].heads is 1e+99"},
        {"{\"rules\": [{\"heads\": 1}]}", "line 1, column 12: rules[0] has no \"variant\""},
        {"{\"rules\": [{\"head\": 1}]}", "line 1, column 13: unknown key \"head\" in rules[0]"},
        {"{\"a\\\"]}\": [1, {\"b\": \"}\"}], \"c\": 1}", "line 1, column 2: unknown key"},
        {"{\"rules\": [\"dense\"]}", "line 1, column 12: rules[0] is \"dense\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct ratp_policy p = {0};
        struct error err = {""};
        CHECK_EQUAL(policy_parse(cases[i].text, strlen(cases[i].text), &p, &err),
                    RATP_PARSE_ERROR);
        CHECK_CONTAINS(err.text, cases[i].message);
        CHECK_EQUAL(p.count, 0);
        CHECK(!p.rules);
    }
}

static void test_json_bombs(void)
{
    enum { SIZE = (1 << 20) + 1 };
    char *text = malloc(SIZE);
    if (!CHECK(text))
        return;
    struct ratp_policy p = {0};
    struct error err = {""};
    memset(text, '[', SIZE);
    CHECK_EQUAL(policy_parse(text, SIZE, &p, &err), RATP_INVALID_ARGUMENT);
    CHECK_CONTAINS(err.text, "size is 1048577, a policy has at most 1048576 bytes");
    CHECK_EQUAL(policy_parse(text, SIZE - 1, &p, &err), RATP_PARSE_ERROR);
    memset(text, ' ', SIZE);
    CHECK_EQUAL(policy_parse(text, SIZE - 1, &p, &err), RATP_PARSE_ERROR);
    free(text);
}

/* As many rules as fit, none of which hides another, and as long as they print. */
static void test_most_rules(void)
{
    struct ratp_policy p = {0}, again = {0};
    struct error err = {""};
    const struct choice longest = {variant_of(RATP_DILATED, 1 << 24, 1 << 24, 1 << 24),
                                   variant_of(RATP_DILATED, (1 << 24) - 1, 1 << 24, 1 << 24)};
    struct ratp_range range = {10000, 2};
    while (policy_add(&p, &range, 1, &range, 1, &longest, &err) == RATP_OK)
        range.first++;
    CHECK_EQUAL(p.count, 8192);
    CHECK_CONTAINS(err.text, "the policy would have 8193 rules, at most 8192 fit");
    size_t size = policy_print(&p, NULL, 0);
    char *text = malloc(size + 1);
    if (CHECK(text)) {
        policy_print(&p, text, size + 1);
        CHECK_EQUAL(policy_parse(text, size, &again, &err), RATP_OK);
        CHECK_EQUAL(again.count, p.count);
    }
    free(text);
    free(p.rules);
    free(again.rules);
}

/* Ranges of one rule are added at once: a text of rules, each of which hides thousands
 * of rules of the one before, took minutes. */
static void test_many_ranges(void)
{
    enum { SIZE = 1 << 20, RANGES = 90 };
    struct ratp_policy p = {0};
    struct error err = {""};
    char *text = malloc(SIZE), ranges[RANGES * 8] = "";
    size_t length = 0, used = 0;
    for (int i = 0; i < RANGES; i++)
        length += (size_t)sprintf(ranges + length, "%s%d", i ? "," : "", 2 * i);
    used = (size_t)sprintf(text, "{\"rules\": [");
    for (int i = 0; used + 3 * length < SIZE; i++)
        used += (size_t)sprintf(text + used, "%s{\"layers\": \"%s\", \"heads\": \"%s\", "
                                "\"variant\": \"streamw%d\"}", i ? "," : "", ranges, ranges, i);
    used += (size_t)sprintf(text + used, "]}");
    CHECK_EQUAL(policy_parse(text, used, &p, &err), RATP_OK);
    CHECK_EQUAL(p.count, RANGES * RANGES);
    free(text);
    free(p.rules);
    /* Of ranges that hide each other the last is left. */
    p = (struct ratp_policy){0};
    static const char hiding[] = "{\"rules\": [{\"layers\": \"3,1,0-3,7\", \"heads\": \"0,0\","
                                 " \"variant\": \"d4\"}]}";
    CHECK_EQUAL(policy_parse(hiding, strlen(hiding), &p, &err), RATP_OK);
    CHECK_EQUAL(p.count, 2);
    free(p.rules);
}

static struct ratp_range random_range(struct random *r, uint32_t most)
{
    struct ratp_range range = {random_in(r, 0, most), random_in(r, 0, 3)};
    range.count += random_chance(r, 30) ? random_in(r, 0, most) : 0;
    return range;
}

/* All heads at once, against one at a time. */
static void test_fill(void)
{
    enum { LAYERS = 7, HEADS = 5, FIRST = 3, POLICIES = 500 };
    struct random r = {11};
    for (int n = 0; n < POLICIES; n++) {
        struct ratp_policy p = {0};
        struct error err = {""};
        struct choice filled[LAYERS * HEADS];
        for (uint32_t rule = 0; rule < random_in(&r, 0, 12); rule++) {
            struct variant v = variant_of(RATP_STREAMING, 0, rule + 1, 0);
            CHECK_EQUAL(add(&p, random_range(&r, LAYERS + 1), random_range(&r, FIRST + HEADS + 1),
                            &v, &err), RATP_OK);
        }
        CHECK_EQUAL(policy_fill(&p, LAYERS, FIRST, HEADS, filled, &err), RATP_OK);
        for (uint32_t i = 0; i < LAYERS * HEADS; i++) {
            struct choice one = policy_at(&p, i / HEADS, FIRST + i % HEADS);
            CHECK(choice_equal(&one, &filled[i]));
        }
        free(p.rules);
    }
}

/* How many slots are looked at to find the choices of a policy of very many: some each. */
static void test_index(void)
{
    enum { CHOICES = 20000 };
    struct index index;
    uint64_t looked_at = 0;
    CHECK(index_open(&index, CHOICES));
    for (uint32_t i = 0; i < CHOICES; i++) {
        struct variant v = {.kind = RATP_STREAMING, .window = i % 200, .sinks = i / 200};
        struct choice choice = choice_of(&v);
        uint32_t *slot = index_first(&index, choice_hash(&choice));
        for (; *slot != INDEX_NONE; looked_at++)
            slot = index_next(&index, slot);
        *slot = i;
    }
    CHECK(looked_at < CHOICES);
    free(index.slot);
}

int main(void)
{
    RUN(test_rules);
    RUN(test_json);
    RUN(test_json_errors);
    RUN(test_json_bombs);
    RUN(test_most_rules);
    RUN(test_many_ranges);
    RUN(test_fill);
    RUN(test_index);
    return check_result();
}
