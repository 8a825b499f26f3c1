/* Members taken out of the text of a policy, as the ggml adapter does it. */
#include "../../adapters/ggml/policy_file.h"
#include "../check.h"

#include <stdlib.h>
#include <time.h>

static void take(const char *text, const char *left, double value, bool twice)
{
    char copy[128];
    bool is_twice = !twice;
    snprintf(copy, sizeof copy, "%s", text);
    cJSON *taken = text_take_member(copy, "memory", &is_twice);
    CHECK_EQUAL(is_twice, twice);
    CHECK(value < 0 ? !taken : cJSON_IsNumber(taken) && cJSON_GetNumberValue(taken) == value);
    CHECK(strcmp(copy, left) == 0);
    cJSON_Delete(taken);
}

static void test_members(void)
{
    take("{\"memory\": 3}", "{           }", 3, false);
    take("{\"memory\": 3,\n\"a\": 1}", "{            \n\"a\": 1}", 3, false);
    take("{\"a\": 1, \"memory\": 3}", "{\"a\": 1             }", 3, false);
    take("{\"a\": 1, \"memory\": 3, \"memory\": 4}",
         "{\"a\": 1                          }", 4, true);
    take("{\"a\": {\"memory\": 3}}", "{\"a\": {\"memory\": 3}}", -1, false);
    take("{\"memory\" 3}", "{\"memory\" 3}", -1, false);
    take("[1]", "[1]", -1, false);
    take("", "", -1, false);
}

static double seconds(clock_t from)
{
    return (double)(clock() - from) / CLOCKS_PER_SEC;
}

/* A text of many members costs no more for each of them than a short one does: about what
 * it takes to read the text once. It was a hundred times that. */
static void test_many(void)
{
    enum { BYTES = 1 << 20 };
    static const char first[] = "{\"memory\": 7", next[] = ",\"a\":0";
    char *text = malloc(BYTES + 2 * sizeof next);
    if (!CHECK(text != NULL))
        exit(1);
    size_t length = (size_t)sprintf(text, "%s", first);
    while (length < BYTES)
        length += (size_t)sprintf(text + length, "%s", next);
    strcpy(text + length, "}");
    bool twice = true;
    clock_t begin = clock();
    cJSON *whole = cJSON_Parse(text);
    CHECK(cJSON_IsObject(whole));
    cJSON_Delete(whole);
    double once = seconds(begin);
    begin = clock();
    cJSON *taken = text_take_member(text, "memory", &twice);
    CHECK(seconds(begin) < 15 * once + 0.01);
    CHECK(!twice && cJSON_GetNumberValue(taken) == 7);
    cJSON_Delete(taken);
    free(text);
}

int main(void)
{
    RUN(test_members);
    RUN(test_many);
    return check_result();
}
