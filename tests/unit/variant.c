/* Variants, and what prompts attend: limits, defaults, names, and the way through JSON. */
#include "../check.h"

#include "../random.h"
#include "policy.h"

#include <stdlib.h>

static struct variant variant_of(ratp_variant_kind kind, uint32_t d, uint32_t w, uint32_t s)
{
    struct ratp_variant in = {sizeof in, kind, .dilation = d, .window = w, .sinks = s};
    struct variant out;
    struct error err = {""};
    CHECK_EQUAL(variant_from_public(&in, "variant", &out, &err), RATP_OK);
    return out;
}

static void refuse_variant(ratp_variant_kind kind, uint32_t d, uint32_t w, uint32_t s,
                           const char *message)
{
    struct ratp_variant in = {sizeof in, kind, .dilation = d, .window = w, .sinks = s};
    struct variant out;
    struct error err = {""};
    CHECK_EQUAL(variant_from_public(&in, "variant", &out, &err), RATP_INVALID_ARGUMENT);
    CHECK_CONTAINS(err.text, message);
}

static void test_variant_limits(void)
{
    struct variant dense = variant_of(RATP_DENSE, 0, 0, 0);
    struct variant same = variant_of(RATP_DILATED, 1, 77, 3);
    CHECK(variant_equal(&dense, &same));
    struct variant stream = variant_of(RATP_STREAMING, 0, 1 << 24, 1 << 24);
    CHECK_EQUAL(stream.dilation, 0);
    CHECK_EQUAL(stream.window, 1 << 24);
    CHECK_EQUAL(variant_of(RATP_DILATED, 1 << 24, 0, 0).dilation, 1 << 24);
    struct error err = {""};
    CHECK_EQUAL(variant_from_public(NULL, "variant", &same, &err), RATP_OK);
    CHECK(variant_equal(&dense, &same));

    refuse_variant(6, 0, 0, 0, "variant.kind is 6");
    refuse_variant(-1, 0, 0, 0, "variant.kind is -1");
    refuse_variant(RATP_DENSE, 0, 5, 0, "variant.window is 5, for kind dense it must be 0");
    refuse_variant(RATP_DENSE, 2, 0, 0, "variant.dilation is 2");
    refuse_variant(RATP_DENSE, 0, 0, 4, "variant.sinks is 4");
    refuse_variant(RATP_DILATED, 0, 0, 0, "variant.dilation is 0, for kind dilated it must be 1");
    refuse_variant(RATP_DILATED, (1 << 24) + 1, 0, 0, "variant.dilation is 16777217");
    refuse_variant(RATP_DILATED, 2, UINT32_MAX, 0, "variant.window is 4294967295");
    refuse_variant(RATP_STREAMING, 2, 0, 0, "variant.dilation is 2");
    refuse_variant(RATP_STREAMING, 0, 0, UINT32_MAX, "variant.sinks is 4294967295");
}

/* What the numbers of quest, moba and snapkv may be. */
static void test_selecting_limits(void)
{
    static const struct {
        ratp_variant_kind kind;
        uint32_t budget, topk, capacity; /* that are good */
        int field; /* the number that is changed */
        uint32_t value;
        const char *message; /* NULL: that is good, too */
    } cases[] = {
        {RATP_QUEST, 1024, 0, 0, NUMBER_PAGE, 0, NULL},
        {RATP_QUEST, 1024, 0, 0, NUMBER_PAGE, 8, NULL},
        {RATP_QUEST, 1024, 0, 0, NUMBER_PAGE, 4, "variant.page is 4, for kind quest it must be"},
        {RATP_QUEST, 1024, 0, 0, NUMBER_PAGE, 4104, "variant.page is 4104"},
        {RATP_QUEST, 1024, 0, 0, NUMBER_PAGE, 12, "variant.page is 12, it must be a multiple of 8"},
        {RATP_QUEST, 1024, 0, 0, NUMBER_PAGE, 2048,
         "variant.budget is 1024, it must be a multiple of page, 2048"},
        {RATP_QUEST, 1024, 0, 0, NUMBER_PAGE, 24, "variant.budget is 1024, it must be a multiple"},
        {RATP_QUEST, 1024, 0, 0, NUMBER_BUDGET, 16, NULL},
        {RATP_QUEST, 1024, 0, 0, NUMBER_BUDGET, 0,
         "variant.budget is 0, for kind quest it must be 8 to 16777216"},
        {RATP_QUEST, 1024, 0, 0, NUMBER_BUDGET, 8, "variant.budget is 8, it must be a multiple"},
        {RATP_QUEST, 1024, 0, 0, NUMBER_BUDGET, 1 << 20, NULL},
        {RATP_QUEST, 1024, 0, 0, NUMBER_BUDGET, (1 << 20) + 16,
         "variant.budget is 1048592, it must be a multiple of page, 16, and at most 65536 pages"},
        {RATP_QUEST, 1024, 0, 0, NUMBER_BUDGET, (1 << 24) + 16, "variant.budget is 16777232"},
        {RATP_QUEST, 1024, 0, 0, NUMBER_SELECTION, 1, NULL},
        {RATP_QUEST, 1024, 0, 0, NUMBER_SELECTION, 2,
         "variant.selection is 2, for kind quest it must be 0 to 1"},
        {RATP_QUEST, 1024, 0, 0, NUMBER_SELECTION, UINT32_MAX, "variant.selection is -1"},
        {RATP_QUEST, 1024, 0, 0, NUMBER_WINDOW, 1,
         "variant.window is 1, for kind quest it must be 0"},
        {RATP_QUEST, 1024, 0, 0, NUMBER_DILATION, 1, "variant.dilation is 1"},
        {RATP_QUEST, 1024, 0, 0, NUMBER_SINKS, 1, "variant.sinks is 1"},
        {RATP_QUEST, 1024, 0, 0, NUMBER_BLOCK, 16, "variant.block is 16"},
        {RATP_QUEST, 1024, 0, 0, NUMBER_CAPACITY, 64, "variant.capacity is 64"},
        {RATP_MOBA, 0, 3, 0, NUMBER_BLOCK, 1 << 16, NULL},
        {RATP_MOBA, 0, 3, 0, NUMBER_BLOCK, (1 << 16) + 8, "variant.block is 65544"},
        {RATP_MOBA, 0, 3, 0, NUMBER_BLOCK, 20, "variant.block is 20, it must be a multiple of 8"},
        {RATP_MOBA, 0, 3, 0, NUMBER_TOPK, 65536, NULL},
        {RATP_MOBA, 0, 3, 0, NUMBER_TOPK, 0,
         "variant.topk is 0, for kind moba it must be 1 to 65536"},
        {RATP_MOBA, 0, 3, 0, NUMBER_TOPK, 65537, "variant.topk is 65537"},
        {RATP_MOBA, 0, 3, 0, NUMBER_PAGE, 16, "variant.page is 16, for kind moba it must be 0"},
        {RATP_MOBA, 0, 3, 0, NUMBER_BUDGET, 16, "variant.budget is 16"},
        {RATP_SNAPKV, 0, 0, 64, NUMBER_OBSERVE, 63, NULL},
        {RATP_SNAPKV, 0, 0, 64, NUMBER_OBSERVE, 64,
         "variant.capacity is 64, it must be above observe, 64"},
        {RATP_SNAPKV, 0, 0, 64, NUMBER_OBSERVE, 1025, "variant.observe is 1025"},
        {RATP_SNAPKV, 0, 0, 64, NUMBER_CAPACITY, 33, NULL},
        {RATP_SNAPKV, 0, 0, 64, NUMBER_CAPACITY, 32,
         "variant.capacity is 32, it must be above observe, 32"},
        {RATP_SNAPKV, 0, 0, 64, NUMBER_CAPACITY, 0, "variant.capacity is 0, for kind snapkv"},
        {RATP_SNAPKV, 0, 0, 64, NUMBER_CAPACITY, (1 << 24) + 1, "variant.capacity is 16777217"},
        {RATP_SNAPKV, 0, 0, 64, NUMBER_KERNEL, 255, NULL},
        {RATP_SNAPKV, 0, 0, 64, NUMBER_KERNEL, 8, "variant.kernel is 8, it must be odd"},
        {RATP_SNAPKV, 0, 0, 64, NUMBER_KERNEL, 257, "variant.kernel is 257"},
        {RATP_SNAPKV, 0, 0, 64, NUMBER_POOL, 1, NULL},
        {RATP_SNAPKV, 0, 0, 64, NUMBER_POOL, 2, "variant.pool is 2"},
        {RATP_SNAPKV, 0, 0, 64, NUMBER_POOL, UINT32_MAX, "variant.pool is -1"},
        {RATP_SNAPKV, 0, 0, 64, NUMBER_SELECTION, 1, "variant.selection is 1, for kind snapkv it"},
        {RATP_SNAPKV, 0, 0, 64, NUMBER_TOPK, 1, "variant.topk is 1"},
        {RATP_DENSE, 0, 0, 0, NUMBER_PAGE, 16, "variant.page is 16, for kind dense it must be 0"},
        {RATP_DENSE, 0, 0, 0, NUMBER_POOL, 1, "variant.pool is 1"},
        {RATP_STREAMING, 0, 0, 0, NUMBER_OBSERVE, 1, "variant.observe is 1"},
        {RATP_STREAMING, 0, 0, 0, NUMBER_KERNEL, 1, "variant.kernel is 1"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint32_t n[VARIANT_NUMBERS] = {[NUMBER_BUDGET] = cases[i].budget,
                                       [NUMBER_TOPK] = cases[i].topk,
                                       [NUMBER_CAPACITY] = cases[i].capacity};
        n[cases[i].field] = cases[i].value;
        struct ratp_variant in = {
            .struct_size = sizeof in, .kind = cases[i].kind,
            .dilation = n[NUMBER_DILATION], .window = n[NUMBER_WINDOW], .sinks = n[NUMBER_SINKS],
            .page = n[NUMBER_PAGE], .budget = n[NUMBER_BUDGET], .block = n[NUMBER_BLOCK],
            .topk = n[NUMBER_TOPK], .selection = (ratp_selection)n[NUMBER_SELECTION],
            .observe = n[NUMBER_OBSERVE], .capacity = n[NUMBER_CAPACITY],
            .kernel = n[NUMBER_KERNEL], .pool = (ratp_pooling)n[NUMBER_POOL]};
        struct choice out;
        struct error err = {""};
        ratp_status status = choice_from_public(&in, "variant", &out, &err);
        CHECK_EQUAL(status, cases[i].message ? RATP_INVALID_ARGUMENT : RATP_OK);
        CHECK_CONTAINS(err.text, cases[i].message ? cases[i].message : "");
    }
}

/* What 0 stands for, what is derived, and what prompts attend. */
static void test_choices(void)
{
    struct ratp_variant v = {sizeof v, RATP_QUEST, .budget = 1024};
    struct choice a, b;
    struct error err = {""};
    CHECK_EQUAL(choice_from_public(&v, "variant", &a, &err), RATP_OK);
    CHECK_EQUAL(a.prompt.kind, RATP_DENSE);
    CHECK_EQUAL(a.decode.block, 16);
    CHECK_EQUAL(a.decode.choose, 64);
    v.page = 16;
    CHECK_EQUAL(choice_from_public(&v, "variant", &b, &err), RATP_OK);
    CHECK(choice_equal(&a, &b));
    struct ratp_variant prompt = {.struct_size = sizeof prompt};
    v.prompt = &prompt;
    CHECK_EQUAL(choice_from_public(&v, "variant", &b, &err), RATP_OK);
    CHECK(choice_equal(&a, &b));
    prompt = (struct ratp_variant){sizeof prompt, RATP_DILATED, .dilation = 8};
    CHECK_EQUAL(choice_from_public(&v, "variant", &b, &err), RATP_OK);
    CHECK(!choice_equal(&a, &b));
    CHECK_EQUAL(b.prompt.dilation, 8);
    prompt = (struct ratp_variant){sizeof prompt, RATP_SNAPKV, .capacity = 64};
    CHECK_EQUAL(choice_from_public(&v, "variant", &b, &err), RATP_INVALID_ARGUMENT);
    CHECK_CONTAINS(err.text, "variant.prompt is snapkv, which is for decoded tokens; prompts take");
    prompt = (struct ratp_variant){sizeof prompt, RATP_MOBA, .topk = 70000};
    CHECK_EQUAL(choice_from_public(&v, "variant", &b, &err), RATP_INVALID_ARGUMENT);
    CHECK_CONTAINS(err.text, "variant.prompt.topk is 70000");

    v = (struct ratp_variant){sizeof v, RATP_MOBA, .topk = 3, .selection = RATP_SELECT_GROUP};
    CHECK_EQUAL(choice_from_public(&v, "variant", &a, &err), RATP_OK);
    CHECK(variant_equal(&a.prompt, &a.decode));
    CHECK_EQUAL(a.decode.block, 512);
    CHECK_EQUAL(a.decode.choose, 3);
    CHECK_EQUAL(a.decode.by_group, 1);
    v = (struct ratp_variant){sizeof v, RATP_SNAPKV, .capacity = 64, .pool = RATP_POOL_AVG};
    CHECK_EQUAL(choice_from_public(&v, "variant", &a, &err), RATP_OK);
    CHECK_EQUAL(a.prompt.kind, RATP_DENSE);
    CHECK_EQUAL(a.decode.observe, 32);
    CHECK_EQUAL(a.decode.kernel, 7);
    CHECK_EQUAL(a.decode.average, 1);
}

static struct variant random_variant(struct random *r, bool prompt)
{
    static const ratp_variant_kind kinds[] = {RATP_DENSE, RATP_DILATED, RATP_STREAMING, RATP_MOBA,
                                              RATP_QUEST, RATP_SNAPKV};
    ratp_variant_kind kind = kinds[random_in(r, 0, prompt ? 3 : 5)];
    uint32_t n[VARIANT_NUMBERS] = {0}, most = 1u << random_in(r, 0, 20);
    if (kind == RATP_DILATED)
        n[NUMBER_DILATION] = 1 + random_in(r, 0, most - 1);
    if (kind == RATP_DILATED || kind == RATP_STREAMING) {
        n[NUMBER_WINDOW] = random_in(r, 0, most - 1);
        n[NUMBER_SINKS] = random_in(r, 0, 2);
    }
    if (kind == RATP_QUEST) {
        n[NUMBER_PAGE] = 8 * random_in(r, 0, 3);
        n[NUMBER_BUDGET] = (n[NUMBER_PAGE] ? n[NUMBER_PAGE] : 16) * (1 + random_in(r, 0, 65535));
    }
    if (kind == RATP_MOBA) {
        n[NUMBER_BLOCK] = 8 * random_in(r, 0, 8192);
        n[NUMBER_TOPK] = 1 + random_in(r, 0, 65535);
    }
    if (kind == RATP_QUEST || kind == RATP_MOBA)
        n[NUMBER_SELECTION] = random_in(r, 0, 1);
    if (kind == RATP_SNAPKV) {
        n[NUMBER_OBSERVE] = random_in(r, 0, 1) * (1 + random_in(r, 0, 1023));
        n[NUMBER_CAPACITY] = 1025 + random_in(r, 0, most - 1);
        n[NUMBER_KERNEL] = random_in(r, 0, 1) * (1 + 2 * random_in(r, 0, 127));
        n[NUMBER_POOL] = random_in(r, 0, 1);
    }
    struct variant v;
    struct error err = {""};
    int wrong;
    if (!CHECK_EQUAL(variant_make(kind, n, "variant", &v, &wrong, &err), RATP_OK))
        fprintf(stderr, "    %s\n", err.text);
    return v;
}

/* The object of a variant, but for its brace. */
static void write_object(const struct variant *v, char *text, size_t size)
{
    uint32_t n[VARIANT_NUMBERS];
    variant_numbers(v, n);
    snprintf(text, size, "{\"kind\": \"%s\"", variant_kind_name[v->kind]);
    for (int i = 0; i < VARIANT_NUMBERS; i++) {
        size_t length = strlen(text);
        if (i == NUMBER_SELECTION)
            snprintf(text + length, size - length, ", \"selection\": \"%s\"",
                     n[i] ? "group" : "head");
        else if (i == NUMBER_POOL)
            snprintf(text + length, size - length, ", \"pool\": \"%s\"", n[i] ? "avg" : "max");
        else
            snprintf(text + length, size - length, ", \"%s\": %u", variant_number_name[i], n[i]);
    }
}

/* Whatever a head may attend is the same again from its name, from its JSON, and from
 * objects that spell out every number. */
static void test_round_trips(void)
{
    struct random r = {.state = 7};
    for (int i = 0; i < 2000; i++) {
        struct choice choice = {.decode = random_variant(&r, false)}, again;
        choice.prompt = random_in(&r, 0, 1) ? random_variant(&r, true)
                                            : choice_of(&choice.decode).prompt;
        char name[VARIANT_NAME_SIZE], second[VARIANT_NAME_SIZE];
        struct error err = {""};
        choice_name(&choice, name, sizeof name);
        CHECK(strlen(name) < sizeof name - 1);
        CHECK_EQUAL(choice_parse(name, "variant", &again, &err), RATP_OK);
        CHECK(choice_equal(&choice, &again));
        choice_name(&again, second, sizeof second);
        CHECK(strcmp(name, second) == 0);

        char decode[512], prompt[512], text[2048];
        write_object(&choice.decode, decode, sizeof decode);
        write_object(&choice.prompt, prompt, sizeof prompt);
        snprintf(text, sizeof text,
                 "{\"default\": %s, \"prompt\": %s}}, \"rules\": [{\"layers\": 1, "
                 "\"variant\": \"%s\"}]}",
                 decode, prompt, name);
        struct ratp_policy p = {0}, q = {0};
        if (!CHECK_EQUAL(policy_parse(text, strlen(text), &p, &err), RATP_OK))
            fprintf(stderr, "    %s\n    %s\n", text, err.text);
        for (uint32_t layer = 0; layer < 2; layer++) {
            again = policy_at(&p, layer, 0);
            CHECK(choice_equal(&choice, &again));
        }
        policy_print(&p, text, sizeof text);
        CHECK_EQUAL(policy_parse(text, strlen(text), &q, &err), RATP_OK);
        again = policy_at(&q, 1, 0);
        CHECK(choice_equal(&choice, &again));
        free(p.rules);
        free(q.rules);
    }
}

static void test_variant_names(void)
{
    static const char *const names[] = {
        "dense", "d16", "d16w256s4", "d2s1", "stream", "streamw256s4", "streams4", "d3w1",
        "quest1024", "quest1024p32", "quest64p8g", "quest64g", "moba512k3", "moba64k1g",
        "snapkv1024", "snapkv64o16", "snapkv64n5", "snapkv64avg", "snapkv64o16n5avg",
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct variant v;
        struct error err = {""};
        char text[64];
        CHECK_EQUAL(variant_parse(names[i], "variant", &v, &err), RATP_OK);
        variant_name(&v, text, sizeof text);
        CHECK_CONTAINS(text, names[i]);
        CHECK_EQUAL(strlen(text), strlen(names[i]));
    }
    static const char *const wrong[] = {"",      "d",       "d0",  "D16",  "d16w", "d16s4w256",
                                        "dense ", "densew4", "s4",  "d-1",  "d99999999999",
                                        "stream w256s4", "d16777217", "d2w4294967296",
                                        "quest", "quest1000", "quest64gp8", "quest64G", "moba",
                                        "moba512", "mobak3", "moba512k", "moba512k0",
                                        "moba512k3gg", "snapkv", "snapkv32", "snapkv64n8",
                                        "snapkv64avgo16", "snapkv64max", "snapkv64av",
                                        "d4:d4", ":d4", "d4:"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct variant v;
        struct error err = {""};
        CHECK_EQUAL(variant_parse(wrong[i], "variant", &v, &err), RATP_INVALID_ARGUMENT);
        CHECK_CONTAINS(err.text, "variant");
    }
}

static void test_choice_names(void)
{
    static const struct {
        const char *text, *name, *message; /* name NULL: refused */
    } cases[] = {
        {"d16:quest1024", "d16:quest1024", ""},
        {"dense:quest1024p16", "quest1024", ""},
        {"d1:d16", "dense:d16", ""},
        {"d16:d16", "d16", ""},
        {"moba512k3:d16", "moba512k3:d16", ""},
        {"moba0k3", "moba512k3", ""},
        {"d16777216w16777216s16777216:d16777215w16777216s16777216",
         "d16777216w16777216s16777216:d16777215w16777216s16777216", ""},
        {"quest64:d16", NULL, "variant.prompt is quest, which is for decoded tokens"},
        {"d0:d16", NULL, "variant.prompt.dilation is 0"},
        {"d16:d0", NULL, "variant.dilation is 0"},
        {"d16:", NULL, "variant is \"\", it must read like dense, d16"},
        {":d16", NULL, "variant.prompt is \"\", it must read like"},
        {"d4:d8:d16", NULL, "variant is \"d8:d16\""},
        {"d00000000000000000000000000000000000000000000000000000000000000004:d16", NULL,
         "variant.prompt is \"d0000000000000000000000000000000000000000000000000000000000"
         "0000...\", a name has at most 63 characters"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct choice choice;
        struct error err = {""};
        char name[VARIANT_NAME_SIZE];
        CHECK_EQUAL(choice_parse(cases[i].text, "variant", &choice, &err),
                    cases[i].name ? RATP_OK : RATP_INVALID_ARGUMENT);
        CHECK_CONTAINS(err.text, cases[i].message);
        if (cases[i].name) {
            choice_name(&choice, name, sizeof name);
            CHECK(strcmp(name, cases[i].name) == 0);
        }
    }
}

int main(void)
{
    RUN(test_variant_limits);
    RUN(test_selecting_limits);
    RUN(test_choices);
    RUN(test_variant_names);
    RUN(test_choice_names);
    RUN(test_round_trips);
    return check_result();
}
